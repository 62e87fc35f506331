//! What the executor counts, and how it is shown.
//!
//! One registry is made at start and handed on; there are no globals. Each
//! room gets the handle that is for it (`jobs.rs`, `calls.rs`, `janitor.rs`)
//! and calls one method where something happens. `server.rs` shows the text
//! over HTTP, to connections (`connection.rs`) that ask for one of the
//! `pages.rs`, and heartbeats carry it to Sourcegraph. `pulse.rs` knows whether
//! every thread still turns.
//!
//! The names that begin with `src_` are those of the released executor and
//! mean the same, so that its dashboards go on working. Every label has a
//! closed set of values, so that the number of series does not grow.

pub mod calls;
mod connection;
pub mod janitor;
pub mod jobs;
pub mod pages;
pub mod pulse;
pub mod server;

use std::time::Duration;

use jiff::Timestamp;
use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use calls::{ClusterMetrics, QueueMetrics};
use janitor::JanitorMetrics;
use jobs::JobMetrics;
use pulse::Pulses;

/// All metrics of one executor. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// Jobs and workers.
    pub jobs: JobMetrics,
    /// Calls to Sourcegraph.
    pub queue: QueueMetrics,
    /// Requests to Kubernetes.
    pub cluster: ClusterMetrics,
    /// What was left over.
    pub janitor: JanitorMetrics,
    /// What is under way, and by when it should be over.
    pub pulses: Pulses,
}

impl Metrics {
    /// Makes all metrics at zero, for an executor of these queues.
    pub fn new(queues: &[&str]) -> Metrics {
        let maker = Maker(Registry::new());
        let build = maker.gauges(
            "executor_build_info",
            "Always 1; the label tells the version of the executor.",
            &["version"],
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        maker
            .timestamp(
                "executor_start_time_seconds",
                "When the executor started, in seconds since 1970.",
            )
            .set(now());
        let errors = Errors(maker.counters(
            "executor_errors_total",
            "Number of answers of both servers that were errors, by their status; unreachable is \
             none in time.",
            &["server", "code"],
        ));
        Metrics {
            jobs: JobMetrics::new(&maker, queues),
            queue: QueueMetrics::new(&maker, &errors),
            cluster: ClusterMetrics::new(&maker, &errors),
            janitor: JanitorMetrics::new(&maker),
            pulses: Pulses::default(),
            registry: maker.0,
        }
    }

    /// Everything in the text format 0.0.4 of Prometheus. Empty if it cannot
    /// be written, which would be a defect: what is counted matters less than
    /// what is done.
    pub fn text(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_else(|error| {
                log::error!("The metrics cannot be written: {error}.");
                String::new()
            })
    }

    /// The same, but empty if it were longer than `bytes_max`.
    pub fn text_within(&self, bytes_max: usize) -> String {
        let text = self.text();
        if text.len() > bytes_max {
            return String::new();
        }
        text
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    Timestamp::now().as_millisecond() as f64 / 1000.0
}

/// Errors of both servers by their status, those that matter by themselves and
/// the others in two classes, so that their number is bounded.
#[derive(Clone)]
struct Errors(IntCounterVec);

impl Errors {
    const UNREACHABLE: &str = "unreachable";
    const CODES: [u16; 8] = [400, 401, 403, 404, 409, 429, 500, 503];
    const CLASSES: [&str; 3] = ["4xx", "5xx", "other"];

    /// Counts at zero what a server may answer, so that the first one shows.
    fn of(&self, server: &'static str) -> ServerErrors {
        let errors = ServerErrors {
            errors: self.0.clone(),
            server,
        };
        let codes = Errors::CODES.map(|code| code.to_string());
        let codes = codes.iter().map(String::as_str);
        for code in codes.chain(Errors::CLASSES).chain([Errors::UNREACHABLE]) {
            errors.errors.with_label_values(&[server, code]);
        }
        errors
    }
}

/// The errors of one server.
#[derive(Clone)]
struct ServerErrors {
    errors: IntCounterVec,
    server: &'static str,
}

impl ServerErrors {
    /// Counts an error; without a status there was no answer.
    fn add(&self, status: Option<u16>) {
        let code = match status {
            None => Errors::UNREACHABLE.to_string(),
            Some(code) if Errors::CODES.contains(&code) => code.to_string(),
            Some(400..500) => "4xx".to_string(),
            Some(500..600) => "5xx".to_string(),
            Some(_) => "other".to_string(),
        };
        self.errors.with_label_values(&[self.server, &code]).inc();
    }
}

/// Makes metrics in a registry. Names, helps and labels are constants of this
/// room: where they cannot be, any test that makes the metrics shows it.
struct Maker(Registry);

const FITS: &str = "the constants of this room fit together";

impl Maker {
    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    /// A gauge for a time, which counts in parts of a second.
    fn timestamp(&self, name: &str, help: &str) -> Gauge {
        self.add(Gauge::new(name, help))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(HistogramVec::new(opts, labels))
    }

    fn add<M: Collector + Clone + 'static>(&self, made: prometheus::Result<M>) -> M {
        let metric = made.expect(FITS);
        self.0.register(Box::new(metric.clone())).expect(FITS);
        metric
    }

    /// The three metrics that the released executor has for each kind of
    /// operation. `about` is the middle of their names.
    fn operations(&self, about: &str, what: &str, labels: &[&str], buckets: &[f64]) -> Operations {
        Operations {
            total: self.counters(
                &format!("src_{about}_total"),
                &format!("Number of {what} that succeeded."),
                labels,
            ),
            errors: self.counters(
                &format!("src_{about}_errors_total"),
                &format!("Number of {what} that did not succeed."),
                labels,
            ),
            seconds: self.histograms(
                &format!("src_{about}_duration_seconds"),
                &format!("Seconds taken by {what} that succeeded."),
                labels,
                buckets,
            ),
        }
    }
}

/// Operations by labels. Successes and errors are counted apart: the released
/// dashboards add them up to know how many there were.
#[derive(Clone)]
struct Operations {
    total: IntCounterVec,
    errors: IntCounterVec,
    seconds: HistogramVec,
}

/// Operations of one kind.
#[derive(Clone)]
struct Operation {
    total: IntCounter,
    errors: IntCounter,
    seconds: Histogram,
}

impl Operations {
    fn of(&self, labels: &[&str]) -> Operation {
        Operation {
            total: self.total.with_label_values(labels),
            errors: self.errors.with_label_values(labels),
            seconds: self.seconds.with_label_values(labels),
        }
    }
}

impl Operation {
    fn ended(&self, took: Duration, good: bool) {
        if good {
            self.total.inc();
            self.seconds.observe(took.as_secs_f64());
        } else {
            self.errors.inc();
        }
    }
}

#[cfg(test)]
mod tests;
