//! What the executor tells of itself: metrics over HTTP and in heartbeats, and
//! that nobody who asks for them can get in its way.

mod queries;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::frontend::journal::Request;
use crate::support::daemon::Daemon;
use crate::support::stage::{Stage, tiny};
use crate::support::{MINUTES, SOON, eventually};

/// What a scrape shows after one job that is complete and one that is not.
const ENDED: [(&str, f64); 18] = [
    (
        "executor_jobs_total{queue=\"batches\",result=\"complete\"}",
        1.0,
    ),
    (
        "executor_jobs_total{queue=\"batches\",result=\"errored\"}",
        1.0,
    ),
    (
        "src_executor_processor_total{op=\"Handle\",queue=\"batches\"}",
        1.0,
    ),
    (
        "src_executor_processor_errors_total{op=\"Handle\",queue=\"batches\"}",
        1.0,
    ),
    (
        "src_apiworker_apiclient_queue_total{op=\"MarkComplete\"}",
        1.0,
    ),
    (
        "src_apiworker_apiclient_queue_total{op=\"MarkErrored\"}",
        1.0,
    ),
    (
        "src_apiworker_apiclient_queue_errors_total{op=\"Dequeue\"}",
        0.0,
    ),
    ("executor_dequeues_total{answer=\"job\"}", 2.0),
    (
        "executor_kubernetes_requests_total{resource=\"jobs\",result=\"done\",verb=\"create\"}",
        2.0,
    ),
    (
        "executor_kubernetes_requests_total{resource=\"jobs\",result=\"done\",verb=\"delete\"}",
        2.0,
    ),
    ("executor_job_failures_total{cause=\"step\"}", 1.0),
    ("executor_job_phase_seconds_count{phase=\"create\"}", 2.0),
    ("executor_job_phase_seconds_count{phase=\"setup\"}", 2.0),
    ("executor_job_phase_seconds_count{phase=\"log\"}", 2.0),
    ("executor_ready", 1.0),
    ("executor_workers", 4.0),
    ("executor_workers_busy", 0.0),
    ("src_executor_processor_handlers{queue=\"batches\"}", 0.0),
];
/// What has any value then.
const MOVED: [&str; 4] = [
    "executor_log_sent_bytes_total",
    "executor_last_heartbeat_timestamp_seconds",
    "executor_last_watch_timestamp_seconds",
    "executor_kubernetes_requests_total{resource=\"pods/log\",result=\"done\",verb=\"get\"}",
];

/// A page of an executor: head and body.
fn page(address: SocketAddr, path: &str) -> String {
    let mut answer = String::new();
    let mut stream = send(address, format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes());
    stream
        .read_to_string(&mut answer)
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    answer
}

/// Opens a connection and sends something.
fn send(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

/// The value of a series in a text; none if it is not there.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.and_then(|value| value.trim().parse().ok())
}

/// Waits until the series have these values.
fn wait_for_values(executor: &Daemon, wanted: &[(&str, f64)]) {
    let address = executor.metrics_address();
    let scrape = || page(address, "/metrics");
    let is_there = |text: &str| {
        wanted
            .iter()
            .all(|(series, number)| value(text, series) == Some(*number))
    };
    eventually(
        &format!("{wanted:?}"),
        SOON,
        || is_there(&scrape()).then_some(()),
        || format!("{}\n{}", scrape(), executor.log()),
    );
}

#[test]
fn jobs_show_in_scrapes_and_heartbeats() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let good = stage
        .frontend
        .enqueue(stage.job().step(tiny("good", "echo well")));
    let bad = stage
        .frontend
        .enqueue(stage.job().step(tiny("bad", "exit 3")));
    for (job, state) in [(good, "completed"), (bad, "errored")] {
        let view = stage.frontend.wait_finished(job, MINUTES);
        assert_eq!(view.state.name(), state, "{}", view.log_text());
    }
    wait_for_values(&executor, &ENDED);
    let text = page(executor.metrics_address(), "/metrics");
    for series in MOVED {
        assert!(value(&text, series) > Some(0.0), "{series} in\n{text}");
    }
    // The same text, in the first heartbeat after the last change.
    let is_told = |request: &Request| {
        let body = request.json();
        let text = body["prometheusMetrics"].as_str().unwrap_or_default();
        let shown = |(series, number): &(&str, f64)| value(text, series) == Some(*number);
        request.endpoint() == "heartbeat" && ENDED.iter().all(shown)
    };
    stage.frontend.wait_for_requests(1, SOON, is_told);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_running_job_is_a_busy_worker() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let job = stage
        .frontend
        .enqueue(stage.job().step(tiny("long", "echo begun; sleep 600")));
    stage.frontend.wait_for(job, MINUTES, |job| {
        job.logs.iter().any(|entry| entry.out.contains("begun"))
    });
    let running = "src_executor_processor_handlers{queue=\"batches\"}";
    wait_for_values(&executor, &[("executor_workers_busy", 1.0), (running, 1.0)]);
    stage.frontend.cancel(job);
    stage.frontend.wait_finished(job, SOON);
    let failed = "executor_jobs_total{queue=\"batches\",result=\"failed\"}";
    let cancelled = "executor_job_failures_total{cause=\"cancelled\"}";
    wait_for_values(
        &executor,
        &[
            (failed, 1.0),
            (cancelled, 1.0),
            ("executor_workers_busy", 0.0),
            (running, 0.0),
        ],
    );
    executor.stop();
    stage.assert_clean();
}

#[test]
fn readiness_follows_start_and_stop() {
    let stage = Stage::new();
    stage.frontend.stop_answering();
    let mut executor = stage.executor().spawn();
    let address = executor.metrics_address();
    executor.wait_for_log("Not connected to Sourcegraph");
    assert!(page(address, "/readyz").starts_with("HTTP/1.1 503 "));
    assert!(page(address, "/healthz").starts_with("HTTP/1.1 200 "));
    stage.frontend.resume();
    executor.wait_for_log("Connected to Sourcegraph at ");
    assert!(page(address, "/readyz").starts_with("HTTP/1.1 200 "));
    let job = stage
        .frontend
        .enqueue(stage.job().step(tiny("long", "sleep 5")));
    stage.frontend.wait_processing(job, SOON);
    executor.signal("TERM");
    executor.wait_for_log("1 job runs");
    assert!(page(address, "/readyz").starts_with("HTTP/1.1 503 "));
    assert!(page(address, "/healthz").starts_with("HTTP/1.1 200 "));
    let view = stage.frontend.wait_finished(job, MINUTES);
    assert_eq!(view.state.name(), "completed", "{}", view.log_text());
    assert!(executor.wait(SOON).success(), "{}", executor.log());
    stage.assert_clean();
}

#[test]
fn a_taken_port_is_a_warning_only() {
    let stage = Stage::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let executor = stage
        .executor()
        .env("EXECUTOR_METRICS_ADDR", &address)
        .start();
    let log = executor.log();
    let warnings: Vec<_> = log
        .lines()
        .filter(|line| line.contains("WARN") && line.contains("EXECUTOR_METRICS_ADDR"))
        .collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains(&address), "{}", warnings[0]);
    let job = stage
        .frontend
        .enqueue(stage.job().step(tiny("only", "echo ran")));
    let view = stage.frontend.wait_finished(job, MINUTES);
    assert_eq!(view.state.name(), "completed", "{}", view.log_text());
    executor.stop();
    stage.assert_clean();
}

#[test]
fn hostile_clients_do_not_stop_a_scrape() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let address = executor.metrics_address();
    let is_answered = || page(address, "/metrics").starts_with("HTTP/1.1 200 ");
    let threads_before = threads(&executor);

    let mut slow = send(address, b"GET /metrics HT");
    assert!(is_answered(), "beside a head that does not come to its end");
    let mut endless = send(address, b"GET /metrics HTTP/1.1\r\nX-Filler: ");
    // It may be cut off before the end.
    let _ = endless.write_all(&vec![b'x'; 1 << 20]);
    assert!(is_answered(), "beside a header of 1 MiB");
    // A client that has one foot in the door, and takes a byte from time to
    // time, has no more time than others.
    slow.write_all(b"T").unwrap();
    let closed = slow.read(&mut [0]);
    let is_closed = match &closed {
        Ok(length) => *length == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    };
    assert!(is_closed, "a slow client's time ends: {closed:?}");
    let idle: Vec<_> = (0..200).map(|_| send(address, b"")).collect();
    assert!(is_answered(), "beside 200 connections that say nothing");
    assert_eq!(
        threads(&executor),
        threads_before,
        "no client gets a thread"
    );

    let job = stage
        .frontend
        .enqueue(stage.job().step(tiny("only", "echo ran")));
    let view = stage.frontend.wait_finished(job, MINUTES);
    assert_eq!(view.state.name(), "completed", "{}", view.log_text());
    drop((idle, endless));
    executor.stop();
    stage.assert_clean();
}

/// The names of an executor's threads, but for those of the runtime, which
/// come and go.
fn threads(executor: &Daemon) -> Vec<String> {
    let tasks = format!("/proc/{}/task", executor.pid());
    let mut names: Vec<String> = std::fs::read_dir(&tasks)
        .expect(&tasks)
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")))
        .filter_map(|name| Some(name.ok()?.trim().to_owned()))
        .filter(|name| name != "kube-io")
        .collect();
    names.sort();
    names
}
