//! Pods and containers that do not start.

use serde_json::json;

use super::{assert_told, assert_told_at_once, fail, fail_good_job, object, start, wait_for_log};
use crate::frontend::spec::StepSpec;
use crate::support::cluster::kubectl;
use crate::support::stage::{EXECUTOR_IMAGE, Stage, TINY_IMAGE, tiny};
use crate::support::{MINUTES, SOON, eventually};

#[test]
fn names_that_are_no_image_are_told_at_once() {
    let stage = Stage::new();
    let step = StepSpec::new("bad", "Not An Image").command("true");
    let view = fail(&stage, &[], stage.job().step(step));
    let words = "\"Not An Image\" is not the name of an image: Failed to apply default image tag";
    assert_told_at_once(&view, &[words]);
}

#[test]
fn images_that_may_not_be_pulled_are_told_at_once() {
    let stage = Stage::new();
    let step = StepSpec::new("absent", "localhost/nope:1").command("true");
    let view = fail(
        &stage,
        &[("EXECUTOR_IMAGE_PULL_POLICY", "Never")],
        stage.job().step(step),
    );
    let words = "image localhost/nope:1 is not on the node, and may not be pulled";
    assert_told_at_once(&view, &[words]);
}

/// Without name resolution a pull fails in a way that can pass.
#[test]
fn a_pull_that_can_pass_is_waited_for() {
    let stage = Stage::new();
    let executor = start(&stage, &[("EXECUTOR_IMAGE_PULL_GRACE", "10s")]);
    let step = StepSpec::new("far", "registry.example.org/far:1").command("true");
    let job = stage.frontend.enqueue(stage.job().step(step));
    let line = "Waiting, for 10s at most: image registry.example.org/far:1 cannot be pulled";
    let waiting = wait_for_log(&stage, job, line);
    assert!(!waiting.state.is_final(), "{:?}", waiting.state);
    let view = stage.frontend.wait_finished(job, MINUTES);
    let image = "image registry.example.org/far:1 cannot be pulled; check its name";
    assert_told(&view, &[image, "failed to resolve reference"]);
    let entry = &view.log("step.kubernetes.far").unwrap().out;
    assert_eq!(entry.matches("Waiting, for").count(), 1, "{entry}");
    executor.stop();
    stage.assert_clean();
}

#[test]
fn an_image_without_a_shell_is_explained() {
    let stage = Stage::new();
    let step = StepSpec::new("shellless", EXECUTOR_IMAGE).command("true");
    let view = fail(&stage, &[], stage.job().step(step));
    assert_told_at_once(&view, &["its image must have /bin/sh", "stat /bin/sh"]);
}

#[test]
fn a_directory_that_is_a_file_is_explained() {
    let stage = Stage::new();
    let step = tiny("lost", "true").dir("repository/README.md");
    let view = fail(&stage, &[], stage.job().step(step));
    let words = "the step's directory, or one above it, is not a directory";
    assert_told_at_once(&view, &[words, "mkdir /job/repository/README.md"]);
}

/// Our own Secrets come after their Job, so one that is missing may be on its
/// way; this one was deleted by someone who cleans up too eagerly.
#[test]
fn a_secret_that_was_deleted_is_waited_for() {
    let stage = Stage::new();
    let executor = start(&stage, &[("EXECUTOR_POD_START_GRACE", "8s")]);
    let hidden = StepSpec::new("second", TINY_IMAGE)
        .command("true")
        .env("TOKEN", "walnut-tree");
    // So much that hidden values get a Secret of their own: the volume keeps the
    // one that it holds, deleted or not.
    let mut filler = vec![0; 900 * 1024];
    getrandom::fill(&mut filler).unwrap();
    let job = stage
        .job()
        .file("filler", filler)
        .step(tiny("first", "echo begun; sleep 8"))
        .step(hidden)
        .redact("walnut-tree", "HIDDEN");
    let job = stage.frontend.enqueue(job);
    wait_for_log(&stage, job, "stdout: begun");
    let secrets = stage.namespace.list("secrets");
    let names = secrets
        .iter()
        .filter_map(|it| it["metadata"]["name"].as_str());
    let name = names.into_iter().find(|name| name.ends_with("-secrets-0"));
    stage
        .namespace
        .kubectl(&["delete", "secret", name.unwrap()]);
    let view = stage.frontend.wait_finished(job, MINUTES);
    let words = "container step-kubernetes-second could not be created yet: secret";
    assert_told(&view, &[words, "not found"]);
    let line = format!("Waiting, for 8s at most: {words}");
    assert!(view.log_text().contains(&line), "{}", view.log_text());
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_volume_of_nothing_is_told_at_once() {
    let stage = Stage::new();
    let mounts = r#"[{"name":"v","mountPath":"/v"}]"#;
    for (volumes, words) in [
        (
            r#"[{"name":"v","configMap":{"name":"nope"}}]"#,
            "configmap \"nope\" not found",
        ),
        (
            r#"[{"name":"v","secret":{"secretName":"nope"}}]"#,
            "secret \"nope\" not found",
        ),
    ] {
        let environment = [
            ("KUBERNETES_ADDITIONAL_JOB_VOLUMES", volumes),
            ("KUBERNETES_ADDITIONAL_JOB_VOLUME_MOUNTS", mounts),
        ];
        let view = fail_good_job(&stage, &environment);
        let sentence = "a volume of the pod names what does not exist: MountVolume.SetUp failed";
        assert_told_at_once(&view, &[sentence, words]);
    }
}

#[test]
fn a_claim_without_storage_is_waited_for() {
    let stage = Stage::new();
    let claim = r#"{"metadata":{},"spec":{"storageClassName":"nope","accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Mi"}}}}"#;
    let volumes = format!(r#"[{{"name":"v","ephemeral":{{"volumeClaimTemplate":{claim}}}}}]"#);
    let environment = [
        ("KUBERNETES_ADDITIONAL_JOB_VOLUMES", &*volumes),
        (
            "KUBERNETES_ADDITIONAL_JOB_VOLUME_MOUNTS",
            r#"[{"name":"v","mountPath":"/v"}]"#,
        ),
        ("EXECUTOR_POD_START_GRACE", "6s"),
    ];
    let view = fail_good_job(&stage, &environment);
    let words = "a volume of the pod is not there; check the storage class and the claim";
    assert_told(&view, &[words, "unbound immediate PersistentVolumeClaims"]);
    let line = format!("Waiting, for 6s at most: {words}");
    assert!(view.log_text().contains(&line), "{}", view.log_text());
}

/// A node whose network is broken is none of this cluster; what its kubelet
/// would report is written down for a pod on a node that does not exist.
#[test]
fn a_sandbox_that_fails_is_waited_for() {
    let stage = Stage::new();
    // The cluster removes the pods of a node that it misses for long.
    let node = format!("no-node-of-{}", stage.namespace.name);
    let environment = [
        ("EXECUTOR_KUBERNETES_NODE_NAME", &*node),
        ("EXECUTOR_POD_START_GRACE", "15s"),
    ];
    let executor = start(&stage, &environment);
    let job = stage.frontend.enqueue(stage.job().step(tiny("s", "true")));
    let pod = &object(&stage, "pods")["metadata"];
    let report = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "broken", "namespace": stage.namespace.name},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": pod["name"],
            "namespace": stage.namespace.name, "uid": pod["uid"]},
        "type": "Warning",
        "reason": "FailedCreatePodSandBox",
        "message": "Failed to create pod sandbox: no network for sandbox \"1f2e\"",
    });
    kubectl(&["create", "-f", "-"], Some(&report.to_string()));
    let view = stage.frontend.wait_finished(job, MINUTES);
    let words = "the node cannot set up the pod's sandbox: Failed to create pod sandbox";
    assert_told(&view, &[words]);
    let line = format!("Waiting, for 15s at most: {words}");
    assert!(view.log_text().contains(&line), "{}", view.log_text());
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_pod_without_a_node_is_waited_for() {
    let stage = Stage::new();
    let environment = [
        ("EXECUTOR_KUBERNETES_NODE_SELECTOR", "example.org/no=where"),
        ("EXECUTOR_SCHEDULING_GRACE", "4s"),
    ];
    let view = fail_good_job(&stage, &environment);
    let words = "no node can take the pod: 0/1 nodes are available";
    assert_told(&view, &[words]);
    let line = format!("Waiting, for 4s at most: {words}");
    let entry = &view.log("setup.workspace").unwrap().out;
    assert!(entry.contains(&line), "{entry}");
}

/// What is waited for, how long, and that it has passed, in one entry.
#[test]
fn a_node_that_comes_ends_the_waiting() {
    let stage = Stage::new();
    let label = format!("example.org/{}", stage.namespace.name);
    let executor = start(
        &stage,
        &[("EXECUTOR_KUBERNETES_NODE_SELECTOR", &format!("{label}=yes"))],
    );
    let job = stage
        .frontend
        .enqueue(stage.job().step(tiny("s", "echo ran")));
    wait_for_log(
        &stage,
        job,
        "Waiting, for 15m0s at most: no node can take the pod",
    );
    let nodes = |change: &str| {
        stage
            .namespace
            .kubectl(&["label", "nodes", "--all", change])
    };
    nodes(&format!("{label}=yes"));
    let view = stage.frontend.wait_finished(job, MINUTES);
    nodes(&format!("{label}-"));
    assert_eq!(view.state.name(), "completed", "{}", view.log_text());
    let entry = view.log("setup.workspace").unwrap();
    assert!(entry.out.contains("It goes on after "), "{}", entry.out);
    assert_eq!(entry.exit_code, Some(0), "{}", entry.out);
    eventually(
        "one entry for the workspace",
        SOON,
        || (view.logs.iter().filter(|it| it.key == entry.key).count() == 1).then_some(()),
        || view.log_text(),
    );
    executor.stop();
    stage.assert_clean();
}
