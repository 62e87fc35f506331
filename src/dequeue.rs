//! Asks the queue for jobs and hands them to the workers.
//!
//! A worker first, then a job: the server is asked only for a worker that
//! stands idle. After a job it is asked again at once, after an empty answer
//! when the poll interval is over, after an error with growing delays.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{at, never, select};

use crate::backoff::{self, Backoff};
use crate::cluster::names::{random_suffix, run_name};
use crate::config::Limits;
use crate::heartbeat::Registry;
use crate::job::JobKey;
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::queue::client::{QueueClient, Taken};
use crate::queue::error::QueueError;
use crate::queue::wire::Dequeued;
use crate::shutdown::Shutdown;
use crate::state::{JobState, StateDir};
use crate::worker::Assignment;

/// By when an answer is here and handed on: a dequeue may take two calls of 30 s,
/// and the job is written down.
const ANSWER_LATE: Duration = Duration::from_secs(180);
/// No error keeps us away for longer.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Whom to ask for jobs, how often, and up to which limits.
pub struct Asking<'a> {
    /// Calls to Sourcegraph.
    pub queue: &'a QueueClient,
    /// Counts what it answers, and knows how long that may take.
    pub metrics: &'a Metrics,
    /// Wait after an empty answer.
    pub poll_interval: Duration,
    /// When to end.
    pub limits: Limits,
    /// Where jobs are kept for the next process, if they are.
    pub state: Option<&'a Arc<StateDir>>,
}

/// Hands out the jobs of a former process, each to a worker that is idle. What
/// is left when a stop is requested stays for the next process.
pub fn resume(adopted: Vec<Assignment>, pool: &Pool<Assignment>, shutdown: &Shutdown) {
    for assignment in adopted {
        if !worker_is_idle(pool, None, shutdown) {
            return;
        }
        pool.send(assignment);
    }
}

/// Takes jobs until a stop is requested or a limit is reached. No `?` in here:
/// whatever goes wrong, the next round is made.
pub fn run(asking: &Asking<'_>, registry: &Registry, pool: &Pool<Assignment>, shutdown: &Shutdown) {
    let poll_interval = asking.poll_interval;
    let mut backoff = Backoff::new(poll_interval.min(BACKOFF_MAX), BACKOFF_MAX);
    let mut left = Left::new(asking.limits);
    let mut failing_since: Option<Instant> = None;
    while !left.is_nothing() && worker_is_idle(pool, left.until, shutdown) {
        // The place of this worker is kept until there is a job for it.
        loop {
            if left.is_nothing() {
                return;
            }
            let pulse = asking.metrics.pulses.of_thread("dequeue", ANSWER_LATE);
            let answer = asking.metrics.queue.dequeued(asking.queue.dequeue());
            if answer.is_err() {
                failing_since.get_or_insert_with(Instant::now);
            } else if let Some(since) = failing_since.take() {
                log::info!("Jobs can be taken again, after {:.0?}.", since.elapsed());
            }
            let wait = match answer {
                Ok(Some(taken)) => {
                    backoff.reset();
                    assign(asking, registry, pool, taken);
                    left.count();
                    break;
                }
                Ok(None) => {
                    backoff.reset();
                    poll_interval
                }
                Err(error) => delay(&mut backoff, &error),
            };
            drop(pulse);
            if !shutdown.wait(left.within(wait)) {
                return;
            }
        }
        if shutdown.is_draining() {
            return;
        }
    }
}

/// What may still be taken.
struct Left {
    jobs: Option<u64>,
    until: Option<Instant>,
}

impl Left {
    fn new(limits: Limits) -> Left {
        Left {
            jobs: limits.jobs,
            // A time too long to be told is none.
            until: limits
                .active_time
                .and_then(|time| Instant::now().checked_add(time)),
        }
    }

    fn count(&mut self) {
        self.jobs = self.jobs.map(|jobs| jobs.saturating_sub(1));
    }

    /// Whether a limit is reached; says so in the log.
    fn is_nothing(&self) -> bool {
        if self.jobs == Some(0) {
            log::info!("Taking no more jobs: EXECUTOR_NUM_TOTAL_JOBS is reached.");
            return true;
        }
        let is_over = self.until.is_some_and(|until| Instant::now() >= until);
        if is_over {
            log::info!("Taking no more jobs: EXECUTOR_MAX_ACTIVE_TIME is over.");
        }
        is_over
    }

    /// The wait, but no longer than to the end of the time.
    fn within(&self, wait: Duration) -> Duration {
        match self.until {
            Some(until) => wait.min(until.saturating_duration_since(Instant::now())),
            None => wait,
        }
    }
}

/// Waits for an idle worker. False if a stop was requested or the time is over.
fn worker_is_idle(pool: &Pool<Assignment>, until: Option<Instant>, shutdown: &Shutdown) -> bool {
    select! {
        recv(pool.idle()) -> idle => idle.is_ok() && !shutdown.is_draining(),
        recv(shutdown.drain()) -> _ => false,
        recv(until.map_or_else(never, at)) -> _ => {
            log::info!("Taking no more jobs: EXECUTOR_MAX_ACTIVE_TIME is over.");
            false
        }
    }
}

/// Gives a job to a worker.
fn assign(asking: &Asking<'_>, registry: &Registry, pool: &Pool<Assignment>, taken: Taken) {
    let key = taken.dequeued.ticket().key();
    let place = registry.add(key.clone());
    let run = run_name(&key.queue, key.id, &random_suffix());
    let state = asking
        .state
        .and_then(|state| keep(state, &key, &run, &taken));
    pool.send(Assignment {
        dequeued: taken.dequeued,
        place,
        run,
        state,
        adopted: None,
    });
}

/// Keeps a job for the next process. One that cannot be kept runs all the
/// same; after a crash the server gives it to someone else.
fn keep(state: &Arc<StateDir>, key: &JobKey, run: &str, taken: &Taken) -> Option<JobState> {
    if matches!(taken.dequeued, Dequeued::Malformed(_)) {
        return None;
    }
    match state.take(key, run, &taken.payload) {
        Ok(job) => Some(job),
        Err(error) => {
            let path = state.path().display();
            log::warn!("Job {key} will not outlive a crash: cannot write to {path}: {error}.");
            None
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
