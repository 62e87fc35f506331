//! The manifests on the real cluster: what they bring up runs jobs.

use std::path::PathBuf;

use crate::support::cluster::kubectl;
use crate::support::stage::{EXECUTOR_IMAGE, Stage, tiny};
use crate::support::{MINUTES, eventually};

/// Everything of jobs, but nothing of the executor's own Deployment.
const JOB_OBJECTS: &str = "jobs,pods,secrets";
const JOB_SELECTOR: &str = "app.kubernetes.io/name=sourcegraph-executor-job";

/// An overlay over `manifests/local` for the stage's namespace and frontend.
fn overlay(stage: &Stage) -> PathBuf {
    let name = &stage.namespace.name;
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&dir).unwrap();
    // CARGO_TARGET_TMPDIR is target/tmp, so three levels up is the project.
    let text = format!(
        "namespace: {name}\n\
         resources: [../../../manifests/local]\n\
         configMapGenerator:\n\
         - name: sourcegraph-executor\n\
         \x20 behavior: merge\n\
         \x20 literals: [EXECUTOR_FRONTEND_URL={}]\n",
        stage.frontend.url()
    );
    std::fs::write(dir.join("kustomization.yaml"), text).unwrap();
    dir
}

/// Whether the manifests can be rendered: components and labels came to the
/// kustomize of kubectl with 1.21. Says so if not, as when the cluster is the
/// oldest one and its kubectl is the only one.
fn can_render() -> bool {
    let version = kubectl(&["version", "--client", "-o", "json"], None);
    let version: serde_json::Value = serde_json::from_str(&version).unwrap();
    let minor = version["clientVersion"]["minor"].as_str().unwrap();
    let minor: u32 = minor.trim_end_matches('+').parse().unwrap();
    if minor < 21 {
        eprintln!("not run: kubectl 1.{minor} is too old for the manifests, which need 1.21");
    }
    minor >= 21
}

#[test]
fn the_manifests_bring_up_a_working_executor() {
    if !can_render() {
        return;
    }
    let stage = Stage::new();
    let token = format!("--from-literal=token={}", stage.frontend.token());
    stage.namespace.kubectl(&[
        "create",
        "secret",
        "generic",
        "sourcegraph-executor",
        &token,
    ]);
    let dir = overlay(&stage);
    kubectl(&["apply", "-k", dir.to_str().unwrap()], None);
    let deployment = "deployment/sourcegraph-executor";
    stage
        .namespace
        .kubectl(&["rollout", "status", deployment, "--timeout=120s"]);
    let job = stage.frontend.enqueue(
        stage
            .job()
            .step(tiny("first", "sleep 5"))
            .step(tiny("last", "echo ran")),
    );
    let pod = eventually(
        "the job's pod",
        MINUTES,
        || job_objects(&stage, "pods").into_iter().next(),
        || stage.namespace.kubectl(&["logs", deployment]),
    );
    let setup = &pod["spec"]["initContainers"][0];
    assert_eq!(
        setup["image"], EXECUTOR_IMAGE,
        "workspaces are made by our own image"
    );
    let owner = &job_objects(&stage, "jobs")[0]["metadata"]["ownerReferences"][0];
    assert_eq!(
        owner["kind"], "Pod",
        "the Job goes when the executor's Pod goes"
    );
    let view = stage.frontend.wait_finished(job, MINUTES);
    let log = stage.namespace.kubectl(&["logs", deployment]);
    assert_eq!(view.state.name(), "completed", "{}\n{log}", view.log_text());
    assert!(log.contains("Connected to Sourcegraph at"), "{log}");
    eventually(
        "nothing of the job is left",
        MINUTES,
        || job_objects(&stage, JOB_OBJECTS).is_empty().then_some(()),
        || stage.namespace.story(),
    );
    stage
        .namespace
        .kubectl(&["delete", deployment, "--timeout=120s"]);
    std::fs::remove_dir_all(dir).unwrap();
}

fn job_objects(stage: &Stage, kinds: &str) -> Vec<serde_json::Value> {
    let text = stage
        .namespace
        .kubectl(&["get", kinds, "-l", JOB_SELECTOR, "-o", "json"]);
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    list["items"].as_array().cloned().unwrap_or_default()
}

#[test]
fn every_manifest_is_accepted_by_the_server() {
    if !can_render() {
        return;
    }
    let stage = Stage::new();
    let dir = overlay(&stage);
    let file = dir.join("kustomization.yaml");
    let parts = "components: [../../../manifests/limits, ../../../manifests/frontend-in-cluster]\n";
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text + parts).unwrap();
    let answer = kubectl(
        &["apply", "--dry-run=server", "-k", dir.to_str().unwrap()],
        None,
    );
    for kind in [
        "serviceaccount",
        "role.",
        "rolebinding.",
        "configmap",
        "deployment.",
        "service/",
        "networkpolicy.",
        "resourcequota",
        "limitrange",
    ] {
        assert!(answer.contains(kind), "no {kind} in\n{answer}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}
