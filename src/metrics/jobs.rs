//! Jobs by their queue, from dequeue to mark, and the workers that run them.

use std::time::Instant;

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

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

/// Counts jobs and workers.
#[derive(Clone)]
pub struct JobMetrics {
    queues: Vec<String>,
    workers: IntGauge,
    busy: IntGauge,
    running: IntGaugeVec,
    handled: Operations,
    results: IntCounterVec,
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
        };
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
