//! The life of one job, on one worker thread: create, follow, clean up,
//! report.
//!
//! `create.rs` makes the objects and deletes them, `follow.rs` waits for the
//! end, `waiting.rs` judges what is known on the way, `container_log.rs` ships
//! the logs. The outcome is decided here.

mod container_log;
mod create;
pub mod crowd;
mod end;
mod follow;
mod patience;
mod phases;
pub mod planner;
mod questions;
mod refusal;
mod report;
mod stage;
mod unwinding;
mod waiting;

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use jiff::Timestamp;

use crate::cluster::client::KubeCluster;
use crate::cluster::client::events::JobEvent;
use crate::cluster::client::watch::{PodWatch, Subscription};
use crate::cluster::error::ClusterError;
use crate::cluster::names::{SETUP_KEY, random_suffix, run_name};
use crate::cluster::plan::Plan;
use crate::cluster::status::{Cause, Failure};
use crate::heartbeat::{Place, Registry, Stop};
use crate::job::{Job, JobKey, Outcome, Secret};
use crate::logging;
use crate::logs::entry::Place as LogPlace;
use crate::logs::pace::Pace;
use crate::logs::redact::Redactions;
use crate::logs::terminal::Terminal;
use crate::logs::upload::{JobLog, Sink};
use crate::metrics::Metrics;
use crate::metrics::jobs::{self, Phase};
use crate::queue::client::QueueClient;
use crate::queue::wire::{Dequeued, Malformed};
use crate::state::{FoundJob, JobState};
use crate::worker::crowd::Crowd;
use crate::worker::end::{End, Rest};
use crate::worker::phases::Phases;
use crate::worker::planner::{Access, Planner};

/// How long after the end of its time a job is at its end here: deleting its
/// objects takes minutes at most, and its log and its mark may each wait an hour
/// for a server that is away.
const AFTER_ITS_TIME: Duration = Duration::from_secs(3 * 3600);
/// What stands in the place of our own tokens in any output.
const SECRET_REMOVED: &str = "SECRET_REMOVED";

/// What all workers of the daemon share.
pub struct Shared {
    /// Calls to Sourcegraph.
    pub queue: QueueClient,
    /// Jobs that run here.
    pub registry: Registry,
    /// The executor's token, which no log may show.
    pub password: Secret,
    /// Where the jobs run.
    pub workplace: Workplace,
}

/// Where jobs run, whoever wants to know of them.
pub struct Workplace {
    /// Calls to Kubernetes.
    pub cluster: KubeCluster,
    /// The one watch.
    pub watch: PodWatch,
    /// The pods that are slow to start.
    pub crowd: Crowd,
    /// How often log streams that say nothing are doubted.
    pub doubts: Pace,
    /// What is counted.
    pub metrics: Metrics,
    /// What jobs look like here.
    pub planner: Planner,
    /// Where large output is spooled.
    pub spool_dir: PathBuf,
}

/// A job on its way from the dequeue thread to a worker.
pub struct Assignment {
    /// What the server handed out.
    pub dequeued: Dequeued,
    /// Its place in the registry, where a stop arrives.
    pub place: Place,
    /// Name of the attempt.
    pub run: String,
    /// Where it is kept for the next process, if it is.
    pub state: Option<JobState>,
    /// What a former process has done for it, if there was one.
    pub adopted: Option<Adopted>,
}

/// A job that a former process began.
pub struct Adopted {
    /// What it had come to.
    pub found: FoundJob,
    /// The view of its pod.
    pub subscription: Subscription,
}

/// Runs a job from its dequeue to its mark. Returns when nothing of it is
/// left, here or in the cluster, or when the next process goes on with it.
pub fn run(shared: &Arc<Shared>, assignment: Assignment) {
    let ticket = assignment.dequeued.ticket();
    let _about = logging::about(&ticket.key());
    let bound = shared.workplace.planner.settings.max_runtime + AFTER_ITS_TIME;
    let pulses = &shared.workplace.metrics.pulses;
    let _pulse = pulses.of_job(format!("job {}", ticket.key()), bound);
    // Reports even if what follows panics: a job is never lost.
    let mut report = report::OnDrop::new(shared, &ticket, assignment.place);
    report.state = assignment.state.clone();
    report.outcome = match assignment.dequeued {
        Dequeued::Malformed(Malformed { problem, .. }) => {
            shared.workplace.metrics.jobs.failed(jobs::NOT_UNDERSTOOD);
            Outcome::Failed(format!("the job cannot be understood: {problem}"))
        }
        Dequeued::Job(job) => {
            let token = job.token.as_ref().map(Secret::reveal);
            let access = Access {
                url: shared.queue.url().to_string(),
                authorization: shared.queue.authorization(token),
            };
            let attempt = Attempt {
                job,
                access,
                hidden: vec![&shared.password],
                sink: Sink::Server(shared.queue.clone(), ticket.clone()),
                stops: &report.place.stops,
                run: assignment.run,
                state: assignment.state,
                adopted: assignment.adopted,
            };
            run_job(&shared.workplace, attempt)
        }
    };
}

/// Runs a job of this process's own, which no server knows of, while somebody
/// looks on. Returns what came of it when nothing of it is left, or when it is
/// kept for a person.
pub fn run_for_a_person(
    workplace: &Workplace,
    job: Box<Job>,
    (access, hidden): (Access, Option<&Secret>),
    terminal: Terminal,
    stops: &Receiver<Stop>,
) -> Outcome {
    let _about = logging::about(&JobKey {
        queue: job.queue.clone(),
        id: job.id,
    });
    let run = run_name(&job.queue, job.id, &random_suffix());
    let attempt = Attempt {
        job,
        access,
        hidden: hidden.into_iter().collect(),
        sink: Sink::Terminal(terminal),
        stops,
        run,
        state: None,
        adopted: None,
    };
    run_job(workplace, attempt)
}

/// One attempt at a job that can be understood.
struct Attempt<'a> {
    /// Not kept longer than its plan needs it: it may carry large files.
    job: Box<Job>,
    access: Access,
    /// Our own secrets, which no log may show.
    hidden: Vec<&'a Secret>,
    sink: Sink,
    stops: &'a Receiver<Stop>,
    run: String,
    state: Option<JobState>,
    adopted: Option<Adopted>,
}

fn run_job(workplace: &Workplace, mut attempt: Attempt<'_>) -> Outcome {
    let job = &attempt.job;
    if let Some(problem) = refusal::refusal(job) {
        workplace.metrics.jobs.failed(jobs::NOT_UNDERSTOOD);
        return Outcome::Failed(problem);
    }
    let taken = match &attempt.adopted {
        Some(_) => "Taken up again",
        None => "Taken",
    };
    log::info!("{taken}: {}.", subject(job));
    if job.steps.is_empty() {
        // All steps were skipped already: there is nothing to run, and the
        // server decides what that means.
        return Outcome::Complete;
    }
    let adopted = attempt.adopted.take();
    Worker::new(workplace, attempt, adopted.as_ref()).run(adopted)
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
fn redactions(job: &Job, own: &[&Secret]) -> Redactions {
    let mut hidden = job.redacted_values.clone();
    for secret in own.iter().copied().chain(&job.token) {
        let replacement = SECRET_REMOVED.to_string();
        hidden
            .entry(secret.reveal().to_string())
            .or_insert(replacement);
    }
    Redactions::new(&hidden)
}

/// Does something deep on a thread of its own. What the stack of a thread has
/// once held stays in memory, and there are a hundred workers, but hardly ever
/// two that plan at the same moment.
fn aside<T: Send>(work: &(impl Fn() -> T + Sync)) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("plan".to_string());
        match thread.spawn_scoped(scope, work) {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            // Then it costs the memory.
            Err(_) => work(),
        }
    })
}

/// How long ago a time was; none if the clock was set back.
fn since(time: Timestamp) -> Duration {
    Duration::try_from(Timestamp::now() - time).unwrap_or_default()
}

/// One job that has steps.
struct Worker<'a> {
    workplace: &'a Workplace,
    stops: &'a Receiver<Stop>,
    plan: Plan,
    /// UID of the Job, if this process created it.
    job_uid: String,
    redactions: Arc<Redactions>,
    log: JobLog,
    state: Option<JobState>,
    deadline: Instant,
    phases: Phases,
}

impl<'a> Worker<'a> {
    fn new(
        workplace: &'a Workplace,
        attempt: Attempt<'a>,
        adopted: Option<&Adopted>,
    ) -> Worker<'a> {
        let (job, planner) = (attempt.job, &workplace.planner);
        let redactions = Arc::new(redactions(&job, &attempt.hidden));
        let place = match &attempt.state {
            Some(state) => LogPlace::Lasting(state.entries()),
            None => LogPlace::Passing(workplace.spool_dir.clone()),
        };
        let plan = aside(&|| planner.plan(&job, &attempt.access, &redactions, &attempt.run));
        let passed = adopted.map_or(Duration::ZERO, |adopted| since(adopted.found.began));
        let left = planner.settings.max_runtime.saturating_sub(passed);
        Worker {
            workplace,
            stops: attempt.stops,
            plan,
            job_uid: String::new(),
            log: JobLog::start(
                attempt.sink,
                Arc::clone(&redactions),
                place,
                adopted.is_some(),
            ),
            redactions,
            state: attempt.state,
            deadline: Instant::now() + left,
            phases: Phases::new(&workplace.metrics.jobs),
        }
    }

    fn run(mut self, adopted: Option<Adopted>) -> Outcome {
        let _rescue = self.rescue();
        let decided = adopted.as_ref().and_then(|a| a.found.outcome.clone());
        let is_created = adopted.as_ref().is_some_and(|a| a.found.created);
        // Before the Job exists, so that no event is missed.
        let subscription = match adopted {
            Some(adopted) => adopted.subscription,
            None => self.workplace.watch.subscribe(&self.plan.run),
        };
        let (outcome, rest) = match decided {
            Some(outcome) => {
                let rest = Rest::of_decided(&outcome);
                (outcome, rest)
            }
            None => match self.follow_to_end(is_created, &subscription) {
                Err(End::Stopped(Stop::Handover)) if self.state.is_some() => {
                    self.log.leave();
                    return Outcome::HandedOver;
                }
                end => {
                    let rest = Rest::of(&end);
                    let cause = end.as_ref().err().and_then(End::cause);
                    if let Some(cause) = cause {
                        self.workplace.metrics.jobs.failed(cause);
                    }
                    let outcome = self.outcome(end);
                    // An Event is about a Job that is there.
                    self.leave_event(cause.filter(|it| *it != jobs::NOT_CREATED), &outcome);
                    (outcome, rest)
                }
            },
        };
        if let Some(state) = &self.state {
            state.decided(&outcome);
        }
        self.phases.begin(Phase::CleanUp);
        self.clean_up(&rest, &subscription);
        self.phases.begin(Phase::Log);
        if outcome == Outcome::Lost {
            self.log.abandon();
            return outcome;
        }
        match self.log.finish() {
            Err(error) if error.is_not_ours() => Outcome::Lost,
            Err(error) => {
                log::error!("Its log stays incomplete on the server: {error}.");
                outcome
            }
            Ok(()) => outcome,
        }
    }

    /// Creates the objects, unless a former process did, and follows the pod.
    fn follow_to_end(&mut self, is_created: bool, subscription: &Subscription) -> Result<(), End> {
        if !is_created {
            self.phases.begin(Phase::Create);
            let created = match self.stops.try_recv() {
                Ok(stop) => Err(End::Stopped(stop)),
                Err(_) => self.create(),
            };
            if let Err(end) = created {
                // Before the entry says so: the next process must not try again.
                if let (Some(state), End::NotCreated(error)) = (&self.state, &end) {
                    state.decided(&self.outcome_of(error));
                }
                self.tell_not_created(&end);
                return Err(end);
            }
            if let Some(state) = &self.state {
                state.created();
            }
            self.phases.begin(Phase::Start);
        }
        self.plan.forget_contents();
        follow::Follow::new(self, subscription).run()
    }

    /// Has the cluster remember why its Job failed, for as long as it keeps
    /// Events; the Job itself goes at once.
    fn leave_event(&self, cause: Option<&str>, outcome: &Outcome) {
        if let (Some(cause), Outcome::Errored(message) | Outcome::Failed(message)) =
            (cause, outcome)
        {
            let planner = &self.workplace.planner;
            self.workplace.cluster.tell(&JobEvent {
                job: &self.plan.run,
                uid: &self.job_uid,
                cause,
                message,
                executor_name: &planner.executor_name,
            });
        }
    }

    /// Leaves a log entry for a reader who asks why nothing ran.
    fn tell_not_created(&self, end: &End) {
        if let Some(reason) = end.reason() {
            let entry = self.setup_entry();
            self.log.note(entry, &reason);
            self.log.close(entry, None, None);
        }
    }

    /// The first log entry, for what happens before its container starts.
    fn setup_entry(&self) -> usize {
        match self.log.begun(SETUP_KEY) {
            Some(begun) => begun.index,
            None => self.log.open(SETUP_KEY, None, Timestamp::now()),
        }
    }

    /// What is reported.
    fn outcome(&self, end: Result<(), End>) -> Outcome {
        let message = match end {
            Ok(()) => return Outcome::Complete,
            Err(End::Stopped(Stop::NotOurs)) => return Outcome::Lost,
            // Nobody will find what was not kept: the server gives it away.
            Err(End::Stopped(Stop::Handover)) => return Outcome::Lost,
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
                go_duration(self.workplace.planner.settings.max_runtime)
            ),
            Err(End::Failed(failure)) => self.explain(&failure),
            Err(End::NotCreated(error)) => return self.outcome_of(&error),
        };
        Outcome::Errored(self.redactions.redact(&message))
    }

    fn outcome_of(&self, error: &ClusterError) -> Outcome {
        Outcome::Errored(self.redactions.redact(&error.to_string()))
    }

    /// A failure in words of the job: the step's key where it is one step's.
    fn explain(&self, failure: &Failure) -> String {
        let Cause::ExitCode { container, code } = &failure.cause else {
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
pub(crate) fn go_duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}
