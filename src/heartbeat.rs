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
use crate::queue::client::QueueClient;
use crate::queue::wire::heartbeat::HeartbeatAnswer;
use crate::shutdown::Nothing;

/// The server takes five missed ones for a dead executor.
const INTERVAL: Duration = Duration::from_secs(5);

/// After one that failed the next follows sooner.
const INTERVAL_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Why a job must stop before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A user cancelled it.
    Cancelled,
    /// The server gave it to someone else, or does not know it.
    NotOurs,
    /// The executor stops, and the time to drain is over.
    DrainLimit,
}

/// The jobs that run here, from dequeue to mark.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<BTreeMap<JobKey, Running>>>);

struct Running {
    stop: Sender<Stop>,
    /// Tells this attempt from others at the same job.
    stops: Receiver<Stop>,
    cancelled: bool,
}

/// The place of one attempt at a job in the registry.
pub struct Place {
    key: JobKey,
    /// Brings every reason to stop.
    pub stops: Receiver<Stop>,
}

impl Registry {
    /// Adds a job; `None` if it runs here already.
    pub fn add(&self, key: JobKey) -> Option<Place> {
        let mut jobs = self.lock();
        if jobs.contains_key(&key) {
            return None;
        }
        // A cancellation, a loss and the drain limit can come once each.
        let (stop, stops) = bounded(3);
        jobs.insert(
            key.clone(),
            Running {
                stop,
                stops: stops.clone(),
                cancelled: false,
            },
        );
        Some(Place { key, stops })
    }

    /// Removes a job after its mark. The server may have given a lost job to
    /// us again meanwhile: that attempt has a place of its own and keeps it.
    pub fn remove(&self, place: &Place) {
        let mut jobs = self.lock();
        let is_same = |running: &Running| place.stops.same_channel(&running.stops);
        if jobs.get(&place.key).is_some_and(is_same) {
            jobs.remove(&place.key);
        }
    }

    /// Whether an attempt at this job is there.
    pub fn has(&self, key: &JobKey) -> bool {
        self.lock().contains_key(key)
    }

    /// Number of jobs that run here.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no job runs here.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Stops every job, because the time to drain is over.
    pub fn stop_all(&self) {
        for running in self.lock().values() {
            let _ = running.stop.try_send(Stop::DrainLimit);
        }
    }

    fn keys(&self) -> Vec<JobKey> {
        self.lock().keys().cloned().collect()
    }

    /// Acts on an answer: only jobs that were sent are judged by it, since a
    /// job that was dequeued meanwhile cannot be in it.
    fn apply(&self, sent: &[JobKey], answer: &HeartbeatAnswer) {
        let mut jobs = self.lock();
        for key in sent {
            if answer.cancel.contains(key) {
                match jobs.get_mut(key) {
                    Some(running) if !running.cancelled => {
                        running.cancelled = true;
                        let _ = running.stop.try_send(Stop::Cancelled);
                    }
                    _ => {}
                }
            } else if !answer.known.contains(key)
                && let Some(running) = jobs.remove(key)
            {
                let _ = running.stop.try_send(Stop::NotOurs);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobKey, Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running heartbeat; `stop` ends it.
pub struct Heartbeat {
    stop: Sender<Nothing>,
    thread: JoinHandle<()>,
}

impl Heartbeat {
    /// Starts the thread.
    pub fn start(queue: QueueClient, registry: Registry) -> std::io::Result<Heartbeat> {
        let (stop, stopped) = bounded(0);
        let thread = std::thread::Builder::new()
            .name("heartbeat".to_string())
            .stack_size(256 * 1024)
            .spawn(move || run(&queue, &registry, &stopped))?;
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

fn run(queue: &QueueClient, registry: &Registry, stopped: &Receiver<Nothing>) {
    let mut failing_since: Option<Instant> = None;
    let mut next = Instant::now() + INTERVAL;
    while stopped.recv_deadline(next) == Err(RecvTimeoutError::Timeout) {
        next = Instant::now() + INTERVAL;
        let sent = registry.keys();
        match queue.heartbeat(&sent) {
            Ok(answer) => {
                if let Some(since) = failing_since.take() {
                    log::info!("Heartbeats arrive again, after {:.0?}.", since.elapsed());
                }
                registry.apply(&sent, &answer);
            }
            Err(error) => {
                if failing_since.is_none() {
                    log::warn!(
                        "A heartbeat failed; after 25 s without one the server gives our jobs \
                         to other executors: {error}."
                    );
                }
                failing_since.get_or_insert_with(Instant::now);
                next = Instant::now() + INTERVAL_AFTER_FAILURE;
            }
        }
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

    #[test]
    fn a_job_the_server_forgot_is_stopped() {
        let registry = Registry::default();
        let stops = registry.add(key(17)).unwrap().stops;
        registry.apply(&[key(17)], &answer(&[], &[]));
        assert_eq!(stops.try_recv(), Ok(Stop::NotOurs));
        assert!(registry.is_empty(), "it is not in the next heartbeat");
    }

    #[test]
    fn a_job_dequeued_meanwhile_is_not_judged() {
        let registry = Registry::default();
        let stops = registry.add(key(18)).unwrap().stops;
        registry.apply(&[key(17)], &answer(&[17], &[]));
        assert!(stops.is_empty());
    }

    #[test]
    fn a_cancelled_job_is_told_once_and_kept() {
        let registry = Registry::default();
        let stops = registry.add(key(17)).unwrap().stops;
        registry.apply(&[key(17)], &answer(&[17], &[17]));
        registry.apply(&[key(17)], &answer(&[17], &[17]));
        assert_eq!(stops.try_iter().collect::<Vec<_>>(), [Stop::Cancelled]);
        assert_eq!(registry.len(), 1);
    }

    #[test]
    fn a_lost_attempt_leaves_the_next_alone() {
        let registry = Registry::default();
        let lost = registry.add(key(17)).unwrap();
        registry.apply(&[key(17)], &answer(&[], &[]));
        let again = registry.add(key(17)).unwrap();
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
        let stops = registry.add(key(17)).unwrap().stops;
        assert!(registry.add(other.clone()).is_some());
        registry.apply(&[key(17), other], &answer(&[17], &[]));
        assert!(stops.is_empty(), "the job of the first queue goes on");
        assert_eq!(registry.len(), 1);
    }

    #[test]
    fn a_job_runs_here_once_only() {
        let registry = Registry::default();
        assert!(registry.add(key(17)).is_some());
        assert!(registry.add(key(17)).is_none());
    }
}
