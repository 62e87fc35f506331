//! Logs through broken streams: nothing is lost, nothing comes twice, and what
//! cannot be had is named. And the executor's own log, for people.

use serde_json::Value;

use crate::frontend::record::{JobRef, JobView};
use crate::frontend::spec::StepSpec;
use crate::support::cluster::try_kubectl;
use crate::support::daemon::Daemon;
use crate::support::proxy::Proxy;
use crate::support::proxy::fault::{Call, Fault, Place};
use crate::support::stage::{REPOSITORY, Stage, TINY_IMAGE, tiny};
use crate::support::{MINUTES, SOON, eventually};

/// In the query of a log request for the step.
const STEP: &str = "container=step-kubernetes-only";
/// The container of the step.
const CONTAINER: &str = "step-kubernetes-only";

fn step(commands: &[&str]) -> StepSpec {
    let step = StepSpec::new("only", TINY_IMAGE).command("set +x");
    commands.iter().fold(step, |step, line| step.command(*line))
}

/// Where output may be missing.
const MARKER: &str = "stderr: Output between ";

/// Fails unless the job is complete and its step wrote just these lines. No
/// word may be there of missing output, except on a node that tells the end of
/// a container seconds too late: then nobody can know that a file was read to
/// its end.
fn assert_written(executor: &Daemon, job: &JobView, lines: impl IntoIterator<Item = String>) {
    assert_eq!(job.state.name(), "completed", "{}", job.log_text());
    let entry = job.log("step.kubernetes.only").expect("the step has a log");
    let is_late = executor.log().contains("has ended, and the pod runs on");
    assert!(is_late || !entry.out.contains(MARKER), "output is missed");
    // A line of the other stream, whose place among these is not sure.
    let is_trace = |line: &str| line == "stdout: + set +x";
    let is_written = |line: &&str| !is_trace(line) && !line.starts_with(MARKER);
    let mut found = entry.out.lines().filter(is_written).enumerate();
    for line in lines.into_iter().map(|line| format!("stdout: {line}")) {
        let (number, found) = found.next().expect("the log goes on");
        let excerpt = |text: &str| text.chars().take(60).collect::<String>();
        assert!(
            found == line,
            "line {number} has {} bytes and not {}: {}… and not {}…",
            found.len(),
            line.len(),
            excerpt(found),
            excerpt(&line)
        );
    }
    assert_eq!(found.next(), None, "the log has more");
}

/// Waits until the log entry of the step has a line that begins like this.
fn wait_for_line(stage: &Stage, job: JobRef, line: &str) {
    let line = format!("\nstdout: {line}");
    stage.frontend.wait_for(job, MINUTES, |job| {
        let entry = job.log("step.kubernetes.only");
        entry.is_some_and(|entry| entry.out.contains(&line))
    });
}

/// Waits until all trouble has struck.
fn wait_for_faults(proxy: &Proxy) {
    let all_struck = || proxy.missed_faults().is_empty().then_some(());
    eventually("all faults strike", SOON, all_struck, || proxy.story());
}

#[test]
fn a_log_cut_at_odd_places_arrives_whole() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    let on_log = || Fault::on(Call::Log).of(STEP);
    proxy.inject(on_log().times(4).cut(30_000, Place::Here).further(40_321));
    proxy.inject(on_log().times(4).cut(100, Place::InStamp).further(90_000));
    proxy.inject(on_log().times(2).end_early(5_000, Place::AtBorder));
    proxy.inject(on_log().times(2).end_early(70_000, Place::Here));
    let executor = stage.executor_through(&proxy).start();
    let round = "i=0; while [ $i -lt 50 ]; do echo $1 slow $i; i=$((i+1)); done; \
                 head -c 100000 /dev/zero | tr '\\0' x; echo $1; sleep 0.3; \
                 i=0; while [ $i -lt 500 ]; do echo $1 quick $i; i=$((i+1)); done; sleep 0.3";
    let round = format!("round() {{ {round}; }}");
    let all = "r=0; while [ $r -lt 15 ]; do round $r; r=$((r+1)); done";
    let job = stage
        .frontend
        .enqueue(stage.job().step(step(&[&round, all])));
    let job = stage.frontend.wait_finished(job, MINUTES);
    let lines = (0..15).flat_map(|round| {
        let slow = (0..50).map(move |i| format!("{round} slow {i}"));
        let long = [format!("{}{round}", "x".repeat(100_000))];
        let quick = (0..500).map(move |i| format!("{round} quick {i}"));
        slow.chain(long).chain(quick)
    });
    assert_written(&executor, &job, lines);
    executor.stop();
    stage.assert_clean();
}

/// Shell functions of a step: `lines WORD COUNT` writes numbered lines of a
/// hundred bytes, `await WORD` waits until the test says the word, and `tick
/// WORD` writes a line ten times a second until then, and how many these were.
const TOOLS: &str = "\
    pad=$(head -c 85 /dev/zero | tr '\\0' x); \
    lines() { i=0; while [ $i -lt $2 ]; do echo $1 $i $pad; i=$((i+1)); done; }; \
    await() { while [ ! -e /tmp/$1 ]; do sleep 0.1; done; }; \
    tick() { i=0; while [ ! -e /tmp/$1 ]; do echo $1 tick $i; i=$((i+1)); sleep 0.1; done; \
    echo $1 ticks: $i; }";

/// What `lines` writes. The kubelet puts a log file away that is larger than
/// 10 MiB, with 40 bytes of its own for each line: about 76,000 of these. It
/// looks every ten seconds.
fn lines(word: &str, count: u32) -> impl Iterator<Item = String> {
    let pad = "x".repeat(85);
    (0..count).map(move |number| format!("{word} {number} {pad}"))
}

/// What `tick` has written, by its own count.
fn ticks(job: &JobView, word: &str) -> impl Iterator<Item = String> {
    let entry = job.log("step.kubernetes.only");
    let mark = format!("stdout: {word} ticks: ");
    let count = entry.and_then(|entry| entry.out.lines().find_map(|it| it.strip_prefix(&mark)));
    let count = count.and_then(|count| count.parse::<u32>().ok());
    let count = count.expect("the count of the ticks arrives");
    let ticks = (0..count).map(move |number| format!("{word} tick {number}"));
    ticks.chain([format!("{word} ticks: {count}")])
}

/// The step's container, as an administrator sees it.
struct Container<'a> {
    stage: &'a Stage,
    pod: String,
}

impl<'a> Container<'a> {
    /// Waits until the step has written something.
    fn of(stage: &'a Stage) -> Container<'a> {
        let pods = || stage.namespace.list("pods");
        let name = |pod: &Value| Some(pod["metadata"]["name"].as_str()?.to_owned());
        eventually(
            "the step writes",
            MINUTES,
            || {
                let pod = pods().iter().find_map(name)?;
                let container = Container { stage, pod };
                container.served(&["--limit-bytes=1"]).map(|_| container)
            },
            || stage.namespace.story(),
        )
    }

    /// What the kubelet serves of the step's log, if that is anything.
    fn served(&self, how_much: &[&str]) -> Option<String> {
        let namespace = ["-n", &self.stage.namespace.name];
        let what = ["logs", &self.pod, "-c", CONTAINER];
        let served = try_kubectl(&[&namespace, &what[..], how_much].concat(), None);
        served.ok().filter(|text| !text.is_empty())
    }

    /// Waits until the step has written a line that begins like this, and
    /// nothing after it.
    fn wait_for_last(&self, line: &str) {
        let last = || self.served(&["--tail=1"]);
        eventually(
            &format!("the step writes {line:?}"),
            MINUTES,
            || last().filter(|last| last.starts_with(line)),
            || format!("its last line is {:?}", last()),
        );
    }

    /// The time with which the file begins that the kubelet serves; none if
    /// that is empty.
    fn file(&self) -> Option<String> {
        self.served(&["--timestamps", "--limit-bytes=30"])
    }

    /// Waits until the kubelet serves another file than this one.
    fn wait_for_rotation(&self, former: Option<String>) {
        eventually(
            "the kubelet begins a new file",
            SOON,
            || (self.file() != former).then_some(()),
            || format!("it still begins at {former:?}"),
        );
    }

    /// Ends an `await` of the step.
    fn say(&self, word: &str) {
        let file = format!("/tmp/{word}");
        let exec = ["exec", &self.pod, "-c", CONTAINER, "--", "touch", &file];
        self.stage.namespace.kubectl(&exec);
    }
}

#[test]
fn a_rotated_log_arrives_whole() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    let on_log = || Fault::on(Call::Log).of(STEP);
    proxy.inject(on_log().cut(1_000_003, Place::Here));
    proxy.inject(on_log().cut(2_000_003, Place::InStamp));
    proxy.inject(on_log().cut(3_000_003, Place::Here));
    let executor = stage.executor_through(&proxy).start();
    // The file grows too large only when no stream breaks any more: what is put
    // away between two streams is truly lost.
    let job = stage.frontend.enqueue(stage.job().step(step(&[
        TOOLS,
        "lines first 60000",
        "await resumed",
        "lines second 60000",
        "tick rotated",
        "lines last 1000",
    ])));
    let container = Container::of(&stage);
    let file = container.file();
    wait_for_faults(&proxy);
    container.say("resumed");
    container.wait_for_rotation(file);
    container.say("rotated");
    let job = stage.frontend.wait_finished(job, MINUTES);
    let large = lines("first", 60_000).chain(lines("second", 60_000));
    let ticks = ticks(&job, "rotated");
    assert_written(
        &executor,
        &job,
        large.chain(ticks).chain(lines("last", 1000)),
    );
    executor.stop();
    stage.assert_clean();
}

/// The kubelet looks for new files only once it has come to the end of the one
/// that it began with.
#[test]
fn a_rotation_behind_a_slow_stream_loses_nothing() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    let on_log = || Fault::on(Call::Log).of(STEP);
    // It opens its stream when the file is large; on a busy machine by itself.
    proxy.inject(on_log().always().answer(503).perhaps());
    let executor = stage.executor_through(&proxy).start();
    // A stream that is silent at its end looks as if all were said.
    let job = stage.frontend.enqueue(stage.job().step(step(&[
        TOOLS,
        "lines first 70000",
        "await reader",
        "lines second 20000",
        "tick rotated",
        "lines last 1000",
        "sleep 2",
    ])));
    let container = Container::of(&stage);
    container.wait_for_last("first 69999 ");
    proxy.clear();
    proxy.inject(on_log().pause(100_000, Place::Here));
    wait_for_faults(&proxy);
    let file = container.file();
    container.say("reader");
    container.wait_for_rotation(file);
    proxy.clear();
    container.say("rotated");
    let job = stage.frontend.wait_finished(job, MINUTES);
    let large = lines("first", 70_000).chain(lines("second", 20_000));
    let ticks = ticks(&job, "rotated");
    assert_written(
        &executor,
        &job,
        large.chain(ticks).chain(lines("last", 1000)),
    );
    executor.stop();
    stage.assert_clean();
}

#[test]
fn what_was_rotated_unread_is_named() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    let executor = stage.executor_through(&proxy).start();
    let job = stage.frontend.enqueue(stage.job().step(step(&[
        TOOLS,
        "lines read 1000",
        "await outage",
        "lines lost 90000",
        "await rotated",
        "lines late 90000",
        "await again",
        "lines last 1000",
    ])));
    wait_for_line(&stage, job, "read 999 ");
    let container = Container::of(&stage);
    let file = container.file();
    proxy.inject(Fault::on(Call::Log).of(STEP).always().answer(503));
    proxy.end_connections();
    container.say("outage");
    container.wait_for_rotation(file);
    container.say("rotated");
    let file = eventually("a new file", SOON, || container.file(), || proxy.story());
    container.wait_for_rotation(Some(file));
    proxy.clear();
    container.say("again");
    let job = stage.frontend.wait_finished(job, MINUTES);
    assert_eq!(job.state.name(), "completed", "{}", job.log_text());
    let entry = job.log("step.kubernetes.only").expect("the step has a log");
    let (read, rest) = entry.out.split_once(MARKER).expect("what is lost is named");
    let read: Vec<&str> = read.lines().filter(|it| !it.contains('+')).collect();
    let marked = |it: String| format!("stdout: {it}");
    assert_eq!(read, lines("read", 1000).map(marked).collect::<Vec<_>>());
    let (marker, rest) = rest.split_once('\n').expect("it is a line");
    assert!(marker.contains(" may be missing: "), "{marker}");
    // Of the lines that were late, the last may be in the file that is served.
    let all: Vec<String> = lines("late", 90_000)
        .chain(lines("last", 1000))
        .map(marked)
        .collect();
    let rest: Vec<&str> = rest.lines().collect();
    assert!((1000..91_000).contains(&rest.len()), "{}", rest.len());
    assert_eq!(rest, all[all.len() - rest.len()..]);
    executor.stop();
    stage.assert_clean();
}

/// The lines of an executor's log that name a job, and that are all JSON.
fn lines_about(log: &str, job: &str) -> Vec<Value> {
    let parsed = log.lines().map(|line| {
        let value: Result<Value, _> = serde_json::from_str(line);
        value.unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    parsed.filter(|line| line["job"] == job).collect()
}

#[test]
fn a_job_takes_three_lines_of_the_executors_log() {
    let stage = Stage::new();
    let executor = stage
        .executor()
        .without("RUST_LOG")
        .env("SRC_LOG_FORMAT", "json")
        .start();
    let run = |step| {
        let job = stage.frontend.enqueue(stage.job().step(step));
        stage.frontend.wait_finished(job, MINUTES);
        format!("batches/{}", job.id)
    };
    let good = run(tiny("good", "true"));
    let bad = run(tiny("bad", "exit 3"));
    executor.signal("TERM");
    let mut executor = executor;
    executor.wait(MINUTES);
    let log = executor.log();
    let commit: String = stage.repository.head().chars().take(10).collect();
    for (job, end) in [
        (&good, "Complete after "),
        (
            &bad,
            "running command \"step.kubernetes.bad\": exit code 3.",
        ),
    ] {
        let lines = lines_about(&log, job);
        assert_eq!(lines.len(), 3, "{lines:#?}");
        let name = format!("sg-executor-job-{}-", job.replace('/', "-"));
        for (line, words) in lines.iter().zip([
            &["Taken: ", REPOSITORY, &commit, "1 step"][..],
            &["Created Job ", &stage.namespace.name, &name],
            &[end],
        ]) {
            assert_eq!(line["level"], "info", "{line}");
            let thread = line["thread"].as_str().unwrap();
            assert!(thread.starts_with("worker-"), "{line}");
            let message = line["message"].as_str().unwrap();
            for word in words {
                assert!(message.contains(word), "no {word} in {message}");
            }
        }
    }
    assert!(!log.contains(stage.frontend.token()), "{log}");
    stage.assert_clean();
}
