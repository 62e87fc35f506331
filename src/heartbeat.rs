//! Keeps the server informed of the jobs that run here, and hears from it
//! which of them were cancelled or are not ours any more.
//!
//! A thread of its own that nothing else can block: a job whose heartbeats
//! stop for 25 s is given to another executor.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::job::JobKey;
use crate::metrics::pulse::Pulses;
use crate::queue::client::QueueClient;
use crate::queue::error::QueueError;
use crate::queue::wire::heartbeat::HeartbeatAnswer;
use crate::shutdown::Nothing;
use crate::supervisor::Supervisor;

/// The server takes five missed ones for a dead executor.
const INTERVAL: Duration = Duration::from_secs(5);

/// After one that failed the next follows sooner.
const INTERVAL_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// By when the next one has begun: one that fails takes three calls of 8 s.
const LATE: Duration = Duration::from_secs(90);

/// Why a job must stop before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A user cancelled it.
    Cancelled,
    /// The server gave it to someone else, or does not know it.
    NotOurs,
    /// The executor stops, and the time to drain is over.
    DrainLimit,
    /// The executor stops, and the next process goes on with the job.
    Handover,
}

/// The jobs that run here, from dequeue to mark.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<Jobs>>);

#[derive(Default)]
struct Jobs {
    running: BTreeMap<JobKey, Running>,
    /// How many attempts were ever added.
    attempts: u64,
}

/// One attempt at a job, as a heartbeat names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The job.
    pub key: JobKey,
    /// Tells it from others at the same job.
    number: u64,
}

struct Running {
    number: u64,
    stop: Sender<Stop>,
    cancelled: bool,
}

/// The place of one attempt at a job in the registry.
pub struct Place {
    attempt: Attempt,
    /// Brings every reason to stop.
    pub stops: Receiver<Stop>,
}

impl Registry {
    /// Adds a job that was handed out. If it runs here already, that attempt is
    /// lost: the server hands out only what it holds for nobody's.
    pub fn add(&self, key: JobKey) -> Place {
        let mut jobs = self.lock();
        jobs.attempts += 1;
        let number = jobs.attempts;
        let (stop, stops) = stops();
        let running = Running {
            number,
            stop,
            cancelled: false,
        };
        if let Some(older) = jobs.running.insert(key.clone(), running) {
            log::warn!("Job {key} was handed out again while it runs here; the older one stops.");
            let _ = older.stop.try_send(Stop::NotOurs);
        }
        let attempt = Attempt { key, number };
        Place { attempt, stops }
    }

    /// A place beside the registry for an attempt that is lost already, and
    /// has to be cleaned up.
    pub fn lost(key: JobKey) -> Place {
        let (stop, stops) = stops();
        let _ = stop.try_send(Stop::NotOurs);
        let attempt = Attempt { key, number: 0 };
        Place { attempt, stops }
    }

    /// Whether an attempt at this job is there.
    pub fn has(&self, key: &JobKey) -> bool {
        self.lock().running.contains_key(key)
    }

    /// Removes a job after its mark. The server may have given a lost job to
    /// us again meanwhile: that attempt has a place of its own and keeps it.
    pub fn remove(&self, place: &Place) {
        let mut jobs = self.lock();
        jobs.take(&place.attempt);
    }

    /// Number of jobs that run here.
    pub fn len(&self) -> usize {
        self.lock().running.len()
    }

    /// Whether no job runs here.
    pub fn is_empty(&self) -> bool {
        self.lock().running.is_empty()
    }

    /// Stops every job, because the executor ends.
    pub fn stop_all(&self, stop: Stop) {
        for running in self.lock().running.values() {
            let _ = running.stop.try_send(stop);
        }
    }

    /// All attempts, in the order of their queues.
    pub fn attempts(&self) -> Vec<Attempt> {
        let jobs = self.lock();
        let attempts = jobs.running.iter().map(|(key, running)| Attempt {
            key: key.clone(),
            number: running.number,
        });
        attempts.collect()
    }

    /// Sends a heartbeat for all jobs and acts on the answer: only attempts
    /// that were in the question are judged by it, since a job that was
    /// dequeued meanwhile cannot be in it.
    pub fn beat(&self, queue: &QueueClient) -> Result<(), QueueError> {
        let sent = self.attempts();
        let keys: Vec<JobKey> = sent.iter().map(|attempt| attempt.key.clone()).collect();
        let answer = queue.heartbeat(&keys)?;
        self.apply(&sent, &answer);
        Ok(())
    }

    fn apply(&self, sent: &[Attempt], answer: &HeartbeatAnswer) {
        let mut jobs = self.lock();
        for attempt in sent {
            if answer.cancel.contains(&attempt.key) {
                match jobs.get(attempt) {
                    Some(running) if !running.cancelled => {
                        running.cancelled = true;
                        let _ = running.stop.try_send(Stop::Cancelled);
                    }
                    _ => {}
                }
            } else if !answer.known.contains(&attempt.key)
                && let Some(running) = jobs.take(attempt)
            {
                let _ = running.stop.try_send(Stop::NotOurs);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Jobs {
    fn get(&mut self, attempt: &Attempt) -> Option<&mut Running> {
        let running = self.running.get_mut(&attempt.key);
        running.filter(|running| running.number == attempt.number)
    }

    fn take(&mut self, attempt: &Attempt) -> Option<Running> {
        self.get(attempt)?;
        self.running.remove(&attempt.key)
    }
}

/// A cancellation, a loss and an end of the executor can come once each, and
/// another end after a limit.
fn stops() -> (Sender<Stop>, Receiver<Stop>) {
    bounded(4)
}

/// The running heartbeat; `stop` ends it.
pub struct Heartbeat {
    stop: Sender<Nothing>,
    thread: JoinHandle<()>,
}

impl Heartbeat {
    /// Starts the thread.
    pub fn start(
        queue: QueueClient,
        registry: Registry,
        (pulses, supervisor): (Pulses, Supervisor),
    ) -> std::io::Result<Heartbeat> {
        let (stop, stopped) = bounded(0);
        let thread = std::thread::Builder::new()
            .name("heartbeat".to_string())
            .stack_size(256 * 1024)
            .spawn(move || run(&queue, &registry, (&pulses, &supervisor), &stopped))?;
        Ok(Heartbeat { stop, thread })
    }

    /// Ends the thread and waits for it.
    pub fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            log::error!("The heartbeat thread panicked.");
        }
    }
}

fn run(
    queue: &QueueClient,
    registry: &Registry,
    (pulses, supervisor): (&Pulses, &Supervisor),
    stopped: &Receiver<Nothing>,
) {
    let mut failing_since: Option<Instant> = None;
    let mut next = Instant::now() + INTERVAL;
    let mut pulse = pulses.of_thread("heartbeat", LATE);
    while stopped.recv_deadline(next) == Err(RecvTimeoutError::Timeout) {
        pulse = pulses.of_thread("heartbeat", LATE);
        next = Instant::now() + INTERVAL;
        // A round that does not end costs all jobs, which the next process
        // could go on with.
        supervisor.alive();
        match registry.beat(queue) {
            Ok(()) => {
                if let Some(since) = failing_since.take() {
                    log::info!("Heartbeats arrive again, after {:.0?}.", since.elapsed());
                }
            }
            Err(error) => {
                if failing_since.is_none() {
                    log::warn!(
                        "A heartbeat failed; after 25 s without one the server gives our jobs \
                         to other executors: {error}."
                    );
                }
                failing_since.get_or_insert_with(Instant::now);
                // A token that is refused stays so until a person acts.
                if !error.is_unauthorized() {
                    next = Instant::now() + INTERVAL_AFTER_FAILURE;
                }
            }
        }
    }
    drop(pulse);
    // Jobs that are handed over have the whole time from now on.
    if !registry.is_empty() {
        let _ = registry.beat(queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: i64) -> JobKey {
        JobKey {
            queue: "batches".to_string(),
            id,
        }
    }

    fn answer(known: &[i64], cancel: &[i64]) -> HeartbeatAnswer {
        HeartbeatAnswer {
            known: known.iter().copied().map(key).collect(),
            cancel: cancel.iter().copied().map(key).collect(),
        }
    }

    fn attempt(place: &Place) -> Attempt {
        place.attempt.clone()
    }

    #[test]
    fn a_job_the_server_forgot_is_stopped() {
        let registry = Registry::default();
        let place = registry.add(key(17));
        registry.apply(&[attempt(&place)], &answer(&[], &[]));
        assert_eq!(place.stops.try_recv(), Ok(Stop::NotOurs));
        assert!(registry.is_empty(), "it is not in the next heartbeat");
    }

    #[test]
    fn a_job_dequeued_meanwhile_is_not_judged() {
        let registry = Registry::default();
        let first = registry.add(key(17));
        let sent = registry.attempts();
        let second = registry.add(key(18));
        registry.remove(&first);
        let again = registry.add(key(17));
        registry.apply(&sent, &answer(&[], &[]));
        assert!(second.stops.is_empty() && again.stops.is_empty());
    }

    #[test]
    fn a_cancelled_job_is_told_once_and_kept() {
        let registry = Registry::default();
        let place = registry.add(key(17));
        for _ in 0..2 {
            registry.apply(&[attempt(&place)], &answer(&[17], &[17]));
        }
        assert_eq!(
            place.stops.try_iter().collect::<Vec<_>>(),
            [Stop::Cancelled]
        );
        assert_eq!(registry.len(), 1);
    }

    #[test]
    fn a_lost_attempt_leaves_the_next_alone() {
        let registry = Registry::default();
        let lost = registry.add(key(17));
        registry.apply(&[attempt(&lost)], &answer(&[], &[]));
        let again = registry.add(key(17));
        registry.remove(&lost);
        assert_eq!(registry.len(), 1, "heartbeats go on for the new attempt");
        registry.remove(&again);
        assert!(registry.is_empty());
    }

    #[test]
    fn ids_of_two_queues_do_not_meet() {
        let registry = Registry::default();
        let other = JobKey {
            queue: "codeintel".to_string(),
            id: 17,
        };
        let place = registry.add(key(17));
        registry.add(other);
        registry.apply(&registry.attempts(), &answer(&[17], &[]));
        assert!(place.stops.is_empty(), "the job of the first queue goes on");
        assert_eq!(registry.len(), 1);
    }

    #[test]
    fn of_two_attempts_the_older_stops() {
        let registry = Registry::default();
        let older = registry.add(key(17));
        let newer = registry.add(key(17));
        assert_eq!(older.stops.try_recv(), Ok(Stop::NotOurs));
        assert!(newer.stops.is_empty());
        registry.remove(&older);
        assert_eq!(registry.len(), 1);
    }
}
