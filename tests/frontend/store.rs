//! The server's tables: records, repositories, files, what was requested.
//!
//! Every rule on how a record may change is here. No HTTP: calls are plain
//! functions that say whether they found the job.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::journal::{ExecutorView, Journal};
use super::record::{JobRef, JobState, JobView, LogEntry, MarkKind, Payload, Queue};

/// How often a job may fall silent before the server gives it up.
const RESETS_MAX: u32 = 3;

/// What the server says about a job that it gave up.
const GIVEN_UP: &str = "job processor died while handling this message too many times";

/// A holder that says nothing for longer breaks the rule of one heartbeat
/// every five seconds.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// All that the stand-in remembers.
#[derive(Default)]
pub(super) struct Store {
    /// Every job ever enqueued, removed ones too.
    pub(super) jobs: BTreeMap<JobRef, JobView>,
    /// Where each repository is on disk.
    pub(super) repositories: BTreeMap<String, PathBuf>,
    /// The file store, by `<spec>/<file>`.
    pub(super) files: BTreeMap<String, Arc<Vec<u8>>>,
    /// Who has sent heartbeats, by name.
    pub(super) executors: BTreeMap<String, ExecutorView>,
    /// What was requested.
    pub(super) journal: Journal,
    /// Every job token that was handed out.
    pub(super) tokens: Vec<String>,
    /// Trouble that has not struck yet.
    pub(super) faults: Vec<Fault>,
    /// What clients should not have done.
    pub(super) violations: Vec<String>,
    /// The most jobs that were ever processed at once.
    pub(super) max_processing: usize,
    /// Grows with each outage and at the end; whoever waits inside a request
    /// sees by it that the request is over.
    pub(super) epoch: u64,
    /// Since when it answers; none in an outage.
    pub(super) up_since: Option<Instant>,
    /// Whether the frontend is over.
    pub(super) is_ended: bool,
    orders: u64,
}

impl Store {
    /// Puts a job at the end of its queue.
    pub(super) fn enqueue(&mut self, queue: Queue, payload: Payload) -> JobRef {
        self.orders += 1;
        let id = 1 + self.jobs.keys().filter(|job| job.queue == queue).count() as i64;
        let job = JobRef { queue, id };
        let view = JobView {
            job,
            state: JobState::Queued,
            payload,
            logs: Vec::new(),
            attempts: 0,
            dequeued_at: None,
            resets: 0,
            marks: Vec::new(),
            cancel_requested: false,
            token: None,
            forgotten: false,
            order: self.orders,
            silence_noted: false,
        };
        self.jobs.insert(job, view);
        job
    }

    /// The record as calls see it: one that was removed is not there.
    pub(super) fn record(&self, job: JobRef) -> Option<&JobView> {
        self.jobs.get(&job).filter(|view| !view.forgotten)
    }

    /// The record, if that executor has it.
    fn held(&mut self, job: JobRef, executor: &str) -> Option<&mut JobView> {
        let view = self.jobs.get_mut(&job)?;
        (!view.forgotten && view.holder() == Some(executor)).then_some(view)
    }

    /// Hands out the job that has waited longest in any of the queues. Its old
    /// logs and its old token are gone from then on.
    pub(super) fn dequeue(&mut self, queues: &[Queue], executor: &str) -> Option<JobRef> {
        let waiting = |view: &&mut JobView| {
            !view.forgotten
                && matches!(view.state, JobState::Queued)
                && queues.contains(&view.job.queue)
        };
        let view = self
            .jobs
            .values_mut()
            .filter(waiting)
            .min_by_key(|view| view.order)?;
        view.state = JobState::Processing {
            executor: executor.to_owned(),
            last_heartbeat: Instant::now(),
        };
        view.attempts += 1;
        view.dequeued_at = Some(Instant::now());
        view.logs.clear();
        view.token = None;
        view.silence_noted = false;
        let job = view.job;
        let processing = self
            .jobs
            .values()
            .filter(|view| view.holder().is_some())
            .count();
        self.max_processing = self.max_processing.max(processing);
        Some(job)
    }

    /// Takes note that an executor still works on a job. `None` when the job
    /// is not its own; else whether it should be stopped.
    pub(super) fn beat(&mut self, job: JobRef, executor: &str) -> Option<bool> {
        let view = self.held(job, executor)?;
        view.state = JobState::Processing {
            executor: executor.to_owned(),
            last_heartbeat: Instant::now(),
        };
        view.silence_noted = false;
        Some(view.cancel_requested)
    }

    /// Adds a log entry and gives its number.
    pub(super) fn add_log(
        &mut self,
        job: JobRef,
        executor: &str,
        entry: LogEntry,
    ) -> Option<usize> {
        let view = self.held(job, executor)?;
        let earlier = view.logs.iter().find(|log| log.key == entry.key);
        let doubled = earlier
            .is_some_and(|log| log.answered)
            .then(|| format!("job {job}: a second log entry with the key {}", entry.key));
        view.logs.push(entry);
        let id = view.logs.len();
        self.violations.extend(doubled);
        Some(id)
    }

    /// Replaces a log entry.
    pub(super) fn update_log(
        &mut self,
        job: JobRef,
        executor: &str,
        id: i64,
        entry: LogEntry,
    ) -> Option<()> {
        let view = self.held(job, executor)?;
        let index = usize::try_from(id).ok()?.checked_sub(1)?;
        let old = view.logs.get_mut(index)?;
        let mut faults = Vec::new();
        if old.key != entry.key {
            faults.push(format!(
                "job {job}: log key {} became {}",
                old.key, entry.key
            ));
        }
        if old.out.len() > entry.out.len() {
            let (was, is) = (old.out.len(), entry.out.len());
            faults.push(format!(
                "job {job}: log {} shrank from {was} to {is} bytes",
                old.key
            ));
        }
        let updates = old.updates + 1;
        let answered = old.answered;
        *old = LogEntry {
            updates,
            answered,
            ..entry
        };
        self.violations.extend(faults);
        Some(())
    }

    /// Ends a job. The token goes with it.
    pub(super) fn mark(
        &mut self,
        job: JobRef,
        executor: &str,
        kind: MarkKind,
        message: &str,
    ) -> Option<()> {
        let view = self.held(job, executor)?;
        let message = message.to_owned();
        view.state = match kind {
            MarkKind::Complete if view.needs_results() && view.step_results().is_empty() => {
                JobState::Failed {
                    message: "found no step results".to_owned(),
                }
            }
            MarkKind::Complete => JobState::Completed,
            MarkKind::Errored | MarkKind::Failed if view.cancel_requested => JobState::Canceled,
            MarkKind::Errored => JobState::Errored { message },
            MarkKind::Failed => JobState::Failed { message },
        };
        view.token = None;
        Some(())
    }

    /// Takes a job back, as the resetter does: its token is good until the
    /// next dequeue replaces it, yet its holder is not its holder any more.
    pub(super) fn take_back(&mut self, job: JobRef) {
        let Some(view) = self.jobs.get_mut(&job) else {
            return;
        };
        if view.holder().is_none() {
            return;
        }
        view.state = if view.resets < RESETS_MAX {
            view.resets += 1;
            JobState::Queued
        } else {
            JobState::Failed {
                message: GIVEN_UP.to_owned(),
            }
        };
    }

    /// One round of the resetter: takes back what has been silent for too
    /// long. Tells whether anything changed.
    pub(super) fn reset_stalled(&mut self, stall_limit: Duration) -> bool {
        let mut stalled = Vec::new();
        // In an outage nobody can send a heartbeat, nor right after it.
        let could_beat = self
            .up_since
            .is_some_and(|since| since.elapsed() > SILENCE_MAX);
        for view in self.jobs.values_mut().filter(|view| !view.forgotten) {
            let JobState::Processing {
                executor,
                last_heartbeat,
            } = &view.state
            else {
                continue;
            };
            let silence = last_heartbeat.elapsed();
            if could_beat && silence > SILENCE_MAX && !view.silence_noted {
                view.silence_noted = true;
                self.violations.push(format!(
                    "job {}: no heartbeat of {executor} for {silence:.1?}",
                    view.job
                ));
            }
            if silence > stall_limit {
                stalled.push(view.job);
            }
        }
        for job in &stalled {
            self.take_back(*job);
        }
        !stalled.is_empty()
    }

    /// A person asks to end a job: at once when it waits, through the
    /// heartbeat when an executor has it.
    pub(super) fn cancel(&mut self, job: JobRef) {
        let Some(view) = self.jobs.get_mut(&job) else {
            return;
        };
        match view.state {
            JobState::Queued => view.state = JobState::Canceled,
            JobState::Processing { .. } => view.cancel_requested = true,
            _ => {}
        }
    }
}
