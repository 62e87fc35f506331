//! The life of one job, on one worker thread: create, follow, clean up,
//! report.
//!
//! `create.rs` makes the objects and deletes them, `follow.rs` waits for the
//! end, `waiting.rs` judges what is known on the way, `container_log.rs` ships
//! the logs. The outcome is decided here.

mod container_log;
mod create;
pub mod crowd;
mod follow;
mod patience;
mod questions;
mod refusal;
mod report;
mod unwinding;
mod waiting;

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use jiff::Timestamp;

use crate::cluster::client::watch::{PodWatch, Subscription};
use crate::cluster::client::{KubeCluster, OwnPod};
use crate::cluster::error::ClusterError;
use crate::cluster::names::SETUP_KEY;
use crate::cluster::plan::{self, Plan, Setting};
use crate::cluster::status::{Cause, Failure};
use crate::config::JobSettings;
use crate::heartbeat::{Place, Registry, Stop};
use crate::job::{Job, Outcome, Secret};
use crate::logs::entry::Place as LogPlace;
use crate::logs::pace::Pace;
use crate::logs::redact::Redactions;
use crate::logs::upload::JobLog;
use crate::metrics::Metrics;
use crate::queue::client::QueueClient;
use crate::queue::wire::{Dequeued, Malformed, Ticket};
use crate::state::{FoundJob, JobState};
use crate::worker::crowd::Crowd;

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
    /// The pods that are slow to start.
    pub crowd: Crowd,
    /// How often log streams that say nothing are doubted.
    pub doubts: Pace,
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
    /// Whether that Pod is in the namespace of the jobs.
    pub own_pod_is_beside: bool,
    /// Whether jobs are kept for the next process.
    pub keeps_state: bool,
    /// Where large output is spooled.
    pub spool_dir: PathBuf,
}

impl Shared {
    /// Our own Pod, where it is known and in the namespace of the jobs.
    pub fn executor_pod(&self) -> Option<&OwnPod> {
        self.own_pod.as_ref().filter(|_| self.own_pod_is_beside)
    }
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

/// What is in the cluster when a job has ended.
struct Rest {
    /// Whether there is a pod, or may be one that was not seen yet.
    may_have_pod: bool,
    /// Whether it may stay for somebody to look at: what was stopped would run
    /// on, and what is not complete never runs.
    may_stay: bool,
}

impl Rest {
    fn of(end: &Result<(), End>) -> Rest {
        Rest {
            may_have_pod: match end {
                Err(End::NotCreated(_)) => false,
                Err(End::Failed(failure)) => !failure.cause.is_without_pod(),
                _ => true,
            },
            may_stay: !matches!(end, Err(End::Stopped(_) | End::NotCreated(_))),
        }
    }

    /// A former process knew more.
    fn of_decided(outcome: &Outcome) -> Rest {
        Rest {
            may_have_pod: true,
            may_stay: matches!(outcome, Outcome::Complete | Outcome::Errored(_)),
        }
    }
}

impl End {
    /// What the entry at which the job ended says of it, if the entry does not
    /// show it by itself.
    fn reason(&self) -> Option<String> {
        match self {
            End::Stopped(Stop::Cancelled) => Some("The job was cancelled.".to_string()),
            End::Stopped(Stop::DrainLimit) => Some("The executor was stopped.".to_string()),
            End::TimedOut => Some("The job took longer than it may.".to_string()),
            End::Stopped(Stop::NotOurs | Stop::Handover) => None,
            End::Failed(failure) if matches!(failure.cause, Cause::ExitCode { .. }) => None,
            End::Failed(failure) => Some(failure.to_string()),
            End::NotCreated(error) => Some(error.to_string()),
        }
    }
}

/// Runs a job from its dequeue to its mark. Returns when nothing of it is
/// left, here or in the cluster, or when the next process goes on with it.
pub fn run(shared: &Arc<Shared>, assignment: Assignment) {
    let ticket = assignment.dequeued.ticket();
    // Reports even if what follows panics: a job is never lost.
    let mut report = report::OnDrop::new(shared, &ticket, assignment.place);
    report.state = assignment.state.clone();
    report.outcome = match assignment.dequeued {
        Dequeued::Malformed(Malformed { problem, .. }) => {
            Outcome::Failed(format!("the job cannot be understood: {problem}"))
        }
        Dequeued::Job(job) => {
            let attempt = Attempt {
                job,
                ticket: &ticket,
                stops: &report.place.stops,
                run: assignment.run,
                state: assignment.state,
                adopted: assignment.adopted,
            };
            run_job(shared, attempt)
        }
    };
}

/// One attempt at a job that can be understood.
struct Attempt<'a> {
    /// Not kept longer than its plan needs it: it may carry large files.
    job: Box<Job>,
    ticket: &'a Ticket,
    stops: &'a Receiver<Stop>,
    run: String,
    state: Option<JobState>,
    adopted: Option<Adopted>,
}

fn run_job(shared: &Shared, mut attempt: Attempt<'_>) -> Outcome {
    let job = &attempt.job;
    if let Some(problem) = refusal::refusal(job) {
        return Outcome::Failed(problem);
    }
    let taken = match &attempt.adopted {
        Some(_) => "taken up again",
        None => "taken",
    };
    log::info!("Job {}/{} {taken}: {}.", job.queue, job.id, subject(job));
    if job.steps.is_empty() {
        // All steps were skipped already: there is nothing to run, and the
        // server decides what that means.
        return Outcome::Complete;
    }
    let adopted = attempt.adopted.take();
    Worker::new(shared, attempt, adopted.as_ref()).run(adopted)
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

/// The objects of a job in this executor's place and settings.
fn make_plan(
    shared: &Shared,
    job: &Job,
    ticket: &Ticket,
    redactions: &Redactions,
    run: &str,
) -> Plan {
    let token = ticket.token.as_ref().map(|token| token.reveal());
    let own_pod = shared.own_pod.as_ref();
    let executor_pod = shared.executor_pod().map(|pod| &pod.owner);
    let setting = Setting {
        job: &shared.settings,
        namespace: shared.cluster.namespace(),
        frontend_url: shared.queue.url(),
        authorization: shared.queue.authorization(token),
        executor_name: &shared.executor_name,
        workspace_image: &shared.workspace_image,
        workspace_pull_secrets: own_pod.map_or(&[], |pod| &pod.pull_secrets),
        executor_pod,
        // Jobs that the next Pod takes over may not go with this one.
        owner: executor_pod.filter(|_| !shared.keeps_state),
        is_adoptable: shared.keeps_state,
        redactions,
        run: run.to_string(),
    };
    plan::plan(job, &setting)
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
    shared: &'a Shared,
    stops: &'a Receiver<Stop>,
    plan: Plan,
    redactions: Arc<Redactions>,
    log: JobLog,
    state: Option<JobState>,
    deadline: Instant,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared, attempt: Attempt<'a>, adopted: Option<&Adopted>) -> Worker<'a> {
        let (job, ticket) = (attempt.job, attempt.ticket);
        let redactions = Arc::new(redactions(shared, &job));
        let place = match &attempt.state {
            Some(state) => LogPlace::Lasting(state.entries()),
            None => LogPlace::Passing(shared.spool_dir.clone()),
        };
        let plan = aside(&|| make_plan(shared, &job, ticket, &redactions, &attempt.run));
        let passed = adopted.map_or(Duration::ZERO, |adopted| since(adopted.found.began));
        let left = shared.settings.max_runtime.saturating_sub(passed);
        Worker {
            shared,
            stops: attempt.stops,
            plan,
            log: JobLog::start(
                shared.queue.clone(),
                ticket.clone(),
                Arc::clone(&redactions),
                place,
                adopted.is_some(),
            ),
            redactions,
            state: attempt.state,
            deadline: Instant::now() + left,
        }
    }

    fn run(mut self, adopted: Option<Adopted>) -> Outcome {
        let _rescue = self.rescue();
        let decided = adopted.as_ref().and_then(|a| a.found.outcome.clone());
        let is_created = adopted.as_ref().is_some_and(|a| a.found.created);
        // Before the Job exists, so that no event is missed.
        let subscription = match adopted {
            Some(adopted) => adopted.subscription,
            None => self.shared.watch.subscribe(&self.plan.run),
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
                    (self.outcome(end), rest)
                }
            },
        };
        if let Some(state) = &self.state {
            state.decided(&outcome);
        }
        self.clean_up(&rest, &subscription);
        if outcome == Outcome::Lost {
            self.log.abandon();
            return outcome;
        }
        match self.log.finish() {
            Err(error) if error.is_not_ours() => Outcome::Lost,
            Err(error) => {
                log::error!("The log of the job is not complete on the server: {error}.");
                outcome
            }
            Ok(()) => outcome,
        }
    }

    /// Creates the objects, unless a former process did, and follows the pod.
    fn follow_to_end(&mut self, is_created: bool, subscription: &Subscription) -> Result<(), End> {
        if !is_created {
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
        }
        self.plan.forget_contents();
        follow::Follow::new(self, subscription).run()
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
                go_duration(self.shared.settings.max_runtime)
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
fn go_duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}
