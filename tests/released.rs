//! The released packaging, unchanged but for the image: its objects, written to
//! the letter, start an executor that runs jobs, also as two replicas.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::frontend::spec::JobSpec;
use crate::support::cluster::kubectl;
use crate::support::stage::{EXECUTOR_IMAGE, Stage, tiny};
use crate::support::{MINUTES, eventually};

/// Everything that a job leaves, but nothing of the executor's own.
const JOB_OBJECTS: &str = "jobs,pods,secrets,persistentvolumeclaims";
const JOB_SELECTOR: &str = "app.kubernetes.io/name=sourcegraph-executor-job";

/// Applies the objects for the stage's frontend, and waits for the executor.
fn deploy(stage: &Stage, manifest: &str) {
    let manifest = manifest
        .replace("@namespace@", &stage.namespace.name)
        .replace("@frontend@", &stage.frontend.url())
        .replace("@token@", stage.frontend.token())
        .replace("@image@", EXECUTOR_IMAGE);
    kubectl(&["apply", "--filename=-"], Some(&manifest));
    wait_for_rollout(stage);
}

fn wait_for_rollout(stage: &Stage) {
    let rollout = ["rollout", "status", "deployment/executor", "--timeout=120s"];
    stage.namespace.kubectl(&rollout);
}

/// The executor's own pods, in order of their names.
fn executors(stage: &Stage) -> Vec<Value> {
    items(
        &stage
            .namespace
            .kubectl(&["get", "pods", "-l", "app=executor", "-o", "json"]),
    )
}

fn job_objects(stage: &Stage) -> Vec<Value> {
    let get = ["get", JOB_OBJECTS, "-l", JOB_SELECTOR, "-o", "json"];
    items(&stage.namespace.kubectl(&get))
}

fn items(list: &str) -> Vec<Value> {
    let list: Value = serde_json::from_str(list).unwrap();
    list["items"].as_array().cloned().unwrap_or_default()
}

fn job(stage: &Stage, queue: &str) -> JobSpec {
    let (name, head) = (crate::support::stage::REPOSITORY, stage.repository.head());
    JobSpec::new(queue)
        .repository(name, &head)
        .shallow(true)
        .step(tiny("first", "sleep 2"))
        .step(tiny("last", "echo ran"))
}

/// Runs jobs until both replicas have had some.
fn assert_two_replicas_work(stage: &Stage, queues: &[&str]) {
    stage
        .namespace
        .kubectl(&["scale", "deployment/executor", "--replicas=2"]);
    wait_for_rollout(stage);
    let mut holders = BTreeSet::new();
    let mut number = 0;
    eventually(
        "both replicas take jobs",
        MINUTES,
        || {
            let jobs: Vec<_> = (0..4)
                .map(|_| {
                    number += 1;
                    stage
                        .frontend
                        .enqueue(job(stage, queues[number % queues.len()]))
                })
                .collect();
            for job in jobs {
                let view = stage.frontend.wait_finished(job, MINUTES);
                let name = view.state.name();
                assert_eq!(name, "completed", "{:?}\n{}", view.state, view.log_text());
                assert_eq!(view.attempts, 1, "no job is started twice");
                holders.insert(view.marks[0].executor.clone());
            }
            (holders.len() == 2).then_some(())
        },
        || stage.namespace.story(),
    );
}

/// What the packaging relies on besides jobs: probes that pass, metrics.
fn assert_is_operated(stage: &Stage) {
    let pods = executors(stage);
    assert_eq!(pods.len(), 2, "{}", stage.namespace.story());
    for pod in pods {
        let status = &pod["status"]["containerStatuses"][0];
        assert_eq!(status["ready"], true, "{status:#}");
        assert_eq!(status["restartCount"], 0, "{status:#}");
        let name = pod["metadata"]["name"].as_str().unwrap();
        let path = format!(
            "/api/v1/namespaces/{}/pods/{name}:6060/proxy/metrics",
            stage.namespace.name
        );
        let metrics = kubectl(&["get", "--raw", &path], None);
        assert!(
            metrics.contains("src_executor_processor_total"),
            "{metrics}"
        );
        let log = stage.namespace.kubectl(&["logs", name]);
        assert!(!log.contains(stage.frontend.token()), "{log}");
    }
    eventually(
        "nothing of the jobs is left",
        MINUTES,
        || job_objects(stage).is_empty().then_some(()),
        || stage.namespace.story(),
    );
    let violations = stage.frontend.violations();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn the_released_chart_runs_with_our_image() {
    let stage = Stage::new();
    deploy(&stage, include_str!("released/chart.yaml"));
    assert_two_replicas_work(&stage, &["batches", "codeintel"]);
    assert_is_operated(&stage);
}

#[test]
fn the_released_component_runs_with_our_image() {
    let stage = Stage::new();
    deploy(&stage, include_str!("released/component.yaml"));
    let claim = stage.namespace.kubectl(&[
        "get",
        "pvc",
        "sg-executor-pvc",
        "-o",
        "jsonpath={.status.phase}",
    ]);
    assert_eq!(claim, "Bound", "the claim at /data is used");
    assert_two_replicas_work(&stage, &["batches"]);
    assert_is_operated(&stage);
}
