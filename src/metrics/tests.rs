//! What is shown: the text, by a strict reading of its format, and the server
//! before clients of all kinds.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::calls::RequestResult;
use super::connection::answer;
use super::pages::{Health, Pages};
use super::server::MetricsServer;
use super::*;
use crate::job::Outcome;
use crate::shutdown::{Shutdown, Trigger};

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
    queue.called("heartbeat", SOON, false);
    assert_eq!(
        value(&metrics, "executor_last_heartbeat_timestamp_seconds"),
        0.0
    );
    queue.called("heartbeat", SOON, true);
    let start = value(&metrics, "executor_start_time_seconds");
    let last = value(&metrics, "executor_last_heartbeat_timestamp_seconds");
    assert!(last >= start && start > 1.7e9, "{start} {last}");
    for (middle, number) in [
        ("total", 1.0),
        ("errors_total", 1.0),
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
        .requested("create", "jobs", RequestResult::Refused);
    for (result, number) in [("done", 0.0), ("refused", 1.0), ("unreachable", 0.0)] {
        let labels = format!("resource=\"jobs\",result=\"{result}\",verb=\"create\"");
        let series = format!("executor_kubernetes_requests_total{{{labels}}}");
        assert_eq!(value(&metrics, &series), number, "{series}");
    }
}

#[test]
fn a_text_that_is_too_long_is_left_out() {
    let metrics = Metrics::new(&["batches", "codeintel"]);
    let length = metrics.text().len();
    assert!(!metrics.text_within(length + 100).is_empty());
    assert_eq!(metrics.text_within(length / 2), "");
}

/// A server on a free port, for as long as the test runs.
struct Served {
    server: MetricsServer,
    health: Health,
    trigger: Trigger,
}

fn serve() -> Served {
    let (shutdown, trigger) = Shutdown::new();
    let health = Health::new(&shutdown);
    let metrics = Metrics::new(&["batches"]);
    let server = MetricsServer::start("127.0.0.1:0", metrics, health.clone()).unwrap();
    Served {
        server,
        health,
        trigger,
    }
}

/// Opens a connection and sends something.
fn send(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

/// The whole answer to what was sent.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut answer = String::new();
    let mut stream = send(address, request.as_bytes());
    stream.read_to_string(&mut answer).expect(request);
    answer
}

/// Whether the server closes the connection. That it had not read everything
/// is told as a reset.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn get(served: &Served, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: executor\r\n\r\n");
    ask(served.server.address(), &request)
}

#[test]
fn pages_have_their_status_and_type() {
    let served = serve();
    let answer = get(&served, "/metrics?name=x");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let wanted = "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n";
    assert!(head.contains(wanted), "{head}");
    assert!(
        head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
        "{head}"
    );
    assert!(parse(body).contains_key("executor_build_info"));
    assert!(get(&served, "/healthz").ends_with("\r\n\r\nok\n"));
    for path in ["/", "/metrics/", "/debug/pprof/", "/../etc/passwd"] {
        assert!(get(&served, path).starts_with("HTTP/1.1 404 "), "{path}");
    }
    for (request, status) in [
        ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
        ("GET /metrics HTTP/1.0\r\n\r\n", "200"),
        ("GET /metrics\r\n\r\n", "400"),
        ("GET /a b HTTP/1.1\r\n\r\n", "400"),
        ("\r\n\r\n", "400"),
    ] {
        let answer = ask(served.server.address(), request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request:?}: {answer}"
        );
    }
}

#[test]
fn readiness_ends_with_the_first_signal() {
    let mut served = serve();
    assert!(
        get(&served, "/readyz").starts_with("HTTP/1.1 503 "),
        "not connected yet"
    );
    served.health.set_connected();
    assert!(get(&served, "/readyz").starts_with("HTTP/1.1 200 "));
    served.trigger.pull();
    assert!(
        get(&served, "/readyz").starts_with("HTTP/1.1 503 "),
        "it drains"
    );
    assert!(get(&served, "/healthz").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_head_may_come_in_pieces() {
    let served = serve();
    let mut stream = send(served.server.address(), b"GET /healthz HT");
    // The first piece is read before others are answered.
    assert!(get(&served, "/healthz").starts_with("HTTP/1.1 200 "));
    stream.write_all(b"TP/1.1\r\nHost: x\r").unwrap();
    assert!(get(&served, "/healthz").starts_with("HTTP/1.1 200 "));
    stream.write_all(b"\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
}

#[test]
fn too_many_connections_push_out_the_oldest() {
    let served = serve();
    let address = served.server.address();
    let mut idle: Vec<_> = (0..200).map(|_| send(address, b"GET /metr")).collect();
    assert!(get(&served, "/metrics").starts_with("HTTP/1.1 200 "));
    // The scrape came last, so what it needed has happened by now.
    idle[0].set_nonblocking(true).unwrap();
    assert!(is_closed(&mut idle[0]), "the oldest had to give way");
    idle[199].write_all(b"ics HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    idle[199].read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 "),
        "the youngest is still served: {answer}"
    );
}

#[test]
fn an_endless_head_is_cut_off() {
    let served = serve();
    let pages = Pages {
        metrics: Metrics::new(&[]),
        health: served.health.clone(),
    };
    assert_eq!(answer(&[b'x'; 8 * 1024], &pages), None);
    let refusal = answer(&[b'x'; 8 * 1024 + 1], &pages).unwrap_or_default();
    assert!(refusal.starts_with(b"HTTP/1.1 431 "), "{refusal:?}");
    let mut stream = send(served.server.address(), b"GET /metrics HTTP/1.1\r\nX: ");
    let piece = [b'x'; 16 * 1024];
    let is_cut_off = (0..64).any(|_| stream.write_all(&piece).is_err());
    assert!(is_cut_off || is_closed(&mut stream), "it goes on");
    assert!(get(&served, "/metrics").starts_with("HTTP/1.1 200 "));
}

#[test]
fn the_end_of_the_server_frees_its_port() {
    let served = serve();
    let address = served.server.address();
    let idle = send(address, b"");
    drop(served);
    assert!(
        TcpStream::connect(address).is_err(),
        "nobody listens any more"
    );
    drop(idle);
}

#[test]
fn a_port_alone_means_all_addresses() {
    let (shutdown, _trigger) = Shutdown::new();
    let health = Health::new(&shutdown);
    let server = MetricsServer::start(":0", Metrics::new(&[]), health).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], server.address().port()));
    let answer = ask(address, "GET /healthz HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
