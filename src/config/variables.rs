//! The table of all variables: the one place that knows their names, defaults
//! and limits. The loader asks by it, errors quote it, and a test compares the
//! documentation with it.

use std::time::Duration;

use super::parse::go_duration;

/// One setting, as the environment gives it.
#[derive(Debug)]
pub struct Variable {
    /// All names, the one to prefer first; they must not contradict each other.
    pub names: &'static [&'static str],
    /// What values are allowed.
    pub kind: Kind,
    /// What counts when no name is set.
    pub default: Fallback,
    /// What it is for, in one line.
    pub meaning: &'static str,
}

/// What counts when a variable is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Nothing: the executor does not start.
    Required,
    /// Nothing, and that is fine.
    Unset,
    /// This value.
    Value(&'static str),
}

/// What values a variable may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Text that is never printed.
    Secret,
    /// Base URL of the Sourcegraph instance.
    Url,
    /// A path of the file system.
    Path,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A Go boolean.
    Boolean,
    /// A decimal number in a range.
    Integer {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// A Go duration in a range.
    Duration {
        /// Shortest value.
        min: Duration,
        /// Longest value.
        max: Duration,
    },
    /// A Kubernetes quantity.
    Quantity,
    /// Name of a Kubernetes namespace.
    Namespace,
    /// Names of Kubernetes objects, with commas between them.
    Names,
    /// Reference of a container image.
    Image,
    /// A TCP address to listen on, or `off`.
    Address,
}

impl Kind {
    /// Whether an error may show a value of this kind. Free text is kept back
    /// too: people put `name:password` where a name alone is asked for.
    pub(super) fn is_shown(&self) -> bool {
        !matches!(self, Kind::Text | Kind::Secret | Kind::Url)
    }

    /// Says what is allowed, to follow `must be`.
    pub fn allowed(&self) -> String {
        match self {
            Kind::Text | Kind::Path => "text without control characters".to_owned(),
            Kind::Secret => "one line of text".to_owned(),
            Kind::Url => "in the format scheme://host (and optionally :port)".to_owned(),
            Kind::Choice([word]) => format!("set to '{word}', the only one that is supported"),
            Kind::Choice(words) => format!("set to one of '{}'", words.join(", ")),
            Kind::Boolean => "true or false".to_owned(),
            Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Duration { min, max } => format!(
                "a duration from {} to {}, such as 90s or 1h30m",
                go_duration(*min),
                go_duration(*max)
            ),
            Kind::Quantity => "a Kubernetes quantity, such as 500m or 12Gi".to_owned(),
            Kind::Namespace => {
                "a namespace name: up to 63 of a-z, 0-9 and -, with no - at either end".to_owned()
            }
            Kind::Names => "names of Kubernetes objects with commas between them".to_owned(),
            Kind::Image => "an image reference without spaces".to_owned(),
            Kind::Address => "host:port, :port or off".to_owned(),
        }
    }
}

/// Largest user or group number that Kubernetes takes.
const ID_MAX: i64 = 2_147_483_647;

/// A user or group; the released executor writes -1 for none.
const ID: Kind = Kind::Integer {
    min: -1,
    max: ID_MAX,
};

const DAYS_30: Duration = Duration::from_secs(30 * 24 * 3600);

/// All variables that the executor reads, in the order of the documentation.
pub const VARIABLES: &[Variable] = &[
    Variable {
        names: &["EXECUTOR_QUEUE_NAME"],
        kind: Kind::Choice(&["batches", "codeintel"]),
        default: Fallback::Required,
        meaning: "Queue to take jobs from.",
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
        names: &["EXECUTOR_DRAIN_TIMEOUT"],
        kind: Kind::Duration {
            min: Duration::ZERO,
            max: DAYS_30,
        },
        default: Fallback::Value("30m"),
        meaning: "Longest time that a stop waits for running jobs.",
    },
    Variable {
        names: &["EXECUTOR_JOB_NUM_CPUS"],
        kind: Kind::Integer {
            min: 0,
            max: 10_000,
        },
        default: Fallback::Value("4"),
        meaning: "Number of CPUs to name to the queue; does not limit anything.",
    },
    Variable {
        names: &["EXECUTOR_JOB_MEMORY"],
        kind: Kind::Text,
        default: Fallback::Value("12G"),
        meaning: "Memory to name to the queue; does not limit anything.",
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
        names: &["KUBERNETES_JOB_VOLUME_SIZE"],
        kind: Kind::Quantity,
        default: Fallback::Value("5Gi"),
        meaning: "Size of the workspace volume.",
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
        names: &["KUBERNETES_GIT_CA_CERT"],
        kind: Kind::Path,
        default: Fallback::Unset,
        meaning: "Path of a certificate file that git trusts, inside the set-up container.",
    },
    Variable {
        names: &["KUBERNETES_RUN_AS_USER"],
        kind: ID,
        default: Fallback::Unset,
        meaning: "User that all containers of a job run as; -1 for none.",
    },
    Variable {
        names: &["KUBERNETES_RUN_AS_GROUP"],
        kind: ID,
        default: Fallback::Unset,
        meaning: "Group that all containers of a job run as; -1 for none.",
    },
    Variable {
        names: &["KUBERNETES_FS_GROUP"],
        kind: ID,
        default: Fallback::Unset,
        meaning: "Group that owns the volumes of a job; -1 for none.",
    },
    Variable {
        names: &["KUBERNETES_KEEP_JOBS"],
        kind: Kind::Boolean,
        default: Fallback::Value("false"),
        meaning: "Whether jobs are left in the cluster when they are done, for debugging.",
    },
    Variable {
        names: &["EXECUTOR_METRICS_ADDR", "SRC_PROF_HTTP"],
        kind: Kind::Address,
        default: Fallback::Value(":6060"),
        meaning: "Where metrics and health are served over HTTP; off for nowhere.",
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

    use super::*;

    #[test]
    fn no_name_stands_for_two_settings() {
        let mut seen = BTreeSet::new();
        for name in VARIABLES.iter().flat_map(|variable| variable.names) {
            assert!(seen.insert(name), "{name} occurs twice");
        }
    }

    #[test]
    fn every_meaning_is_one_sentence() {
        for variable in VARIABLES {
            let meaning = variable.meaning;
            assert!(
                meaning.ends_with('.') && !meaning.contains('\n'),
                "{meaning}"
            );
        }
    }
}
