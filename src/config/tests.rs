//! Whole configurations: what is accepted, what is refused, and with which words.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::table::VARIABLES;
use super::unused::UNUSED;
use super::*;

const PASSWORD: &str = "hush-open-sesame";

/// The least that an executor needs.
const LEAST: [(&str, &str); 3] = [
    ("EXECUTOR_QUEUE_NAME", "batches"),
    ("EXECUTOR_FRONTEND_URL", "https://sg.example.org"),
    ("EXECUTOR_FRONTEND_PASSWORD", PASSWORD),
];

fn load(variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let variables: BTreeMap<_, _> = variables.iter().copied().collect();
    Config::from_lookup(|name| variables.get(name).map(|value| (*value).to_owned()))
}

/// Loads the least and some more, which may replace parts of the least.
fn load_with(more: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    load(&[LEAST.as_slice(), more].concat())
}

#[test]
fn the_least_gets_all_defaults() {
    let config = load(&LEAST).unwrap();
    assert_eq!(config.workers, 1);
    assert_eq!(config.drain_timeout, Duration::from_secs(1800));
    assert_eq!(config.cleanup_interval, Some(Duration::from_secs(60)));
    assert_eq!(config.queue.poll_interval, Duration::from_secs(1));
    assert_eq!(config.queue.username, None);
    assert_eq!(config.queue.password.reveal(), PASSWORD);
    assert_eq!(config.queue.num_cpus, 4);
    assert_eq!(config.queue.memory, "12G");
    assert_eq!(config.queue.disk_space, "20G");
    assert_eq!(config.metrics_address.as_deref(), Some(":6060"));
    assert_eq!(config.cluster.namespace, "default");
    assert_eq!(config.cluster.config_path, None);
    let job = config.job;
    assert_eq!(job.max_runtime, Duration::from_secs(1800));
    assert_eq!(job.deadline, Duration::from_secs(1800));
    assert_eq!(job.resources.limit_cpu, None);
    assert_eq!(job.resources.limit_memory.as_deref(), Some("12Gi"));
    assert_eq!(job.resources.request_cpu, None);
    assert_eq!(job.resources.request_memory.as_deref(), Some("12Gi"));
    assert!(!job.volumes.is_claim && !job.host_network && !job.is_restricted);
    assert_eq!(job.volumes.size, "5Gi");
    assert_eq!(job.placement, Placement::default());
    assert!(job.job_annotations.is_empty() && job.pod_annotations.is_empty());
    assert_eq!(job.workspace_image, None);
    assert!(job.pull_secrets.is_empty());
    assert_eq!(job.pull_policy, "IfNotPresent");
    assert_eq!(job.git_ca_certificate, None);
    assert_eq!(job.run_as_user, None);
    assert_eq!(job.run_as_group, None);
    assert_eq!(job.fs_group, Some(1000));
    assert!(!job.keep_jobs);
    assert_eq!(config.queue.queues, Queues::One("batches".to_owned()));
    assert_eq!(config.limits, Limits::default());
    assert!(config.log.filter.ends_with(",executor=info"));
    assert_eq!(config.log.format, LogFormat::Sentence);
    assert!(config.warnings.is_empty());
}

#[test]
fn every_setting_of_the_daemon_can_be_set() {
    let config = load_with(&[
        ("EXECUTOR_FRONTEND_USERNAME", "executor"),
        ("EXECUTOR_BACKEND", "kubernetes"),
        ("EXECUTOR_MAXIMUM_NUM_JOBS", "100"),
        ("EXECUTOR_KUBERNETES_NAMESPACE", "jobs-1"),
        ("EXECUTOR_QUEUE_POLL_INTERVAL", "300ms"),
        ("EXECUTOR_KUBERNETES_CONFIG_PATH", "/etc/kube config"),
        ("EXECUTOR_DRAIN_TIMEOUT", "0"),
        ("EXECUTOR_CLEANUP_TASK_INTERVAL", "0s"),
        ("EXECUTOR_NUM_TOTAL_JOBS", "7"),
        ("EXECUTOR_MAX_ACTIVE_TIME", "8h"),
        ("EXECUTOR_JOB_NUM_CPUS", "8"),
        ("EXECUTOR_JOB_MEMORY", "1G"),
        ("EXECUTOR_FIRECRACKER_DISK_SPACE", "2G"),
        ("SRC_LOG_LEVEL", "dbug"),
        ("SRC_LOG_FORMAT", "json"),
        ("EXECUTOR_METRICS_ADDR", "off"),
    ])
    .unwrap();
    assert_eq!(config.queue.username.as_deref(), Some("executor"));
    assert_eq!(config.workers, 100);
    assert_eq!(config.cluster.namespace, "jobs-1");
    assert_eq!(config.queue.poll_interval, Duration::from_millis(300));
    let path = config.cluster.config_path.unwrap();
    assert_eq!(path.to_str(), Some("/etc/kube config"));
    assert_eq!(config.drain_timeout, Duration::ZERO);
    assert_eq!(config.cleanup_interval, None);
    assert_eq!(config.limits.jobs, Some(7));
    let hours = Duration::from_secs(8 * 3600);
    assert_eq!(config.limits.active_time, Some(hours));
    assert_eq!(config.queue.num_cpus, 8);
    assert_eq!(config.queue.memory, "1G");
    assert_eq!(config.queue.disk_space, "2G");
    assert!(config.log.filter.ends_with(",executor=debug"));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.metrics_address, None);
}

#[test]
fn every_setting_of_a_job_can_be_set() {
    let job = load_with(&[
        ("EXECUTOR_MAXIMUM_RUNTIME_PER_JOB", "1h30m"),
        ("KUBERNETES_JOB_DEADLINE", "600"),
        ("EXECUTOR_KUBERNETES_RESOURCE_LIMIT_CPU", "2"),
        ("EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY", "1Gi"),
        ("EXECUTOR_KUBERNETES_RESOURCE_REQUEST_CPU", "2000m"),
        ("EXECUTOR_KUBERNETES_RESOURCE_REQUEST_MEMORY", "1024Mi"),
        ("KUBERNETES_JOB_VOLUME_SIZE", "10Gi"),
        ("KUBERNETES_JOB_VOLUME_TYPE", "pvc"),
        ("EXECUTOR_WORKSPACE_IMAGE", "registry:5000/executor:1"),
        ("KUBERNETES_IMAGE_PULL_SECRETS", "one, two.x"),
        ("EXECUTOR_IMAGE_PULL_POLICY", "Always"),
        ("KUBERNETES_GIT_CA_CERT", "/etc/ca.pem"),
        ("KUBERNETES_RUN_AS_USER", "1000"),
        ("KUBERNETES_RUN_AS_GROUP", "0"),
        ("KUBERNETES_FS_GROUP", "-1"),
        ("KUBERNETES_KEEP_JOBS", "T"),
        ("EXECUTOR_KUBERNETES_NODE_NAME", "node-1"),
        ("EXECUTOR_KUBERNETES_NODE_SELECTOR", "pool=jobs,disk=ssd"),
        ("KUBERNETES_JOB_ANNOTATIONS", "{\"a\":\"b\"}"),
        ("KUBERNETES_JOB_POD_ANNOTATIONS", "{\"c\":\"d\"}"),
        ("KUBERNETES_JOB_HOST_NETWORK", "true"),
    ])
    .unwrap()
    .job;
    assert_eq!(job.max_runtime, Duration::from_secs(5400));
    assert_eq!(job.deadline, Duration::from_secs(600));
    assert_eq!(job.resources.limit_cpu.as_deref(), Some("2"));
    assert_eq!(job.resources.limit_memory.as_deref(), Some("1Gi"));
    assert_eq!(job.resources.request_cpu.as_deref(), Some("2000m"));
    assert_eq!(job.resources.request_memory.as_deref(), Some("1024Mi"));
    assert_eq!(job.volumes.size, "10Gi");
    assert!(job.volumes.is_claim && job.host_network && job.keep_jobs);
    let image = job.workspace_image;
    assert_eq!(image.as_deref(), Some("registry:5000/executor:1"));
    assert_eq!(job.pull_secrets, ["one", "two.x"]);
    assert_eq!(job.pull_policy, "Always");
    assert_eq!(job.git_ca_certificate.as_deref(), Some("/etc/ca.pem"));
    assert_eq!(job.run_as_user, Some(1000));
    assert_eq!(job.run_as_group, Some(0));
    assert_eq!(job.fs_group, None);
    assert_eq!(job.placement.node_name.as_deref(), Some("node-1"));
    assert_eq!(job.placement.node_selector["pool"], "jobs");
    assert_eq!(job.placement.node_selector["disk"], "ssd");
    assert_eq!(job.job_annotations["a"], "b");
    assert_eq!(job.pod_annotations["c"], "d");
}

#[test]
fn restricted_pods_have_a_user() {
    let restricted = ("EXECUTOR_POD_SECURITY", "restricted");
    let job = load_with(&[restricted]).unwrap().job;
    assert_eq!(
        (job.run_as_user, job.run_as_group),
        (Some(1000), Some(1000))
    );
    let user = ("KUBERNETES_RUN_AS_USER", "2000");
    let job = load_with(&[restricted, user]).unwrap().job;
    assert_eq!(
        (job.run_as_user, job.run_as_group),
        (Some(2000), Some(1000))
    );
}

#[test]
fn the_general_name_of_a_size_counts_first() {
    let older = ("EXECUTOR_FIRECRACKER_MEMORY", "2G");
    assert_eq!(load_with(&[older]).unwrap().queue.memory, "2G");
    let general = ("EXECUTOR_JOB_MEMORY", "3G");
    assert_eq!(load_with(&[older, general]).unwrap().queue.memory, "3G");
}

#[test]
fn levels_apply_to_our_own_lines() {
    for (level, others, ours) in [
        ("warn", "warn", "warn"),
        ("crit", "error", "error"),
        ("none", "off", "off"),
    ] {
        let config = load_with(&[("SRC_LOG_LEVEL", level)]).unwrap();
        let filter = format!("{others},{TOLD_ANYWAY}=off,executor={ours}");
        assert_eq!(config.log.filter, filter);
    }
    let both = [("SRC_LOG_LEVEL", "warn"), ("RUST_LOG", "trace")];
    assert_eq!(load_with(&both).unwrap().log.filter, "trace");
}

#[test]
fn all_faults_are_reported_at_once() {
    let errors = load(&[
        ("EXECUTOR_MAX_NUM_JOBS", "many"),
        ("KUBERNETES_KEEP_JOBS", "maybe"),
    ])
    .unwrap_err();
    let text = errors.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "5 errors in the configuration:");
    assert_eq!(lines.len(), 6, "{text}");
    for variable in [
        "EXECUTOR_QUEUE_NAME",
        "EXECUTOR_FRONTEND_URL",
        "EXECUTOR_FRONTEND_PASSWORD",
        "EXECUTOR_MAX_NUM_JOBS",
        "KUBERNETES_KEEP_JOBS",
    ] {
        let start = format!("  {variable} ");
        assert!(lines.iter().any(|line| line.starts_with(&start)), "{text}");
    }
}

#[test]
fn no_error_shows_a_password() {
    let with_line_break = format!("{PASSWORD}\n");
    let in_url = format!("https://executor:{PASSWORD}@sg.example.org");
    let in_broken_url = format!("https://executor:{PASSWORD}@sg example.org");
    let in_name = format!("executor:{PASSWORD}");
    for (variable, value) in [
        ("EXECUTOR_FRONTEND_PASSWORD", &with_line_break),
        ("EXECUTOR_FRONTEND_URL", &in_url),
        ("EXECUTOR_FRONTEND_URL", &in_broken_url),
        ("EXECUTOR_FRONTEND_USERNAME", &in_name),
    ] {
        let errors = load_with(&[(variable, value)]).unwrap_err();
        for text in [errors.to_string(), format!("{errors:?}")] {
            assert!(!text.contains("hush"), "{text}");
            assert!(!text.contains("sesame"), "{text}");
        }
    }
    let config = load(&LEAST).unwrap();
    assert!(!format!("{config:?}").contains("hush"));
}

#[test]
fn two_names_must_not_contradict() {
    let name = |value| ("EXECUTOR_MAX_NUM_JOBS", value);
    let alias = |value| ("EXECUTOR_MAXIMUM_NUM_JOBS", value);
    let text = load_with(&[name("4"), alias("8")]).unwrap_err().to_string();
    let expected = "EXECUTOR_MAX_NUM_JOBS and EXECUTOR_MAXIMUM_NUM_JOBS mean the same and must \
                    not differ (\"4\" and \"8\")";
    assert!(text.contains(expected), "{text}");
    assert_eq!(load_with(&[name("4"), alias("4")]).unwrap().workers, 4);
    assert_eq!(load_with(&[name(""), alias("8")]).unwrap().workers, 8);
    assert_eq!(load_with(&[name("4"), alias("")]).unwrap().workers, 4);
}

#[test]
fn the_deadline_never_undercuts_the_runtime() {
    for (runtime, deadline) in [("10m", 1200), ("30m", 1800), ("1801.5s", 1802)] {
        let config = load_with(&[("EXECUTOR_MAXIMUM_RUNTIME_PER_JOB", runtime)]).unwrap();
        assert_eq!(config.job.deadline, Duration::from_secs(deadline));
    }
}

#[test]
fn zero_leaves_a_resource_out() {
    let resources = load_with(&[
        ("EXECUTOR_KUBERNETES_RESOURCE_LIMIT_CPU", "0"),
        ("EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY", "0Gi"),
        ("EXECUTOR_KUBERNETES_RESOURCE_REQUEST_CPU", "500m"),
    ])
    .unwrap()
    .job
    .resources;
    assert_eq!(resources.limit_cpu, None);
    assert_eq!(resources.limit_memory, None);
    assert_eq!(resources.request_cpu.as_deref(), Some("500m"));
    assert_eq!(resources.request_memory.as_deref(), Some("12Gi"));
}

#[test]
fn a_default_request_follows_the_limit() {
    let limit = ("EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY", "4Gi");
    let resources = load_with(&[limit]).unwrap().job.resources;
    assert_eq!(resources.request_memory.as_deref(), Some("4Gi"));
}

#[test]
fn the_draft_manifest_is_accepted() {
    let config = load(&[
        ("EXECUTOR_QUEUE_NAME", "batches"),
        (
            "EXECUTOR_FRONTEND_URL",
            "https://sourcegraph.at.my.company/",
        ),
        ("EXECUTOR_FRONTEND_USERNAME", "executor"),
        ("EXECUTOR_FRONTEND_PASSWORD", "a-highly-secure-password"),
        ("EXECUTOR_BACKEND", "kubernetes"),
        ("EXECUTOR_MAX_NUM_JOBS", "4"),
        ("EXECUTOR_KUBE_NAMESPACE", "sourcegraph-executor"),
    ])
    .unwrap();
    assert_eq!(
        config.queue.frontend_url,
        "https://sourcegraph.at.my.company"
    );
    assert_eq!(config.workers, 4);
    assert_eq!(config.cluster.namespace, "sourcegraph-executor");
}

#[test]
fn the_empty_string_counts_as_unset() {
    let required: BTreeMap<_, _> = LEAST.into_iter().collect();
    let config = Config::from_lookup(|name| {
        let value = required.get(name).copied().unwrap_or_default();
        Some(value.to_owned())
    })
    .unwrap();
    assert_eq!(config.workers, 1);
    assert_eq!(config.job.run_as_user, None);
}

#[test]
fn exactly_the_variables_of_the_table_are_read() {
    let asked = RefCell::new(BTreeSet::new());
    let _ = Config::from_lookup(|name| {
        asked.borrow_mut().insert(name.to_owned());
        None
    });
    let table: BTreeSet<_> = VARIABLES
        .iter()
        .flat_map(|variable| variable.names)
        .chain(UNUSED.iter().map(|unused| &unused.name))
        .map(|name| (*name).to_owned())
        .collect();
    assert_eq!(asked.into_inner(), table);
}

#[test]
fn every_default_is_an_allowed_value() {
    for variable in VARIABLES {
        if let variables::Fallback::Value(value) = variable.default {
            load_with(&[(variable.names[0], value)]).unwrap();
        }
    }
}
