//! The last word on a job: its mark, whatever happens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use crate::backoff::{self, Backoff};
use crate::heartbeat::{Place, Stop};
use crate::job::Outcome;
use crate::metrics::jobs::RunningJob;
use crate::queue::wire::Ticket;
use crate::worker::Shared;

/// The longest that an outage of the server may last at the end of a job. By
/// then the job was long given to another executor.
const OUTAGE_MAX: Duration = Duration::from_secs(3600);

/// Marks the job when dropped, so that a worker that panics loses nothing.
pub(super) struct OnDrop {
    shared: Arc<Shared>,
    ticket: Ticket,
    /// Given back after the mark.
    pub(super) place: Place,
    /// What is reported.
    pub(super) outcome: Outcome,
    began: Instant,
    counted: RunningJob,
}

impl OnDrop {
    pub(super) fn new(shared: &Arc<Shared>, ticket: &Ticket, place: Place) -> OnDrop {
        OnDrop {
            shared: Arc::clone(shared),
            ticket: ticket.clone(),
            place,
            outcome: Outcome::Errored(
                "the executor failed in an unexpected way; its log says more".to_string(),
            ),
            began: Instant::now(),
            counted: shared.metrics.jobs.begin(&ticket.queue),
        }
    }

    /// Tries until the server takes the mark or says that the job is not ours.
    fn mark(&self) {
        let began = Instant::now();
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        loop {
            let error = match self.shared.queue.mark(&self.ticket, &self.outcome) {
                Ok(()) => return,
                Err(error) if error.is_not_ours() => {
                    log::info!("The server has this mark already, or gave the job away.");
                    return;
                }
                Err(error) => error,
            };
            if !error.is_retryable() || began.elapsed() > OUTAGE_MAX {
                log::error!("The job's end could not be reported: {error}.");
                return;
            }
            let wait = backoff.next(backoff::random());
            log::warn!("Cannot report the job's end, next try in {wait:.1?}: {error}.");
            if self.is_lost_within(wait) {
                return;
            }
        }
    }

    /// Waits; true if the server says meanwhile that the job is not ours.
    fn is_lost_within(&self, wait: Duration) -> bool {
        let end = Instant::now() + wait;
        loop {
            match self.place.stops.recv_deadline(end) {
                Ok(Stop::NotOurs) => return true,
                Ok(Stop::Cancelled | Stop::DrainLimit) => {}
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::park_timeout(end.saturating_duration_since(Instant::now()));
                    return false;
                }
            }
        }
    }
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        let (queue, id) = (&self.ticket.queue, self.ticket.id);
        let time = self.began.elapsed();
        match &self.outcome {
            Outcome::Complete => log::info!("Job {queue}/{id} is complete after {time:.1?}."),
            Outcome::Errored(message) | Outcome::Failed(message) => {
                log::info!("Job {queue}/{id} did not succeed after {time:.1?}: {message}.");
            }
            Outcome::Lost => {
                log::info!("Job {queue}/{id} is not ours any more, stopped after {time:.1?}.");
            }
        }
        self.counted.ended(&self.outcome);
        self.mark();
        self.shared.registry.remove(&self.place);
    }
}
