//! Takes up the jobs that a former process left in the state directory.
//!
//! Each gets its place among the running jobs before the first heartbeat, so
//! that the server hears of it at once; its pod is subscribed to before the
//! watch is started, so that a pod that is gone is noticed. The rest is a
//! worker's work, which goes on where the former one stopped. What the server
//! has given away meanwhile is stopped like any job that is not ours any more.

use std::sync::Arc;

use crate::cluster::client::watch::PodWatch;
use crate::cluster::names::executor_name;
use crate::config::Config;
use crate::heartbeat::{Place, Registry};
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
pub fn open(config: &Config, host: &str) -> Result<Former, StateError> {
    let base = state::base(&config.state, config.hands_over)?;
    let Some(base) = base else {
        return Ok(Former {
            state: None,
            name: executor_name(host),
            jobs: Vec::new(),
        });
    };
    let (state, found) = StateDir::open(base)?;
    let name = match found.name {
        Some(name) => name,
        None => state.keep_name(executor_name(host))?,
    };
    log::info!(
        "State is in {}; {} jobs of a former process.",
        state.path().display(),
        found.jobs.len()
    );
    Ok(Former {
        state: Some(state),
        name,
        jobs: found.jobs,
    })
}

/// A job of a former process, read and registered.
pub struct Read {
    dequeued: Dequeued,
    place: Place,
    state: JobState,
    found: FoundJob,
}

/// Reads and registers all jobs. One that cannot be read is forgotten: the
/// server gives it to someone else after 25 s, and the cluster's nets remove
/// its objects.
pub fn read(queue: &QueueClient, registry: &Registry, former: Former) -> Vec<Read> {
    let Some(state) = former.state else {
        return Vec::new();
    };
    let read = |found: FoundJob| {
        let job = state.job(&found.run);
        let payload = job.payload().map_err(|error| error.to_string());
        match payload.and_then(|payload| queue.read_job(&payload)) {
            Ok(dequeued) => registry.add(found.key.clone()).map(|place| Read {
                dequeued,
                place,
                state: job,
                found,
            }),
            Err(problem) => {
                log::error!("Job {} cannot be taken up again: {problem}.", found.key);
                job.done();
                None
            }
        }
    };
    former.jobs.into_iter().filter_map(read).collect()
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
