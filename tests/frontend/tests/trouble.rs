//! Outages, cut connections, and the like.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::Frontend;
use super::super::fault::Fault;
use super::super::journal::{Request, Traffic};
use super::super::record::{JobState, MarkKind};
use super::super::spec::JobSpec;
use super::client::{Executor, SOON, call, entry, exchange, parse};

#[test]
fn a_fault_is_used_up() {
    let frontend = Frontend::start();
    let executor = Executor::new(&frontend, "one");
    frontend.inject(
        Fault::on("dequeue")
            .times(2)
            .status(503)
            .header("Retry-After", "1")
            .body("no"),
    );
    let answers =
        [(); 3].map(|()| executor.post("queue/batches/dequeue", json!({ "executorName": "one" })));
    assert_eq!(
        answers.each_ref().map(|answer| answer.status),
        [503, 503, 204]
    );
    assert!(answers[0].head.contains("Retry-After: 1"));
    assert_eq!(answers[0].text(), "no");
}

#[test]
fn a_fault_can_choose_its_requests() {
    let frontend = Frontend::start();
    let executor = Executor::new(&frontend, "one");
    let is_long = |request: &Request| request.json()["out"] == "long";
    frontend.inject(
        Fault::on("addExecutionLogEntry")
            .always()
            .when(is_long)
            .status(500),
    );
    let held = executor.take(frontend.enqueue(JobSpec::new("batches")));
    let statuses = ["long", "short", "long"].map(|out| executor.add(&held, out, out).status);
    assert_eq!(statuses, [500, 200, 500]);
    frontend.clear_faults();
    assert_eq!(executor.add(&held, "long", "long").status, 200);
}

#[test]
fn a_cut_before_has_no_effect() {
    let frontend = Frontend::start();
    let executor = Executor::new(&frontend, "one");
    let held = executor.take(frontend.enqueue(JobSpec::new("batches")));
    frontend.inject(Fault::on("markComplete").cut_before());
    assert!(executor.mark(&held, MarkKind::Complete).is_err());
    assert_eq!(frontend.job(held.job).holder(), Some("one"));
    assert_eq!(
        executor
            .mark(&held, MarkKind::Complete)
            .expect("an answer comes")
            .status,
        204
    );
}

#[test]
fn a_repeat_after_a_lost_answer_is_fair() {
    let frontend = Frontend::start();
    let executor = Executor::new(&frontend, "one");
    let held = executor.take(frontend.enqueue(JobSpec::new("batches")));
    frontend.inject(Fault::on("addExecutionLogEntry").cut_after());
    frontend.inject(Fault::on("markComplete").cut_after());
    let body = entry("a", "");
    assert!(
        executor
            .report(&held, "addExecutionLogEntry", body)
            .is_err()
    );
    assert_eq!(executor.add(&held, "a", "").text(), "2");
    assert!(executor.mark(&held, MarkKind::Complete).is_err());
    assert_eq!(
        frontend.wait_finished(held.job, SOON).state.name(),
        "completed"
    );
    frontend.wait_for(held.job, SOON, |view| !view.marks[0].answered);
    assert_eq!(
        executor
            .mark(&held, MarkKind::Complete)
            .expect("an answer comes")
            .status,
        401
    );
    assert_eq!(frontend.violations(), [""; 0]);
}

#[test]
fn a_body_can_be_cut_inside() {
    let frontend = Frontend::start();
    let executor = Executor::new(&frontend, "one");
    frontend.put_file("spec/file", vec![b'x'; 1000]);
    frontend.inject(Fault::on("files").cut_within(10));
    let headers = [("Authorization", executor.authorization.as_str())];
    let path = "/.executors/files/batch-changes/spec/file";
    let answer = call(&frontend, "GET", path, &headers, "").expect("the head comes");
    assert!(answer.head.contains("Content-Length: 1000"));
    assert_eq!(answer.body.len(), 10);
}

#[test]
fn a_delay_ends_with_the_frontend() {
    let frontend = Frontend::start();
    frontend.inject(Fault::on("heartbeat").delay(Duration::from_secs(600)));
    let address = frontend.address();
    let begin = Instant::now();
    let client = thread::spawn(move || {
        exchange(
            address,
            b"POST /.executors/queue/batches/heartbeat HTTP/1.1\r\n\r\n",
        )
    });
    let waiting = frontend.wait_for_requests(1, SOON, |request| request.endpoint() == "heartbeat");
    assert_eq!(waiting[0].status, None);
    drop(frontend);
    let answer = client.join().expect("the client does not panic");
    assert!(answer.map_or(true, |bytes| bytes.is_empty()));
    assert!(begin.elapsed() < SOON);
}

#[test]
fn an_outage_drops_connections_and_ends() {
    let frontend = Frontend::start();
    let executor = Executor::new(&frontend, "one");
    let held = executor.take(frontend.enqueue(JobSpec::new("batches")));
    let mut idle = TcpStream::connect(frontend.address()).expect("the port is open");
    idle.set_read_timeout(Some(SOON))
        .expect("the socket takes a timeout");
    idle.write_all(b"POST ").expect("the socket is open");
    frontend.stop_answering();
    assert_eq!(idle.read(&mut [0; 8]).unwrap_or(0), 0);
    assert!(TcpStream::connect(frontend.address()).is_err());
    frontend.resume();
    assert_eq!(executor.beat(held.job)["knownIds"], json!(["1"]));
}

#[test]
fn a_silent_holder_is_noted_once() {
    let frontend = Frontend::start();
    let executor = Executor::new(&frontend, "one");
    let held = executor.take(frontend.enqueue(JobSpec::new("batches")));
    let earlier = Instant::now().checked_sub(Duration::from_secs(11));
    let earlier = earlier.expect("the machine is up for longer");
    let fall_silent = |up_since| {
        frontend.hub.change(|store| {
            let view = store.jobs.get_mut(&held.job).expect("the job is there");
            let executor = "one".to_owned();
            view.state = JobState::Processing {
                executor,
                last_heartbeat: earlier,
            };
            store.up_since = Some(up_since);
            store.reset_stalled(Duration::from_secs(25));
            store.reset_stalled(Duration::from_secs(25));
            store.violations.len()
        })
    };
    assert_eq!(
        fall_silent(Instant::now()),
        0,
        "an outage is no fault of the client"
    );
    assert_eq!(fall_silent(earlier), 1);
    executor.beat(held.job);
    assert_eq!(fall_silent(earlier), 2);
}

#[test]
fn a_connection_serves_many_requests() {
    let frontend = Frontend::start();
    let request = format!(
        "GET /.executors/test/auth HTTP/1.1\r\nAuthorization: token-executor {}\r\n",
        frontend.token()
    );
    let chunked = "Transfer-Encoding: chunked\r\n\r\n4;x=y\r\nnull\r\n0\r\nTrailer: t\r\n\r\n";
    let expecting = "Expect: 100-continue\r\nContent-Length: 4\r\n\r\nnull";
    let all = format!("{request}{chunked}{request}{expecting}{request}Connection: close\r\n\r\n");
    let answer = exchange(frontend.address(), all.as_bytes()).expect("answers come");
    let text = String::from_utf8_lossy(&answer);
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3, "{text}");
    assert_eq!(text.matches("HTTP/1.1 100 Continue").count(), 1, "{text}");
    // The last answer leaves before its request is written down as ended.
    let all = frontend.wait_for_requests(3, SOON, |request| request.status == Some(200));
    assert_eq!(all[0].body, b"null");
    assert_eq!(
        frontend.traffic()["auth"],
        Traffic {
            requests: 3,
            body_bytes: 8
        }
    );
}

#[test]
fn nonsense_ends_the_connection() {
    let frontend = Frontend::start();
    let both = b"POST /x HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for bytes in [b"\x16\x03\x01 TLS\r\n\r\n".as_slice(), both.as_slice()] {
        let answer = exchange(frontend.address(), bytes).unwrap_or_default();
        assert!(parse(&answer).is_err(), "{answer:?}");
    }
}

#[test]
fn a_wait_in_vain_tells_everything() {
    let frontend = Frontend::start();
    let executor = Executor::new(&frontend, "one");
    let held = executor.take(frontend.enqueue(JobSpec::new("batches")));
    executor.add(&held, "setup.workspace", "stdout: all is well\n");
    let wait = || frontend.wait_finished(held.job, Duration::from_millis(10));
    let panic = catch_unwind(AssertUnwindSafe(wait)).expect_err("the job does not end");
    let text = panic
        .downcast_ref::<String>()
        .expect("the panic has a text");
    for part in [
        "job 1-batches",
        "Processing",
        "all is well",
        "addExecutionLogEntry",
        "dequeue",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}
