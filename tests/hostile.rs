//! A server and steps that mean no good: they get nothing that is not theirs,
//! and neither the daemon nor other jobs suffer.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use crate::frontend::fault::Fault;
use crate::frontend::record::{JobRef, JobView};
use crate::frontend::spec::JobSpec;
use crate::support::MINUTES;
use crate::support::cluster::host_address;
use crate::support::daemon::Daemon;
use crate::support::stage::{Stage, TINY_IMAGE, lines, quiet, tiny};

/// The memory that the Deployment of the manifests lets an executor have.
const MEMORY_LIMIT_KIB: u64 = 256 * 1024;
/// The calls that a job makes from its dequeue to its mark, and heartbeats.
const CALLS: [&str; 5] = [
    "dequeue",
    "heartbeat",
    "addExecutionLogEntry",
    "updateExecutionLogEntry",
    "markComplete",
];

/// The most memory that the process ever had.
fn highest_memory_kib(executor: &Daemon) -> u64 {
    let path = format!("/proc/{}/status", executor.pid());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.unwrap().parse().unwrap()
}

fn assert_memory_was_enough(executor: &Daemon) {
    let highest = highest_memory_kib(executor);
    assert!(
        highest < MEMORY_LIMIT_KIB,
        "{highest} KiB were in use\n{}",
        executor.log()
    );
}

/// A job that runs for some seconds, once it runs.
fn running_job(stage: &Stage) -> JobRef {
    let step = "echo begun; sleep 8; echo ended";
    let job = stage.frontend.enqueue(stage.job().step(tiny("long", step)));
    stage.frontend.wait_for(job, MINUTES, |job| {
        job.logs.iter().any(|entry| entry.out.contains("begun"))
    });
    job
}

/// Waits for a good end at the first attempt.
fn assert_unharmed(stage: &Stage, job: JobRef) -> JobView {
    let view = stage.wait_complete(job);
    assert_eq!(view.attempts, 1, "{}", view.log_text());
    view
}

#[test]
fn answers_without_an_end_cost_little() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let job = running_job(&stage);
    for call in CALLS {
        let fault = Fault::on(call).endless(Duration::ZERO);
        stage.frontend.inject(fault);
    }
    assert_unharmed(&stage, job);
    let next = stage
        .frontend
        .enqueue(stage.job().step(tiny("next", "true")));
    assert_unharmed(&stage, next);
    assert_memory_was_enough(&executor);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn answers_that_drip_keep_nobody_waiting() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let job = running_job(&stage);
    for call in ["dequeue", "heartbeat"] {
        let fault = Fault::on(call).endless(Duration::from_millis(100));
        stage.frontend.inject(fault);
    }
    assert_unharmed(&stage, job);
    let next = stage
        .frontend
        .enqueue(stage.job().step(tiny("next", "true")));
    assert_unharmed(&stage, next);
    executor.stop();
    // A heartbeat is given up after 8 s, so that one is late by the strict rule of
    // this frontend, and in time by the 25 s after which jobs are given away.
    stage.namespace.wait_until_empty();
}

/// As a proxy on the way says them, or a portal that wants somebody to log in.
#[test]
fn answers_of_another_kind_are_no_answers() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let job = running_job(&stage);
    let page = "<!doctype html><title>Please log in</title>";
    for call in CALLS {
        let answers = [
            Fault::on(call).status(200).body(page),
            Fault::on(call).status(200).body("[[[[\"\u{202e}\0"),
            Fault::on(call)
                .status(200)
                .header("Content-Encoding", "gzip")
                .body(page),
            Fault::on(call).status(502).body(page),
        ];
        // An entry whose answer holds no number was taken by an old server, so
        // that of these calls only errors are tried again.
        let is_log = call.contains("Log") || call.starts_with("mark");
        for answer in answers.into_iter().skip(if is_log { 3 } else { 0 }) {
            stage.frontend.inject(answer);
        }
    }
    assert_unharmed(&stage, job);
    let next = stage
        .frontend
        .enqueue(stage.job().step(tiny("next", "true")));
    assert_unharmed(&stage, next);
    executor.stop();
    stage.assert_clean();
}

/// Listens and tells the first line and the credentials of every request.
fn eavesdrop() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind(format!("{}:0", host_address())).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let lines = BufReader::new(stream).lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            if sender.send(head.join("\n")).is_err() {
                return;
            }
        }
    });
    (address, requests)
}

#[test]
fn redirects_lead_no_credentials_astray() {
    let stage = Stage::new();
    let (address, strangers) = eavesdrop();
    stage.frontend.put_file("spec1/file1", "stored\n");
    let executor = stage.executor().start();
    for (call, status, times) in [
        ("dequeue", 307, 2),
        ("heartbeat", 308, 2),
        ("addExecutionLogEntry", 301, 1),
        ("git/", 302, 1),
        ("files/", 302, 1),
    ] {
        let location = format!("http://{address}/{call}");
        let fault = Fault::on(call).status(status).times(times);
        stage.frontend.inject(fault.header("Location", &location));
    }
    let spec = || {
        let job = stage.job().step(tiny("only", "cat stored.txt").dir(""));
        job.stored_file("stored.txt", "spec1/file1", "2024-04-30T16:01:02Z")
    };
    let jobs: Vec<JobRef> = (0..3).map(|_| stage.frontend.enqueue(spec())).collect();
    let ends: Vec<JobView> = jobs
        .into_iter()
        .map(|job| stage.frontend.wait_finished(job, MINUTES))
        .collect();
    let complete = ends.iter().filter(|end| end.state.name() == "completed");
    assert!(complete.count() >= 1, "{ends:?}");
    executor.stop();
    let asked: Vec<String> = strangers.try_iter().collect();
    assert!(asked.is_empty(), "somebody else was asked: {asked:#?}");
    stage.namespace.wait_until_empty();
}

#[test]
fn ten_thousand_steps_fail_alone() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let steps = (0..10_000).map(|number| tiny(&format!("s.{number}"), "true"));
    let job = steps.fold(stage.job(), JobSpec::step);
    let job = stage.frontend.enqueue(job);
    let neighbour = stage
        .frontend
        .enqueue(stage.job().step(tiny("only", "true")));
    assert_unharmed(&stage, neighbour);
    let view = stage.frontend.wait_finished(job, MINUTES);
    assert_eq!(view.state.name(), "errored", "{:?}", view.state);
    let message = view.state.message().unwrap_or_default();
    assert!(message.contains("Job "), "{message}");
    assert!(message.len() < 2000, "{} bytes", message.len());
    assert_memory_was_enough(&executor);
    executor.stop();
    stage.assert_clean();
}

/// Long lines, what terminals take for commands, NUL, and all of it at once; in
/// all less than the 10 MiB at which a kubelet begins a new log file.
#[test]
fn floods_of_strange_output_arrive_in_bounds() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let line = "head -c 1048576 /dev/zero | tr '\\0' x; echo";
    let flood = format!("i=0; while [ $i -lt 8 ]; do {line}; i=$((i+1)); done");
    let strange = r"printf '\033[2J\033]0;title\007\000\000\r\033[31mred\033[0m\n'";
    let step = quiet("flood", TINY_IMAGE).command(strange).command(flood);
    let job = stage.frontend.enqueue(stage.job().step(step));
    let view = stage.wait_complete(job);
    let lines = lines(&view, "flood");
    let red = "\u{1b}[2J\u{1b}]0;title\u{7}\u{fffd}\u{fffd}\r\u{1b}[31mred\u{1b}[0m";
    let strange: Vec<&str> = lines
        .iter()
        .copied()
        .filter(|line| line.len() < 100)
        .collect();
    assert_eq!(strange, [red]);
    let whole = lines.iter().filter(|line| line.len() == 1 << 20).count();
    assert_eq!((lines.len(), whole), (9, 8), "lines, and those of 1 MiB");
    assert_memory_was_enough(&executor);
    executor.stop();
    stage.assert_clean();
}

/// A step may change what comes after it in its own job, and nothing else.
#[test]
fn scripts_of_a_job_are_its_own_to_spoil() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let other = running_job(&stage);
    let spoil = "for it in /job/.sourcegraph-executor/*; do echo 'echo spoilt; exit 3' >$it; done; \
                 rm -rf /job/repository; ln -s / /job/repository";
    let spec = stage.job();
    let spec = spec.step(quiet("spoil", TINY_IMAGE).command(spoil).dir(""));
    let spec = spec.step(tiny("next", "echo unspoilt"));
    let job = stage.frontend.enqueue(spec);
    let view = stage.frontend.wait_finished(job, MINUTES);
    let message = "running command \"step.kubernetes.next\": exit code 3";
    assert_eq!(view.state.message(), Some(message), "{}", view.log_text());
    assert_eq!(lines(&view, "next"), ["spoilt"], "{}", view.log_text());
    let other = assert_unharmed(&stage, other);
    assert!(lines(&other, "long").contains(&"ended"));
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_step_finds_nothing_that_is_not_its_own() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let other = running_job(&stage);
    let look = "for it in /var/run/secrets /run/secrets /job/../proc/1/root/var/run/secrets; do \
                [ ! -e $it ] || echo found $it; done; \
                ls -d /job/../* | tr '\\n' ' '; echo; \
                set -- /proc/[0-9]*; [ $# -lt 8 ] || echo processes of others: $#";
    let job = stage.job().step(quiet("look", TINY_IMAGE).command(look));
    let view = stage.complete(job);
    let seen = lines(&view, "look").join("\n");
    for bad in ["found", "processes of others"] {
        assert!(!seen.contains(bad), "{seen}");
    }
    // Who is nobody may ask the API server for its version at most.
    let ask = "wget -q -O - --no-check-certificate \
               https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/api/v1/secrets; echo end";
    let view = stage.complete(stage.job().step(quiet("ask", TINY_IMAGE).command(ask)));
    // What it says of the refusal goes to the other stream, and may come later.
    let answer = lines(&view, "ask");
    assert!(answer.contains(&"end"), "{answer:?}");
    assert!(!answer.join("\n").contains("items"), "{answer:?}");
    assert_unharmed(&stage, other);
    executor.stop();
    stage.assert_clean();
}

/// A repository whose links lead out of the workspace, and files that the job
/// puts where they lead.
#[test]
fn links_of_a_repository_lead_nowhere() {
    let stage = Stage::new();
    let repository = stage.repository.path();
    std::os::unix::fs::symlink("/", repository.join("root")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", repository.join("passwd")).unwrap();
    stage.repository.git(&["add", "--all"]);
    stage
        .repository
        .git(&["commit", "--quiet", "--message=links"]);
    let executor = stage.executor().start();
    let spec = |path: &str| stage.job().file(path, "mine").step(tiny("only", "true"));
    let astray = stage.frontend.enqueue(spec("repository/root/tmp/x"));
    let view = stage.frontend.wait_finished(astray, MINUTES);
    assert_eq!(view.state.name(), "errored", "{:?}", view.state);
    let log = view.log_text();
    assert!(log.contains("leads through a link"), "{log}");
    // The link itself is the job's to replace.
    let step = quiet("look", TINY_IMAGE)
        .command("cd /job/repository; cat passwd; [ -h passwd ] || echo a file");
    let spec = stage.job().file("repository/passwd", "mine\n").step(step);
    let view = stage.complete(spec);
    assert_eq!(lines(&view, "look"), ["mine", "a file"]);
    executor.stop();
    stage.assert_clean();
}
