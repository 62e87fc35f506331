//! The life of one job, on one worker thread: create, follow, clean up,
//! report.
//!
//! `create.rs` makes the objects and deletes them, `follow.rs` waits for the
//! end and ships the logs. The outcome is decided here.

mod create;
mod follow;
mod refusal;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use jiff::Timestamp;

use crate::cluster::client::watch::PodWatch;
use crate::cluster::client::{KubeCluster, OwnPod};
use crate::cluster::error::ClusterError;
use crate::cluster::names::{SETUP_KEY, random_suffix, run_name};
use crate::cluster::plan::{self, Plan, Setting};
use crate::cluster::status::Failure;
use crate::config::JobSettings;
use crate::heartbeat::{Place, Registry, Stop};
use crate::job::{Job, Outcome, Secret};
use crate::logs::output::Output;
use crate::logs::redact::Redactions;
use crate::logs::upload::JobLog;
use crate::metrics::Metrics;
use crate::queue::client::QueueClient;
use crate::queue::wire::{Dequeued, Malformed, Ticket};

/// What stands in the place of our own tokens in any output.
const SECRET_REMOVED: &str = "SECRET_REMOVED";

/// What all workers share.
pub struct Shared {
    /// Calls to Sourcegraph.
    pub queue: QueueClient,
    /// Calls to Kubernetes.
    pub cluster: KubeCluster,
    /// The one watch.
    pub watch: PodWatch,
    /// Jobs that run here.
    pub registry: Registry,
    /// What is counted.
    pub metrics: Metrics,
    /// Limits, images and security of jobs.
    pub settings: JobSettings,
    /// The executor's token, which no log may show.
    pub password: Secret,
    /// Name of this process towards Sourcegraph.
    pub executor_name: String,
    /// Image that makes workspaces.
    pub workspace_image: String,
    /// Our own Pod, where it is known.
    pub own_pod: Option<OwnPod>,
    /// Whether that Pod is in the namespace of the jobs and can own them.
    pub own_pod_owns: bool,
    /// Where large output is spooled.
    pub spool_dir: PathBuf,
}

impl Shared {
    /// Our own Pod, where it is known and in the namespace of the jobs.
    pub fn executor_pod(&self) -> Option<&OwnPod> {
        self.own_pod.as_ref().filter(|_| self.own_pod_owns)
    }
}

/// A job on its way from the dequeue thread to a worker.
pub struct Assignment {
    /// What the server handed out.
    pub dequeued: Dequeued,
    /// Its place in the registry, where a stop arrives.
    pub place: Place,
}

/// Why a job that began did not succeed.
enum End {
    /// Stopped from outside.
    Stopped(Stop),
    /// It took longer than it may.
    TimedOut,
    /// The cluster says so.
    Failed(Failure),
    /// The objects could not be created.
    NotCreated(ClusterError),
}

/// Runs a job from its dequeue to its mark. Returns when nothing of it is
/// left, here or in the cluster.
pub fn run(shared: &Arc<Shared>, assignment: Assignment) {
    let ticket = assignment.dequeued.ticket();
    // Reports even if what follows panics: a job is never lost.
    let mut report = report::OnDrop::new(shared, &ticket, assignment.place);
    report.outcome = match &assignment.dequeued {
        Dequeued::Malformed(Malformed { problem, .. }) => {
            Outcome::Failed(format!("the job cannot be understood: {problem}"))
        }
        Dequeued::Job(job) => run_job(shared, job, &ticket, &report.place.stops),
    };
}

fn run_job(shared: &Shared, job: &Job, ticket: &Ticket, stops: &Receiver<Stop>) -> Outcome {
    if let Some(problem) = refusal::refusal(job) {
        return Outcome::Failed(problem);
    }
    log::info!("Job {}/{} taken: {}.", job.queue, job.id, subject(job));
    if job.steps.is_empty() {
        // All steps were skipped already: there is nothing to run, and the
        // server decides what that means.
        return Outcome::Complete;
    }
    let worker = Worker::new(shared, job, ticket, stops);
    worker.run()
}

/// What a job is about, in a few words.
fn subject(job: &Job) -> String {
    let steps = match job.steps.len() {
        1 => "1 step".to_string(),
        count => format!("{count} steps"),
    };
    match &job.repository {
        Some(repository) => {
            let commit: String = repository.commit.chars().take(10).collect();
            format!("{} at {commit}, {steps}", repository.name)
        }
        None => format!("no repository, {steps}"),
    }
}

/// What neither the cluster nor the server's pages may show of this job: what
/// the server names, and our own tokens.
fn redactions(shared: &Shared, job: &Job) -> Redactions {
    let mut hidden = job.redacted_values.clone();
    let own = [Some(&shared.password), job.token.as_ref()];
    for secret in own.into_iter().flatten() {
        let replacement = SECRET_REMOVED.to_string();
        hidden
            .entry(secret.reveal().to_string())
            .or_insert(replacement);
    }
    Redactions::new(&hidden)
}

/// One job that has steps.
struct Worker<'a> {
    shared: &'a Shared,
    stops: &'a Receiver<Stop>,
    plan: Plan,
    redactions: Arc<Redactions>,
    log: JobLog,
    deadline: Instant,
}

impl<'a> Worker<'a> {
    fn new(
        shared: &'a Shared,
        job: &'a Job,
        ticket: &Ticket,
        stops: &'a Receiver<Stop>,
    ) -> Worker<'a> {
        let token = ticket.token.as_ref().map(|token| token.reveal());
        let redactions = Arc::new(redactions(shared, job));
        let no_secrets = Vec::new();
        let executor_pod = shared.executor_pod().map(|pod| &pod.owner);
        let setting = Setting {
            job: &shared.settings,
            namespace: shared.cluster.namespace(),
            frontend_url: shared.queue.url(),
            authorization: shared.queue.authorization(token),
            executor_name: &shared.executor_name,
            workspace_image: &shared.workspace_image,
            workspace_pull_secrets: shared
                .own_pod
                .as_ref()
                .map_or(&no_secrets, |pod| &pod.pull_secrets),
            executor_pod,
            owner: executor_pod,
            redactions: &redactions,
            run: run_name(&job.queue, job.id, &random_suffix()),
        };
        Worker {
            shared,
            stops,
            plan: plan::plan(job, &setting),
            redactions,
            log: JobLog::start(shared.queue.clone(), ticket.clone()),
            deadline: Instant::now() + shared.settings.max_runtime,
        }
    }

    fn run(mut self) -> Outcome {
        // Before the Job exists, so that no event is missed.
        let subscription = self.shared.watch.subscribe(&self.plan.run);
        let end = match self.create() {
            Ok(()) => follow::Follow::new(&self, &subscription).run(),
            Err(end) => {
                self.tell_not_created(&end);
                Err(end)
            }
        };
        self.clean_up(&end, &subscription);
        let outcome = self.outcome(end);
        match self.log.finish() {
            Err(error) if error.is_not_ours() => Outcome::Lost,
            Err(error) => {
                log::error!("The log of the job is not complete on the server: {error}.");
                outcome
            }
            Ok(()) => outcome,
        }
    }

    /// Leaves a log entry for a reader who asks why nothing ran.
    fn tell_not_created(&self, end: &End) {
        if let End::NotCreated(error) = end {
            let mut output = Output::new(self.redactions.clone(), &self.shared.spool_dir);
            output.note(&error.to_string());
            let entry = self.log.open(SETUP_KEY, None, Timestamp::now(), output);
            self.log.close(entry, None, None);
        }
    }

    /// What is reported.
    fn outcome(&self, end: Result<(), End>) -> Outcome {
        let message = match end {
            Ok(()) => return Outcome::Complete,
            Err(End::Stopped(Stop::NotOurs)) => return Outcome::Lost,
            Err(End::Stopped(Stop::Cancelled)) => {
                return Outcome::Failed("the job was cancelled".to_string());
            }
            Err(End::Stopped(Stop::DrainLimit)) => {
                "the executor was stopped before the job had ended, and EXECUTOR_DRAIN_TIMEOUT \
                 was over"
                    .to_string()
            }
            Err(End::TimedOut) => format!(
                "job exceeded maximum execution time of {}",
                go_duration(self.shared.settings.max_runtime)
            ),
            Err(End::Failed(failure)) => self.explain(&failure),
            Err(End::NotCreated(error)) => error.to_string(),
        };
        Outcome::Errored(self.redactions.redact(&message))
    }

    /// A failure in words of the job: the step's key where it is one step's.
    fn explain(&self, failure: &Failure) -> String {
        let Failure::ExitCode { container, code } = failure else {
            return failure.to_string();
        };
        let planned = self
            .plan
            .containers
            .iter()
            .find(|planned| planned.name == *container);
        match planned.filter(|planned| planned.command.is_some()) {
            Some(step) => {
                format!("running command \"{}\": exit code {code}", step.log_key)
            }
            None => failure.to_string(),
        }
    }
}

/// A duration as Sourcegraph's pages show it, such as `30m0s`.
fn go_duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}
