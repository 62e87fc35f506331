//! Takes up the jobs that a former process left in the state directory.
//!
//! Each gets its place among the running jobs before the first heartbeat, so
//! that the server hears of it at once; its pod is subscribed to before the
//! watch is started, so that a pod that is gone is noticed. The rest is a
//! worker's work, which goes on where the former one stopped. What the server
//! has given away meanwhile is stopped like any job that is not ours any more.

use std::sync::Arc;

use crate::cluster::client::watch::PodWatch;
use crate::heartbeat::{Place, Registry};
use crate::queue::client::QueueClient;
use crate::queue::wire::Dequeued;
use crate::state::{FoundJob, JobState, StateDir};
use crate::worker::{Adopted, Assignment};

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
pub fn read(
    queue: &QueueClient,
    registry: &Registry,
    state: Option<&Arc<StateDir>>,
    jobs: Vec<FoundJob>,
) -> Vec<Read> {
    let Some(state) = state else {
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
    jobs.into_iter().filter_map(read).collect()
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
