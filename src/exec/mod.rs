//! `executor exec`: one job from the command line, without Sourcegraph.
//!
//! The job goes the way of every other: the same plan, worker, pod and log. Its
//! log goes to a terminal in place of a server, and so does its end.

pub mod arguments;

use std::io::Write;
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded, select};

use crate::cluster::client::KubeCluster;
use crate::cluster::client::watch::PodWatch;
use crate::cluster::names::{executor_name, label_value, random_suffix, run_name};
use crate::cluster::plan::show;
use crate::config::ExecConfig;
use crate::daemon::{Place, find_own_pod, planner};
use crate::exec::arguments::Arguments;
use crate::exit::Exit;
use crate::heartbeat::Stop;
use crate::job::{Outcome, Secret};
use crate::logs::pace::Pace;
use crate::logs::redact::Redactions;
use crate::logs::terminal::Terminal;
use crate::metrics::Metrics;
use crate::queue::client::QueueClient;
use crate::shutdown::Shutdown;
use crate::validate;
use crate::worker::crowd::Crowd;
use crate::worker::planner::{Access, Tie};
use crate::worker::{self, Workplace};

/// Runs the job to its end, and ends as its command did. A first signal stops
/// it and removes what there is of it; a second one does not wait for that.
pub fn run(
    arguments: &Arguments,
    config: ExecConfig,
    place: Place,
    shutdown: &Shutdown,
    terminal: &Terminal,
) -> Exit {
    let began = Instant::now();
    let keeps_job = config.job.keep_jobs;
    let (outcome, stop) = match start(arguments, config, place, terminal) {
        Ok(running) => running,
        Err(problem) => {
            terminal.say(&format!("{problem}."));
            return Exit::NotRun;
        }
    };
    let mut is_stopped = false;
    let outcome = loop {
        let drain = match is_stopped {
            false => shutdown.drain().clone(),
            true => crossbeam_channel::never(),
        };
        select! {
            recv(outcome) -> outcome => break outcome.ok(),
            recv(drain) -> _ => {
                is_stopped = true;
                let _ = stop.try_send(Stop::Cancelled);
                terminal.say("Stopping; a second signal ends at once, and may leave the Job.");
            }
            recv(shutdown.force()) -> _ => return Exit::Interrupted,
        }
    };
    terminal.say(&match &outcome {
        Some(Outcome::Complete) => format!("Complete after {:.1?}.", began.elapsed()),
        Some(Outcome::Errored(message) | Outcome::Failed(message)) => {
            let message = message.trim_end_matches('.');
            format!("No success after {:.1?}: {message}.", began.elapsed())
        }
        Some(Outcome::Lost | Outcome::HandedOver) | None => {
            "The job ended in an unexpected way; this is a defect.".to_string()
        }
    });
    if keeps_job && !is_stopped {
        terminal.say("The Job stays until somebody deletes it, as KUBERNETES_KEEP_JOBS asks.");
    }
    match (outcome, terminal.step_code()) {
        (Some(Outcome::Complete), _) => Exit::Clean,
        _ if is_stopped => Exit::Interrupted,
        (_, Some(code @ 1..)) => Exit::Step(u8::try_from(code).unwrap_or(u8::MAX)),
        _ => Exit::NotRun,
    }
}

/// What brings the outcome of a job, and what stops it.
type Running = (Receiver<Outcome>, crossbeam_channel::Sender<Stop>);

/// Looks whether both sides answer, then starts the job on a thread.
fn start(
    arguments: &Arguments,
    config: ExecConfig,
    place: Place,
    terminal: &Terminal,
) -> Result<Running, String> {
    // Nobody will ask for the numbers of one job.
    let metrics = Metrics::new(&[]);
    let cluster = KubeCluster::new(&config.cluster, &metrics.cluster);
    let cluster = cluster.map_err(|error| error.to_string())?;
    cluster.check().map_err(|error| error.to_string())?;
    let (access, password) = access(&config, &place, &metrics)?;
    let own_pod = find_own_pod(&cluster, &place);
    let name = executor_name(&place.host);
    let mut watch = PodWatch::default();
    cluster.start_watch(&mut watch, &label_value(&name));
    let namespace = cluster.namespace().to_string();
    let workplace = Workplace {
        planner: planner(config.job, &place, &namespace, own_pod, (name, Tie::Pod)),
        cluster,
        watch,
        crowd: Crowd::default(),
        doubts: Pace::default(),
        metrics,
        spool_dir: place.spool_dir,
    };
    let (job, terminal) = (Box::new(arguments.job()), terminal.clone());
    let (stop, stops) = bounded(1);
    let (sender, outcome) = bounded(1);
    std::thread::Builder::new()
        .name(arguments::QUEUE.to_string())
        .spawn(move || {
            let access = (access, password.as_ref());
            let outcome = worker::run_for_a_person(&workplace, job, access, terminal, &stops);
            // Nobody waits for it after a second signal.
            let _ = sender.try_send(outcome);
        })
        .map_err(|error| format!("Cannot start a thread: {error}"))?;
    Ok((outcome, stop))
}

/// How to get at the repository, if there is one, and what must not be seen.
fn access(
    config: &ExecConfig,
    place: &Place,
    metrics: &Metrics,
) -> Result<(Access, Option<Secret>), String> {
    let Some(settings) = &config.frontend else {
        return Ok((Access::default(), None));
    };
    let queue = QueueClient::new(settings.clone(), &place.host, metrics);
    // This also finds out which form of our credentials is taken.
    match validate::frontend_problem(&queue, settings) {
        Some(problem) => Err(problem),
        None => {
            let access = Access {
                url: queue.url().to_string(),
                authorization: queue.authorization(None),
            };
            Ok((access, Some(settings.password.clone())))
        }
    }
}

/// Writes the objects of the job as YAML, without the values of Secrets.
/// Nothing is created; inside of a cluster, our own Pod is read.
pub fn show(
    arguments: &Arguments,
    config: ExecConfig,
    place: &Place,
    out: &mut dyn Write,
) -> Result<(), String> {
    let own_pod = match &place.namespace {
        None => None,
        Some(_) => {
            let cluster = KubeCluster::new(&config.cluster, &Metrics::new(&[]).cluster);
            find_own_pod(&cluster.map_err(|error| error.to_string())?, place)
        }
    };
    let access = Access {
        url: config.frontend.map_or(String::new(), |it| it.frontend_url),
        authorization: String::new(),
    };
    let namespace = config.cluster.namespace;
    let who = (executor_name(&place.host), Tie::Pod);
    let planner = planner(config.job, place, &namespace, own_pod, who);
    let job = arguments.job();
    let run = run_name(&job.queue, job.id, &random_suffix());
    let redactions = Redactions::new(&job.redacted_values);
    let plan = planner.plan(&job, &access, &redactions, &run);
    let text = show::yaml(&plan).map_err(|error| error.to_string())?;
    out.write_all(text.as_bytes())
        .map_err(|error| format!("cannot write the objects: {error}"))
}
