//! One job from the command line: its output, its code, and nothing that stays.

use std::path::Path;

use serde_json::Value;

use crate::support::MINUTES;
use crate::support::SOON;
use crate::support::cluster::Namespace;
use crate::support::cluster::kubectl;
use crate::support::daemon::{Builder, Daemon};
use crate::support::proxy::Proxy;
use crate::support::proxy::fault::{Call, Fault};
use crate::support::stage::{EXECUTOR_IMAGE, REPOSITORY, Stage, TINY_IMAGE};

/// An executor that knows no Sourcegraph.
fn executor(kubeconfig: &str, namespace: &Namespace) -> Builder {
    Builder::new(Path::new(env!("CARGO_BIN_EXE_executor")))
        .env("EXECUTOR_KUBERNETES_CONFIG_PATH", kubeconfig)
        .env("EXECUTOR_KUBERNETES_NAMESPACE", &namespace.name)
        .env("EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY", "128Mi")
        .env("EXECUTOR_WORKSPACE_IMAGE", EXECUTOR_IMAGE)
}

fn exec(executor: Builder, words: &[&str]) -> Daemon {
    executor.spawn_apart(&[&["exec", "--image", TINY_IMAGE], words].concat())
}

/// Waits for its end, which must have this code.
#[track_caller]
fn assert_ends(process: &mut Daemon, code: i32) {
    let status = process.wait(MINUTES);
    assert_eq!(status.code(), Some(code), "{}", process.log());
}

/// The log has these lines, in this order, whatever is between them.
#[track_caller]
fn assert_tells(process: &Daemon, lines: &[&str]) {
    let log = process.log();
    let mut rest = log.lines();
    for line in lines {
        let line = format!("executor: {line}");
        assert!(
            rest.any(|it| it.starts_with(&line)),
            "no {line:?} in\n{log}"
        );
    }
}

#[test]
fn a_command_ends_with_its_own_code() {
    let namespace = Namespace::new();
    let kubeconfig = namespace.kubeconfig.to_str().unwrap();
    let script = "echo \"$FRUIT\" $#; printf 'no end'; exit 3";
    let env = "--env=FRUIT=a $(B) 'c'";
    let words = [env, "--", "sh", "-c", script, "sh", "it's", "two words"];
    let mut process = exec(executor(kubeconfig, &namespace), &words);
    assert_ends(&mut process, 3);
    // Not one byte is ours.
    assert_eq!(process.output(), "a $(B) 'c' 2\nno end\n");
    assert_tells(
        &process,
        &[
            &format!("Created Job {}/sg-executor-job-exec-0-", namespace.name),
            "Waiting for the pod.",
            "setup.workspace runs.",
            "setup.workspace ended with exit code 0",
            "step.kubernetes.exec runs.",
            "step.kubernetes.exec ended with exit code 3",
            "Deleting Job sg-executor-job-exec-0-",
            "No success after ",
        ],
    );
    assert_eq!(
        process.log().matches(" runs.").count(),
        2,
        "{}",
        process.log()
    );
    namespace.wait_until_empty();
}

#[test]
fn a_repository_comes_from_the_frontend() {
    let stage = Stage::new();
    let kubeconfig = stage.namespace.kubeconfig.to_str().unwrap();
    let executor = executor(kubeconfig, &stage.namespace)
        .env("EXECUTOR_FRONTEND_URL", &stage.frontend.url())
        .env("EXECUTOR_FRONTEND_PASSWORD", stage.frontend.token());
    let head = stage.repository.head();
    let words = ["--repo", REPOSITORY, "--commit", &head, "--", "cat"];
    let words = [&words[..], &["src/cart.txt"]].concat();
    let mut process = exec(executor.clone(), &words);
    assert_ends(&mut process, 0);
    assert_eq!(process.output(), "apples\npears\n");
    assert_tells(
        &process,
        &[&format!("Cloning {REPOSITORY}"), "Complete after "],
    );

    let executor = executor.env("EXECUTOR_FRONTEND_PASSWORD", "walnut-tree");
    let mut process = exec(executor, &words);
    assert_ends(&mut process, 125);
    let log = process.log();
    assert!(log.contains("executors.accessToken"), "{log}");
    assert!(!log.contains("walnut-tree"), "{log}");
    stage.assert_clean();
}

#[test]
fn what_keeps_a_command_from_running_is_told() {
    let namespace = Namespace::new();
    let kubeconfig = namespace.kubeconfig.to_str().unwrap();
    let executor = executor(kubeconfig, &namespace)
        .env("EXECUTOR_KUBERNETES_NODE_SELECTOR", "pool=nowhere")
        .env("EXECUTOR_SCHEDULING_GRACE", "6s");
    let mut process = exec(executor, &["--", "true"]);
    assert_ends(&mut process, 125);
    assert_tells(
        &process,
        &[
            "Waiting for a node.",
            "Waiting, for 6s at most: no node can take the pod: 0/",
            "No success after ",
        ],
    );
    namespace.wait_until_empty();
}

#[test]
fn a_signal_stops_and_removes_the_job() {
    let namespace = Namespace::new();
    let kubeconfig = namespace.kubeconfig.to_str().unwrap();
    let words = ["--", "sh", "-c", "echo begun; sleep 600"];
    let mut process = exec(executor(kubeconfig, &namespace), &words);
    process.wait_for_log_within("step.kubernetes.exec runs", MINUTES);
    process.signal("INT");
    assert_ends(&mut process, 130);
    assert_tells(
        &process,
        &["Stopping; ", "The job was cancelled.", "Deleting Job"],
    );
    namespace.wait_until_empty();
}

/// The API server deletes the Job and does not say so, for longer than anybody
/// waits here.
#[test]
fn a_second_signal_waits_for_nothing() {
    let namespace = Namespace::new();
    let proxy = Proxy::before(&namespace);
    let silent = Fault::on(Call::Delete("jobs")).times(1).swallow_answer();
    proxy.inject(silent);
    let words = ["--", "sleep", "600"];
    let mut process = exec(executor(proxy.kubeconfig(), &namespace), &words);
    process.wait_for_log_within("step.kubernetes.exec runs", MINUTES);
    process.signal("INT");
    process.wait_for_log("a second signal ends at once");
    namespace.wait_until_gone("jobs");
    assert!(process.ended().is_none(), "{}", process.log());
    process.signal("INT");
    assert_eq!(process.wait(SOON).code(), Some(130), "{}", process.log());
    assert!(!process.log().contains("No success"), "{}", process.log());
    namespace.wait_until_empty();
}

#[test]
fn a_dry_run_creates_nothing_and_hides_secrets() {
    let namespace = Namespace::new();
    let executor = executor("/nonexistent/kubeconfig", &namespace)
        .env("EXECUTOR_FRONTEND_URL", "http://sourcegraph.example.org")
        .env("EXECUTOR_FRONTEND_PASSWORD", "walnut-tree")
        .env(
            "EXECUTOR_DOCKER_AUTH_CONFIG",
            r#"{"auths":{"registry.example.org":{"auth":"d2FsbnV0"}}}"#,
        );
    let commit = "0".repeat(40);
    let words = [
        "--dry-run",
        "--repo",
        "a/b",
        "--commit",
        &commit,
        "--",
        "true",
    ];
    let mut process = exec(executor, &words);
    assert_ends(&mut process, 0);
    let text = process.output();
    let objects: Vec<&str> = text.split("---\n").skip(1).collect();
    assert_eq!(objects.len(), 2, "{text}");
    // The API server takes the Job as it is printed.
    let create = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
    let job: Value = serde_json::from_str(&kubectl(&create, Some(objects[0]))).unwrap();
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], TINY_IMAGE);
    assert_eq!(container["workingDir"], "/job/repository");
    for secret in ["walnut", "d2FsbnV0", "ZDJGc2JuVjA"] {
        assert!(!text.contains(secret), "{secret} is in\n{text}");
    }
    for secret in &objects[1..] {
        assert!(secret.contains("kind: Secret\n"), "{secret}");
        assert!(secret.contains(" characters of base64)"), "{secret}");
    }
    namespace.wait_until_empty();
}

#[test]
fn a_cluster_that_is_away_is_told() {
    let namespace = Namespace::new();
    let executor = executor("/nonexistent/kubeconfig", &namespace);
    let mut process = exec(executor, &["--", "true"]);
    assert_ends(&mut process, 125);
    assert_tells(
        &process,
        &["cannot set up the Kubernetes client: EXECUTOR_"],
    );
    let executor = Builder::new(Path::new(env!("CARGO_BIN_EXE_executor")));
    let mut process = exec(executor, &["true"]);
    assert_ends(&mut process, 125);
    assert_tells(&process, &["true is none of its options"]);
}
