//! `executor validate` on the real cluster: a good set-up, and one fault at a
//! time, each with its line and the exit code.

mod namespace;

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::frontend::Frontend;
use crate::frontend::fault::Fault;
use crate::support::MINUTES;
use crate::support::cluster::{Rule, kubectl};
use crate::support::daemon::Builder;
use crate::support::stage::Stage;

/// The released Role.
const JOBS: Rule<'_> = ("batch", "jobs", &["create", "delete"]);
const PODS: Rule<'_> = ("", "pods", &["get", "list", "watch"]);
const LOGS: Rule<'_> = ("", "pods/log", &["get", "list", "watch"]);
const SECRETS: Rule<'_> = ("", "secrets", &["create", "delete"]);
const RELEASED: [Rule<'_>; 4] = [JOBS, PODS, LOGS, SECRETS];

/// What an account may be given to look at.
const NAMESPACE: Rule<'_> = ("", "namespaces", &["get"]);
const QUOTAS: Rule<'_> = ("", "resourcequotas", &["list"]);
const LIMITS: Rule<'_> = ("", "limitranges", &["list"]);
const SEE_SECRETS: Rule<'_> = ("", "secrets", &["get"]);

/// What came of a run.
struct Verdict {
    code: Option<i32>,
    text: String,
}

/// A stage whose account has the released rules and these.
fn stage(extra: &[Rule<'_>]) -> Stage {
    let stage = Stage::new();
    stage.namespace.set_rules(&[&RELEASED, extra].concat());
    stage
}

/// Whether the server knows Pod Security levels and warns of those that it
/// enforces. Says so if not, as when the cluster is the oldest one.
fn has_pod_security() -> bool {
    let version = kubectl(&["version", "-o", "json"], None);
    let version: Value = serde_json::from_str(&version).unwrap();
    let minor = version["serverVersion"]["minor"].as_str().unwrap();
    let minor: u32 = minor.trim_end_matches('+').parse().unwrap();
    if minor < 26 {
        eprintln!("not run: Kubernetes 1.{minor} does not warn of Pod Security levels");
    }
    minor >= 26
}

fn validate(executor: Builder) -> Verdict {
    let mut process = executor.spawn_with(&["validate"]);
    let code = process.wait(MINUTES).code();
    let text = process.log();
    Verdict { code, text }
}

impl Verdict {
    /// The run ended with this code, and one of its lines begins so and has
    /// all these parts.
    #[track_caller]
    fn assert(&self, code: i32, start: &str, parts: &[&str]) -> &Verdict {
        assert_eq!(self.code, Some(code), "{}", self.text);
        let mut lines = self.text.lines().filter(|line| line.starts_with(start));
        let found = lines.any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found, "no line {start:?} with {parts:?} in\n{}", self.text);
        self
    }

    /// Jobs cannot run, for this reason alone.
    #[track_caller]
    fn assert_failed(&self, subject: &str, parts: &[&str]) -> &Verdict {
        self.assert(1, &format!("failed   {subject}: "), parts);
        self.assert(1, "Jobs cannot run: 1 check failed.", &[])
    }

    /// Jobs can run, but.
    #[track_caller]
    fn assert_warned(&self, subject: &str, parts: &[&str]) -> &Verdict {
        self.assert(0, &format!("warning  {subject}: "), parts);
        self.assert(0, "Jobs can run.", &[])
    }

    #[track_caller]
    fn assert_unknown(&self, subject: &str, parts: &[&str]) -> &Verdict {
        self.assert(0, &format!("unknown  {subject}: "), parts);
        self.assert(0, "Jobs can run. ", &["unknown"])
    }
}

#[test]
fn the_released_role_is_enough_to_run_jobs() {
    let stage = stage(&[]);
    let verdict = validate(stage.executor());
    verdict.assert(0, "Jobs can run.", &[]);
    for (start, part) in [
        ("ok       configuration: ", "queue batches, 4 jobs at once"),
        ("ok       frontend: ", "accepts"),
        ("ok       cluster: Kubernetes v1.", " at https://"),
        ("ok       permissions: jobs: ", "create, delete"),
        ("ok       permissions: pods/log: ", "get"),
        ("ok       dry run: ", "Secret and the Job"),
        ("unknown  quota: ", "describe resourcequotas"),
        ("unknown  limit range: ", "describe limitranges"),
    ] {
        verdict.assert(0, start, &[part]);
    }
    let requests = stage.frontend.requests();
    assert!(
        requests.iter().all(|it| it.path.ends_with("/test/auth")),
        "the frontend is asked about the token alone"
    );
    stage.assert_clean();
}

#[test]
fn who_may_look_knows_everything() {
    let stage = stage(&[NAMESPACE, QUOTAS, LIMITS]);
    let verdict = validate(stage.executor());
    verdict.assert(0, "ok       quota: ", &[]);
    verdict.assert(0, "ok       limit range: ", &[]);
    if has_pod_security() {
        verdict.assert(0, "ok       pod security: ", &[&stage.namespace.name]);
        assert_eq!(verdict.text.lines().last(), Some("Jobs can run."));
    }
}

#[test]
fn faults_of_the_configuration_come_alone() {
    let stage = Stage::new();
    let executor = stage
        .executor()
        .without("EXECUTOR_QUEUE_NAME")
        .env("EXECUTOR_MAXIMUM_NUM_JOBS", "many")
        .env("EXECUTOR_FRONTEND_PASSWORD", "hunter2\n");
    let verdict = validate(executor);
    for name in [
        "EXECUTOR_QUEUE_NAME",
        "EXECUTOR_MAXIMUM_NUM_JOBS",
        "EXECUTOR_FRONTEND_PASSWORD",
    ] {
        verdict.assert(1, "failed   configuration: ", &[name]);
    }
    verdict.assert(1, "Jobs cannot run: 3 checks failed.", &[]);
    assert_eq!(verdict.text.lines().count(), 4, "{}", verdict.text);
    assert!(!verdict.text.contains("hunter2"), "{}", verdict.text);
}

#[test]
fn variables_that_change_nothing_are_warned_of() {
    let stage = stage(&[]);
    let executor = stage.executor().env("EXECUTOR_USE_FIRECRACKER", "true");
    validate(executor).assert_warned("configuration", &["EXECUTOR_USE_FIRECRACKER"]);
}

#[test]
fn a_wrong_token_names_the_site_setting() {
    let stage = stage(&[]);
    for name in ["", "somebody"] {
        let executor = stage
            .executor()
            .env("EXECUTOR_FRONTEND_USERNAME", name)
            .env("EXECUTOR_FRONTEND_PASSWORD", "wrong-token");
        let verdict = validate(executor);
        verdict.assert_failed("frontend", &["token", "`executors.accessToken`"]);
        assert!(!verdict.text.contains("wrong-token"), "{}", verdict.text);
        verdict.assert(1, "ok       dry run: ", &[]);
    }
}

#[test]
fn a_user_name_beside_a_right_token_is_fine() {
    let stage = stage(&[]);
    let executor = stage.executor().env("EXECUTOR_FRONTEND_USERNAME", "any");
    validate(executor).assert(0, "ok       frontend: ", &["accepts"]);
}

#[test]
fn a_frontend_that_is_down_hides_nothing() {
    let stage = stage(&[]);
    stage.frontend.stop_answering();
    let verdict = validate(stage.executor());
    verdict.assert_failed("frontend", &["refused", "EXECUTOR_FRONTEND_URL"]);
    verdict.assert(1, "ok       dry run: ", &[]);
}

#[test]
fn other_addresses_are_no_sourcegraph() {
    let stage = stage(&[]);
    let url = stage.frontend.url();
    let other = |url: &str| validate(stage.executor().env("EXECUTOR_FRONTEND_URL", url));
    let wrong_path = other(&format!("{url}/elsewhere"));
    wrong_path.assert_failed("frontend", &["status 404", "path"]);
    // This one has TLS, with a certificate that nobody here knows.
    let text = std::fs::read_to_string(&stage.namespace.kubeconfig).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    let server = config["clusters"][0]["cluster"]["server"].as_str().unwrap();
    let tls = other(server);
    tls.assert_failed("frontend", &["certificate", "SSL_CERT_FILE"]);
    let unknown = other("http://sourcegraph.invalid");
    unknown.assert_failed("frontend", &["no answer from http://sourcegraph.invalid"]);
    let answer = |fault: Fault| {
        stage.frontend.inject(fault);
        validate(stage.executor())
    };
    let page = answer(Fault::on("test/auth").status(200).body("<html>"));
    page.assert_failed("frontend", &["not what Sourcegraph answers"]);
    let moved = Fault::on("test/auth").status(308);
    let moved = answer(moved.header("Location", "https://elsewhere.example.org/"));
    moved.assert_failed("frontend", &["redirects to https://elsewhere.example.org/"]);
    let down = answer(Fault::on("test/auth").status(502));
    down.assert_failed("frontend", &["status 502", "proxy"]);
}

#[test]
fn a_frontend_that_shows_requests_shows_no_token() {
    let stage = stage(&[]);
    let page = format!("Authorization: token-executor {}", stage.frontend.token());
    stage
        .frontend
        .inject(Fault::on("test/auth").status(400).body(page));
    let verdict = validate(stage.executor());
    verdict.assert_failed("frontend", &["Authorization: …"]);
    let token = stage.frontend.token();
    assert!(!verdict.text.contains(token), "{}", verdict.text);
}

#[test]
fn a_frontend_without_executors_is_told_of() {
    let stage = Stage::with(Frontend::builder().token(""));
    stage.namespace.set_rules(&RELEASED);
    let executor = stage.executor().env("EXECUTOR_FRONTEND_PASSWORD", "any");
    let parts = ["not configured", "Set `executors.accessToken`"];
    validate(executor).assert_failed("frontend", &parts);
}

/// A kubeconfig like the stage's with other values.
fn other_kubeconfig(stage: &Stage, change: impl Fn(&mut Value)) -> (tempfile::TempDir, PathBuf) {
    let text = std::fs::read_to_string(&stage.namespace.kubeconfig).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    change(&mut config);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kubeconfig");
    std::fs::write(&file, config.to_string()).unwrap();
    (dir, file)
}

fn with_kubeconfig(stage: &Stage, file: &std::path::Path) -> Verdict {
    let file = file.to_str().unwrap();
    validate(
        stage
            .executor()
            .env("EXECUTOR_KUBERNETES_CONFIG_PATH", file),
    )
}

#[test]
fn a_cluster_that_is_not_there_is_told_of() {
    let stage = stage(&[]);
    let nothing = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("https://{}", nothing.local_addr().unwrap());
    drop(nothing);
    let (_dir, file) = other_kubeconfig(&stage, |config| {
        config["clusters"][0]["cluster"]["server"] = json!(server);
    });
    let verdict = with_kubeconfig(&stage, &file);
    verdict.assert_failed("cluster", &[&server, "refused", "kubeconfig"]);
    verdict.assert(1, "ok       frontend: ", &[]);
    let left_out = "unknown  everything in the cluster: not checked";
    verdict.assert(1, left_out, &[]);
}

#[test]
fn an_unusable_kubeconfig_is_told_of() {
    let stage = Stage::new();
    let verdict = with_kubeconfig(&stage, "/nonexistent/kubeconfig".as_ref());
    verdict.assert_failed("cluster", &["EXECUTOR_KUBERNETES_CONFIG_PATH"]);
}

#[test]
fn credentials_that_are_not_accepted_are_told_of() {
    let stage = Stage::new();
    let (_dir, file) = other_kubeconfig(&stage, |config| {
        config["users"][0]["user"]["token"] = json!("hunter2");
    });
    let verdict = with_kubeconfig(&stage, &file);
    verdict.assert_failed("cluster", &["does not accept our credentials"]);
    assert!(!verdict.text.contains("hunter2"), "{}", verdict.text);
}

#[test]
fn servers_that_hang_are_given_up() {
    // They take connections and say nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let stage = Stage::new();
    let (_dir, file) = other_kubeconfig(&stage, |config| {
        config["clusters"][0]["cluster"]["server"] = json!(format!("https://{address}"));
    });
    stage
        .frontend
        .inject(Fault::on("test/auth").delay(Duration::from_secs(3600)));
    let verdict = with_kubeconfig(&stage, &file);
    verdict.assert(1, "failed   frontend: ", &["no answer", "firewall"]);
    verdict.assert(1, "failed   cluster: ", &["no answer"]);
    verdict.assert(1, "Jobs cannot run: 2 checks failed.", &[]);
}

#[test]
fn a_verified_start_needs_a_good_set_up() {
    let stage = stage(&[]);
    let executor = stage.executor().spawn_with(&["run", "--verify"]);
    executor.wait_for_log("Connected to Sourcegraph");
    assert!(
        executor.log().contains("Jobs can run."),
        "{}",
        executor.log()
    );
    executor.stop();
    let wrong = stage
        .executor()
        .env("EXECUTOR_FRONTEND_PASSWORD", "wrong-token");
    let mut executor = wrong.spawn_with(&["run", "--verify"]);
    let code = executor.wait(MINUTES).code();
    assert_eq!(code, Some(1), "{}", executor.log());
    let log = executor.log();
    assert!(log.contains("Jobs cannot run: 1 check failed."), "{log}");
    assert!(!log.contains("Connected"), "{log}");
}

#[test]
fn a_state_directory_must_be_writable() {
    let stage = stage(&[]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().join("state");
    let executor = stage
        .executor()
        .env("EXECUTOR_STATE_DIR", path.to_str().unwrap());
    validate(executor).assert_failed("state", &["is not a directory", "EXECUTOR_STATE_DIR"]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let verdict = validate(stage.executor().env("EXECUTOR_STATE_DIR", path));
    verdict.assert(0, "ok       state: ", &[path]);
}
