//! The last word on a job: its mark, whatever happens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use crate::backoff::{self, Backoff};
use crate::heartbeat::{Place, Stop};
use crate::job::Outcome;
use crate::metrics::jobs::{PANICKED, RunningJob};
use crate::queue::wire::Ticket;
use crate::state::JobState;
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
    /// Where the job is kept for the next process, if it is.
    pub(super) state: Option<JobState>,
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
            state: None,
            began: Instant::now(),
            counted: shared.workplace.metrics.jobs.begin(&ticket.queue),
        }
    }

    /// Tries until the server takes the mark or says that the job is not ours.
    /// False if the next process is to go on trying.
    fn mark(&self) -> bool {
        let began = Instant::now();
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        // What came during the clean-up was not looked at yet.
        if let Some(is_over) = self.is_over_within(Duration::ZERO) {
            return is_over;
        }
        loop {
            let error = match self.shared.queue.mark(&self.ticket, &self.outcome) {
                Ok(()) => return true,
                Err(error) if error.is_not_ours() => {
                    log::info!("The server has this mark already, or gave the job away.");
                    return true;
                }
                Err(error) => error,
            };
            if !error.is_retryable() || began.elapsed() > OUTAGE_MAX {
                log::error!("Its end stays unreported, so that it will run again: {error}.");
                return true;
            }
            let wait = backoff.next(backoff::random());
            log::warn!("Cannot report its end, next try in {wait:.1?}: {error}.");
            if let Some(is_over) = self.is_over_within(wait) {
                return is_over;
            }
        }
    }

    /// Waits; if there is no more to try here, tells whether that is the end
    /// of it, or the next process goes on.
    fn is_over_within(&self, wait: Duration) -> Option<bool> {
        let end = Instant::now() + wait;
        loop {
            match self.place.stops.recv_deadline(end) {
                Ok(Stop::NotOurs) => return Some(true),
                Ok(Stop::Handover) if self.state.is_some() => return Some(false),
                Ok(Stop::Cancelled | Stop::DrainLimit | Stop::Handover) => {}
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::park_timeout(end.saturating_duration_since(Instant::now()));
                    return None;
                }
            }
        }
    }
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        let time = self.began.elapsed();
        match &self.outcome {
            Outcome::Complete => log::info!("Complete after {time:.1?}."),
            Outcome::Errored(message) | Outcome::Failed(message) => {
                let message = message.trim_end_matches('.');
                log::info!("No success after {time:.1?}: {message}.");
            }
            Outcome::Lost => log::info!("It is not ours any more, stopped after {time:.1?}."),
            Outcome::HandedOver => log::info!("It is left to the next process."),
        }
        self.counted.ended(&self.outcome);
        if std::thread::panicking() {
            self.shared.workplace.metrics.jobs.failed(PANICKED);
        }
        // A job that is handed over stays in every heartbeat to the last one.
        let is_over = self.outcome != Outcome::HandedOver && self.mark();
        if is_over {
            if let Some(state) = &self.state {
                state.done();
            }
            self.shared.registry.remove(&self.place);
        }
    }
}
