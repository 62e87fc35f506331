//! What is left of an executor that dies, and who removes it: the cluster what
//! it owns, another executor what it can prove to be nobody's.

use serde_json::Value;

use crate::frontend::record::{JobRef, JobState};
use crate::support::stage::{Stage, tiny};
use crate::support::{MINUTES, SOON, eventually};

fn sleeper(stage: &Stage) -> JobRef {
    stage
        .frontend
        .enqueue(stage.job().step(tiny("long", "echo begun; sleep 600")))
}

/// Waits until the step of a job has written that it has begun.
fn wait_until_begun(stage: &Stage, job: JobRef) {
    stage.frontend.wait_for(job, MINUTES, |job| {
        job.logs
            .iter()
            .any(|entry| entry.out.contains("stdout: begun"))
    });
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// The only Job there is.
fn only_job(stage: &Stage) -> Value {
    let mut jobs = stage.namespace.list("jobs");
    assert_eq!(jobs.len(), 1, "{}", stage.namespace.story());
    jobs.remove(0)
}

/// What a crash leaves goes by the Job's deadline and its TTL. Here a person
/// deletes it, to the same effect and sooner.
#[test]
fn secrets_go_with_the_job_of_a_dead_executor() {
    let stage = Stage::new();
    let mut executor = stage.executor().start();
    let job = sleeper(&stage);
    wait_until_begun(&stage, job);
    executor.signal("KILL");
    executor.wait(SOON);
    let left = only_job(&stage);
    assert!(left["spec"]["activeDeadlineSeconds"].is_u64(), "{left}");
    assert!(left["spec"]["ttlSecondsAfterFinished"].is_u64(), "{left}");
    let secrets = stage.namespace.list("secrets");
    assert!(!secrets.is_empty());
    for secret in secrets {
        let owner = &secret["metadata"]["ownerReferences"][0];
        assert_eq!(owner["uid"], left["metadata"]["uid"], "{owner}");
    }
    stage.namespace.kubectl(&["delete", "job", name(&left)]);
    stage.assert_clean();
}

#[test]
fn a_refused_secret_leaves_no_job() {
    let stage = Stage::new();
    stage
        .namespace
        .kubectl(&["create", "quota", "no-secrets", "--hard=count/secrets=0"]);
    eventually(
        "the quota counts",
        SOON,
        || {
            let quotas = stage.namespace.list("resourcequotas");
            quotas[0]["status"]["used"].is_object().then_some(())
        },
        || stage.namespace.story(),
    );
    let executor = stage.executor().start();
    let job = sleeper(&stage);
    let view = stage.frontend.wait_finished(job, MINUTES);
    let message = view.state.message().unwrap_or_default().to_owned();
    assert!(
        matches!(view.state, JobState::Errored { .. }) && message.contains("exceeded quota"),
        "{:?}",
        view.state
    );
    assert!(view.log_text().contains("exceeded quota"), "{message}");
    executor.stop();
    stage.assert_clean();
}

#[test]
fn kept_jobs_stay_and_stopped_ones_do_not() {
    let stage = Stage::new();
    let executor = stage.executor().env("KUBERNETES_KEEP_JOBS", "true").start();
    let kept = stage.frontend.enqueue(stage.job().step(tiny("s", "true")));
    let view = stage.frontend.wait_finished(kept, MINUTES);
    assert_eq!(view.state.name(), "completed", "{}", view.log_text());
    let cancelled = sleeper(&stage);
    wait_until_begun(&stage, cancelled);
    stage.frontend.cancel(cancelled);
    stage.frontend.wait_finished(cancelled, SOON);
    executor.stop();
    let job = only_job(&stage);
    assert_eq!(job["spec"]["ttlSecondsAfterFinished"], Value::Null);
    assert!(!stage.namespace.list("secrets").is_empty());
    stage.namespace.kubectl(&["delete", "job", name(&job)]);
    stage.assert_clean();
}
