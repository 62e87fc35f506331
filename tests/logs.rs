//! Logs through broken streams: nothing is lost, nothing comes twice, and what
//! cannot be had is named. And the executor's own log, for people.

use serde_json::Value;

use crate::frontend::record::JobView;
use crate::frontend::spec::StepSpec;
use crate::support::MINUTES;
use crate::support::proxy::Proxy;
use crate::support::proxy::fault::{Call, Fault, Place};
use crate::support::stage::{REPOSITORY, Stage, TINY_IMAGE, tiny};

/// In the query of a log request for the step.
const STEP: &str = "container=step-kubernetes-only";

fn step(commands: &[&str]) -> StepSpec {
    let step = StepSpec::new("only", TINY_IMAGE).command("set +x");
    commands.iter().fold(step, |step, line| step.command(*line))
}

/// Fails unless the job is complete and its step wrote just these lines.
fn assert_written(job: &JobView, lines: impl IntoIterator<Item = String>) {
    assert_eq!(job.state.name(), "completed", "{}", job.log_text());
    let entry = job.log("step.kubernetes.only").expect("the step has a log");
    // A line of the other stream, whose place among these is not sure.
    let found = entry.out.lines().filter(|line| *line != "stdout: + set +x");
    let mut found = found.enumerate();
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
    assert_written(&job, lines);
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
