//! All variables: the one place that knows their names, defaults and limits.
//! The loader asks by these tables, errors quote them, and a test compares the
//! documentation with them.

use std::time::Duration;

use super::variables::{Fallback, Kind, Variable};

/// Largest user or group number that Kubernetes takes.
const ID_MAX: i64 = 2_147_483_647;

/// A user or group; the released executor writes -1 for none.
const ID: Kind = Kind::Integer {
    min: -1,
    max: ID_MAX,
};

const CPUS: Kind = Kind::Integer {
    min: 0,
    max: 10_000,
};

/// How long something may stand in the way; with 0 it may not at all.
const GRACE: Kind = Kind::Duration {
    min: Duration::ZERO,
    max: DAY,
};

const DAY: Duration = Duration::from_secs(24 * 3600);
const DAYS_30: Duration = Duration::from_secs(30 * 24 * 3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The queues of Sourcegraph.
const QUEUES: &[&str] = &["batches", "codeintel"];

const REQUIREMENTS: Kind = Kind::Json("a list of node selector requirements");
const TERMS: Kind = Kind::Json("a list of pod affinity terms");

/// The released executor's words for levels, and those of everybody else.
const LOG_LEVELS: &[&str] = &[
    "debug", "info", "warn", "error", "none", "dbug", "eror", "crit",
];

/// All variables that the executor reads, in the order of the documentation.
pub const VARIABLES: &[Variable] = &[
    Variable {
        names: &["EXECUTOR_QUEUE_NAME"],
        kind: Kind::Choice(QUEUES),
        default: Fallback::Unset,
        meaning: "Queue to take jobs from; either this or EXECUTOR_QUEUE_NAMES is required.",
    },
    Variable {
        names: &["EXECUTOR_QUEUE_NAMES"],
        kind: Kind::Queues(QUEUES),
        default: Fallback::Unset,
        meaning: "Several queues to take jobs from, with commas between them.",
    },
    Variable {
        names: &["EXECUTOR_FRONTEND_URL"],
        kind: Kind::Url,
        default: Fallback::Required,
        meaning: "Address of the Sourcegraph instance; a path is kept.",
    },
    Variable {
        names: &["EXECUTOR_FRONTEND_USERNAME"],
        kind: Kind::Text,
        default: Fallback::Unset,
        meaning: "User name for HTTP Basic; when unset, the password is sent as an executor token.",
    },
    Variable {
        names: &["EXECUTOR_FRONTEND_PASSWORD"],
        kind: Kind::Secret,
        default: Fallback::Required,
        meaning: "Executor token, or the password for HTTP Basic.",
    },
    Variable {
        names: &["EXECUTOR_BACKEND"],
        kind: Kind::Choice(&["kubernetes"]),
        default: Fallback::Value("kubernetes"),
        meaning: "Where jobs run; only Kubernetes is supported.",
    },
    Variable {
        names: &["EXECUTOR_MAX_NUM_JOBS", "EXECUTOR_MAXIMUM_NUM_JOBS"],
        kind: Kind::Integer { min: 1, max: 1000 },
        default: Fallback::Value("1"),
        meaning: "Jobs that run at the same time.",
    },
    Variable {
        names: &["EXECUTOR_QUEUE_POLL_INTERVAL"],
        kind: Kind::Duration {
            min: Duration::from_millis(1),
            max: Duration::from_secs(3600),
        },
        default: Fallback::Value("1s"),
        meaning: "Wait before the queue is asked again after it was empty.",
    },
    Variable {
        names: &["EXECUTOR_MAXIMUM_RUNTIME_PER_JOB"],
        kind: Kind::Duration {
            min: Duration::from_secs(1),
            max: DAYS_30,
        },
        default: Fallback::Value("30m"),
        meaning: "Longest time that one job may take.",
    },
    Variable {
        names: &["EXECUTOR_NUM_TOTAL_JOBS"],
        kind: Kind::Integer {
            min: 0,
            max: ID_MAX,
        },
        default: Fallback::Value("0"),
        meaning: "Jobs after which the executor takes no more and ends when the last is done; 0 for no limit.",
    },
    Variable {
        names: &["EXECUTOR_MAX_ACTIVE_TIME"],
        kind: Kind::Duration {
            min: Duration::ZERO,
            max: YEAR,
        },
        default: Fallback::Value("0s"),
        meaning: "Time after which the executor takes no more jobs and ends when the last is done; 0 for no limit.",
    },
    Variable {
        names: &["EXECUTOR_DRAIN_TIMEOUT"],
        kind: Kind::Duration {
            min: Duration::ZERO,
            max: DAYS_30,
        },
        default: Fallback::Value("30m"),
        meaning: "Longest time that a stop waits for running jobs.",
    },
    Variable {
        names: &["EXECUTOR_SHUTDOWN"],
        kind: Kind::Choice(&["drain", "handover"]),
        default: Fallback::Value("drain"),
        meaning: "What a stop does: let running jobs end, or leave them to the next process with the same state directory.",
    },
    Variable {
        names: &["EXECUTOR_STATE_DIR"],
        kind: Kind::Path,
        default: Fallback::Unset,
        meaning: "Directory by which the next process takes running jobs up again after a crash, or none; when unset, /data if that is a directory that can be written.",
    },
    Variable {
        names: &["EXECUTOR_CLEANUP_TASK_INTERVAL"],
        kind: Kind::Duration {
            min: Duration::ZERO,
            max: DAYS_30,
        },
        default: Fallback::Value("1m"),
        meaning: "Time between two looks for what executors that died have left, at least 1s; 0 for none.",
    },
    Variable {
        names: &["EXECUTOR_JOB_NUM_CPUS"],
        kind: CPUS,
        default: Fallback::Unset,
        meaning: "Number of CPUs to name to the queue; does not limit anything. When unset, EXECUTOR_FIRECRACKER_NUM_CPUS.",
    },
    Variable {
        names: &["EXECUTOR_FIRECRACKER_NUM_CPUS"],
        kind: CPUS,
        default: Fallback::Value("4"),
        meaning: "Counts where EXECUTOR_JOB_NUM_CPUS is unset.",
    },
    Variable {
        names: &["EXECUTOR_JOB_MEMORY"],
        kind: Kind::Text,
        default: Fallback::Unset,
        meaning: "Memory to name to the queue; does not limit anything. When unset, EXECUTOR_FIRECRACKER_MEMORY.",
    },
    Variable {
        names: &["EXECUTOR_FIRECRACKER_MEMORY"],
        kind: Kind::Text,
        default: Fallback::Value("12G"),
        meaning: "Counts where EXECUTOR_JOB_MEMORY is unset.",
    },
    Variable {
        names: &["EXECUTOR_FIRECRACKER_DISK_SPACE"],
        kind: Kind::Text,
        default: Fallback::Value("20G"),
        meaning: "Disk space to name to the queue; does not limit anything.",
    },
    Variable {
        names: &["EXECUTOR_KUBE_NAMESPACE", "EXECUTOR_KUBERNETES_NAMESPACE"],
        kind: Kind::Namespace,
        default: Fallback::Value("default"),
        meaning: "Namespace of everything that is created.",
    },
    Variable {
        names: &["EXECUTOR_KUBERNETES_CONFIG_PATH"],
        kind: Kind::Path,
        default: Fallback::Unset,
        meaning: "Path of a kubeconfig file; when unset, the usual places and then the cluster itself.",
    },
    Variable {
        names: &["EXECUTOR_KUBERNETES_NODE_NAME"],
        kind: Kind::Name,
        default: Fallback::Unset,
        meaning: "Node that all jobs run on, past the scheduler.",
    },
    Variable {
        names: &["EXECUTOR_KUBERNETES_NODE_SELECTOR"],
        kind: Kind::Pairs,
        default: Fallback::Unset,
        meaning: "Labels that a node must have, such as pool=jobs,disk=ssd.",
    },
    Variable {
        names: &[
            "EXECUTOR_KUBERNETES_NODE_REQUIRED_AFFINITY_MATCH_EXPRESSIONS",
            "EXECUTOR_KUBERNETES_NODE_REQUIRED_AFFINITY_MATCH_EXPRESSION",
        ],
        kind: REQUIREMENTS,
        default: Fallback::Unset,
        meaning: "Match expressions of the required node affinity.",
    },
    Variable {
        names: &["EXECUTOR_KUBERNETES_NODE_REQUIRED_AFFINITY_MATCH_FIELDS"],
        kind: REQUIREMENTS,
        default: Fallback::Unset,
        meaning: "Match fields of the same term of the node affinity.",
    },
    Variable {
        names: &["EXECUTOR_KUBERNETES_POD_AFFINITY"],
        kind: TERMS,
        default: Fallback::Unset,
        meaning: "Required pod affinity; each term must contain a topologyKey.",
    },
    Variable {
        names: &["EXECUTOR_KUBERNETES_POD_ANTI_AFFINITY"],
        kind: TERMS,
        default: Fallback::Unset,
        meaning: "Required pod anti-affinity; each term must contain a topologyKey.",
    },
    Variable {
        names: &["EXECUTOR_KUBERNETES_NODE_TOLERATIONS"],
        kind: Kind::Json("a list of tolerations"),
        default: Fallback::Unset,
        meaning: "Taints of nodes that jobs tolerate.",
    },
    Variable {
        names: &["EXECUTOR_KUBERNETES_RESOURCE_LIMIT_CPU"],
        kind: Kind::Quantity,
        default: Fallback::Unset,
        meaning: "CPU limit of every step; left out when zero.",
    },
    Variable {
        names: &["EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY"],
        kind: Kind::Quantity,
        default: Fallback::Value("12Gi"),
        meaning: "Memory limit of every step; left out when zero.",
    },
    Variable {
        names: &["EXECUTOR_KUBERNETES_RESOURCE_REQUEST_CPU"],
        kind: Kind::Quantity,
        default: Fallback::Unset,
        meaning: "CPU request of every step; left out when zero.",
    },
    Variable {
        names: &["EXECUTOR_KUBERNETES_RESOURCE_REQUEST_MEMORY"],
        kind: Kind::Quantity,
        default: Fallback::Value("12Gi"),
        meaning: "Memory request of every step; when unset, no more than the limit; left out when zero.",
    },
    Variable {
        names: &["KUBERNETES_JOB_DEADLINE"],
        kind: Kind::Integer {
            min: 1,
            max: ID_MAX,
        },
        default: Fallback::Unset,
        meaning: "Seconds after which the cluster ends a job; when unset, 1200 or the maximum runtime, whichever is more.",
    },
    Variable {
        names: &["EXECUTOR_IMAGE_PULL_GRACE"],
        kind: GRACE,
        default: Fallback::Value("1m"),
        meaning: "Longest time that pulling an image may fail before its job does.",
    },
    Variable {
        names: &["EXECUTOR_SCHEDULING_GRACE"],
        kind: GRACE,
        default: Fallback::Value("15m"),
        meaning: "Longest time that a job waits for a node, or for another controller to let it start.",
    },
    Variable {
        names: &["EXECUTOR_POD_START_GRACE"],
        kind: GRACE,
        default: Fallback::Value("5m"),
        meaning: "Longest time that a job waits for its pod to be made and prepared: quotas, admission, volumes, network.",
    },
    Variable {
        names: &["KUBERNETES_JOB_VOLUME_TYPE"],
        kind: Kind::Choice(&["emptyDir", "pvc"]),
        default: Fallback::Value("emptyDir"),
        meaning: "What the workspace is: a directory of the node, or a claim of the default storage class that lives as long as the pod.",
    },
    Variable {
        names: &["KUBERNETES_JOB_VOLUME_SIZE"],
        kind: Kind::Quantity,
        default: Fallback::Value("5Gi"),
        meaning: "Size of the workspace volume; more than 0.",
    },
    Variable {
        names: &["KUBERNETES_ADDITIONAL_JOB_VOLUMES"],
        kind: Kind::Json("a list of volumes"),
        default: Fallback::Unset,
        meaning: "Volumes of every job beside the workspace.",
    },
    Variable {
        names: &["KUBERNETES_ADDITIONAL_JOB_VOLUME_MOUNTS"],
        kind: Kind::Json("a list of volume mounts"),
        default: Fallback::Unset,
        meaning: "Mounts of those volumes in every container.",
    },
    Variable {
        names: &["KUBERNETES_JOB_ANNOTATIONS"],
        kind: Kind::Json("an object of annotations"),
        default: Fallback::Unset,
        meaning: "Annotations of every Kubernetes Job.",
    },
    Variable {
        names: &["KUBERNETES_JOB_POD_ANNOTATIONS"],
        kind: Kind::Json("an object of annotations"),
        default: Fallback::Unset,
        meaning: "Annotations of every pod.",
    },
    Variable {
        names: &["KUBERNETES_JOB_HOST_NETWORK"],
        kind: Kind::Boolean,
        default: Fallback::Value("false"),
        meaning: "Whether pods use the network of their node.",
    },
    Variable {
        names: &["EXECUTOR_WORKSPACE_IMAGE"],
        kind: Kind::Image,
        default: Fallback::Unset,
        meaning: "Image that makes the workspace; when unset, the executor's own.",
    },
    Variable {
        names: &["EXECUTOR_IMAGE_PULL_POLICY"],
        kind: Kind::Choice(&["IfNotPresent", "Always", "Never"]),
        default: Fallback::Value("IfNotPresent"),
        meaning: "When the images of a job are pulled.",
    },
    Variable {
        names: &["KUBERNETES_IMAGE_PULL_SECRETS"],
        kind: Kind::Names,
        default: Fallback::Unset,
        meaning: "Secrets with credentials for pulling images, with commas between them.",
    },
    Variable {
        names: &["EXECUTOR_DOCKER_AUTH_CONFIG"],
        kind: Kind::Registries,
        default: Fallback::Unset,
        meaning: "Registry credentials for pulling the images of all jobs; those of a job come first.",
    },
    Variable {
        names: &["KUBERNETES_GIT_CA_CERT"],
        kind: Kind::Path,
        default: Fallback::Unset,
        meaning: "Path of a certificate file that git trusts, inside the set-up container.",
    },
    Variable {
        names: &["EXECUTOR_POD_SECURITY"],
        kind: Kind::Choice(&["baseline", "restricted"]),
        default: Fallback::Value("baseline"),
        meaning: "Pod Security level that pods of jobs fulfil; restricted runs them without capabilities and never as root.",
    },
    Variable {
        names: &["KUBERNETES_RUN_AS_USER"],
        kind: ID,
        default: Fallback::Unset,
        meaning: "User that all containers of a job run as; -1 for that of the image, or 1000 where EXECUTOR_POD_SECURITY is restricted.",
    },
    Variable {
        names: &["KUBERNETES_RUN_AS_GROUP"],
        kind: ID,
        default: Fallback::Unset,
        meaning: "Group that all containers of a job run as; -1 for that of the image, or 1000 where EXECUTOR_POD_SECURITY is restricted.",
    },
    Variable {
        names: &["KUBERNETES_FS_GROUP"],
        kind: ID,
        default: Fallback::Value("1000"),
        meaning: "Group that owns the volumes of a job; -1 for none.",
    },
    Variable {
        names: &["KUBERNETES_KEEP_JOBS"],
        kind: Kind::Boolean,
        default: Fallback::Value("false"),
        meaning: "Whether jobs are left in the cluster when they are done, for debugging.",
    },
    Variable {
        names: &["SRC_LOG_LEVEL"],
        kind: Kind::Choice(LOG_LEVELS),
        default: Fallback::Value("info"),
        meaning: "Least level of our log lines; those of libraries are at warn at least.",
    },
    Variable {
        names: &["SRC_LOG_FORMAT"],
        kind: Kind::Choice(&["condensed", "logfmt", "json"]),
        default: Fallback::Value("condensed"),
        meaning: "Form of log lines: a sentence, key=value pairs, or a JSON object.",
    },
    Variable {
        names: &["EXECUTOR_METRICS_ADDR", "SRC_PROF_HTTP"],
        kind: Kind::Address,
        default: Fallback::Value(":6060"),
        meaning: "Where metrics and health are served over HTTP; off for nowhere.",
    },
    Variable {
        names: &["RUST_LOG"],
        kind: Kind::Text,
        default: Fallback::Unset,
        meaning: "Filter of the log in env_logger's form, such as warn,executor=debug; counts before SRC_LOG_LEVEL.",
    },
];

/// Finds a variable by its first name, which only code of this room gives.
pub(super) fn named(name: &str) -> &'static Variable {
    VARIABLES
        .iter()
        .find(|variable| variable.names[0] == name)
        .expect("the loader asks only for variables of the table")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::unused::UNUSED;
    use super::*;

    #[test]
    fn no_name_stands_for_two_settings() {
        let mut seen = BTreeSet::new();
        let used = VARIABLES.iter().flat_map(|variable| variable.names);
        for name in used.chain(UNUSED.iter().map(|unused| &unused.name)) {
            assert!(seen.insert(name), "{name} occurs twice");
        }
    }

    #[test]
    fn every_meaning_is_one_line() {
        for variable in VARIABLES {
            let meaning = variable.meaning;
            assert!(
                meaning.ends_with('.') && !meaning.contains(['\n', '|']),
                "{meaning}"
            );
        }
    }
}
