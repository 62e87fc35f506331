//! All settings as plain values, one type for each room that needs some.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::cluster::fragments::{Mounts, NodeRequirements, PodTerms, Tolerations, Volumes};
use crate::job::{Registries, Secret};

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
    /// When to take no more jobs.
    pub limits: Limits,
    /// Longest time that a stop waits for running jobs.
    pub drain_timeout: Duration,
    /// Whether a stop leaves running jobs to the next process.
    pub hands_over: bool,
    /// Where state is kept for the next process.
    pub state: StatePlace,
    /// Time between two looks for leftovers, 1 s at least; none for no looks.
    pub cleanup_interval: Option<Duration>,
    /// What is logged, and in which form.
    pub log: LogSettings,
    /// Where metrics are shown, as `host:port` or `:port`; nowhere if none.
    pub metrics_address: Option<String>,
    /// What the environment asks for and will not get, a sentence each.
    pub warnings: Vec<String>,
}

/// What one job from the command line needs: no queue, and no server unless it
/// has a repository.
#[derive(Clone, Debug)]
pub struct ExecConfig {
    /// Where repositories come from, if one is asked for. It names no queue.
    pub frontend: Option<QueueSettings>,
    /// How to reach the cluster.
    pub cluster: ClusterSettings,
    /// What the job in the cluster looks like.
    pub job: JobSettings,
    /// What is logged, and in which form: errors alone, unless more is asked for.
    pub log: LogSettings,
}

/// Where state is kept for the next process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatePlace {
    /// In the usual directory, if there is one.
    Usual,
    /// In this one.
    At(PathBuf),
    /// Nowhere.
    Nowhere,
}

/// When an executor takes no more jobs, and ends when the last one is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// After so many jobs.
    pub jobs: Option<u64>,
    /// When so much time has passed since the start.
    pub active_time: Option<Duration>,
}

/// What is logged, and in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Filter in env_logger's form.
    pub filter: String,
    /// Form of a line.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Time, level, thread, then a sentence.
    Sentence,
    /// `key=value` pairs.
    Logfmt,
    /// A JSON object.
    Json,
}

/// The queues that jobs are taken from, in the manner of asking for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Queues {
    /// One, by the calls for one queue.
    One(String),
    /// Several, or one, by the calls for several.
    Several(Vec<String>),
}

impl Queues {
    /// Their names.
    pub fn names(&self) -> &[String] {
        match self {
            Queues::One(name) => std::slice::from_ref(name),
            Queues::Several(names) => names,
        }
    }
}

impl fmt::Display for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.names() {
            [name] => write!(f, "queue {name}"),
            names => write!(f, "queues {}", names.join(" and ")),
        }
    }
}

/// How to speak with the Sourcegraph instance.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// Where jobs come from.
    pub queues: Queues,
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
    /// How long what can pass may stand in a job's way.
    pub graces: Graces,
    /// Limits and requests of every step.
    pub resources: Resources,
    /// Where pods may run.
    pub placement: Placement,
    /// The workspace, and what else is mounted.
    pub volumes: VolumeSettings,
    /// Annotations of every Job.
    pub job_annotations: BTreeMap<String, String>,
    /// Annotations of every pod.
    pub pod_annotations: BTreeMap<String, String>,
    /// Whether pods use the network of their node.
    pub host_network: bool,
    /// Image that makes the workspace, where it is not the executor's own.
    pub workspace_image: Option<String>,
    /// Names of Secrets with credentials for pulling images.
    pub pull_secrets: Vec<String>,
    /// When images are pulled: `IfNotPresent`, `Always` or `Never`.
    pub pull_policy: String,
    /// Path of a certificate file that git trusts, inside the container.
    pub git_ca_certificate: Option<String>,
    /// Registry credentials for every job.
    pub registries: Registries,
    /// Whether pods fulfil the Pod Security level `restricted`, and not just
    /// `baseline`.
    pub is_restricted: bool,
    /// User that containers run as.
    pub run_as_user: Option<i64>,
    /// Group that containers run as.
    pub run_as_group: Option<i64>,
    /// Group that owns the volumes.
    pub fs_group: Option<i64>,
    /// Whether jobs stay in the cluster when they are done.
    pub keep_jobs: bool,
}

/// How long what can pass may stand in a job's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Graces {
    /// That an image cannot be pulled.
    pub image_pull: Duration,
    /// That there is no place for the pod.
    pub scheduling: Duration,
    /// That the cluster does not make the pod or does not prepare it.
    pub pod_start: Duration,
}

/// Where pods may run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    /// Node that every pod runs on, past the scheduler.
    pub node_name: Option<String>,
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Match expressions of the required node affinity.
    pub node_expressions: NodeRequirements,
    /// Match fields of the same term.
    pub node_fields: NodeRequirements,
    /// Required pod affinity.
    pub pod_affinity: PodTerms,
    /// Required pod anti-affinity.
    pub pod_anti_affinity: PodTerms,
    /// Taints that pods tolerate.
    pub tolerations: Tolerations,
}

/// The workspace of a job, and what else is mounted.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeSettings {
    /// Whether the workspace is a claim of the default storage class, and not
    /// a directory of the node.
    pub is_claim: bool,
    /// Size of the workspace, a quantity.
    pub size: String,
    /// Volumes beside it.
    pub additional: Volumes,
    /// Their mounts in every container.
    pub mounts: Mounts,
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
