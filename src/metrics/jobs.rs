//! Jobs by their queue, from dequeue to mark, and the workers that run them.

use std::time::{Duration, Instant};

use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};

use crate::cluster::status::label::LABELS;
use crate::job::Outcome;
use crate::metrics::{Maker, Operations};

/// Upper ends of the classes of run time, in seconds, as in the released
/// executor.
const RUN_TIMES: [f64; 11] = [
    30.0, 60.0, 150.0, 300.0, 450.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];
/// The released executor's word for running a job.
const HANDLE: &str = "Handle";
/// What a queue is called that is none of ours, which no server should send.
const OTHER_QUEUE: &str = "other";
const RESULTS: [&str; 4] = ["complete", "errored", "failed", "lost"];
/// Upper ends of the classes of a phase: from what takes a request to what
/// takes hours.
const PHASE_TIMES: [f64; 8] = [0.3, 1.0, 3.0, 10.0, 30.0, 120.0, 600.0, 3600.0];

/// The job was cancelled.
pub const CANCELLED: &str = "cancelled";
/// It took longer than it may.
pub const TIMED_OUT: &str = "timed_out";
/// The executor was stopped, and the time to drain was over.
pub const STOPPED: &str = "stopped";
/// The API server did not take its objects.
pub const NOT_CREATED: &str = "not_created";
/// It cannot be understood, or cannot run here.
pub const NOT_UNDERSTOOD: &str = "not_understood";
/// Its worker panicked.
pub const PANICKED: &str = "panicked";
/// Why a job does not succeed, where it is not the cluster that says so.
pub const OWN_CAUSES: [&str; 6] = [
    CANCELLED,
    TIMED_OUT,
    STOPPED,
    NOT_CREATED,
    NOT_UNDERSTOOD,
    PANICKED,
];

/// The parts of a job's life, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its objects are made.
    Create,
    /// Until its first container starts.
    Start,
    /// The workspace is made.
    Setup,
    /// Its steps run.
    Steps,
    /// Its objects are deleted, and its pod ends.
    CleanUp,
    /// The rest of its log is sent.
    Log,
}

impl Phase {
    const ALL: [Phase; 6] = [
        Phase::Create,
        Phase::Start,
        Phase::Setup,
        Phase::Steps,
        Phase::CleanUp,
        Phase::Log,
    ];

    fn label(self) -> &'static str {
        match self {
            Phase::Create => "create",
            Phase::Start => "start",
            Phase::Setup => "setup",
            Phase::Steps => "steps",
            Phase::CleanUp => "clean_up",
            Phase::Log => "log",
        }
    }
}

/// Counts jobs and workers.
#[derive(Clone)]
pub struct JobMetrics {
    queues: Vec<String>,
    workers: IntGauge,
    busy: IntGauge,
    running: IntGaugeVec,
    handled: Operations,
    results: IntCounterVec,
    failures: IntCounterVec,
    phases: HistogramVec,
    ready: IntGauge,
}

/// A job that runs. Dropping it says that its worker is free again.
pub struct RunningJob {
    metrics: JobMetrics,
    queue: String,
    began: Instant,
}

impl JobMetrics {
    pub(super) fn new(maker: &Maker, queues: &[&str]) -> JobMetrics {
        let metrics = JobMetrics {
            queues: queues.iter().map(|queue| (*queue).to_string()).collect(),
            workers: maker.gauge("executor_workers", "Workers, busy and idle."),
            busy: maker.gauge("executor_workers_busy", "Workers that have a job now."),
            running: maker.gauges(
                "src_executor_processor_handlers",
                "Jobs that run now, from dequeue to mark.",
                &["queue"],
            ),
            handled: maker.operations("executor_processor", "jobs", &["queue", "op"], &RUN_TIMES),
            results: maker.counters(
                "executor_jobs_total",
                "Number of jobs by their end: complete, errored, failed, or lost to another executor.",
                &["queue", "result"],
            ),
            failures: maker.counters(
                "executor_job_failures_total",
                "Number of jobs that did not succeed, by what kept them from it.",
                &["cause"],
            ),
            phases: maker.histograms(
                "executor_job_phase_seconds",
                "Seconds that jobs spent in each phase: create, start, setup, steps, clean_up, log.",
                &["phase"],
                &PHASE_TIMES,
            ),
            ready: maker.gauge(
                "executor_ready",
                "1 while jobs are taken, as /readyz says; 0 before, and while stopping.",
            ),
        };
        for cause in LABELS.iter().chain(&OWN_CAUSES) {
            metrics.failures.with_label_values(&[cause]);
        }
        for phase in Phase::ALL {
            metrics.phases.with_label_values(&[phase.label()]);
        }
        // A series that is there from the start lets the first increase show.
        for queue in queues {
            metrics.running.with_label_values(&[queue]);
            metrics.handled.of(&[queue, HANDLE]);
            for result in RESULTS {
                metrics.results.with_label_values(&[queue, result]);
            }
        }
        metrics
    }

    /// Says how many workers there are.
    pub fn set_workers(&self, number: usize) {
        self.workers.set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// Says whether jobs are taken.
    pub fn set_ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    /// A job did not succeed. The cause is one of `OWN_CAUSES`, or the label of
    /// a cause that the cluster gives.
    pub fn failed(&self, cause: &'static str) {
        self.failures.with_label_values(&[cause]).inc();
    }

    /// A job has spent a time in a phase.
    pub fn spent(&self, phase: Phase, time: Duration) {
        let seconds = time.as_secs_f64();
        self.phases
            .with_label_values(&[phase.label()])
            .observe(seconds);
    }

    /// A worker has taken a job.
    pub fn begin(&self, queue: &str) -> RunningJob {
        let known = self.queues.iter().any(|known| known == queue);
        let queue = if known { queue } else { OTHER_QUEUE };
        self.busy.inc();
        self.running.with_label_values(&[queue]).inc();
        RunningJob {
            metrics: self.clone(),
            queue: queue.to_string(),
            began: Instant::now(),
        }
    }
}

impl RunningJob {
    /// What became of the job; its mark may still be under way.
    pub fn ended(&self, outcome: &Outcome) {
        let result = match outcome {
            Outcome::Complete => "complete",
            Outcome::Errored(_) => "errored",
            Outcome::Failed(_) => "failed",
            Outcome::Lost => "lost",
            // It is counted by the process that ends it.
            Outcome::HandedOver => return,
        };
        let JobMetrics {
            handled, results, ..
        } = &self.metrics;
        results.with_label_values(&[&*self.queue, result]).inc();
        handled
            .of(&[&*self.queue, HANDLE])
            .ended(self.began.elapsed(), matches!(outcome, Outcome::Complete));
    }
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        let JobMetrics { running, busy, .. } = &self.metrics;
        running.with_label_values(&[&*self.queue]).dec();
        busy.dec();
    }
}
