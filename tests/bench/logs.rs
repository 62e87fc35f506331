//! Large logs: what they cost on the way to the frontend, and how fast they
//! are read.

use std::io::Read;
use std::process::{Child, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::LIMIT;
use crate::frontend::Frontend;
use crate::frontend::record::JobRef;
use crate::frontend::spec::JobSpec;
use crate::process;
use crate::reins::{Reins, WORD};
use crate::support::cluster::kubectl_command;
use crate::support::daemon::Daemon;
use crate::support::stage::Stage;
use crate::table::Table;

/// Bytes of the logs.
const SIZES: [u64; 5] = [1 << 10, 64 << 10, 1 << 20, 16 << 20, 256 << 20];
const FREE_BYTES: u64 = 64 << 10;
const SECRETS: usize = 50;
const THROUGHPUT_LEAST: f64 = 0.8;
const MEMORY_MOST: f64 = 8.0;
/// What the executor may write elsewhere while a log is read.
const OWN_LOG_BYTES: u64 = 16 << 10;
/// How often it is looked how far a log was read.
const LOOK: Duration = Duration::from_millis(10);

/// Lets jobs write logs of all sizes; the largest is read by kubectl too.
pub(crate) fn measure(table: &mut Table) {
    let stage = Stage::new();
    let executor = stage
        .executor()
        .env("RUST_LOG", "warn,executor=info")
        .start();
    let mut told = Vec::new();
    let mut is_reached = true;
    for size in SIZES {
        let writer = Writer::start(&stage, size);
        let before = sent(&stage.frontend);
        if size == SIZES[SIZES.len() - 1] {
            throughput(table, &stage, &executor, &writer);
        } else {
            writer.write();
        }
        let view = stage.frontend.wait_finished(writer.job, LIMIT);
        assert_eq!(view.state.name(), "completed");
        let sent = sent(&stage.frontend) - before;
        told.push(format!(
            "{}: {} (n × {:.2})",
            readable(size),
            readable(sent),
            sent as f64 / size as f64
        ));
        is_reached &= sent <= 3 * size + FREE_BYTES;
    }
    executor.stop();
    table.add(
        "bytes to the frontend for all logs of a job whose step writes n bytes",
        told.join("; "),
        "≤ 3 n + 64 KiB",
        is_reached,
    );
}

/// A job whose step writes so many bytes when it is told to.
struct Writer {
    job: JobRef,
    reins: Reins,
}

impl Writer {
    fn start(stage: &Stage, size: u64) -> Writer {
        let reins = Reins::new();
        let line = format!("{} secret-7 {}", "x".repeat(45), "y".repeat(44));
        let write = format!("yes '{line}' | head -c {size}");
        let step = reins.step("writer", &write);
        let job = (0..SECRETS).fold(JobSpec::new("batches").step(step), |job, number| {
            job.redact(&format!("secret-{number}"), "[hidden]")
        });
        let job = stage.frontend.enqueue(job);
        reins.wait_for(1);
        // By then the API server, too, knows that the container runs.
        stage.frontend.wait_for(job, LIMIT, |view| {
            let log = view.log("step.kubernetes.led");
            log.is_some_and(|log| log.out.contains(WORD))
        });
        Writer { job, reins }
    }

    fn write(&self) {
        self.reins.say_all("go");
        self.reins.release_all();
    }
}

/// Bytes of all calls about logs so far.
fn sent(frontend: &Frontend) -> u64 {
    let traffic = frontend.traffic();
    ["addExecutionLogEntry", "updateExecutionLogEntry"]
        .iter()
        .filter_map(|call| traffic.get(*call))
        .map(|traffic| traffic.body_bytes)
        .sum()
}

/// Both follow the same container at the same time.
fn throughput(table: &mut Table, stage: &Stage, executor: &Daemon, writer: &Writer) {
    let size = SIZES[SIZES.len() - 1];
    let kubectl = Kubectl::follow(stage, writer.job);
    let before = process::resident(executor);
    let began = Instant::now();
    writer.write();
    let (mut spooled, mut most) = (Vec::new(), before);
    let is_final = || {
        let job = writer.job;
        stage.frontend.glance(job, |view| view.state.is_final())
    };
    while !is_final() {
        assert!(began.elapsed() < LIMIT, "not within {LIMIT:?}");
        spooled.push((began.elapsed(), process::written(executor)));
        most = most.max(process::resident(executor));
        thread::park_timeout(LOOK);
    }
    let whole = began.elapsed().as_secs_f64();
    let (theirs, their_bytes) = kubectl.read_all();
    let theirs = theirs.duration_since(began).as_secs_f64();
    // Besides its spool the executor writes no more than lines of its own log.
    let all = spooled.last().map_or(0, |(_, bytes)| *bytes);
    let is_all = |(_, bytes): &&(Duration, u64)| bytes + OWN_LOG_BYTES >= all;
    let ours = spooled.iter().find(is_all).expect("it was spooled");
    let ours = ours.0.as_secs_f64();
    // The node may put away what neither could read in time.
    let our_bytes = stage.frontend.glance(writer.job, |view| {
        let log = view.log("step.kubernetes.led");
        log.map_or(0, |log| unmarked_bytes(&log.out))
    });
    let (our_speed, their_speed) = (
        process::mib(our_bytes) / ours,
        process::mib(their_bytes) / theirs,
    );
    let (ratio, growth) = (our_speed / their_speed, most - before);
    table.add(
        format!(
            "log throughput with {SECRETS} secrets to redact, against `kubectl logs -f` of the \
             same container, {}",
            readable(size)
        ),
        format!(
            "{ratio:.2} ({} at {our_speed:.0} MiB/s against {} at {their_speed:.0} MiB/s; at the \
             frontend after {whole:.1} s; memory grew by {growth:.1} MiB)",
            readable(our_bytes),
            readable(their_bytes)
        ),
        format!("≥ {THROUGHPUT_LEAST}, memory ≤ {MEMORY_MOST} MiB"),
        ratio >= THROUGHPUT_LEAST && growth <= MEMORY_MOST,
    );
}

/// A reader of the log beside the executor.
struct Kubectl {
    child: Child,
    reading: JoinHandle<(u64, Instant)>,
}

impl Kubectl {
    /// Follows the job's container, which says a word at first.
    fn follow(stage: &Stage, job: JobRef) -> Kubectl {
        let label = format!("executor.sourcegraph.com/job-id={}", job.id);
        let names = [
            "get",
            "pods",
            "-l",
            &label,
            "-o",
            "jsonpath={..metadata.name}",
        ];
        let name = stage.namespace.kubectl(&names);
        let mut child = kubectl_command(&stage.namespace.kubeconfig)
            .args(["--namespace", &stage.namespace.name, "logs", "--follow"])
            .args([&name, "--container", "step-kubernetes-led"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl can be run");
        let mut output = child.stdout.take().expect("it is piped");
        let mut word = [0; WORD.len() + 1];
        output
            .read_exact(&mut word)
            .expect("it says the first word");
        let reading = thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            let (mut bytes, mut last) = (0, Instant::now());
            loop {
                match output.read(&mut buffer).expect("it can be read") {
                    0 => return (bytes, last),
                    count => bytes += count as u64,
                }
                last = Instant::now();
            }
        });
        Kubectl { child, reading }
    }

    /// When it had read its last byte, and how many it read.
    fn read_all(mut self) -> (Instant, u64) {
        let (bytes, last) = self.reading.join().expect("it was read to its end");
        // If the node has put the log away, it says so by its exit code.
        let _ = self.child.wait();
        (last, bytes)
    }
}

/// Bytes of an output without the marks of its lines.
fn unmarked_bytes(out: &str) -> u64 {
    let lines = out.lines();
    lines
        .map(|line| line.strip_prefix("stdout: ").unwrap_or(line).len() as u64 + 1)
        .sum()
}

fn readable(bytes: u64) -> String {
    match bytes {
        0..0x2800 => format!("{bytes} B"),
        0x2800..0x100000 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", process::mib(bytes)),
    }
}
