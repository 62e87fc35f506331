//! From start to the first dequeue: configuration, credentials, servers that
//! are not there yet.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use crate::frontend::{Frontend, Generation};
use crate::support::daemon::{Builder, Daemon};
use crate::support::stage::{Stage, tiny};
use crate::support::{MINUTES, SOON};

const EXECUTOR: &str = env!("CARGO_BIN_EXE_executor");

fn run(environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    Command::new(EXECUTOR)
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

/// An executor that cannot reach any cluster.
fn executor_of(frontend: &Frontend) -> Builder {
    Builder::new(Path::new(EXECUTOR))
        .env("EXECUTOR_QUEUE_NAME", "batches")
        .env("EXECUTOR_FRONTEND_URL", &frontend.url())
        .env("EXECUTOR_FRONTEND_PASSWORD", frontend.token())
        .env("EXECUTOR_KUBERNETES_CONFIG_PATH", "/nonexistent/kubeconfig")
}

#[test]
fn unknown_commands_are_refused() {
    let output = run(&[], &["walk"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("Unknown command walk"), "{text}");
}

#[test]
fn help_and_version_answer_without_configuration() {
    for (argument, expected) in [("help", "Usage: executor"), ("--version", "executor ")] {
        let output = run(&[], &[argument]);
        assert!(output.status.success());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn an_unusable_kubeconfig_is_a_clear_error() {
    let frontend = Frontend::start();
    let mut executor = executor_of(&frontend).spawn();
    assert_eq!(executor.wait(SOON).code(), Some(1), "{}", executor.log());
    assert!(
        executor.log().contains("EXECUTOR_KUBERNETES_CONFIG_PATH"),
        "{}",
        executor.log()
    );
}

#[test]
fn a_wrong_token_points_at_its_cause() {
    let stage = Stage::new();
    let mut executor = stage
        .executor()
        .env("EXECUTOR_FRONTEND_PASSWORD", "wrong-token")
        .spawn();
    executor.wait_for_log("`executors.accessToken`");
    assert!(
        !executor.log().contains("wrong-token"),
        "{}",
        executor.log()
    );
    executor.signal("TERM");
    assert_eq!(executor.wait(SOON).code(), Some(0), "{}", executor.log());
}

#[test]
fn a_missing_frontend_is_waited_for() {
    let stage = Stage::new();
    stage.frontend.stop_answering();
    let executor = stage.executor().spawn();
    executor.wait_for_log("Not connected to Sourcegraph");
    stage.frontend.resume();
    executor.wait_for_log("Connected to Sourcegraph at ");
    let log = executor.log();
    let line = log
        .lines()
        .find(|line| line.contains("Connected to"))
        .unwrap();
    assert!(line.contains(&stage.frontend.url()), "{line}");
    assert!(line.contains("queue batches with 4 workers"), "{line}");
    executor.stop();
}

/// Runs one job to its end.
fn assert_works(stage: &Stage, executor: Daemon) {
    let job = stage
        .frontend
        .enqueue(stage.job().step(tiny("only", "echo ran")));
    let job = stage.frontend.wait_finished(job, MINUTES);
    assert_eq!(job.state.name(), "completed", "{}", job.log_text());
    executor.stop();
    stage.assert_clean();
}

fn authorizations(stage: &Stage, call: &str) -> Vec<String> {
    let mut schemes: Vec<String> = Vec::new();
    for request in stage.frontend.requests_to(call) {
        let header = request.header("authorization").unwrap_or_default();
        let scheme = header.split(' ').next().unwrap_or_default().to_owned();
        if schemes.last() != Some(&scheme) {
            schemes.push(scheme);
        }
    }
    schemes
}

#[test]
fn the_oldest_servers_are_served() {
    let stage = Stage::with(Frontend::builder().generation(Generation::Basic));
    let executor = stage
        .executor()
        .env("EXECUTOR_FRONTEND_USERNAME", stage.frontend.username())
        .start();
    assert_works(&stage, executor);
    for call in ["heartbeat", "dequeue", "markComplete", "git"] {
        assert_eq!(authorizations(&stage, call), ["Basic"], "{call}");
    }
}

#[test]
fn a_refused_user_name_gives_way_to_the_token() {
    let stage = Stage::new();
    let executor = stage
        .executor()
        .env("EXECUTOR_FRONTEND_USERNAME", "executor")
        .start();
    assert_works(&stage, executor);
    assert_eq!(
        authorizations(&stage, "heartbeat"),
        ["Basic", "token-executor"]
    );
    assert_eq!(authorizations(&stage, "dequeue"), ["token-executor"]);
}

#[test]
fn servers_without_job_tokens_are_served() {
    let stage = Stage::with(Frontend::builder().generation(Generation::Token));
    let executor = stage.executor().start();
    assert_works(&stage, executor);
}

#[test]
fn the_draft_manifest_starts_as_it_stands() {
    let stage = Stage::new();
    // Its environment, with nothing but the address changed; the namespace is
    // the test's, as its account has no other.
    let kubeconfig = stage.namespace.kubeconfig.to_str().unwrap();
    let executor = Builder::new(Path::new(EXECUTOR))
        .env("EXECUTOR_QUEUE_NAME", "batches")
        .env(
            "EXECUTOR_FRONTEND_URL",
            &format!("{}/", stage.frontend.url()),
        )
        .env("EXECUTOR_FRONTEND_USERNAME", "executor")
        .env("EXECUTOR_FRONTEND_PASSWORD", stage.frontend.token())
        .env("EXECUTOR_BACKEND", "kubernetes")
        .env("EXECUTOR_MAX_NUM_JOBS", "4")
        .env("EXECUTOR_KUBE_NAMESPACE", &stage.namespace.name)
        .env("KUBECONFIG", kubeconfig)
        .start();
    executor.wait_for_log("with 4 workers");
    executor.signal("TERM");
    let mut executor = executor;
    let status = executor.wait(Duration::from_secs(40));
    assert_eq!(status.code(), Some(0), "{}", executor.log());
}

/// The settings of the C library's heap that a process was started with.
fn heap_settings(executor: &Daemon) -> Vec<String> {
    let path = format!("/proc/{}/environ", executor.pid());
    let environment = std::fs::read_to_string(path).unwrap();
    let settings = environment.split('\0').filter(|variable| {
        variable.starts_with("MALLOC_") || variable.starts_with("GLIBC_TUNABLES=")
    });
    let mut settings: Vec<String> = settings.map(str::to_owned).collect();
    settings.sort();
    settings
}

#[test]
fn threads_share_one_heap_without_stocks() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    assert_eq!(
        heap_settings(&executor),
        [
            "GLIBC_TUNABLES=glibc.malloc.tcache_count=0",
            "MALLOC_ARENA_MAX=1",
            "MALLOC_MMAP_THRESHOLD_=65536",
        ]
    );
    executor.stop();
    let chosen = stage.executor().env("MALLOC_ARENA_MAX", "4").start();
    assert_eq!(heap_settings(&chosen), ["MALLOC_ARENA_MAX=4"]);
    chosen.stop();
}
