//! Several queues at once, by the calls made for them, and an executor that
//! ends by itself.

use crate::frontend::spec::JobSpec;
use crate::frontend::{Frontend, Generation};
use crate::support::stage::{Stage, tiny};
use crate::support::{MINUTES, SOON, daemon};

fn on_both_queues(stage: &Stage) -> daemon::Builder {
    stage
        .executor()
        .without("EXECUTOR_QUEUE_NAME")
        .env("EXECUTOR_QUEUE_NAMES", "batches,codeintel")
}

fn job(stage: &Stage, queue: &str, command: &str) -> JobSpec {
    let (name, head) = (crate::support::stage::REPOSITORY, stage.repository.head());
    JobSpec::new(queue)
        .repository(name, &head)
        .shallow(true)
        .step(tiny("only", command))
}

#[test]
fn jobs_of_two_queues_never_meet() {
    let stage = Stage::new();
    let executor = on_both_queues(&stage).start();
    executor.wait_for_log("queues batches and codeintel");
    let wait = "touch /job/up; while true; do sleep 1; done";
    let batches = stage.frontend.enqueue(job(&stage, "batches", wait));
    let codeintel = stage
        .frontend
        .enqueue(job(&stage, "codeintel", "sleep 12; echo ran"));
    assert_eq!(batches.id, codeintel.id, "each queue counts for itself");
    stage.frontend.wait_processing(batches, MINUTES);
    stage.frontend.wait_processing(codeintel, MINUTES);
    stage.frontend.cancel(batches);
    let view = stage.frontend.wait_finished(batches, MINUTES);
    assert_eq!(view.state.name(), "canceled", "{}", view.log_text());
    let view = stage.frontend.wait_finished(codeintel, MINUTES);
    assert_eq!(view.state.name(), "completed", "{}", view.log_text());
    assert!(view.log_text().contains("stdout: ran\n"));
    let heartbeats = stage.frontend.requests_to("/queue/heartbeat");
    let both = heartbeats.iter().any(|request| {
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let queues = body["jobIdsByQueue"].as_array().map(Vec::len);
        body["queueNames"] == serde_json::json!(["batches", "codeintel"]) && queues == Some(2)
    });
    assert!(both, "a heartbeat names the jobs of both queues");
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_server_of_single_queues_is_named() {
    let stage = Stage::with(Frontend::builder().generation(Generation::Token));
    let mut executor = on_both_queues(&stage).spawn();
    executor.wait_for_log("set EXECUTOR_QUEUE_NAME instead of EXECUTOR_QUEUE_NAMES");
    executor.signal("TERM");
    assert_eq!(executor.wait(SOON).code(), Some(0), "{}", executor.log());
}

#[test]
fn the_last_job_of_a_number_ends_it() {
    let stage = Stage::new();
    let jobs: Vec<_> = (0..3)
        .map(|_| stage.frontend.enqueue(job(&stage, "batches", "echo ran")))
        .collect();
    let mut executor = stage.executor().env("EXECUTOR_NUM_TOTAL_JOBS", "2").spawn();
    let status = executor.wait(MINUTES);
    assert_eq!(status.code(), Some(0), "{}", executor.log());
    let states: Vec<_> = jobs
        .into_iter()
        .map(|job| stage.frontend.job(job).state.name())
        .collect();
    assert_eq!(states, ["completed", "completed", "queued"]);
    assert!(
        executor
            .log()
            .contains("EXECUTOR_NUM_TOTAL_JOBS is reached")
    );
    stage.assert_clean();
}

#[test]
fn the_end_of_its_time_ends_it() {
    let stage = Stage::new();
    let running = stage
        .frontend
        .enqueue(job(&stage, "batches", "sleep 8; echo ran"));
    let mut executor = stage
        .executor()
        .env("EXECUTOR_MAX_ACTIVE_TIME", "3s")
        .env("EXECUTOR_MAXIMUM_NUM_JOBS", "1")
        .spawn();
    executor.wait_for_log("EXECUTOR_MAX_ACTIVE_TIME is over");
    let late = stage.frontend.enqueue(job(&stage, "batches", "echo late"));
    let status = executor.wait(MINUTES);
    assert_eq!(status.code(), Some(0), "{}", executor.log());
    let view = stage.frontend.job(running);
    assert_eq!(view.state.name(), "completed", "{}", view.log_text());
    assert_eq!(stage.frontend.job(late).state.name(), "queued");
    stage.assert_clean();
}
