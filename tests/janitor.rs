//! What is left of an executor that dies, and who removes it: the cluster what
//! it owns, another executor what it can prove to be nobody's.

mod pods;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::frontend::record::{JobRef, JobState};
use crate::support::cluster::kubectl;
use crate::support::daemon::Daemon;
use crate::support::stage::{Stage, TINY_IMAGE, tiny};
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
    stage.namespace.wait_until_empty();
}

#[test]
fn a_refused_secret_leaves_no_job() {
    let stage = Stage::new();
    stage.namespace.set_rules(&[
        ("batch", "jobs", &["create", "delete"]),
        ("", "pods", &["get", "list", "watch"]),
        ("", "secrets", &["delete"]),
    ]);
    let executor = stage.executor().start();
    let job = sleeper(&stage);
    let view = stage.frontend.wait_finished(job, MINUTES);
    let message = view.state.message().unwrap_or_default().to_owned();
    assert!(
        matches!(view.state, JobState::Errored { .. }) && message.contains("create Secret"),
        "{:?}",
        view.state
    );
    assert!(view.log_text().contains("create Secret"), "{message}");
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

/// An executor that takes no job of the tests, and looks for leftovers all the
/// time.
fn janitor(stage: &Stage) -> Daemon {
    stage
        .executor()
        .env("EXECUTOR_QUEUE_NAME", "codeintel")
        .env("EXECUTOR_CLEANUP_TASK_INTERVAL", "1s")
        .start()
}

fn apply(stage: &Stage, object: &Value) -> Value {
    let arguments = [
        "-n",
        &stage.namespace.name,
        "apply",
        "-o",
        "json",
        "-f",
        "-",
    ];
    serde_json::from_str(&kubectl(&arguments, Some(&object.to_string()))).unwrap()
}

/// What an executor makes for a job, in its shape: a Job that runs, or is
/// suspended and so has no pod, and a Secret of it. `marks` are annotations.
fn leave(stage: &Stage, id: u32, suspend: bool, marks: &[(&str, &str)]) -> String {
    let run = format!("sg-executor-job-batches-{id}-0a1b2c3d");
    let mut metadata = json!({
        "labels": {
            "app.kubernetes.io/managed-by": "sourcegraph-executor",
            "app.kubernetes.io/name": "sourcegraph-executor-job",
            "executor.sourcegraph.com/instance": "executor-0-0000",
            "executor.sourcegraph.com/job-id": id.to_string(),
            "executor.sourcegraph.com/queue": "batches",
            "executor.sourcegraph.com/run": run,
        },
        "annotations": {"executor.sourcegraph.com/executor": "executor-0-0000"},
    });
    for (mark, value) in marks {
        metadata["annotations"][format!("executor.sourcegraph.com/{mark}")] = json!(value);
    }
    let container = json!({"name": "main", "image": TINY_IMAGE, "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "600"]});
    let template = json!({"metadata": metadata, "spec": {"restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0, "containers": [container]}});
    metadata["name"] = json!(run);
    let job = apply(
        stage,
        &json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata,
            "spec": {"suspend": suspend, "backoffLimit": 0, "template": template}}),
    );
    metadata["name"] = json!(format!("{run}-secrets-0"));
    metadata["ownerReferences"] = json!([{"apiVersion": "batch/v1", "kind": "Job",
        "name": run, "uid": job["metadata"]["uid"]}]);
    apply(
        stage,
        &json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata}),
    );
    run
}

/// A Pod that could be an executor's; gives its UID.
fn executor_pod(stage: &Stage, name: &str, command: &str) -> String {
    let container = json!({"name": "executor", "image": TINY_IMAGE,
        "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", command]});
    let pod = apply(
        stage,
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
                "containers": [container]}}),
    );
    pod["metadata"]["uid"].as_str().unwrap().to_owned()
}

fn names(stage: &Stage, kind: &str) -> BTreeSet<String> {
    let objects = stage.namespace.list(kind);
    objects
        .iter()
        .map(|object| name(object).to_owned())
        .collect()
}

/// Waits until the janitor has said that it removed all of these.
fn wait_until_removed(janitor: &Daemon, runs: &[&String]) {
    for run in runs {
        janitor.wait_for_log_within(&format!("Removed Job {run}, "), MINUTES);
    }
}

#[test]
fn only_what_is_surely_left_over_goes() {
    let stage = Stage::new();
    let live = executor_pod(&stage, "live", "sleep 600");
    let ended = executor_pod(&stage, "ended", "true");
    let of = |pod, uid| [("executor-pod", pod), ("executor-pod-uid", uid)];
    let gone = of("gone", "0000");
    let left = [
        leave(&stage, 1, false, &gone),
        leave(&stage, 2, false, &of("live", "0000")),
        leave(&stage, 3, false, &of("ended", &ended)),
    ];
    let kept = [
        leave(&stage, 4, false, &of("live", &live)),
        leave(&stage, 5, false, &[]),
        leave(&stage, 6, false, &[("adoptable", "true"), gone[0], gone[1]]),
        leave(&stage, 7, false, &[("kept", "true"), gone[0], gone[1]]),
    ];
    let janitor = janitor(&stage);
    wait_until_removed(&janitor, &left.each_ref());
    let expected: BTreeSet<String> = kept.iter().cloned().collect();
    assert_eq!(names(&stage, "jobs"), expected, "{}", janitor.log());
    let secrets = kept.iter().map(|run| format!("{run}-secrets-0")).collect();
    eventually(
        "Secrets go with their Job, and no others",
        SOON,
        || (names(&stage, "secrets") == secrets).then_some(()),
        || stage.namespace.story(),
    );
    let log = janitor.log();
    for text in [
        "resources: [jobs], verbs: [list]",
        "resources: [secrets], verbs: [list]",
        "has no Pod in this namespace",
    ] {
        assert_eq!(
            log.matches(text).count(),
            1,
            "{text} is said once in\n{log}"
        );
    }
    janitor.stop();
    for run in &kept {
        stage.namespace.kubectl(&["delete", "job", run]);
    }
    stage.namespace.kubectl(&["delete", "pod", "live", "ended"]);
    stage.assert_clean();
}

#[test]
fn a_job_without_pod_is_found_with_the_permission() {
    let stage = Stage::new();
    let role = [
        "create",
        "role",
        "lists",
        "--verb=list",
        "--resource=jobs.batch",
    ];
    stage.namespace.kubectl(&role);
    let account = format!(
        "--serviceaccount={}:sourcegraph-executor",
        stage.namespace.name
    );
    let binding = ["create", "rolebinding", "lists", "--role=lists", &account];
    stage.namespace.kubectl(&binding);
    let gone = [("executor-pod", "gone"), ("executor-pod-uid", "0000")];
    let run = leave(&stage, 1, true, &gone);
    let janitor = janitor(&stage);
    wait_until_removed(&janitor, &[&run]);
    assert!(
        !janitor.log().contains("resources: [jobs]"),
        "{}",
        janitor.log()
    );
    janitor.stop();
    stage.assert_clean();
}

#[test]
fn what_could_not_be_deleted_goes_later() {
    let stage = Stage::new();
    let executor = stage
        .executor()
        .env("EXECUTOR_CLEANUP_TASK_INTERVAL", "1s")
        .start();
    let permission = |verbs: &str| {
        let path = "/rules/0/verbs";
        let patch = format!(r#"[{{"op":"replace","path":"{path}","value":{verbs}}}]"#);
        let role = [
            "patch",
            "role",
            "sourcegraph-executor",
            "--type=json",
            "-p",
            &patch,
        ];
        stage.namespace.kubectl(&role);
    };
    permission(r#"["create"]"#);
    let job = stage.frontend.enqueue(stage.job().step(tiny("s", "true")));
    let view = stage.frontend.wait_finished(job, MINUTES);
    assert_eq!(view.state.name(), "completed", "{}", view.log_text());
    assert!(executor.log().contains("Left behind"), "{}", executor.log());
    let left = name(&only_job(&stage)).to_owned();
    permission(r#"["create","delete"]"#);
    wait_until_removed(&executor, &[&left]);
    executor.stop();
    stage.assert_clean();
}

/// Some jobs run for longer than anything must look left over to be removed.
#[test]
fn live_executors_remove_nothing_of_each_other() {
    let stage = Stage::new();
    let executor = || {
        stage
            .executor()
            .env("EXECUTOR_MAXIMUM_NUM_JOBS", "8")
            .env("EXECUTOR_CLEANUP_TASK_INTERVAL", "1s")
    };
    let executors = [executor().start(), executor().start()];
    let times = [70, 70, 70, 70, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1];
    let jobs = times.map(|seconds| {
        let step = tiny("s", &format!("sleep {seconds}"));
        stage.frontend.enqueue(stage.job().step(step))
    });
    for job in jobs {
        let view = stage.frontend.wait_finished(job, MINUTES);
        assert_eq!(view.state.name(), "completed", "{}", view.log_text());
        assert_eq!(view.attempts, 1, "no job is started twice");
    }
    for executor in executors {
        assert!(!executor.log().contains("Removed"), "{}", executor.log());
        executor.stop();
    }
    stage.assert_clean();
}
