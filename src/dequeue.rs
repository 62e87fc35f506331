//! Asks the queue for jobs and hands them to the workers.
//!
//! A worker first, then a job: the server is asked only for a worker that
//! stands idle. After a job it is asked again at once, after an empty answer
//! when the poll interval is over, after an error with growing delays.

use std::time::Duration;

use crossbeam_channel::select;

use crate::backoff::{self, Backoff};
use crate::heartbeat::Registry;
use crate::metrics::calls::QueueMetrics;
use crate::pool::Pool;
use crate::queue::client::QueueClient;
use crate::queue::error::QueueError;
use crate::queue::wire::Dequeued;
use crate::shutdown::Shutdown;
use crate::worker::Assignment;

/// No error keeps us away for longer.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Takes jobs until a stop is requested. No `?` in here: whatever goes wrong,
/// the next round is made.
pub fn run(
    queue: &QueueClient,
    metrics: &QueueMetrics,
    registry: &Registry,
    pool: &Pool<Assignment>,
    poll_interval: Duration,
    shutdown: &Shutdown,
) {
    let mut backoff = Backoff::new(poll_interval.min(BACKOFF_MAX), BACKOFF_MAX);
    while worker_is_idle(pool, shutdown) {
        // The place of this worker is kept until there is a job for it.
        loop {
            let wait = match metrics.dequeued(queue.dequeue()) {
                Ok(Some(dequeued)) => {
                    backoff.reset();
                    if assign(registry, pool, dequeued) {
                        break;
                    }
                    poll_interval
                }
                Ok(None) => {
                    backoff.reset();
                    poll_interval
                }
                Err(error) => delay(&mut backoff, &error),
            };
            if !shutdown.wait(wait) {
                return;
            }
        }
        if shutdown.is_draining() {
            return;
        }
    }
}

fn worker_is_idle(pool: &Pool<Assignment>, shutdown: &Shutdown) -> bool {
    select! {
        recv(pool.idle()) -> idle => idle.is_ok() && !shutdown.is_draining(),
        recv(shutdown.drain()) -> _ => false,
    }
}

/// Gives a job to a worker; false if it runs here already.
fn assign(registry: &Registry, pool: &Pool<Assignment>, dequeued: Dequeued) -> bool {
    let id = match &dequeued {
        Dequeued::Job(job) => job.id,
        Dequeued::Malformed(malformed) => malformed.ticket.id,
    };
    match registry.add(id) {
        Some(place) => {
            pool.send(Assignment { dequeued, place });
            true
        }
        None => {
            log::warn!("The server handed out job {id}, which runs here already; dropping it.");
            false
        }
    }
}

fn delay(backoff: &mut Backoff, error: &QueueError) -> Duration {
    let wait = backoff.next(backoff::random());
    // A server that is away for hours must not fill the log.
    if backoff.failures() <= 3 || backoff.failures().is_multiple_of(20) {
        log::warn!("Cannot take jobs, next try in {wait:.1?}: {error}.");
    }
    wait
}
