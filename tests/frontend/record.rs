//! What the stand-in knows about one job, as tests get to see it.
//!
//! Plain values; how they change is in `store`.

use std::fmt;
use std::time::Instant;

use serde_json::Value;

use super::spec::JobSpec;

/// One of the server's queues; each has its own sequence of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Queue {
    /// Batch changes.
    Batches,
    /// Code intelligence.
    Codeintel,
}

impl Queue {
    /// The queue with that name on the wire.
    pub(crate) fn named(name: &str) -> Option<Queue> {
        match name {
            "batches" => Some(Queue::Batches),
            "codeintel" => Some(Queue::Codeintel),
            _ => None,
        }
    }

    /// Name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Queue::Batches => "batches",
            Queue::Codeintel => "codeintel",
        }
    }
}

/// Names one job of the stand-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct JobRef {
    /// The queue whose sequence the id belongs to.
    pub(crate) queue: Queue,
    /// Number inside the queue, from 1.
    pub(crate) id: i64,
}

impl fmt::Display for JobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.id, self.queue.name())
    }
}

/// Where a job stands.
#[derive(Clone, Debug)]
pub(crate) enum JobState {
    /// Waits for an executor.
    Queued,
    /// An executor has it.
    Processing {
        /// Who took it.
        executor: String,
        /// When it was last heard of; the dequeue counts as the first time.
        last_heartbeat: Instant,
    },
    /// Marked complete, with results where results are required.
    Completed,
    /// Marked errored. With the queues' retry limit of 0 this is final too.
    Errored {
        /// What the executor said.
        message: String,
    },
    /// Marked failed, or failed by the server itself.
    Failed {
        /// What the executor or the server said.
        message: String,
    },
    /// Ended after a person had asked for it.
    Canceled,
}

impl JobState {
    /// Whether nothing will happen to the job any more.
    pub(crate) fn is_final(&self) -> bool {
        !matches!(self, JobState::Queued | JobState::Processing { .. })
    }

    /// Name of the state, as on the server.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Processing { .. } => "processing",
            JobState::Completed => "completed",
            JobState::Errored { .. } => "errored",
            JobState::Failed { .. } => "failed",
            JobState::Canceled => "canceled",
        }
    }

    /// What was said about the failure, if it is one.
    pub(crate) fn message(&self) -> Option<&str> {
        match self {
            JobState::Errored { message } | JobState::Failed { message } => Some(message),
            _ => None,
        }
    }
}

/// An execution log record.
#[derive(Clone, Debug)]
pub(crate) struct LogEntry {
    /// Which part of the job it is about.
    pub(crate) key: String,
    /// What was run, if anything.
    pub(crate) command: Option<Vec<String>>,
    /// When it began.
    pub(crate) start_time: jiff::Timestamp,
    /// How it ended, once known.
    pub(crate) exit_code: Option<i64>,
    /// The output so far.
    pub(crate) out: String,
    /// How long it took, once known.
    pub(crate) duration_ms: Option<i64>,
    /// How often it has been replaced since it was added.
    pub(crate) updates: u32,
    /// Whether the add call's answer got on its way to the client.
    pub(super) answered: bool,
}

/// The three ways to report the end of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MarkKind {
    /// It succeeded.
    Complete,
    /// It failed, and another try may help.
    Errored,
    /// It failed for good.
    Failed,
}

impl MarkKind {
    /// Last part of the path of the call.
    pub(crate) fn endpoint(self) -> &'static str {
        match self {
            MarkKind::Complete => "markComplete",
            MarkKind::Errored => "markErrored",
            MarkKind::Failed => "markFailed",
        }
    }
}

/// One attempt to report the end of a job, whether or not it was let in.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    /// Which report.
    pub(crate) kind: MarkKind,
    /// Who sent it; empty when the call did not tell.
    pub(crate) executor: String,
    /// The error's text, for the two that have one.
    pub(crate) message: Option<String>,
    /// What the stand-in answered.
    pub(crate) status: u16,
    /// Which dequeue of the job was current at that time.
    pub(crate) attempt: u32,
    /// When it came.
    pub(crate) at: Instant,
    /// Whether the answer got on its way to the client.
    pub(super) answered: bool,
}

/// What is handed out for a job.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    /// Written anew at each dequeue, in the encoding asked for.
    Spec(JobSpec),
    /// A value that a test made up, with the missing parts filled in.
    Raw(Value),
    /// A body that need not even be JSON.
    Text(String),
}

/// A job with all that happened to it. Tests get a clone.
#[derive(Clone, Debug)]
pub(crate) struct JobView {
    /// Its name.
    pub(crate) job: JobRef,
    /// Where it stands.
    pub(crate) state: JobState,
    /// What executors get to see.
    pub(crate) payload: Payload,
    /// Log entries of the current attempt; a dequeue clears them.
    pub(crate) logs: Vec<LogEntry>,
    /// How often it was dequeued.
    pub(crate) attempts: u32,
    /// When it was handed out last.
    pub(crate) dequeued_at: Option<Instant>,
    /// How often it was taken back from a silent executor.
    pub(crate) resets: u32,
    /// Every mark of every attempt, in order of arrival.
    pub(crate) marks: Vec<Mark>,
    /// Whether a person asked to end it.
    pub(crate) cancel_requested: bool,
    /// The token that is good for the job now; none before the first dequeue,
    /// after a mark, and where job tokens do not exist.
    pub(crate) token: Option<String>,
    /// Whether the record was removed; then no call finds it any more.
    pub(crate) forgotten: bool,
    /// When it entered the queue, as a number that grows over all queues.
    pub(super) order: u64,
    /// Whether the present silence of its holder has been written down.
    pub(super) silence_noted: bool,
}

impl JobView {
    /// The executor that has the job now.
    pub(crate) fn holder(&self) -> Option<&str> {
        match &self.state {
            JobState::Processing { executor, .. } => Some(executor),
            _ => None,
        }
    }

    /// The log entry with that key.
    pub(crate) fn log(&self, key: &str) -> Option<&LogEntry> {
        self.logs.iter().find(|entry| entry.key == key)
    }

    /// The output of all entries, each under its key.
    pub(crate) fn log_text(&self) -> String {
        self.logs
            .iter()
            .map(|entry| format!("[{}]\n{}", entry.key, entry.out))
            .collect()
    }

    /// The accepted mark, if there is one.
    pub(crate) fn accepted_mark(&self) -> Option<&Mark> {
        self.marks.iter().find(|mark| mark.status == 204)
    }

    /// The text of the failure; empty when there is none.
    pub(crate) fn message(&self) -> &str {
        self.state.message().unwrap_or_default()
    }

    /// The repository that the job's token is good for.
    pub(super) fn repository(&self) -> &str {
        match &self.payload {
            Payload::Spec(spec) => &spec.repository,
            Payload::Raw(value) => value["repositoryName"].as_str().unwrap_or_default(),
            Payload::Text(_) => "",
        }
    }

    /// Whether the server reads results out of this job's logs before it
    /// believes that the job is complete. The real one does so for every job
    /// of `batches`; here only for those with a step whose key ends in
    /// `.post`, so that most tests can do with a plain `echo`.
    pub(super) fn needs_results(&self) -> bool {
        let has_post_step = match &self.payload {
            Payload::Spec(spec) => spec.steps.iter().any(|step| step.key.ends_with(".post")),
            Payload::Raw(value) => value["dockerSteps"].as_array().is_some_and(|steps| {
                let key = |step: &Value| step["key"].as_str().unwrap_or_default().to_owned();
                steps.iter().any(|step| key(step).ends_with(".post"))
            }),
            Payload::Text(_) => false,
        };
        self.job.queue == Queue::Batches && has_post_step
    }

    /// The results that the server would find in the logs, in order.
    pub(crate) fn step_results(&self) -> Vec<Value> {
        let results = |entry: &LogEntry| -> Vec<Value> {
            let events = entry.out.lines().filter_map(|line| {
                serde_json::from_str::<Value>(line.strip_prefix("stdout: ")?).ok()
            });
            events
                .filter(|event| event["operation"] == "CACHE_AFTER_STEP_RESULT")
                .collect()
        };
        self.logs
            .iter()
            .filter(|entry| entry.key.ends_with(".post"))
            .flat_map(results)
            .collect()
    }
}
