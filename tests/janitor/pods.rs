//! Executors that run as Pods, one of which is killed.

use serde_json::json;

use super::{Stage, apply, name, sleeper, wait_until_begun};
use crate::frontend::record::JobRef;
use crate::support::stage::{EXECUTOR_IMAGE, TINY_IMAGE};
use crate::support::{MINUTES, eventually};

/// An executor for one job at a time in a Pod of this name, beside a container
/// that can kill it.
fn start_executor(stage: &Stage, name: &str) {
    let variables = [
        ("EXECUTOR_QUEUE_NAME", "batches"),
        ("EXECUTOR_FRONTEND_URL", &stage.frontend.url()),
        ("EXECUTOR_FRONTEND_PASSWORD", stage.frontend.token()),
        ("EXECUTOR_KUBERNETES_NAMESPACE", &stage.namespace.name),
        ("EXECUTOR_KUBERNETES_RESOURCE_REQUEST_MEMORY", "16Mi"),
        ("EXECUTOR_CLEANUP_TASK_INTERVAL", "1s"),
    ];
    let environment: Vec<_> = variables
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    let executor = json!({"name": "executor", "image": EXECUTOR_IMAGE,
        "imagePullPolicy": "IfNotPresent", "env": environment});
    let killer = json!({"name": "killer", "image": TINY_IMAGE,
        "imagePullPolicy": "IfNotPresent", "command": ["sleep", "3600"]});
    apply(
        stage,
        &json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "executor"}},
            "spec": {"serviceAccountName": "sourcegraph-executor",
                "shareProcessNamespace": true, "terminationGracePeriodSeconds": 1,
                "containers": [executor, killer]}}),
    );
}

fn log(stage: &Stage, pod: &str) -> String {
    let get = ["logs", pod, "-c", "executor", "--tail=-1"];
    stage.namespace.kubectl(&get)
}

/// The run of a job in the cluster, and the Pod of its executor.
fn run_of(stage: &Stage, job: JobRef) -> (String, String) {
    let id = format!("executor.sourcegraph.com/job-id={}", job.id);
    let get = ["get", "jobs", "-l", &id, "-o", "json"];
    let list: serde_json::Value = serde_json::from_str(&stage.namespace.kubectl(&get)).unwrap();
    let found = &list["items"][0];
    let owner = &found["metadata"]["ownerReferences"][0]["name"];
    let owner = owner
        .as_str()
        .unwrap_or_else(|| panic!("no owner in {found}"));
    (name(found).to_owned(), owner.to_owned())
}

/// A restart of its container leaves a Pod as it is, and so the Jobs that it
/// owns. The process that comes next removes them, and none of the others.
#[test]
fn a_killed_process_is_cleaned_up_after() {
    let stage = Stage::new();
    for name in ["executor-a", "executor-b"] {
        start_executor(&stage, name);
    }
    let jobs = [sleeper(&stage), sleeper(&stage)];
    for job in jobs {
        wait_until_begun(&stage, job);
    }
    let (left, killed) = run_of(&stage, jobs[0]);
    let (live, other) = run_of(&stage, jobs[1]);
    assert_ne!(killed, other, "each executor has one job");
    let kill = [
        "exec", &killed, "-c", "killer", "--", "killall", "-9", "executor",
    ];
    stage.namespace.kubectl(&kill);
    let removed = format!("Removed Job {left}, ");
    eventually(
        "the next process removes what the killed one left",
        MINUTES,
        || log(&stage, &killed).contains(&removed).then_some(()),
        || format!("{}\n{}", log(&stage, &killed), log(&stage, &other)),
    );
    let (still, _) = run_of(&stage, jobs[1]);
    assert_eq!(still, live, "the other executor's job runs on");
    assert_eq!(stage.frontend.job(jobs[1]).attempts, 1);
    assert!(
        !log(&stage, &other).contains("Removed Job"),
        "it had no say"
    );
    for job in jobs {
        stage.frontend.cancel(job);
    }
    for job in jobs {
        stage.frontend.wait_finished(job, MINUTES);
    }
    let delete = ["delete", "pods", "-l", "app=executor", "--timeout=60s"];
    stage.namespace.kubectl(&delete);
    stage.namespace.wait_until_empty();
    let of_the_dead = format!("no heartbeat of {killed}-");
    let violations = stage.frontend.violations();
    let others: Vec<_> = violations
        .iter()
        .filter(|violation| !violation.contains(&of_the_dead))
        .collect();
    assert!(others.is_empty(), "rules were broken: {others:?}");
}
