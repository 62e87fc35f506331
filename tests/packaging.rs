//! The manifests on the real cluster: what they bring up runs jobs.

pub(crate) mod pages;

use std::path::PathBuf;

use crate::support::cluster::kubectl;
use crate::support::stage::{EXECUTOR_IMAGE, Stage, TINY_IMAGE, tiny};
use crate::support::{MINUTES, eventually};

/// Everything of jobs, but nothing of the executor's own Deployment.
const JOB_OBJECTS: &str = "jobs,pods,secrets";
const JOB_SELECTOR: &str = "app.kubernetes.io/name=sourcegraph-executor-job";

/// An overlay over `manifests/local` for the stage's namespace and frontend.
fn overlay(stage: &Stage) -> PathBuf {
    overlay_with(stage, "")
}

/// The same with these components.
fn overlay_with(stage: &Stage, components: &str) -> PathBuf {
    let name = &stage.namespace.name;
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&dir).unwrap();
    // CARGO_TARGET_TMPDIR is target/tmp, so three levels up is the project.
    let text = format!(
        "namespace: {name}\n\
         resources: [../../../manifests/local]\n\
         components: [{components}]\n\
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
    create_token(&stage);
    let dir = overlay(&stage);
    kubectl(&["apply", "-k", dir.to_str().unwrap()], None);
    let deployment = "deployment/sourcegraph-executor";
    stage
        .namespace
        .kubectl(&["rollout", "status", deployment, "--timeout=120s"]);
    let validate = [
        "exec",
        deployment,
        "--",
        "/usr/local/bin/executor",
        "validate",
    ];
    let report = stage.namespace.kubectl(&validate);
    assert!(report.contains("Jobs can run."), "{report}");
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

/// Brings up an executor with these components and runs one job in it. Returns
/// the pod of the job as it was while it ran.
fn run_a_job_with(components: &str) -> serde_json::Value {
    let stage = Stage::new();
    create_token(&stage);
    let dir = overlay_with(&stage, components);
    kubectl(&["apply", "-k", dir.to_str().unwrap()], None);
    let deployment = "deployment/sourcegraph-executor";
    let rollout = ["rollout", "status", deployment, "--timeout=120s"];
    stage.namespace.kubectl(&rollout);
    let step = "set +x; sleep 3; echo ran > file; cat file";
    let job = stage.frontend.enqueue(stage.job().step(tiny("only", step)));
    let story = || {
        let log = stage.namespace.kubectl(&["logs", deployment]);
        format!("{log}\n{}", stage.namespace.story())
    };
    let pods = || job_objects(&stage, "pods").into_iter().next();
    let pod = eventually("the job's pod", MINUTES, pods, story);
    let view = stage.frontend.wait_finished(job, MINUTES);
    assert_eq!(
        view.state.name(),
        "completed",
        "{}\n{}",
        view.log_text(),
        story()
    );
    stage
        .namespace
        .kubectl(&["delete", deployment, "--timeout=120s"]);
    std::fs::remove_dir_all(dir).unwrap();
    pod
}

#[test]
fn the_restricted_component_runs_jobs() {
    if can_render() {
        let pod = run_a_job_with("../../../manifests/restricted");
        let user = &pod["spec"]["securityContext"]["runAsUser"];
        assert_eq!(*user, 1000, "{pod:#}");
    }
}

#[test]
fn the_pvc_component_claims_workspaces() {
    if can_render() {
        let pod = run_a_job_with("../../../manifests/pvc");
        let volume = &pod["spec"]["volumes"][0]["ephemeral"]["volumeClaimTemplate"];
        let size = &volume["spec"]["resources"]["requests"]["storage"];
        assert_eq!(*size, "20Gi", "{pod:#}");
    }
}

/// The kinds of the Prometheus Operator are not in the cluster of the tests, so
/// this looks at what kustomize makes of them.
#[test]
fn the_monitoring_component_finds_the_executor() {
    if !can_render() {
        return;
    }
    let stage = Stage::new();
    let dir = overlay_with(&stage, "../../../manifests/monitoring");
    let text = kubectl(&["kustomize", dir.to_str().unwrap()], None);
    std::fs::remove_dir_all(dir).unwrap();
    let objects: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).unwrap();
    let of_kind = |kind: &str, name: &str| {
        let is_it = |it: &&serde_json::Value| it["kind"] == kind && it["metadata"]["name"] == name;
        let found = objects.iter().find(is_it);
        found.unwrap_or_else(|| panic!("no {kind} {name} in\n{text}"))
    };
    let monitor = of_kind("PodMonitor", "sourcegraph-executor");
    let template = &of_kind("Deployment", "sourcegraph-executor")["spec"]["template"];
    let wanted = monitor["spec"]["selector"]["matchLabels"]
        .as_object()
        .unwrap();
    for (label, value) in wanted {
        assert_eq!(template["metadata"]["labels"][label], *value, "{label}");
    }
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    let ports = &template["spec"]["containers"][0]["ports"];
    assert_eq!(endpoint["port"], ports[0]["name"]);
    let rules = of_kind("PrometheusRule", "sourcegraph-executor");
    for object in [monitor, rules] {
        assert_eq!(object["metadata"]["namespace"], *stage.namespace.name);
    }
    let dashboard = of_kind("ConfigMap", "sourcegraph-executor-dashboard");
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    let file = include_str!("../manifests/monitoring/dashboard.json");
    assert_eq!(dashboard["data"]["dashboard.json"], file);
    let plain: Vec<_> = objects
        .iter()
        .filter(|it| !["PodMonitor", "PrometheusRule"].contains(&it["kind"].as_str().unwrap()))
        .collect();
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": plain});
    kubectl(
        &["apply", "--dry-run=server", "-f", "-"],
        Some(&list.to_string()),
    );
}

/// What is in the program and in its image, and not what builds and tests it.
#[test]
fn the_bill_of_materials_names_what_is_shipped() {
    let root = tempfile::tempdir().unwrap();
    let git = root.path().join("usr/bin/git");
    std::fs::create_dir_all(git.parent().unwrap()).unwrap();
    std::fs::write(git, "").unwrap();
    let file = root.path().join("made/bom.json");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/sbom");
    let made = std::process::Command::new(script)
        .args([root.path(), &file])
        .output()
        .unwrap();
    let problem = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{problem}");
    let text = std::fs::read_to_string(file).unwrap();
    let bill: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(bill["bomFormat"], "CycloneDX");
    let components = bill["components"].as_array().unwrap();
    let names: Vec<&str> = components
        .iter()
        .map(|it| it["purl"].as_str().unwrap().split('@').next().unwrap())
        .collect();
    for name in ["pkg:cargo/ureq", "pkg:cargo/ring", "pkg:deb/debian/git"] {
        assert!(names.contains(&name), "no {name} in {names:#?}");
    }
    for name in ["pkg:cargo/proptest", "pkg:cargo/promql-parser"] {
        assert!(!names.contains(&name), "{name} is not shipped");
    }
}

fn job_objects(stage: &Stage, kinds: &str) -> Vec<serde_json::Value> {
    let text = stage
        .namespace
        .kubectl(&["get", kinds, "-l", JOB_SELECTOR, "-o", "json"]);
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    list["items"].as_array().cloned().unwrap_or_default()
}

fn create_token(stage: &Stage) {
    let token = format!("--from-literal=token={}", stage.frontend.token());
    stage.namespace.kubectl(&[
        "create",
        "secret",
        "generic",
        "sourcegraph-executor",
        &token,
    ]);
}

/// Lets everyone write to a claim. Storage drivers do that by the fsGroup of
/// the pod; the volumes of a one-node cluster know no such thing.
fn open_volume(stage: &Stage, claim: &str) {
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "open-volume", "namespace": stage.namespace.name},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": "chmod", "image": TINY_IMAGE, "command": ["chmod", "0777", "/data"],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
        },
    });
    kubectl(&["apply", "-f", "-"], Some(&pod.to_string()));
    let ended = "--for=jsonpath={.status.phase}=Succeeded";
    stage
        .namespace
        .kubectl(&["wait", "pod/open-volume", ended, "--timeout=60s"]);
}

#[test]
fn a_rollout_of_the_statefulset_costs_no_job() {
    if !can_render() {
        return;
    }
    let stage = Stage::new();
    create_token(&stage);
    let dir = overlay_with(&stage, "../../../manifests/statefulset");
    kubectl(&["apply", "-k", dir.to_str().unwrap()], None);
    open_volume(&stage, "state-sourcegraph-executor-0");
    let set = "statefulset/sourcegraph-executor";
    let rolled_out = ["rollout", "status", set, "--timeout=120s"];
    stage.namespace.kubectl(&rolled_out);
    let count = "set +x; i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); sleep 1; done";
    let job = stage.frontend.enqueue(
        stage
            .job()
            .step(tiny("count", count))
            .step(tiny("last", "echo ran")),
    );
    stage.frontend.wait_for(job, MINUTES, |view| {
        view.log("step.kubernetes.count")
            .is_some_and(|entry| entry.out.contains("line 2\n"))
    });
    for _ in 0..2 {
        stage.namespace.kubectl(&["rollout", "restart", set]);
        stage.namespace.kubectl(&rolled_out);
    }
    let view = stage.frontend.wait_finished(job, MINUTES);
    let log = stage.namespace.kubectl(&["logs", set]);
    assert_eq!(view.state.name(), "completed", "{}\n{log}", view.log_text());
    assert_eq!(view.attempts, 1, "the job was given away\n{log}");
    let lines: Vec<String> = view
        .log("step.kubernetes.count")
        .unwrap()
        .out
        .lines()
        .map(str::to_owned)
        .collect();
    let expected: Vec<String> = (0..40)
        .map(|number| format!("stdout: line {number}"))
        .collect();
    let lines: Vec<&String> = lines.iter().filter(|line| line.contains("line ")).collect();
    assert_eq!(lines, expected.iter().collect::<Vec<_>>());
    let violations = stage.frontend.violations();
    assert!(violations.is_empty(), "{}\n{log}", violations.join("\n"));
    stage.namespace.kubectl(&["delete", set, "--timeout=120s"]);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn every_manifest_is_accepted_by_the_server() {
    if !can_render() {
        return;
    }
    let stage = Stage::new();
    let parts = "../../../manifests/limits, ../../../manifests/frontend-in-cluster";
    let dir = overlay_with(&stage, parts);
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
