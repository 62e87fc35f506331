//! Every way in which a job stops before its end: cancelled, given away,
//! too slow, or its executor stops. Nothing may be left of it.

use std::time::Duration;

use crate::frontend::record::{JobRef, JobState, MarkKind};
use crate::support::stage::{Stage, tiny};
use crate::support::{MINUTES, SOON};

/// Waits until the step of a job has written `text`.
fn wait_for_output(stage: &Stage, job: JobRef, text: &str) {
    stage.frontend.wait_for(job, MINUTES, |job| {
        job.logs.iter().any(|entry| entry.out.contains(text))
    });
}

fn sleeper(stage: &Stage) -> JobRef {
    stage
        .frontend
        .enqueue(stage.job().step(tiny("long", "echo begun; sleep 600")))
}

#[test]
fn a_running_job_can_be_cancelled() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let job = sleeper(&stage);
    wait_for_output(&stage, job, "stdout: begun");
    stage.frontend.cancel(job);
    let view = stage.frontend.wait_finished(job, SOON);
    assert!(matches!(view.state, JobState::Canceled), "{:?}", view.state);
    assert_eq!(view.marks[0].kind, MarkKind::Failed);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_pending_job_can_be_cancelled() {
    let stage = Stage::new();
    // No node has this much, so the pod waits for one.
    let executor = stage
        .executor()
        .env("EXECUTOR_KUBERNETES_RESOURCE_REQUEST_MEMORY", "900Gi")
        .env("EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY", "900Gi")
        .start();
    let job = sleeper(&stage);
    executor.wait_for_log_within("no node can take the pod", MINUTES);
    stage.frontend.cancel(job);
    let view = stage.frontend.wait_finished(job, SOON);
    assert!(matches!(view.state, JobState::Canceled), "{:?}", view.state);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_job_the_server_forgot_is_stopped() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let job = sleeper(&stage);
    wait_for_output(&stage, job, "stdout: begun");
    stage.frontend.forget(job);
    executor.wait_for_log("is not ours any more");
    stage.namespace.wait_until_empty();
    let view = stage.frontend.job(job);
    assert!(
        view.marks.is_empty(),
        "what is not ours is not marked: {:?}",
        view.marks
    );
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_job_may_not_exceed_its_runtime() {
    let stage = Stage::new();
    let executor = stage
        .executor()
        .env("EXECUTOR_MAXIMUM_RUNTIME_PER_JOB", "10s")
        .start();
    let job = sleeper(&stage);
    let view = stage.frontend.wait_finished(job, MINUTES);
    assert!(
        matches!(view.state, JobState::Errored { .. }),
        "{:?}",
        view.state
    );
    assert_eq!(
        view.state.message(),
        Some("job exceeded maximum execution time of 10s")
    );
    executor.stop();
    stage.assert_clean();
}

#[test]
fn an_idle_executor_stops_at_once() {
    let stage = Stage::new();
    let mut executor = stage
        .executor()
        .env("EXECUTOR_QUEUE_POLL_INTERVAL", "30s")
        .start();
    executor.signal("TERM");
    let status = executor.wait(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{}", executor.log());
}

#[test]
fn a_busy_executor_finishes_its_job() {
    let stage = Stage::new();
    let mut executor = stage.executor().start();
    let job = stage
        .frontend
        .enqueue(stage.job().step(tiny("s", "echo begun; sleep 8; echo end")));
    wait_for_output(&stage, job, "stdout: begun");
    executor.signal("TERM");
    let later = stage
        .frontend
        .enqueue(stage.job().step(tiny("s", "echo late")));
    let view = stage.frontend.wait_finished(job, MINUTES);
    assert!(
        matches!(view.state, JobState::Completed),
        "{:?}",
        view.state
    );
    assert_eq!(executor.wait(SOON).code(), Some(0), "{}", executor.log());
    let later = stage.frontend.job(later);
    assert!(
        matches!(later.state, JobState::Queued),
        "no new job is taken: {:?}",
        later.state
    );
    stage.assert_clean();
}

#[test]
fn the_drain_limit_ends_jobs_in_order() {
    let stage = Stage::new();
    let mut executor = stage.executor().env("EXECUTOR_DRAIN_TIMEOUT", "1s").start();
    let job = sleeper(&stage);
    wait_for_output(&stage, job, "stdout: begun");
    executor.signal("TERM");
    let view = stage.frontend.wait_finished(job, SOON);
    assert!(
        matches!(view.state, JobState::Errored { .. }),
        "{:?}",
        view.state
    );
    assert!(
        view.state
            .message()
            .unwrap()
            .contains("the executor was stopped")
    );
    assert_eq!(executor.wait(SOON).code(), Some(0), "{}", executor.log());
    stage.assert_clean();
}

#[test]
fn a_second_signal_ends_everything_soon() {
    let stage = Stage::new();
    let mut executor = stage.executor().start();
    let job = sleeper(&stage);
    wait_for_output(&stage, job, "stdout: begun");
    executor.signal("TERM");
    executor.wait_for_log("1 job runs");
    executor.signal("TERM");
    let status = executor.wait(Duration::from_secs(15));
    assert!(
        matches!(status.code(), Some(0 | 2)),
        "{status}\n{}",
        executor.log()
    );
    stage.namespace.wait_until_empty();
}
