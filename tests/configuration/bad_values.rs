//! Every variable with every kind of bad value.

const QUEUE_TEXT: &str = "EXECUTOR_QUEUE_NAME must be set to one of 'batches, codeintel'";
const QUEUES_TEXT: &str = "some of 'batches, codeintel' with commas between them";
const URL_TEXT: &str =
    "EXECUTOR_FRONTEND_URL must be in the format scheme://host (and optionally :port)";

/// A variable, a value that it must not have, and a part of what is said then.
pub(super) const BAD_VALUES: &[(&str, &str, &str)] = &[
    (
        "EXECUTOR_QUEUE_NAME",
        "",
        "or EXECUTOR_QUEUE_NAMES to several of them (neither is set)",
    ),
    ("EXECUTOR_QUEUE_NAME", "batch", QUEUE_TEXT),
    ("EXECUTOR_FRONTEND_URL", "", URL_TEXT),
    ("EXECUTOR_FRONTEND_URL", "sg.example.org", "has no scheme"),
    (
        "EXECUTOR_FRONTEND_URL",
        "ftp://sg.example.org",
        "neither http nor https",
    ),
    ("EXECUTOR_FRONTEND_URL", "https://", URL_TEXT),
    (
        "EXECUTOR_FRONTEND_PASSWORD",
        "",
        "one line of text (it is not set)",
    ),
    (
        "EXECUTOR_FRONTEND_PASSWORD",
        "a\n",
        "(its value contains a line break",
    ),
    ("EXECUTOR_FRONTEND_USERNAME", "a:b", "contains a colon"),
    (
        "EXECUTOR_BACKEND",
        "docker",
        "set to 'kubernetes', the only one that is supported",
    ),
    (
        "EXECUTOR_MAX_NUM_JOBS",
        "0",
        "a whole number from 1 to 1000 (its value \"0\" is out",
    ),
    (
        "EXECUTOR_MAXIMUM_NUM_JOBS",
        "1001",
        "EXECUTOR_MAXIMUM_NUM_JOBS must be a whole",
    ),
    (
        "EXECUTOR_MAX_NUM_JOBS",
        "four",
        "\"four\" is not a whole number",
    ),
    (
        "EXECUTOR_KUBE_NAMESPACE",
        "My_Space",
        "up to 63 of a-z, 0-9 and -",
    ),
    (
        "EXECUTOR_QUEUE_POLL_INTERVAL",
        "0s",
        "a duration from 1ms to 1h",
    ),
    ("EXECUTOR_QUEUE_POLL_INTERVAL", "2h", "is out of range"),
    (
        "EXECUTOR_QUEUE_POLL_INTERVAL",
        "5",
        "without one of the units",
    ),
    (
        "EXECUTOR_MAXIMUM_RUNTIME_PER_JOB",
        "721h",
        "a duration from 1s to 720h",
    ),
    ("EXECUTOR_DRAIN_TIMEOUT", "-1s", "is a duration below zero"),
    (
        "EXECUTOR_CLEANUP_TASK_INTERVAL",
        "5ms",
        "must be at least 1s, or 0",
    ),
    (
        "EXECUTOR_IMAGE_PULL_GRACE",
        "25h",
        "a duration from 0s to 24h",
    ),
    (
        "EXECUTOR_SCHEDULING_GRACE",
        "15",
        "without one of the units",
    ),
    ("EXECUTOR_POD_START_GRACE", "never", "is not a duration"),
    (
        "KUBERNETES_JOB_DEADLINE",
        "0",
        "a whole number from 1 to 2147483647",
    ),
    ("KUBERNETES_JOB_DEADLINE", "20m", "is not a whole number"),
    (
        "EXECUTOR_KUBERNETES_RESOURCE_LIMIT_CPU",
        "2cores",
        "such as 500m or 12Gi",
    ),
    (
        "EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY",
        "12GB",
        "is not a quantity",
    ),
    (
        "EXECUTOR_KUBERNETES_RESOURCE_REQUEST_CPU",
        "-1",
        "is a quantity below zero",
    ),
    (
        "EXECUTOR_KUBERNETES_RESOURCE_REQUEST_MEMORY",
        "lots",
        "is not a quantity",
    ),
    (
        "EXECUTOR_KUBERNETES_RESOURCE_REQUEST_MEMORY",
        "16Gi",
        "must not be larger than EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY \
             (16Gi is more than 12Gi)",
    ),
    ("KUBERNETES_JOB_VOLUME_SIZE", "big", "is not a quantity"),
    ("EXECUTOR_WORKSPACE_IMAGE", "a b", "contains a space"),
    (
        "KUBERNETES_IMAGE_PULL_SECRETS",
        "a,B",
        "cannot be the name of a Kubernetes object",
    ),
    (
        "EXECUTOR_IMAGE_PULL_POLICY",
        "always",
        "'IfNotPresent, Always, Never'",
    ),
    (
        "KUBERNETES_GIT_CA_CERT",
        "/a\n",
        "contains a control character",
    ),
    (
        "EXECUTOR_KUBERNETES_CONFIG_PATH",
        "/a\0",
        "contains a control character",
    ),
    (
        "EXECUTOR_JOB_NUM_CPUS",
        "-1",
        "a whole number from 0 to 10000",
    ),
    ("EXECUTOR_JOB_MEMORY", "\t", "contains a control character"),
    (
        "EXECUTOR_FIRECRACKER_DISK_SPACE",
        "\t",
        "contains a control character",
    ),
    (
        "KUBERNETES_RUN_AS_USER",
        "-2",
        "a whole number from -1 to 2147483647",
    ),
    ("KUBERNETES_RUN_AS_GROUP", "wheel", "is not a whole number"),
    ("KUBERNETES_FS_GROUP", "2147483648", "is out of range"),
    (
        "KUBERNETES_KEEP_JOBS",
        "yes",
        "must be true or false (its value \"yes\" is neither)",
    ),
    ("EXECUTOR_QUEUE_NAMES", "batches,", QUEUES_TEXT),
    ("EXECUTOR_QUEUE_NAMES", "batches;codeintel", QUEUES_TEXT),
    (
        "EXECUTOR_QUEUE_NAMES",
        "batches",
        "EXECUTOR_QUEUE_NAME and EXECUTOR_QUEUE_NAMES are both set",
    ),
    ("EXECUTOR_NUM_TOTAL_JOBS", "-1", "a whole number from 0"),
    ("EXECUTOR_NUM_TOTAL_JOBS", "1e3", "is not a whole number"),
    ("EXECUTOR_MAX_ACTIVE_TIME", "8", "without one of the units"),
    ("EXECUTOR_MAX_ACTIVE_TIME", "9000h", "0s to 8760h"),
    ("EXECUTOR_SHUTDOWN", "wait", "'drain, handover'"),
    ("EXECUTOR_STATE_DIR", "/a\n", "contains a control character"),
    (
        "EXECUTOR_FIRECRACKER_NUM_CPUS",
        "all",
        "is not a whole number",
    ),
    (
        "EXECUTOR_FIRECRACKER_MEMORY",
        "\t",
        "contains a control character",
    ),
    (
        "EXECUTOR_KUBERNETES_NODE_NAME",
        "Node 1",
        "the name of a Kubernetes object",
    ),
    (
        "EXECUTOR_KUBERNETES_NODE_SELECTOR",
        "pool",
        "must be a comma separated list of key=value pairs",
    ),
    (
        "EXECUTOR_KUBERNETES_NODE_SELECTOR",
        "a=b=c",
        "has the part \"a=b=c\", which is no pair",
    ),
    (
        "EXECUTOR_KUBERNETES_NODE_REQUIRED_AFFINITY_MATCH_EXPRESSIONS",
        "pool in (jobs)",
        "is not JSON",
    ),
    (
        "EXECUTOR_KUBERNETES_NODE_REQUIRED_AFFINITY_MATCH_EXPRESSIONS",
        r#"[{"key":"pool","operator":"In","values":"jobs"}]"#,
        "wrong at `[0].values`",
    ),
    (
        "EXECUTOR_KUBERNETES_NODE_REQUIRED_AFFINITY_MATCH_EXPRESSION",
        r#"[{"key":"pool","operator":"=="}]"#,
        "wrong at `[0].operator`: must be one of 'In,",
    ),
    (
        "EXECUTOR_KUBERNETES_NODE_REQUIRED_AFFINITY_MATCH_FIELDS",
        r#"{"key":"metadata.name"}"#,
        "wrong at the top",
    ),
    (
        "EXECUTOR_KUBERNETES_POD_AFFINITY",
        r#"[{"labelSelector":{"matchLabels":{"a":"b"}}}]"#,
        "must contain a topologyKey",
    ),
    (
        "EXECUTOR_KUBERNETES_POD_AFFINITY",
        r#"[{"topologyKey":"a","labelSelector":{"matchExpressions":[{"key":1}]}}]"#,
        "wrong at `[0].labelSelector.matchExpressions[0].key`",
    ),
    (
        "EXECUTOR_KUBERNETES_POD_ANTI_AFFINITY",
        r#"[{"topologyKey":"a","labelSelectors":{}}]"#,
        "wrong at `[0].labelSelectors`: is a field that Kubernetes does not know",
    ),
    (
        "EXECUTOR_KUBERNETES_NODE_TOLERATIONS",
        r#"[{"key":"a","operator":"Exists","effect":"Never"}]"#,
        "wrong at `[0].effect`",
    ),
    ("KUBERNETES_JOB_VOLUME_TYPE", "PVC", "'emptyDir, pvc'"),
    ("KUBERNETES_JOB_VOLUME_SIZE", "0", "is zero"),
    (
        "KUBERNETES_ADDITIONAL_JOB_VOLUMES",
        r#"[{"name":"ca","configMap":"ca"}]"#,
        "wrong at `[0].configMap`",
    ),
    (
        "KUBERNETES_ADDITIONAL_JOB_VOLUMES",
        r#"[{"name":"job-data","emptyDir":{}}]"#,
        "the executor's own",
    ),
    (
        "KUBERNETES_ADDITIONAL_JOB_VOLUME_MOUNTS",
        r#"[{"name":"ca","mountPath":"/certs"}]"#,
        "must only name volumes of KUBERNETES_ADDITIONAL_JOB_VOLUMES (\"ca\" is none)",
    ),
    (
        "KUBERNETES_ADDITIONAL_JOB_VOLUME_MOUNTS",
        r#"[{"name":"ca","mountPath":"/job"}]"#,
        "must not hide /job",
    ),
    (
        "KUBERNETES_JOB_ANNOTATIONS",
        r#"{"a":true}"#,
        "wrong at `a`",
    ),
    (
        "KUBERNETES_JOB_POD_ANNOTATIONS",
        r#"["a"]"#,
        "wrong at the top",
    ),
    (
        "KUBERNETES_JOB_HOST_NETWORK",
        "host",
        "must be true or false",
    ),
    (
        "EXECUTOR_DOCKER_AUTH_CONFIG",
        "hush",
        "is not JSON: line 1, column 1",
    ),
    (
        "EXECUTOR_DOCKER_AUTH_CONFIG",
        r#"{"auths":{"registry.example.org":"hush"}}"#,
        "wrong at `auths[\"registry.example.org\"]`",
    ),
    (
        "EXECUTOR_POD_SECURITY",
        "privileged",
        "'baseline, restricted'",
    ),
    (
        "EXECUTOR_METRICS_ADDR",
        "6060",
        "must be host:port, :port or off (its value \"6060\" has no port)",
    ),
    ("SRC_LOG_LEVEL", "loud", "'debug, info, warn, error, none,"),
    ("SRC_LOG_FORMAT", "xml", "'condensed, logfmt, json'"),
    ("RUST_LOG", "\u{1b}", "contains a control character"),
];
