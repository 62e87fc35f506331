//! Calls to Sourcegraph and requests to Kubernetes.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Gauge, IntCounter, IntCounterVec};

use crate::metrics::{Errors, Maker, Operation, ServerErrors, now};

/// The calls of the executor API, each with the released executor's name.
const CALLS: [(&str, &str); 7] = [
    ("dequeue", "Dequeue"),
    (HEARTBEAT, "Heartbeat"),
    ("addExecutionLogEntry", "AddExecutionLogEntry"),
    ("updateExecutionLogEntry", "UpdateExecutionLogEntry"),
    ("markComplete", "MarkComplete"),
    ("markErrored", "MarkErrored"),
    ("markFailed", "MarkFailed"),
];
const HEARTBEAT: &str = "heartbeat";
/// What a dequeue can bring.
const ANSWERS: [&str; 3] = ["job", "empty", "error"];
/// The requests of every executor: verb and resource, as in a Role.
const REQUESTS: [(&str, &str); 10] = [
    ("get", "pods"),
    ("list", "pods"),
    ("watch", "pods"),
    ("get", "pods/log"),
    ("create", "jobs"),
    ("delete", "jobs"),
    ("list", "jobs"),
    ("list", "secrets"),
    ("create", "secrets"),
    ("delete", "secrets"),
];

/// Counts calls to Sourcegraph. Nothing in it takes a lock.
#[derive(Clone)]
pub struct QueueMetrics {
    calls: Arc<[(&'static str, Operation)]>,
    dequeues: [IntCounter; ANSWERS.len()],
    last_heartbeat: Gauge,
    log_bytes: IntCounter,
    errors: ServerErrors,
}

impl QueueMetrics {
    pub(super) fn new(maker: &Maker, errors: &Errors) -> QueueMetrics {
        let calls = maker.operations(
            "apiworker_apiclient_queue",
            "calls to Sourcegraph",
            &["op"],
            prometheus::DEFAULT_BUCKETS,
        );
        let dequeues = maker.counters(
            "executor_dequeues_total",
            "Number of times that a job was asked for, by the answer: job, empty, or error.",
            &["answer"],
        );
        QueueMetrics {
            calls: CALLS.map(|(call, name)| (call, calls.of(&[name]))).into(),
            dequeues: ANSWERS.map(|answer| dequeues.with_label_values(&[answer])),
            last_heartbeat: maker.timestamp(
                "executor_last_heartbeat_timestamp_seconds",
                "When Sourcegraph last took a heartbeat, in seconds since 1970; 0 before the \
                 first one.",
            ),
            log_bytes: maker.counter(
                "executor_log_sent_bytes_total",
                "Bytes of log entries sent to Sourcegraph, each update as a whole.",
            ),
            errors: errors.of("sourcegraph"),
        }
    }

    /// A call of the API has ended, with this status if there was an answer.
    pub fn called(&self, call: &str, took: Duration, status: Option<u16>) {
        let good = matches!(status, Some(200 | 204));
        if !good {
            self.errors.add(status);
        }
        if let Some((_, operation)) = self.calls.iter().find(|(known, _)| *known == call) {
            operation.ended(took, good);
        }
        if call == HEARTBEAT && good {
            self.last_heartbeat.set(now());
        }
    }

    /// Counts what a dequeue has brought, and passes it on.
    pub fn dequeued<T, E>(&self, answer: Result<Option<T>, E>) -> Result<Option<T>, E> {
        let [job, empty, error] = &self.dequeues;
        match &answer {
            Ok(Some(_)) => job.inc(),
            Ok(None) => empty.inc(),
            Err(_) => error.inc(),
        }
        answer
    }

    /// A log entry of so many bytes was sent.
    pub fn log_sent(&self, bytes: u64) {
        self.log_bytes.inc_by(bytes);
    }
}

/// How a request to Kubernetes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestResult {
    /// It was done.
    Done,
    /// The API server answered with an error, which can be what was wanted:
    /// that what is to be deleted is gone. With its status.
    Refused(u16),
    /// There was no answer, or none in time.
    Unreachable,
}

impl RequestResult {
    const LABELS: [&str; 3] = ["done", "refused", "unreachable"];

    fn label(self) -> &'static str {
        let [done, refused, unreachable] = RequestResult::LABELS;
        match self {
            RequestResult::Done => done,
            RequestResult::Refused(_) => refused,
            RequestResult::Unreachable => unreachable,
        }
    }
}

/// Counts requests to Kubernetes, and what its streams bring.
#[derive(Clone)]
pub struct ClusterMetrics {
    requests: IntCounterVec,
    last_watch: Gauge,
    streams_reopened: IntCounter,
    errors: ServerErrors,
}

impl ClusterMetrics {
    pub(super) fn new(maker: &Maker, errors: &Errors) -> ClusterMetrics {
        let metrics = ClusterMetrics {
            requests: maker.counters(
                "executor_kubernetes_requests_total",
                "Number of requests to the Kubernetes API: done, refused by it, or unreachable.",
                &["verb", "resource", "result"],
            ),
            last_watch: maker.timestamp(
                "executor_last_watch_timestamp_seconds",
                "When the watch of pods last brought a list or an event, in seconds since 1970; \
                 0 before the first one.",
            ),
            streams_reopened: maker.counter(
                "executor_log_streams_reopened_total",
                "Number of times that a container's log had to be opened again.",
            ),
            errors: errors.of("kubernetes"),
        };
        for (verb, resource) in REQUESTS {
            for result in RequestResult::LABELS {
                let labels = [verb, resource, result];
                metrics.requests.with_label_values(&labels);
            }
        }
        metrics
    }

    /// A request has ended. Verb and resource are words of a Role, such as
    /// `create` and `jobs`.
    pub fn requested(&self, verb: &str, resource: &str, result: RequestResult) {
        let labels = [verb, resource, result.label()];
        self.requests.with_label_values(&labels).inc();
        match result {
            RequestResult::Done => {}
            RequestResult::Refused(status) => self.errors.add(Some(status)),
            RequestResult::Unreachable => self.errors.add(None),
        }
    }

    /// The watch has brought something.
    pub fn watched(&self) {
        self.last_watch.set(now());
    }

    /// A log stream is opened that was open before.
    pub fn stream_reopened(&self) {
        self.streams_reopened.inc();
    }
}
