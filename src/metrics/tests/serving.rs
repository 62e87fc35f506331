//! The server before clients of all kinds.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{SOON, parse};
use crate::metrics::Metrics;
use crate::metrics::connection::answer;
use crate::metrics::pages::{Health, Pages};
use crate::metrics::pulse::Pulses;
use crate::metrics::server::MetricsServer;
use crate::shutdown::{Shutdown, Trigger};

/// A server on a free port, for as long as the test runs.
struct Served {
    server: MetricsServer,
    health: Health,
    pulses: Pulses,
    trigger: Trigger,
}

fn serve() -> Served {
    let (shutdown, trigger) = Shutdown::new();
    let health = Health::new(&shutdown);
    let metrics = Metrics::new(&["batches"]);
    let pulses = metrics.pulses.clone();
    let server = MetricsServer::start("127.0.0.1:0", metrics, health.clone()).unwrap();
    Served {
        server,
        health,
        pulses,
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
fn a_thread_that_is_stuck_is_told() {
    let served = serve();
    let stuck = served.pulses.of_thread("heartbeat", Duration::ZERO);
    let answer = get(&served, "/healthz");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\n\r\nheartbeat is stuck"), "{answer}");
    drop(stuck);
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
