//! Takes up the jobs that a former process left in the state directory.
//!
//! Each gets its place among the running jobs before the first heartbeat, so
//! that the server hears of it at once; its pod is subscribed to before the
//! watch is started, so that a pod that is gone is noticed. The rest is a
//! worker's work, which goes on where the former one stopped. What the server
//! has given away meanwhile is stopped like any job that is not ours any more.

use std::sync::Arc;

use crate::cluster::client::KubeCluster;
use crate::cluster::client::watch::PodWatch;
use crate::cluster::names::executor_name;
use crate::config::Config;
use crate::heartbeat::{Place, Registry};
use crate::job::Outcome;
use crate::queue::client::QueueClient;
use crate::queue::wire::Dequeued;
use crate::state::{self, FoundJob, JobState, StateDir, StateError};
use crate::worker::{Adopted, Assignment};

/// What a former process left, with a name in any case.
pub struct Former {
    /// Where the next process will look.
    pub state: Option<Arc<StateDir>>,
    /// Name towards Sourcegraph, kept or new.
    pub name: String,
    jobs: Vec<FoundJob>,
}

/// Opens the state directory, if there is one, and reads what is in it.
/// `place` tells where the objects of jobs are; jobs elsewhere are left alone.
pub fn open(config: &Config, host: &str, place: &str) -> Result<Former, StateError> {
    let Some(base) = state::base(&config.state, config.hands_over)? else {
        return Ok(Former {
            state: None,
            name: executor_name(host),
            jobs: Vec::new(),
        });
    };
    let (state, found) = StateDir::open(base)?;
    let count = found.jobs.len();
    let (name, jobs) = match found.name {
        Some((name, same)) if same == place => (name, found.jobs),
        Some((_, other)) if count > 0 => {
            log::warn!("{count} jobs of a former process are left alone: they are at {other}.");
            (executor_name(host), Vec::new())
        }
        _ => (executor_name(host), Vec::new()),
    };
    state.keep_name(&name, place)?;
    let path = state.path().display();
    log::info!(
        "State is in {path}; {} jobs of a former process go on.",
        jobs.len()
    );
    Ok(Former {
        state: Some(state),
        name,
        jobs,
    })
}

/// A job of a former process, read and registered.
pub struct Read {
    dequeued: Dequeued,
    place: Place,
    state: JobState,
    found: FoundJob,
}

/// A job of a former process that nobody can follow.
pub struct Forgotten {
    run: String,
    state: JobState,
}

/// Reads and registers all jobs; the second list has those that cannot be
/// followed, which the server gives to someone else after 25 s.
pub fn read(
    queue: &QueueClient,
    registry: &Registry,
    former: Former,
) -> (Vec<Read>, Vec<Forgotten>) {
    let (mut followed, mut forgotten) = (Vec::new(), Vec::new());
    let Some(state) = former.state else {
        return (followed, forgotten);
    };
    // The newest first: of two attempts at a job only that one is ours.
    for found in former.jobs.into_iter().rev() {
        let job = state.job(&found.run);
        match read_payload(queue, &job, &found) {
            Ok(dequeued) => {
                let is_lost = found.outcome == Some(Outcome::Lost) || registry.has(&found.key);
                let place = match is_lost {
                    true => Registry::lost(found.key.clone()),
                    false => registry.add(found.key.clone()),
                };
                followed.push(Read {
                    dequeued,
                    place,
                    state: job,
                    found,
                });
            }
            Err(problem) => {
                log::error!("Job {} cannot be taken up again: {problem}.", found.key);
                let run = found.run;
                forgotten.push(Forgotten { run, state: job });
            }
        }
    }
    (followed, forgotten)
}

fn read_payload(queue: &QueueClient, job: &JobState, found: &FoundJob) -> Result<Dequeued, String> {
    let payload = job.payload().map_err(|error| error.to_string())?;
    let dequeued = queue.read_job(&payload)?;
    match dequeued.ticket().key() == found.key {
        true => Ok(dequeued),
        false => Err("its queue is not served here any more".to_string()),
    }
}

/// Deletes the Jobs of those that nobody can follow, so that their steps do not
/// run on beside the next attempt. What cannot be deleted goes by its deadline.
pub fn forget(cluster: &KubeCluster, forgotten: Vec<Forgotten>) {
    for job in forgotten {
        if let Err(error) = cluster.delete_job(&job.run) {
            log::warn!("Left behind, until the cluster removes it: {error}.");
        }
        job.state.done();
    }
}

/// Makes them work for workers. To be called before the watch is started.
pub fn assign(watch: &PodWatch, jobs: Vec<Read>) -> Vec<Assignment> {
    let assign = |read: Read| {
        let run = read.found.run.clone();
        let subscription = match &read.found.pod {
            Some((name, uid)) => watch.subscribe_again(&run, name, uid),
            None => watch.subscribe(&run),
        };
        Assignment {
            dequeued: read.dequeued,
            place: read.place,
            run,
            state: Some(read.state),
            adopted: Some(Adopted {
                found: read.found,
                subscription,
            }),
        }
    };
    jobs.into_iter().map(assign).collect()
}
