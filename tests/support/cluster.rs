//! The real cluster, through kubectl, and a namespace for one test.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::{SOON, eventually};

/// Everything that an executor makes, and all pods.
const KINDS: &str = "jobs,pods,secrets,persistentvolumeclaims";
/// The account of the executor, with the verbs of our manifests.
const ACCOUNT: &str = "sourcegraph-executor";

/// What an account may do: API group, resource, verbs.
pub(crate) type Rule<'a> = (&'a str, &'a str, &'a [&'a str]);

/// The kubeconfig of an administrator: `KUBECONFIG` if it names a cluster
/// that answers, else the project's own cluster.
pub(crate) fn kubeconfig() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let own = project().join("target/cluster/kubeconfig");
        let named = std::env::var_os("KUBECONFIG").map(PathBuf::from);
        let found = named.into_iter().chain([own]).find(|path| answers(path));
        found.expect("a cluster answers; `scripts/cluster up` makes one")
    })
}

/// The top of the project.
pub(crate) fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// An address of this machine that pods can reach.
pub(crate) fn host_address() -> String {
    std::env::var("EXECUTOR_TEST_ADDRESS").unwrap_or_else(|_| "10.88.0.1".to_owned())
}

fn answers(kubeconfig: &Path) -> bool {
    let version = kubectl_command(kubeconfig)
        .args(["--request-timeout=5s", "get", "--raw", "/readyz"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// kubectl with this kubeconfig, for a caller that talks with it.
pub(crate) fn kubectl_command(kubeconfig: &Path) -> Command {
    let own = project().join("target/cluster/bin/kubectl");
    let program = if own.exists() {
        own
    } else {
        PathBuf::from("kubectl")
    };
    let mut command = Command::new(program);
    command.arg("--kubeconfig").arg(kubeconfig);
    command
}

/// Runs kubectl as administrator and gives its output; panics with both
/// outputs when it fails.
pub(crate) fn kubectl(arguments: &[&str], input: Option<&str>) -> String {
    match try_kubectl(arguments, input) {
        Ok(output) => output,
        Err(problem) => panic!("kubectl {}: {problem}", arguments.join(" ")),
    }
}

/// The same, where failing is an answer too.
pub(crate) fn try_kubectl(arguments: &[&str], input: Option<&str>) -> Result<String, String> {
    let mut child = kubectl_command(kubeconfig())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut stdin = child.stdin.take().expect("standard input is piped");
    stdin
        .write_all(input.unwrap_or_default().as_bytes())
        .map_err(|error| error.to_string())?;
    drop(stdin);
    let output = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(text),
        false => Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// A namespace that goes with its test.
pub(crate) struct Namespace {
    /// Its name.
    pub(crate) name: String,
    /// A kubeconfig of the executor's account in it.
    pub(crate) kubeconfig: PathBuf,
    dir: tempfile::TempDir,
}

impl Namespace {
    /// Makes one, with an account that may do what our manifests allow and no
    /// more.
    pub(crate) fn new() -> Namespace {
        let name = format!("test-{:08x}", random());
        kubectl(&["create", "namespace", &name], None);
        kubectl(
            &["-n", &name, "apply", "-f", "-"],
            Some(&without_namespace(&role())),
        );
        kubectl(&["-n", &name, "create", "serviceaccount", ACCOUNT], None);
        let subject = format!("--serviceaccount={name}:{ACCOUNT}");
        let role = "--role=sourcegraph-executor";
        kubectl(
            &[
                "-n",
                &name,
                "create",
                "rolebinding",
                ACCOUNT,
                role,
                &subject,
            ],
            None,
        );
        eventually(
            "the default account of a new namespace",
            SOON,
            || try_kubectl(&["-n", &name, "get", "serviceaccount", "default"], None).ok(),
            String::new,
        );
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let kubeconfig = write_kubeconfig(&name, dir.path());
        Namespace {
            name,
            kubeconfig,
            dir,
        }
    }

    /// Takes what the released manifests do not allow from the account.
    pub(crate) fn drop_optional_rules(&self) {
        let role = without_namespace(&role());
        let (needed, _) = role
            .split_once("  # Optional:")
            .expect("the Role marks its optional rules");
        kubectl(&["-n", &self.name, "apply", "-f", "-"], Some(needed));
    }

    /// Gives the account these rules in place of the released ones, and waits
    /// until they count. A rule is an API group, a resource and its verbs.
    pub(crate) fn set_rules(&self, rules: &[Rule<'_>]) {
        // All rules begin to count together: so does this one, which is new.
        let mark = format!("mark-{:08x}", random());
        let mut all: Vec<Value> = rules
            .iter()
            .map(|(group, resource, verbs)| {
                json!({"apiGroups": [group], "resources": [resource], "verbs": verbs})
            })
            .collect();
        all.push(json!({
            "apiGroups": [""], "resources": ["configmaps"], "resourceNames": [mark],
            "verbs": ["get"],
        }));
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "sourcegraph-executor", "namespace": self.name},
            "rules": all,
        });
        kubectl(&["apply", "-f", "-"], Some(&role.to_string()));
        let account = format!("--as=system:serviceaccount:{}:{ACCOUNT}", self.name);
        let object = format!("configmaps/{mark}");
        let can = ["-n", &self.name, "auth", "can-i", "get", &object, &account];
        eventually(
            "the rules of the account count",
            SOON,
            || try_kubectl(&can, None).ok(),
            String::new,
        );
    }

    /// Makes an object in this namespace.
    pub(crate) fn create(&self, object: &Value) {
        let text = object.to_string();
        kubectl(&["-n", &self.name, "create", "-f", "-"], Some(&text));
    }

    /// kubectl in this namespace.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        kubectl(&[&["-n", &self.name], arguments].concat(), None)
    }

    /// All objects of these kinds.
    pub(crate) fn list(&self, kinds: &str) -> Vec<Value> {
        let text = self.kubectl(&["get", kinds, "-o", "json"]);
        let list: Value = serde_json::from_str(&text).expect("kubectl prints JSON");
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until nothing of any job is left.
    pub(crate) fn wait_until_empty(&self) {
        let left = || -> Vec<String> {
            let all = self.list(KINDS);
            // Old servers put a token of each account into a Secret.
            let ours = all.iter().filter(|object| {
                object["type"].as_str() != Some("kubernetes.io/service-account-token")
            });
            ours.map(|object| format!("{} {}", object["kind"], object["metadata"]["name"]))
                .collect()
        };
        eventually(
            "an empty namespace",
            SOON,
            || left().is_empty().then_some(()),
            || left().join("\n"),
        );
    }

    /// Waits until there are no objects of these kinds.
    pub(crate) fn wait_until_gone(&self, kinds: &str) {
        eventually(
            &format!("no {kinds}"),
            SOON,
            || self.list(kinds).is_empty().then_some(()),
            || self.story(),
        );
    }

    /// What there is, for the story of a failed test.
    pub(crate) fn story(&self) -> String {
        let list = try_kubectl(&["-n", &self.name, "get", KINDS, "-o", "wide"], None);
        let events = try_kubectl(
            &[
                "-n",
                &self.name,
                "get",
                "events",
                "--sort-by=.lastTimestamp",
            ],
            None,
        );
        format!(
            "{}\n{}",
            list.unwrap_or_else(|e| e),
            events.unwrap_or_else(|e| e)
        )
    }
}

fn random() -> u32 {
    let mut random = [0u8; 4];
    getrandom::fill(&mut random).expect("the kernel has a source of randomness");
    u32::from_be_bytes(random)
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let delete = ["delete", "namespace", &self.name, "--wait=false"];
        if let Err(problem) = try_kubectl(&delete, None) {
            eprintln!("namespace {} stays: {problem}", self.name);
        }
    }
}

/// The Role of our manifests.
fn role() -> String {
    std::fs::read_to_string(project().join("manifests/base/role.yaml"))
        .expect("the Role is part of the manifests")
}

/// The Role goes into the test's namespace, not into its own.
fn without_namespace(manifest: &str) -> String {
    let lines = manifest
        .lines()
        .filter(|line| !line.trim_start().starts_with("namespace:"));
    lines.collect::<Vec<_>>().join("\n")
}

/// A token of the executor's account. By the bare API, since old kubectls
/// have no command for it.
fn account_token(namespace: &str) -> String {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{ACCOUNT}/token");
    let request = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}}"#;
    let answer = kubectl(&["create", "--raw", &path, "-f", "-"], Some(request));
    let answer: Value = serde_json::from_str(&answer).expect("the API answers JSON");
    let token = answer["status"]["token"].as_str();
    token.expect("the API makes tokens").to_owned()
}

/// Makes a kubeconfig for the executor's account out of the administrator's.
fn write_kubeconfig(namespace: &str, dir: &Path) -> PathBuf {
    let token = account_token(namespace);
    let cluster = |path: &str| {
        let path = format!("jsonpath={{.clusters[0].cluster.{path}}}");
        kubectl(
            &[
                "config",
                "view",
                "--raw",
                "--minify",
                "--flatten",
                "-o",
                &path,
            ],
            None,
        )
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": cluster("server"),
            "certificate-authority-data": cluster("certificate-authority-data"),
        }}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    let file = dir.join("kubeconfig");
    std::fs::write(&file, config.to_string()).expect("the directory is writable");
    file
}
