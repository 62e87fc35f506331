//! What is shown: the text, by a strict reading of its format.

mod serving;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::calls::RequestResult;
use super::jobs::{CANCELLED, OWN_CAUSES, Phase};
use super::*;
use crate::cluster::status::label::LABELS;
use crate::job::Outcome;

const SOON: Duration = Duration::from_secs(10);

/// A metric with all its samples.
#[derive(Default)]
struct Family {
    kind: String,
    /// Values by name and labels, as in `name{a="b"}`.
    samples: BTreeMap<String, f64>,
}

/// Reads the text format and accepts no liberty: every family has a help and
/// a kind, then its samples, none of them twice.
fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line has no end:\n{text}");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let help = line.strip_prefix("# HELP ").expect(line);
        let (name, help) = help.split_once(' ').expect(line);
        assert!(help.ends_with('.') && !help.contains('\\'), "{line}");
        let line = lines.next().unwrap();
        let kind = line.strip_prefix(&format!("# TYPE {name} ")).expect(line);
        let mut family = Family {
            kind: kind.to_string(),
            ..Family::default()
        };
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').expect(line);
            assert_is_of_family(series, name, kind);
            let twice = family
                .samples
                .insert(series.to_string(), value.parse().expect(line));
            assert_eq!(twice, None, "{series} is there twice");
        }
        assert!(!family.samples.is_empty(), "{name} has no samples");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} {kind}");
        assert!(
            families.insert(name.to_string(), family).is_none(),
            "{name} is there twice"
        );
    }
    families
}

fn assert_is_of_family(series: &str, name: &str, kind: &str) {
    let (sample, labels) = series.split_once('{').unwrap_or((series, "}"));
    let suffix = sample.strip_prefix(name).expect(series);
    let suffixes: &[&str] = match kind {
        "counter" | "gauge" => &[""],
        "histogram" => &["_bucket", "_sum", "_count"],
        _ => panic!("{kind} is no kind"),
    };
    assert!(
        suffixes.contains(&suffix),
        "{series} is no sample of {kind} {name}"
    );
    let labels = labels.strip_suffix('}').expect(series);
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (name, value) = label.split_once("=\"").expect(series);
        let value = value.strip_suffix('"').expect(series);
        assert!(
            name.bytes().all(|byte| byte.is_ascii_lowercase()),
            "{series}"
        );
        assert!(
            !value.is_empty() && !value.contains(['"', '\\']),
            "{series}"
        );
    }
}

/// The value of a series; a missing one fails the test.
fn value(metrics: &Metrics, series: &str) -> f64 {
    let text = metrics.text();
    let found = parse(&text)
        .into_values()
        .find_map(|family| family.samples.get(series).copied());
    found.unwrap_or_else(|| panic!("there is no {series} in\n{text}"))
}

#[test]
fn the_text_is_strictly_in_form() {
    let metrics = Metrics::new(&["batches", "codeintel"]);
    let families = parse(&metrics.text());
    let kinds: BTreeSet<_> = families
        .values()
        .map(|family| family.kind.as_str())
        .collect();
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        ["counter", "gauge", "histogram"]
    );
    // Every pair of labels has a series of its own.
    assert_eq!(families["executor_jobs_total"].samples.len(), 2 * 4);
    assert_eq!(
        families["executor_kubernetes_requests_total"].samples.len(),
        10 * 3
    );
    assert_eq!(
        families["src_apiworker_apiclient_queue_total"]
            .samples
            .len(),
        7
    );
}

#[test]
fn released_names_are_kept() {
    let families = parse(&Metrics::new(&["batches"]).text());
    for (name, kind) in [
        ("src_executor_processor_handlers", "gauge"),
        ("src_executor_processor_duration_seconds", "histogram"),
        ("src_executor_processor_total", "counter"),
        ("src_executor_processor_errors_total", "counter"),
        (
            "src_apiworker_apiclient_queue_duration_seconds",
            "histogram",
        ),
        ("src_apiworker_apiclient_queue_total", "counter"),
        ("src_apiworker_apiclient_queue_errors_total", "counter"),
    ] {
        assert_eq!(
            families.get(name).map(|family| &*family.kind),
            Some(kind),
            "{name}"
        );
    }
    let name = "src_executor_processor_duration_seconds";
    for end in [
        "30", "60", "150", "300", "450", "600", "900", "1200", "1800", "2700", "3600",
    ] {
        let series = format!("{name}_bucket{{op=\"Handle\",queue=\"batches\",le=\"{end}\"}}");
        assert!(families[name].samples.contains_key(&series), "{series}");
    }
}

#[test]
fn jobs_are_counted_by_their_end() {
    let metrics = Metrics::new(&["batches"]);
    let running = "src_executor_processor_handlers{queue=\"batches\"}";
    let jobs: Vec<_> = [
        Outcome::Complete,
        Outcome::Errored("out of memory".to_string()),
        Outcome::Failed("cancelled".to_string()),
        Outcome::Lost,
    ]
    .into_iter()
    .map(|outcome| (metrics.jobs.begin("batches"), outcome))
    .collect();
    assert_eq!(value(&metrics, running), 4.0);
    assert_eq!(value(&metrics, "executor_workers_busy"), 4.0);
    for (job, outcome) in jobs {
        job.ended(&outcome);
    }
    assert_eq!(value(&metrics, running), 0.0);
    assert_eq!(value(&metrics, "executor_workers_busy"), 0.0);
    for result in ["complete", "errored", "failed", "lost"] {
        let series = format!("executor_jobs_total{{queue=\"batches\",result=\"{result}\"}}");
        assert_eq!(value(&metrics, &series), 1.0, "{series}");
    }
    for (middle, number) in [
        ("total", 1.0),
        ("errors_total", 3.0),
        ("duration_seconds_count", 1.0),
    ] {
        let labels = "{op=\"Handle\",queue=\"batches\"}";
        let series = format!("src_executor_processor_{middle}{labels}");
        assert_eq!(value(&metrics, &series), number, "{series}");
    }
}

#[test]
fn unknown_queues_make_one_series_only() {
    let metrics = Metrics::new(&["batches"]);
    for queue in ["a", "b", "c\"\n"] {
        metrics.jobs.begin(queue).ended(&Outcome::Lost);
    }
    let lost = "executor_jobs_total{queue=\"other\",result=\"lost\"}";
    assert_eq!(value(&metrics, lost), 3.0);
}

#[test]
fn calls_are_counted_by_success() {
    let metrics = Metrics::new(&["batches"]);
    let queue = &metrics.queue;
    assert_eq!(
        value(&metrics, "executor_last_heartbeat_timestamp_seconds"),
        0.0
    );
    queue.called("heartbeat", SOON, Some(503));
    queue.called("heartbeat", SOON, None);
    assert_eq!(
        value(&metrics, "executor_last_heartbeat_timestamp_seconds"),
        0.0
    );
    queue.called("heartbeat", SOON, Some(200));
    let start = value(&metrics, "executor_start_time_seconds");
    let last = value(&metrics, "executor_last_heartbeat_timestamp_seconds");
    assert!(last >= start && start > 1.7e9, "{start} {last}");
    for (middle, number) in [
        ("total", 1.0),
        ("errors_total", 2.0),
        ("duration_seconds_sum", 10.0),
    ] {
        let series = format!("src_apiworker_apiclient_queue_{middle}{{op=\"Heartbeat\"}}");
        assert_eq!(value(&metrics, &series), number, "{series}");
    }
    assert_eq!(queue.dequeued(Ok::<_, ()>(Some(17))), Ok(Some(17)));
    assert_eq!(queue.dequeued::<u8, _>(Err("away")), Err("away"));
    for (answer, number) in [("job", 1.0), ("empty", 0.0), ("error", 1.0)] {
        let series = format!("executor_dequeues_total{{answer=\"{answer}\"}}");
        assert_eq!(value(&metrics, &series), number, "{series}");
    }
}

#[test]
fn requests_are_counted_by_their_end() {
    let metrics = Metrics::new(&["batches"]);
    metrics
        .cluster
        .requested("create", "jobs", RequestResult::Refused(403));
    for (result, number) in [("done", 0.0), ("refused", 1.0), ("unreachable", 0.0)] {
        let labels = format!("resource=\"jobs\",result=\"{result}\",verb=\"create\"");
        let series = format!("executor_kubernetes_requests_total{{{labels}}}");
        assert_eq!(value(&metrics, &series), number, "{series}");
    }
}

#[test]
fn errors_are_counted_by_server_and_status() {
    let metrics = Metrics::new(&["batches"]);
    let series = |server: &str, code: &str| {
        format!("executor_errors_total{{code=\"{code}\",server=\"{server}\"}}")
    };
    let before = parse(&metrics.text())["executor_errors_total"]
        .samples
        .len();
    for status in [Some(401), Some(418), Some(507), Some(302), None, Some(204)] {
        metrics.queue.called("dequeue", SOON, status);
    }
    let requests = [
        RequestResult::Refused(429),
        RequestResult::Unreachable,
        RequestResult::Done,
    ];
    for result in requests {
        metrics.cluster.requested("list", "pods", result);
    }
    for (server, codes) in [
        (
            "sourcegraph",
            &["401", "4xx", "5xx", "other", "unreachable"][..],
        ),
        ("kubernetes", &["429", "unreachable"]),
    ] {
        for code in codes {
            assert_eq!(value(&metrics, &series(server, code)), 1.0, "{code}");
        }
    }
    let families = parse(&metrics.text());
    let samples = &families["executor_errors_total"].samples;
    assert_eq!(
        samples.len(),
        before,
        "every series is there from the start"
    );
    assert_eq!(samples.values().sum::<f64>(), 7.0);
}

#[test]
fn failures_are_counted_by_their_cause() {
    let metrics = Metrics::new(&["batches", "codeintel"]);
    metrics.jobs.failed("quota");
    metrics.jobs.failed(CANCELLED);
    for cause in ["quota", "cancelled"] {
        let series = format!("executor_job_failures_total{{cause=\"{cause}\"}}");
        assert_eq!(value(&metrics, &series), 1.0, "{series}");
    }
    let families = parse(&metrics.text());
    let samples = families["executor_job_failures_total"].samples.len();
    assert_eq!(samples, LABELS.len() + OWN_CAUSES.len());
}

#[test]
fn phases_are_measured_apart() {
    let metrics = Metrics::new(&["batches"]);
    metrics.jobs.spent(Phase::Start, SOON);
    metrics.jobs.spent(Phase::Steps, SOON);
    metrics.jobs.spent(Phase::Steps, SOON);
    for (phase, number) in [("create", 0.0), ("start", 1.0), ("steps", 2.0)] {
        let series = format!("executor_job_phase_seconds_count{{phase=\"{phase}\"}}");
        assert_eq!(value(&metrics, &series), number, "{series}");
    }
}

/// The longest text there can be must fit into a heartbeat beside the jobs.
#[test]
fn all_metrics_fit_into_a_heartbeat() {
    let length = Metrics::new(&["batches", "codeintel"]).text().len();
    assert!(length < 28 * 1024, "{length} bytes, without large numbers");
}

#[test]
fn a_text_that_is_too_long_is_left_out() {
    let metrics = Metrics::new(&["batches", "codeintel"]);
    let length = metrics.text().len();
    assert!(!metrics.text_within(length + 100).is_empty());
    assert_eq!(metrics.text_within(length / 2), "");
}
