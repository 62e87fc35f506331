//! Removes what dead executors and dead workers have left in the cluster.
//!
//! Most goes without a janitor: the executor's Pod owns its Jobs, a Job owns
//! its pod, its Secrets and its claim, and each Job has a deadline and a TTL.
//! The janitor is for what would run on until then. It looks at the start and
//! then once in an interval, on a thread of its own and with calls of its own,
//! so that no worker ever waits for it.
//!
//! Nothing is removed without proof, made anew in every round:
//!
//! - **Ours**, by the name of the executor: left over if no worker follows the
//!   run and the job is not among those that the server lets us have (the
//!   registry, which follows the heartbeats). Its worker panicked, or could
//!   not delete it.
//! - **Of another executor**, by the Pod that the Job names: left over if the
//!   API has no such Pod, another one under its name, or one that has ended
//!   for good (an evicted Pod stays, and so does what it owns). If the Pod is
//!   our own, the executor was there before us: its container has started
//!   again.
//! - **A Secret** that nobody owns, as the released executor leaves them: left
//!   over if its Job does not exist and it is an hour old.
//!
//! The proof must hold in two rounds that are a minute apart. By then the
//! server, too, has taken the jobs of a dead executor back, after 25 s of
//! silence. It cannot be asked: its one question about jobs is the heartbeat,
//! and one in the name of a dead executor would keep its jobs alive.
//!
//! A deletion names the UID, so that it never meets another object of the same
//! name. What is never removed: Jobs that are kept for a person, Jobs that
//! their executor adopts when it comes back, and Jobs of executors that name
//! no Pod, since they are outside of this namespace and may well live.
//!
//! All that works with the released permissions, which allow to list pods.
//! What needs more is tried once, and said once if it is forbidden.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use jiff::{SignedDuration, Timestamp};

use crate::cluster::client::KubeCluster;
use crate::cluster::client::leftovers::ExecutorPod;
use crate::cluster::error::ClusterError;
use crate::cluster::found::{FoundJob, FoundSecret, Identity};
use crate::metrics::janitor::JanitorMetrics;
use crate::shutdown::{Nothing, is_closed};
use crate::worker::Shared;

/// How long something must look left over: twice what the server gives a
/// silent executor, and more.
const PATIENCE: Duration = Duration::from_secs(60);
/// How old a Secret without owner must be: its Job is made right after it.
const SECRET_AGE_MIN: SignedDuration = SignedDuration::from_hours(1);
/// How long a stop waits for the call that is under way.
const STOP_LIMIT: Duration = Duration::from_secs(1);
/// Stack of the thread, whose calls are those of a worker.
const STACK_BYTES: usize = 1024 * 1024;

const JOBS_FORBIDDEN: &str = "Jobs of dead executors are found by their pods alone; one without a \
     pod goes by its deadline. To find them all, allow the executor this: apiGroups: [batch], \
     resources: [jobs], verbs: [list]";
const SECRETS_FORBIDDEN: &str = "Secrets that the released executor left behind are not looked \
     for. It would take this permission, with which the executor could read all Secrets of the \
     namespace: apiGroups: [\"\"], resources: [secrets], verbs: [list]; docs/jobs.md has a command \
     that does without";

/// The running janitor; `stop` ends it.
pub struct Janitor {
    stop: Sender<Nothing>,
    ended: Receiver<Nothing>,
    thread: JoinHandle<()>,
}

impl Janitor {
    /// Starts the thread, which begins with a round at once.
    pub fn start(shared: &Arc<Shared>, interval: Duration) -> std::io::Result<Janitor> {
        let (stop, stopped) = bounded(0);
        let (running, ended) = bounded(0);
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new()
            .name("janitor".to_string())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                run(&shared, interval, &stopped);
                drop::<Sender<Nothing>>(running);
            })?;
        Ok(Janitor {
            stop,
            ended,
            thread,
        })
    }

    /// Ends the thread. If its last call takes longer than it should, the
    /// thread is left to end with the process.
    pub fn stop(self) {
        drop(self.stop);
        let _ = self.ended.recv_timeout(STOP_LIMIT);
        if !is_closed(&self.ended) {
            log::warn!("The janitor still waits for the Kubernetes API and is left behind.");
        } else if self.thread.join().is_err() {
            log::error!("The janitor panicked.");
        }
    }
}

fn run(shared: &Shared, interval: Duration, stopped: &Receiver<Nothing>) {
    let workplace = &shared.workplace;
    let is_alive = |job: &FoundJob| {
        let is_ours = job.key.as_ref().is_some_and(|key| shared.registry.has(key));
        is_ours || workplace.watch.is_followed(&job.job.name)
    };
    let own_pod = workplace.planner.executor_pod();
    let mut rounds = Rounds {
        cluster: &workplace.cluster,
        executor_name: &workplace.planner.executor_name,
        own_pod: own_pod
            .filter(|pod| pod.has_one_executor)
            .map(|pod| pod.uid()),
        is_alive: &is_alive,
        is_stopping: &|| is_closed(stopped),
        metrics: &workplace.metrics.janitor,
        suspects: HashMap::new(),
        lists_jobs: true,
        lists_secrets: true,
        has_told_of_strangers: false,
    };
    loop {
        if let Err(error) = rounds.round(Instant::now(), Timestamp::now()) {
            log::warn!("Leftovers are looked for again in {interval:?}: {error}.");
        }
        if stopped.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// What the rounds know, and what they remember.
struct Rounds<'a> {
    cluster: &'a KubeCluster,
    executor_name: &'a str,
    /// UID of our own Pod, if ours is the only executor in it.
    own_pod: Option<&'a str>,
    /// Whether a Job that we made is still in use.
    is_alive: &'a dyn Fn(&FoundJob) -> bool,
    is_stopping: &'a dyn Fn() -> bool,
    metrics: &'a JanitorMetrics,
    /// UIDs of what looks left over, and since when it does.
    suspects: HashMap<String, Instant>,
    lists_jobs: bool,
    lists_secrets: bool,
    has_told_of_strangers: bool,
}

/// What one round has learned of the Pods of executors.
type Pods = HashMap<String, Option<ExecutorPod>>;

/// Something that looks left over.
struct Leftover {
    kind: Kind,
    object: Identity,
    reason: Reason,
}

#[derive(Clone, Copy)]
enum Kind {
    Job,
    Secret,
}

/// Why something is left over.
#[derive(Debug, PartialEq, Eq)]
enum Reason {
    WorkerGone,
    ProcessGone { executor: String },
    PodGone { pod: String },
    PodReplaced { pod: String },
    PodEnded { pod: String },
    JobGone { job: String },
}

impl Rounds<'_> {
    /// Looks once, and removes what has looked left over for long enough.
    fn round(&mut self, now: Instant, time: Timestamp) -> Result<(), ClusterError> {
        let mut leftovers = self.jobs_left()?;
        leftovers.extend(self.secrets_left(time)?);
        let uids: HashSet<&str> = leftovers.iter().map(|left| &*left.object.uid).collect();
        self.suspects.retain(|uid, _| uids.contains(&**uid));
        for leftover in &leftovers {
            let uid = leftover.object.uid.clone();
            let since = *self.suspects.entry(uid).or_insert(now);
            if (self.is_stopping)() {
                return Ok(());
            }
            if now.duration_since(since) >= PATIENCE {
                self.remove(leftover)?;
            }
        }
        Ok(())
    }

    fn jobs_left(&mut self) -> Result<Vec<Leftover>, ClusterError> {
        let mut pods = Pods::new();
        let mut left = Vec::new();
        for job in self.find_jobs()? {
            if let Some(reason) = self.why_left(&job, &mut pods)? {
                left.push(Leftover {
                    kind: Kind::Job,
                    object: job.job,
                    reason,
                });
            }
        }
        Ok(left)
    }

    fn find_jobs(&mut self) -> Result<Vec<FoundJob>, ClusterError> {
        if self.lists_jobs {
            match self.cluster.jobs_found() {
                Err(error) if error.is_forbidden() => {
                    log::debug!("{JOBS_FORBIDDEN}.");
                    self.lists_jobs = false;
                }
                found => return found,
            }
        }
        self.cluster.jobs_found_by_pods()
    }

    /// Why a Job is left over, if there is proof that it is.
    fn why_left(
        &mut self,
        job: &FoundJob,
        pods: &mut Pods,
    ) -> Result<Option<Reason>, ClusterError> {
        if job.is_kept {
            return Ok(None);
        }
        if job.executor == self.executor_name {
            return Ok((!(self.is_alive)(job)).then_some(Reason::WorkerGone));
        }
        if job.is_adoptable {
            return Ok(None);
        }
        let Some(pod) = &job.executor_pod else {
            self.tell_of_stranger(job);
            return Ok(None);
        };
        if self.own_pod == Some(&*pod.uid) {
            let executor = job.executor.clone();
            return Ok(Some(Reason::ProcessGone { executor }));
        }
        if !pods.contains_key(&pod.name) {
            let found = self.cluster.executor_pod(&pod.name)?;
            pods.insert(pod.name.clone(), found);
        }
        let name = pod.name.clone();
        Ok(match pods.get(&pod.name).and_then(Option::as_ref) {
            None => Some(Reason::PodGone { pod: name }),
            Some(found) if found.uid != pod.uid => Some(Reason::PodReplaced { pod: name }),
            Some(found) if found.has_ended => Some(Reason::PodEnded { pod: name }),
            Some(_) => None,
        })
    }

    fn tell_of_stranger(&mut self, job: &FoundJob) {
        if !self.has_told_of_strangers {
            self.has_told_of_strangers = true;
            log::info!(
                "Job {} is of executor {}, which has no Pod in this namespace that could tell \
                 whether it lives. What such executors leave goes by its deadline, and 30 minutes \
                 later its TTL.",
                job.job.name,
                job.executor
            );
        }
    }

    fn secrets_left(&mut self, time: Timestamp) -> Result<Vec<Leftover>, ClusterError> {
        let mut left = Vec::new();
        if !self.lists_secrets {
            return Ok(left);
        }
        let found = match self.cluster.secrets_found() {
            Err(error) if error.is_forbidden() => {
                log::debug!("{SECRETS_FORBIDDEN}.");
                self.lists_secrets = false;
                return Ok(left);
            }
            found => found?,
        };
        let is_old = |secret: &FoundSecret| {
            let age = secret.created.map(|created| time.duration_since(created));
            age.is_some_and(|age| age >= SECRET_AGE_MIN)
        };
        for secret in found.into_iter().filter(is_old) {
            if !self.cluster.has_job(&secret.job)? {
                left.push(Leftover {
                    kind: Kind::Secret,
                    object: secret.secret,
                    reason: Reason::JobGone { job: secret.job },
                });
            }
        }
        Ok(left)
    }

    /// A refusal concerns this object alone; without an answer there is no
    /// point in going on.
    fn remove(&self, leftover: &Leftover) -> Result<(), ClusterError> {
        let Leftover {
            kind,
            object,
            reason,
        } = leftover;
        let removed = match kind {
            Kind::Job => self.cluster.delete_found_job(object),
            Kind::Secret => self.cluster.delete_found_secret(object),
        };
        match removed {
            Ok(true) => {
                log::info!(
                    "Removed {kind} {}, which was left over: {reason}.",
                    object.name
                );
                self.metrics.removed(kind.resource());
            }
            Ok(false) => {}
            Err(error) => {
                self.metrics.failed(kind.resource());
                if error.is_retryable() {
                    return Err(error);
                }
                log::warn!("Left over, and not removed: {error}.");
            }
        }
        Ok(())
    }
}

impl Kind {
    /// A word of a Role.
    fn resource(self) -> &'static str {
        match self {
            Kind::Job => "jobs",
            Kind::Secret => "secrets",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Job => "Job",
            Kind::Secret => "Secret",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::WorkerGone => f.write_str("no worker here follows it any more"),
            Reason::ProcessGone { executor } => {
                write!(
                    f,
                    "executor {executor} ran in our Pod before us and is gone"
                )
            }
            Reason::PodGone { pod } => write!(f, "the Pod {pod} of its executor is gone"),
            Reason::PodReplaced { pod } => {
                write!(
                    f,
                    "the Pod {pod} of its executor was replaced by another one"
                )
            }
            Reason::PodEnded { pod } => write!(f, "the Pod {pod} of its executor has ended"),
            Reason::JobGone { job } => write!(f, "its Job {job} does not exist"),
        }
    }
}

#[cfg(test)]
mod tests;
