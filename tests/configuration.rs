//! Every variable with every kind of bad value, and what the released
//! executor's environments look like: what the real binary says, and how it
//! ends.

mod bad_values;

use std::collections::BTreeSet;
use std::process::{Command, Output};

use bad_values::BAD_VALUES;
use executor::config::table::VARIABLES;
use executor::config::unused::UNUSED;

const EXECUTOR: &str = env!("CARGO_BIN_EXE_executor");

/// The least that an executor needs.
const LEAST: [(&str, &str); 3] = [
    ("EXECUTOR_QUEUE_NAME", "batches"),
    ("EXECUTOR_FRONTEND_URL", "https://sg.example.org"),
    ("EXECUTOR_FRONTEND_PASSWORD", "hush-open-sesame"),
];

/// Runs with the least and some more. Where the configuration is good, it ends
/// at a kubeconfig that does not exist.
fn run(more: &[(&str, &str)]) -> Output {
    Command::new(EXECUTOR)
        .env_clear()
        .envs(LEAST)
        .env("EXECUTOR_KUBERNETES_CONFIG_PATH", "/nonexistent/kubeconfig")
        // Many run at once, and a port that is taken is worth a line.
        .env("EXECUTOR_METRICS_ADDR", "off")
        .envs(more.iter().copied())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_bad_value_is_explained() {
    for (variable, value, fragment) in BAD_VALUES {
        // The environment itself cannot carry this one.
        if value.contains('\0') {
            continue;
        }
        let output = run(&[(variable, value)]);
        let text = said(&output);
        let story = format!("{variable}={value:?} gave {:?}:\n{text}", output.status);
        assert_eq!(output.status.code(), Some(1), "{story}");
        assert!(text.contains("1 error in the configuration:"), "{story}");
        assert!(text.contains(variable), "{story}");
        assert!(text.contains(fragment), "{story}\nlacks {fragment}");
        assert!(!text.contains("hush"), "{story}");
    }
}

#[test]
fn every_variable_has_a_bad_value() {
    let tested: BTreeSet<_> = BAD_VALUES.iter().map(|row| row.0).collect();
    for variable in VARIABLES {
        let names = variable.names;
        assert!(names.iter().any(|name| tested.contains(name)), "{names:?}");
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let broken: Vec<(&str, &str)> = [
        ("EXECUTOR_FRONTEND_URL", "sourcegraph.example.org"),
        ("EXECUTOR_FRONTEND_PASSWORD", "hunter2\n"),
        ("EXECUTOR_BACKEND", "docker"),
        ("EXECUTOR_MAX_NUM_JOBS", "4"),
        ("EXECUTOR_MAXIMUM_NUM_JOBS", "5"),
        ("EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY", "much"),
        ("EXECUTOR_KUBERNETES_POD_AFFINITY", "[{}]"),
    ]
    .into();
    let output = run(&broken);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("6 errors in the configuration:"), "{text}");
    for (name, _) in broken {
        assert!(text.contains(name), "{name} is not named in:\n{text}");
    }
    assert!(!text.contains("hunter2"), "a secret is shown:\n{text}");
}

/// What reads the log of a container reads this too.
#[test]
fn faults_are_told_in_the_form_of_the_log() {
    let broken = [
        ("SRC_LOG_FORMAT", "json"),
        ("SRC_LOG_LEVEL", "none"),
        ("EXECUTOR_FRONTEND_PASSWORD", "hunter2\n"),
        ("EXECUTOR_BACKEND", "docker"),
    ];
    let text = said(&run(&broken));
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert_eq!(lines.len(), 2, "{text}");
    for (line, variable) in lines
        .iter()
        .zip(["EXECUTOR_BACKEND", "EXECUTOR_FRONTEND_PASSWORD"])
    {
        assert_eq!(line["level"], "error", "{line}");
        let message = line["message"].as_str().unwrap();
        assert!(
            message.starts_with("The configuration is wrong: "),
            "{message}"
        );
        assert!(message.contains(variable), "{message}");
    }
    assert!(!text.contains("hunter2"), "a secret is shown:\n{text}");
}

#[test]
fn what_restricted_forbids_is_told() {
    let restricted = ("EXECUTOR_POD_SECURITY", "restricted");
    let volume = r#"[{"name":"x","hostPath":{"path":"/"}}]"#;
    for (variable, value) in [
        ("KUBERNETES_RUN_AS_USER", "0"),
        ("KUBERNETES_JOB_HOST_NETWORK", "true"),
        ("KUBERNETES_ADDITIONAL_JOB_VOLUMES", volume),
    ] {
        let output = run(&[restricted, (variable, value)]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(&format!("{variable} must not")), "{text}");
        assert!(text.contains("EXECUTOR_POD_SECURITY"), "{text}");
    }
}

#[test]
fn a_handover_needs_a_state_directory() {
    let handover = ("EXECUTOR_SHUTDOWN", "handover");
    let text = said(&run(&[handover, ("EXECUTOR_STATE_DIR", "none")]));
    assert!(
        text.contains("EXECUTOR_SHUTDOWN must not be handover"),
        "{text}"
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    let kubeconfig = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "a",
        "clusters": [{"name": "a", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "a", "context": {"cluster": "a"}}]}"#;
    std::fs::write(file.path(), kubeconfig).unwrap();
    let kubeconfig = file.path().to_str().unwrap();
    let output = run(&[
        handover,
        ("EXECUTOR_STATE_DIR", "/proc/nowhere"),
        ("EXECUTOR_KUBERNETES_CONFIG_PATH", kubeconfig),
    ]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("cannot keep state in /proc/nowhere"),
        "{text}"
    );
}

#[test]
fn variables_without_a_meaning_warn_once() {
    let asked_for: Vec<(&str, &str)> = UNUSED
        .iter()
        .filter(|unused| unused.harmless.is_some())
        .map(|unused| match unused.harmless {
            Some(values) if values.contains(&"false") => (unused.name, "true"),
            _ => (unused.name, "false"),
        })
        .collect();
    assert!(!asked_for.is_empty());
    let text = said(&run(&asked_for));
    for (name, _) in &asked_for {
        let times = text.matches(&format!(" {name} is not used,")).count();
        assert_eq!(times, 1, "{name} in:\n{text}");
    }
    let harmless: Vec<(&str, &str)> = UNUSED
        .iter()
        .map(|unused| {
            let values = unused.harmless.unwrap_or(&["anything"]);
            (unused.name, values.first().copied().unwrap_or_default())
        })
        .collect();
    let text = said(&run(&harmless));
    assert!(!text.contains("is not used"), "{text}");
}

#[test]
fn a_variable_with_our_name_counts_first() {
    let text = said(&run(&[
        ("SRC_LOG_FORMAT", "condensed"),
        ("SRC_LOG_FORMAT_executor", "json"),
        ("EXECUTOR_MAXIMUM_NUM_JOBS", "bad"),
        ("EXECUTOR_MAXIMUM_NUM_JOBS_executor", "3"),
        ("KUBERNETES_SINGLE_JOB_POD", "false"),
    ]));
    let line = text.lines().next().unwrap_or_default();
    let object: serde_json::Value = serde_json::from_str(line).expect(&text);
    assert_eq!(object["level"], "warn");
}

/// The ConfigMap of the released chart with its default values.
#[test]
fn the_released_charts_environment_is_taken() {
    let output = run(&[
        ("EXECUTOR_USE_FIRECRACKER", "false"),
        ("EXECUTOR_FRONTEND_URL", "http://sourcegraph-frontend:30080"),
        ("EXECUTOR_MAXIMUM_NUM_JOBS", "10"),
        ("EXECUTOR_MAXIMUM_RUNTIME_PER_JOB", "30m"),
        ("EXECUTOR_QUEUE_NAME", ""),
        ("EXECUTOR_QUEUE_NAMES", "batches,codeintel"),
        ("SRC_LOG_LEVEL", "warn"),
        ("SRC_LOG_FORMAT", "condensed"),
        ("SRC_TRACE_LOG", "false"),
        ("EXECUTOR_KUBERNETES_NAMESPACE", "default"),
        ("EXECUTOR_KUBERNETES_PERSISTENCE_VOLUME_NAME", "sg-executor"),
        ("EXECUTOR_KUBERNETES_NODE_NAME", ""),
        ("EXECUTOR_KUBERNETES_NODE_SELECTOR", ""),
        ("EXECUTOR_KUBERNETES_NODE_TOLERATIONS", ""),
        (
            "EXECUTOR_KUBERNETES_NODE_REQUIRED_AFFINITY_MATCH_EXPRESSIONS",
            "",
        ),
        (
            "EXECUTOR_KUBERNETES_NODE_REQUIRED_AFFINITY_MATCH_FIELDS",
            "",
        ),
        ("EXECUTOR_KUBERNETES_POD_AFFINITY", ""),
        ("EXECUTOR_KUBERNETES_POD_ANTI_AFFINITY", ""),
        ("EXECUTOR_KUBERNETES_RESOURCE_REQUEST_CPU", ""),
        ("EXECUTOR_KUBERNETES_RESOURCE_REQUEST_MEMORY", "1Gi"),
        ("EXECUTOR_KUBERNETES_RESOURCE_LIMIT_CPU", ""),
        ("EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY", "12Gi"),
        ("KUBERNETES_JOB_DEADLINE", "1200"),
        ("KUBERNETES_RUN_AS_USER", ""),
        ("KUBERNETES_RUN_AS_GROUP", "-1"),
        ("KUBERNETES_FS_GROUP", "1000"),
        ("EXECUTOR_DOCKER_ADD_HOST_GATEWAY", "false"),
        ("KUBERNETES_KEEP_JOBS", "false"),
        ("EXECUTOR_KEEP_WORKSPACES", "false"),
    ]);
    let text = said(&output);
    // It comes as far as the kubeconfig that does not exist, without a word.
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("/nonexistent/kubeconfig"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}
