//! Configuration: everything that the executor is told by its environment.
//!
//! Pure: the environment comes in as a function, so that nothing but `main`
//! ever reads it. All faults are found in one go, because a person who fixes a
//! deployment one restart at a time is not helped by the first one alone.

pub(crate) mod parse;
mod reader;
pub mod variables;

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::job::Secret;
use reader::Reader;

/// Time that the cluster gives to a job of an executor without any settings.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(1200);

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// How to speak with the Sourcegraph instance.
    pub queue: QueueSettings,
    /// How to reach the cluster.
    pub cluster: ClusterSettings,
    /// What every job in the cluster looks like.
    pub job: JobSettings,
    /// Jobs that run at the same time.
    pub workers: usize,
    /// Longest time that a stop waits for running jobs.
    pub drain_timeout: Duration,
}

/// How to speak with the Sourcegraph instance.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// Name of the queue.
    pub name: String,
    /// Base URL, its path kept, without a last slash.
    pub frontend_url: String,
    /// User name; with one, HTTP Basic is used.
    pub username: Option<String>,
    /// Executor token, or password for HTTP Basic.
    pub password: Secret,
    /// Wait after the queue was found empty.
    pub poll_interval: Duration,
    /// Number of CPUs to name to the queue; 0 to name none.
    pub num_cpus: u32,
    /// Memory to name to the queue, as text.
    pub memory: String,
    /// Disk space to name to the queue, as text.
    pub disk_space: String,
}

/// How to reach the cluster.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// Namespace of everything that is created.
    pub namespace: String,
    /// Path of a kubeconfig file; without one, the usual places.
    pub config_path: Option<PathBuf>,
}

/// What every job in the cluster looks like.
#[derive(Clone, Debug)]
pub struct JobSettings {
    /// Longest time that the executor gives to a job.
    pub max_runtime: Duration,
    /// Time after which the cluster itself ends a job, in whole seconds.
    pub deadline: Duration,
    /// Limits and requests of every step.
    pub resources: Resources,
    /// Size of the workspace volume, a quantity.
    pub volume_size: String,
    /// Image that makes the workspace, where it is not the executor's own.
    pub workspace_image: Option<String>,
    /// Names of Secrets with credentials for pulling images.
    pub pull_secrets: Vec<String>,
    /// When images are pulled: `IfNotPresent`, `Always` or `Never`.
    pub pull_policy: String,
    /// Path of a certificate file that git trusts, inside the container.
    pub git_ca_certificate: Option<String>,
    /// User that containers run as.
    pub run_as_user: Option<i64>,
    /// Group that containers run as.
    pub run_as_group: Option<i64>,
    /// Group that owns the volumes.
    pub fs_group: Option<i64>,
    /// Whether jobs stay in the cluster when they are done.
    pub keep_jobs: bool,
}

/// Limits and requests of a container, as quantities; none to leave one out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Most CPU.
    pub limit_cpu: Option<String>,
    /// Most memory.
    pub limit_memory: Option<String>,
    /// CPU to reserve; not more than the limit.
    pub request_cpu: Option<String>,
    /// Memory to reserve; not more than the limit.
    pub request_memory: Option<String>,
}

impl Config {
    /// Reads all settings by a function that looks a variable up.
    ///
    /// A variable set to the empty string counts as unset.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigErrors> {
        let mut reader = Reader::new(&lookup);
        reader.word("EXECUTOR_BACKEND");
        let config = Config {
            queue: queue(&mut reader),
            cluster: cluster(&mut reader),
            job: job(&mut reader),
            workers: reader.number("EXECUTOR_MAX_NUM_JOBS"),
            drain_timeout: reader.duration("EXECUTOR_DRAIN_TIMEOUT"),
        };
        reader.finish(config)
    }
}

fn queue(reader: &mut Reader<'_>) -> QueueSettings {
    QueueSettings {
        name: reader.word("EXECUTOR_QUEUE_NAME"),
        frontend_url: reader.word("EXECUTOR_FRONTEND_URL"),
        username: reader.username("EXECUTOR_FRONTEND_USERNAME"),
        password: Secret::new(reader.word("EXECUTOR_FRONTEND_PASSWORD")),
        poll_interval: reader.duration("EXECUTOR_QUEUE_POLL_INTERVAL"),
        num_cpus: reader.number("EXECUTOR_JOB_NUM_CPUS"),
        memory: reader.word("EXECUTOR_JOB_MEMORY"),
        disk_space: reader.word("EXECUTOR_FIRECRACKER_DISK_SPACE"),
    }
}

fn cluster(reader: &mut Reader<'_>) -> ClusterSettings {
    ClusterSettings {
        namespace: reader.word("EXECUTOR_KUBE_NAMESPACE"),
        config_path: reader
            .optional_word("EXECUTOR_KUBERNETES_CONFIG_PATH")
            .map(PathBuf::from),
    }
}

fn job(reader: &mut Reader<'_>) -> JobSettings {
    let max_runtime = reader.duration("EXECUTOR_MAXIMUM_RUNTIME_PER_JOB");
    let deadline = reader
        .optional_number("KUBERNETES_JOB_DEADLINE")
        .map_or_else(
            // The cluster must not end what the executor still allows.
            || DEADLINE_DEFAULT.max(whole_seconds(max_runtime)),
            Duration::from_secs,
        );
    JobSettings {
        max_runtime,
        deadline,
        resources: resources(reader),
        volume_size: reader.word("KUBERNETES_JOB_VOLUME_SIZE"),
        workspace_image: reader.optional_word("EXECUTOR_WORKSPACE_IMAGE"),
        pull_secrets: reader.names("KUBERNETES_IMAGE_PULL_SECRETS"),
        pull_policy: reader.word("EXECUTOR_IMAGE_PULL_POLICY"),
        git_ca_certificate: reader.optional_word("KUBERNETES_GIT_CA_CERT"),
        run_as_user: reader.id("KUBERNETES_RUN_AS_USER"),
        run_as_group: reader.id("KUBERNETES_RUN_AS_GROUP"),
        fs_group: reader.id("KUBERNETES_FS_GROUP"),
        keep_jobs: reader.boolean("KUBERNETES_KEEP_JOBS"),
    }
}

fn resources(reader: &mut Reader<'_>) -> Resources {
    let (limit_cpu, request_cpu) = reader.limit_and_request(
        "EXECUTOR_KUBERNETES_RESOURCE_LIMIT_CPU",
        "EXECUTOR_KUBERNETES_RESOURCE_REQUEST_CPU",
    );
    let (limit_memory, request_memory) = reader.limit_and_request(
        "EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY",
        "EXECUTOR_KUBERNETES_RESOURCE_REQUEST_MEMORY",
    );
    Resources {
        limit_cpu,
        limit_memory,
        request_cpu,
        request_memory,
    }
}

/// Rounds up: the cluster counts in whole seconds.
fn whole_seconds(duration: Duration) -> Duration {
    let part = u64::from(duration.subsec_nanos() > 0);
    Duration::from_secs(duration.as_secs() + part)
}

/// One fault of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Preferred name of the variable at fault.
    pub variable: &'static str,
    message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// All faults of a configuration; there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "1 error in the configuration:")?,
            count => write!(f, "{count} errors in the configuration:")?,
        }
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl Error for ConfigErrors {}

#[cfg(test)]
mod tests;
