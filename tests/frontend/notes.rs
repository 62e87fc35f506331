//! What is written down about calls beside their effect: every mark that was
//! tried, and what clients should not have done.

use super::record::{JobRef, Mark};
use super::store::Store;

/// Something that a client must hear of, else it may rightly repeat its call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receipt {
    job: JobRef,
    event: Event,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Mark(usize),
    Log(usize),
}

impl Store {
    /// Writes down that a mark was tried, whatever came of it.
    pub(super) fn note_mark(&mut self, job: JobRef, mut mark: Mark) -> Option<Receipt> {
        let view = self.jobs.get_mut(&job)?;
        mark.attempt = view.attempts;
        view.marks.push(mark);
        Some(Receipt {
            job,
            event: Event::Mark(view.marks.len() - 1),
        })
    }

    /// What a client must hear of after `add_log` gave that number.
    pub(super) fn log_receipt(job: JobRef, id: usize) -> Receipt {
        Receipt {
            job,
            event: Event::Log(id - 1),
        }
    }

    /// The answer never left: a repeat of the call is no fault of the client.
    pub(super) fn answer_lost(&mut self, receipt: Receipt) {
        let Some(view) = self.jobs.get_mut(&receipt.job) else {
            return;
        };
        match receipt.event {
            Event::Mark(index) => view.marks[index].answered = false,
            Event::Log(index) => {
                if let Some(entry) = view.logs.get_mut(index) {
                    entry.answered = false;
                }
            }
        }
    }

    /// Writes down a call that comes after the same executor's mark was
    /// accepted and answered.
    pub(super) fn note_call(&mut self, job: JobRef, executor: &str, endpoint: &str) {
        let Some(view) = self.jobs.get(&job) else {
            return;
        };
        let is_late = view.marks.iter().any(|mark| {
            mark.status == 204
                && mark.answered
                && mark.attempt == view.attempts
                && mark.executor == executor
        });
        if is_late {
            self.violations
                .push(format!("job {job}: {endpoint} after the mark"));
        }
    }

    /// Writes down that a job's call came with the executor token although the
    /// job has a token of its own.
    pub(super) fn note_executor_token(&mut self, job: JobRef, endpoint: &str) {
        if self.record(job).is_some_and(|view| view.token.is_some()) {
            self.violations.push(format!(
                "job {job}: {endpoint} with the executor token instead of the job's own"
            ));
        }
    }
}
