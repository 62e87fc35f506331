//! An executor that is killed, or hands over, and the next one with the same
//! state directory: no job is lost, none runs twice, and logs go on.

use std::path::Path;
use std::time::Duration;

use crate::frontend::record::{JobRef, JobView};
use crate::support::daemon::{Builder, Daemon};
use crate::support::stage::{Stage, tiny};
use crate::support::{MINUTES, SOON, eventually};

/// Lines that the first step of a job writes, a tenth of a second apart.
const LINES: usize = 100;

fn executor(stage: &Stage, dir: &Path) -> Builder {
    let dir = dir.to_str().expect("the path is plain");
    stage.executor().env("EXECUTOR_STATE_DIR", dir)
}

/// Two steps: one that writes for ten seconds, one that sums up.
fn enqueue(stage: &Stage) -> JobRef {
    let write = format!(
        "set +x; echo first on $HOSTNAME; i=0; while [ $i -lt {LINES} ]; do echo line $i; \
         i=$((i+1)); sleep 0.1; done; echo x >> /job/runs"
    );
    let spec = stage
        .job()
        .step(tiny("step.0.run", &write))
        .step(tiny("step.1.run", "set +x; wc -l < /job/runs; echo end"));
    stage.frontend.enqueue(spec)
}

/// Everything of the job is there once, and in order, at the first attempt.
fn assert_whole(job: &JobView) {
    assert_eq!(job.attempts, 1, "it was given away\n{}", job.log_text());
    assert_whole_at_last(job);
}

/// The same at any attempt.
fn assert_whole_at_last(job: &JobView) {
    let story = || format!("{:?}\n{}", job.state, job.log_text());
    assert_eq!(job.state.name(), "completed", "{}", story());
    let first = &job.log("step.kubernetes.step.0.run").unwrap().out;
    let lines: Vec<&str> = first
        .lines()
        .filter_map(|line| line.strip_prefix("stdout: line "))
        .collect();
    let expected: Vec<String> = (0..LINES).map(|number| number.to_string()).collect();
    assert_eq!(lines, expected, "{}", story());
    assert_eq!(first.matches("first on").count(), 1, "{}", story());
    let second = &job.log("step.kubernetes.step.1.run").unwrap().out;
    // The trace comes by another pipe, at any place.
    let lines: Vec<&str> = second.lines().filter(|line| !line.contains('+')).collect();
    assert_eq!(lines, ["stdout: 1", "stdout: end"], "{}", story());
    let keys: Vec<&str> = job.logs.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "setup.workspace",
            "step.kubernetes.step.0.run",
            "step.kubernetes.step.1.run",
            "teardown.kubernetes.job",
        ]
    );
    for entry in &job.logs {
        assert_eq!(entry.exit_code, Some(0), "{}", story());
    }
    assert_eq!(job.marks.len(), 1, "{:?}", job.marks);
}

fn wait_for_line(stage: &Stage, job: JobRef, line: usize) {
    let text = format!("stdout: line {line}\n");
    stage.frontend.wait_for(job, MINUTES, |job| {
        job.log("step.kubernetes.step.0.run")
            .is_some_and(|entry| entry.out.contains(&text))
    });
}

fn kill(mut executor: Daemon) {
    executor.signal("KILL");
    executor.wait(SOON);
}

#[test]
fn a_killed_executor_loses_nothing() {
    let stage = Stage::new();
    let dir = tempfile::tempdir().unwrap();
    let first = executor(&stage, dir.path()).start();
    let jobs = [enqueue(&stage), enqueue(&stage)];
    wait_for_line(&stage, jobs[0], 20);
    kill(first);
    let second = executor(&stage, dir.path()).start();
    second.wait_for_log("2 jobs of a former process");
    for job in jobs {
        assert_whole(&stage.frontend.wait_finished(job, MINUTES));
    }
    let names = stage.frontend.executors().len();
    assert_eq!(names, 1, "both went by one name");
    second.stop();
    stage.assert_clean();
    assert_no_state(dir.path());
}

/// Nothing of a job is kept when it is over.
fn assert_no_state(dir: &Path) {
    let slot = dir.join("executor-0");
    let left: Vec<_> = std::fs::read_dir(slot)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Gives away what was handed out to a process that died before it had written
/// that down, and which nobody knows of. The server does so by itself, but only
/// after 25 s.
fn give_away_unheard(stage: &Stage, dir: &Path, jobs: &[JobRef]) -> Vec<JobRef> {
    let journal = std::fs::read_to_string(dir.join("executor-0/journal")).unwrap_or_default();
    let is_unheard = |job: &&JobRef| {
        let run = format!("-{}-{}-", job.queue.name(), job.id);
        stage.frontend.job(**job).holder().is_some() && !journal.contains(&run)
    };
    let unheard: Vec<JobRef> = jobs.iter().filter(is_unheard).copied().collect();
    for job in &unheard {
        stage.frontend.give_away(*job);
    }
    unheard
}

#[test]
fn kills_at_any_moment_lose_nothing() {
    let stage = Stage::new();
    let dir = tempfile::tempdir().unwrap();
    let jobs: Vec<JobRef> = (0..4).map(|_| enqueue(&stage)).collect();
    let mut given_away = Vec::new();
    // From before the Job is created to after its pod has ended.
    for moment in [300, 900, 1700, 2300, 4100, 3300, 2900] {
        let executor = executor(&stage, dir.path()).spawn();
        std::thread::park_timeout(Duration::from_millis(moment));
        kill(executor);
        given_away.extend(give_away_unheard(&stage, dir.path(), &jobs));
    }
    let last = executor(&stage, dir.path()).start();
    for job in jobs {
        let view = stage.frontend.wait_finished(job, MINUTES);
        let times = given_away.iter().filter(|it| **it == job).count();
        assert_eq!(view.attempts as usize, 1 + times, "{}", view.log_text());
        assert_whole_at_last(&view);
    }
    last.stop();
    stage.assert_clean();
    assert_no_state(dir.path());
}

#[test]
fn a_handover_leaves_pods_running() {
    let stage = Stage::new();
    let dir = tempfile::tempdir().unwrap();
    let handover = || executor(&stage, dir.path()).env("EXECUTOR_SHUTDOWN", "handover");
    let mut first = handover().start();
    let job = enqueue(&stage);
    wait_for_line(&stage, job, 20);
    first.signal("TERM");
    assert_eq!(first.wait(SOON).code(), Some(0), "{}", first.log());
    assert!(first.log().contains("left to the next process"));
    assert_eq!(stage.namespace.list("pods").len(), 1, "the pod runs on");
    let second = handover().start();
    assert_whole(&stage.frontend.wait_finished(job, MINUTES));
    second.stop();
    stage.assert_clean();
}

#[test]
fn a_verdict_outlives_its_executor() {
    let stage = Stage::new();
    let dir = tempfile::tempdir().unwrap();
    let first = executor(&stage, dir.path()).start();
    let job = enqueue(&stage);
    wait_for_line(&stage, job, 80);
    stage.frontend.stop_answering();
    first.wait_for_log_within("Cannot send the log", MINUTES);
    // The end is decided, and everything is deleted, before anybody hears.
    eventually(
        "the job's objects are gone",
        MINUTES,
        || stage.namespace.list("jobs").is_empty().then_some(()),
        || first.log(),
    );
    kill(first);
    stage.frontend.resume();
    let second = executor(&stage, dir.path()).start();
    assert_whole(&stage.frontend.wait_finished(job, MINUTES));
    second.stop();
    stage.assert_clean();
}

#[test]
fn a_job_given_away_is_only_cleaned_up() {
    let stage = Stage::new();
    let dir = tempfile::tempdir().unwrap();
    let first = executor(&stage, dir.path()).start();
    let job = enqueue(&stage);
    wait_for_line(&stage, job, 5);
    kill(first);
    stage.frontend.give_away(job);
    // Another one takes it, from the start, and finishes it.
    let other = stage.executor().start();
    stage.frontend.wait_processing(job, MINUTES);
    let second = executor(&stage, dir.path()).start();
    second.wait_for_log("is not ours any more");
    let view = stage.frontend.wait_finished(job, MINUTES);
    assert_eq!(view.state.name(), "completed", "{}", view.log_text());
    assert_eq!(view.attempts, 2);
    assert_eq!(view.marks.len(), 1, "{:?}", view.marks);
    for executor in [second, other] {
        executor.stop();
    }
    stage.assert_clean();
}

#[test]
fn a_pod_that_vanished_meanwhile_is_told() {
    let stage = Stage::new();
    let dir = tempfile::tempdir().unwrap();
    let first = executor(&stage, dir.path()).start();
    let job = enqueue(&stage);
    wait_for_line(&stage, job, 5);
    kill(first);
    let delete = ["delete", "jobs", "--all", "--wait=true"];
    stage.namespace.kubectl(&delete);
    eventually(
        "the pod is gone",
        SOON,
        || stage.namespace.list("pods").is_empty().then_some(()),
        || stage.namespace.story(),
    );
    let second = executor(&stage, dir.path()).start();
    let view = stage.frontend.wait_finished(job, MINUTES);
    let said = view.state.message().unwrap_or_default();
    assert!(said.contains("deleted"), "{said}");
    assert_eq!(view.attempts, 1, "no step runs twice");
    second.stop();
    stage.assert_clean();
}

#[test]
fn fewer_workers_lose_no_job() {
    let stage = Stage::new();
    let dir = tempfile::tempdir().unwrap();
    let first = executor(&stage, dir.path()).start();
    let jobs = [enqueue(&stage), enqueue(&stage), enqueue(&stage)];
    for job in jobs {
        wait_for_line(&stage, job, 2);
    }
    kill(first);
    let second = executor(&stage, dir.path())
        .env("EXECUTOR_MAXIMUM_NUM_JOBS", "1")
        .start();
    for job in jobs {
        assert_whole(&stage.frontend.wait_finished(job, MINUTES));
    }
    second.stop();
    stage.assert_clean();
}

#[test]
fn jobs_of_another_queue_are_deleted() {
    let stage = Stage::new();
    let dir = tempfile::tempdir().unwrap();
    let first = executor(&stage, dir.path()).start();
    let job = enqueue(&stage);
    wait_for_line(&stage, job, 2);
    kill(first);
    let second = executor(&stage, dir.path())
        .env("EXECUTOR_QUEUE_NAME", "codeintel")
        .start();
    second.wait_for_log("cannot be taken up again");
    second.stop();
    stage.namespace.wait_until_gone("jobs,pods");
    assert_no_state(dir.path());
}

#[test]
fn replicas_can_share_a_state_directory() {
    let stage = Stage::new();
    let dir = tempfile::tempdir().unwrap();
    let replicas = [0, 1].map(|_| {
        executor(&stage, dir.path())
            .env("EXECUTOR_MAXIMUM_NUM_JOBS", "1")
            .start()
    });
    let jobs = [enqueue(&stage), enqueue(&stage)];
    for job in jobs {
        assert_whole(&stage.frontend.wait_finished(job, MINUTES));
    }
    assert_eq!(stage.frontend.executors().len(), 2);
    for replica in replicas {
        replica.stop();
    }
    stage.assert_clean();
}
