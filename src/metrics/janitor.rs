//! What the janitor removes.

use prometheus::IntCounterVec;

use crate::metrics::Maker;

/// The kinds of objects that can be left over, as in a Role.
const RESOURCES: [&str; 2] = ["jobs", "secrets"];

/// Counts what was left over.
#[derive(Clone)]
pub struct JanitorMetrics {
    removed: IntCounterVec,
    failures: IntCounterVec,
}

impl JanitorMetrics {
    pub(super) fn new(maker: &Maker) -> JanitorMetrics {
        let metrics = JanitorMetrics {
            removed: maker.counters(
                "executor_janitor_removed_total",
                "Number of objects removed that a dead executor or worker had left.",
                &["resource"],
            ),
            failures: maker.counters(
                "executor_janitor_failures_total",
                "Number of times that an object that was left could not be removed.",
                &["resource"],
            ),
        };
        for resource in RESOURCES {
            metrics.removed.with_label_values(&[resource]);
            metrics.failures.with_label_values(&[resource]);
        }
        metrics
    }

    /// An object is gone. The resource is a word of a Role, such as `jobs`.
    pub fn removed(&self, resource: &str) {
        self.removed.with_label_values(&[resource]).inc();
    }

    /// An object could not be removed.
    pub fn failed(&self, resource: &str) {
        self.failures.with_label_values(&[resource]).inc();
    }
}
