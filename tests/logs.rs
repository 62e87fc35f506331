//! Logs through broken streams: nothing is lost, nothing comes twice, and what
//! cannot be had is named.

use crate::frontend::record::JobView;
use crate::frontend::spec::StepSpec;
use crate::support::MINUTES;
use crate::support::proxy::Proxy;
use crate::support::proxy::fault::{Call, Fault, Place};
use crate::support::stage::{Stage, TINY_IMAGE};

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
