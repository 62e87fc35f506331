//! Configuration: everything that the executor is told by its environment.
//!
//! Pure: the environment comes in as a function, so that nothing but `main`
//! ever reads it. All faults are found in one go, because a person who fixes a
//! deployment one restart at a time is not helped by the first one alone.

pub(crate) mod parse;
mod reader;
mod settings;
pub mod table;
pub mod unused;
pub mod variables;

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::cluster::client::TOLD_ANYWAY;
use crate::cluster::fragments::{self, annotations};
use crate::job::{Registries, Secret};
pub(crate) use parse::quantity;
use reader::Reader;
pub use settings::{
    ClusterSettings, Config, ExecConfig, Graces, JobSettings, Limits, LogFormat, LogSettings,
    Placement, QueueSettings, Queues, Resources, StatePlace, VolumeSettings,
};

/// Time that the cluster gives to a job of an executor without any settings.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(1200);
/// Shortest time between two looks for leftovers.
const CLEANUP_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// User and group of jobs that may not run as root, where none is configured:
/// images that bring no user of their own are made for root.
const RESTRICTED_ID: i64 = 1000;

impl Config {
    /// Reads all settings by a function that looks a variable up.
    ///
    /// A variable set to the empty string counts as unset.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigErrors> {
        let mut reader = Reader::new(&lookup);
        reader.word("EXECUTOR_BACKEND");
        let config = Config {
            queue: queue(&mut reader, queues),
            cluster: cluster(&mut reader),
            job: job(&mut reader),
            workers: reader.number("EXECUTOR_MAX_NUM_JOBS"),
            limits: limits(&mut reader),
            drain_timeout: reader.duration("EXECUTOR_DRAIN_TIMEOUT"),
            hands_over: reader.word("EXECUTOR_SHUTDOWN") == "handover",
            state: state(&mut reader),
            cleanup_interval: cleanup_interval(&mut reader),
            log: log(&mut reader, None),
            warnings: unused::warnings(&lookup),
            metrics_address: reader
                .optional_word("EXECUTOR_METRICS_ADDR")
                .filter(|address| address != parse::OFF),
        };
        reader.finish(config)
    }
}

impl ExecConfig {
    /// Reads the settings that one job needs, in the same way. Those of the
    /// server are needed, and read, with a repository alone.
    pub fn from_lookup(
        lookup: impl Fn(&str) -> Option<String>,
        has_repository: bool,
    ) -> Result<ExecConfig, ConfigErrors> {
        let mut reader = Reader::new(&lookup);
        let no_queues = |_: &mut Reader<'_>| Queues::Several(Vec::new());
        let config = ExecConfig {
            frontend: has_repository.then(|| queue(&mut reader, no_queues)),
            cluster: cluster(&mut reader),
            job: job(&mut reader),
            // What happens is shown already.
            log: log(&mut reader, Some("error")),
        };
        reader.finish(config)
    }
}

fn state(reader: &mut Reader<'_>) -> StatePlace {
    let place = match reader.optional_word("EXECUTOR_STATE_DIR") {
        None => StatePlace::Usual,
        Some(word) if word == "none" => StatePlace::Nowhere,
        Some(path) => StatePlace::At(PathBuf::from(path)),
    };
    if place == StatePlace::Nowhere && reader.word("EXECUTOR_SHUTDOWN") == "handover" {
        reader.contradiction(
            "EXECUTOR_SHUTDOWN",
            "must not be handover while EXECUTOR_STATE_DIR is none",
        );
    }
    place
}

fn limits(reader: &mut Reader<'_>) -> Limits {
    let jobs = reader.number("EXECUTOR_NUM_TOTAL_JOBS");
    let time = reader.duration("EXECUTOR_MAX_ACTIVE_TIME");
    Limits {
        jobs: (jobs > 0).then_some(jobs),
        active_time: (!time.is_zero()).then_some(time),
    }
}

/// The API server should not hear of leftovers all the time.
fn cleanup_interval(reader: &mut Reader<'_>) -> Option<Duration> {
    const NAME: &str = "EXECUTOR_CLEANUP_TASK_INTERVAL";
    let interval = reader.duration(NAME);
    if !interval.is_zero() && interval < CLEANUP_INTERVAL_MIN {
        reader.contradiction(NAME, "must be at least 1s, or 0 for no clean-up");
    }
    (!interval.is_zero()).then_some(interval)
}

impl LogFormat {
    /// The form that is asked for, whatever else is wrong with the
    /// configuration: by it the faults are told.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> LogFormat {
        LogFormat::of(&Reader::new(&lookup).word("SRC_LOG_FORMAT"))
    }

    fn of(word: &str) -> LogFormat {
        match word {
            "logfmt" => LogFormat::Logfmt,
            "json" => LogFormat::Json,
            _ => LogFormat::Sentence,
        }
    }
}

/// `quiet` is the level where none is set, if that is another one.
fn log(reader: &mut Reader<'_>, quiet: Option<&str>) -> LogSettings {
    let level = reader.word("SRC_LOG_LEVEL");
    let quiet = quiet.filter(|_| !reader.is_set("SRC_LOG_LEVEL"));
    let level = match quiet.unwrap_or(&level) {
        "dbug" => "debug".to_owned(),
        "eror" | "crit" => "error".to_owned(),
        "none" => "off".to_owned(),
        level => level.to_owned(),
    };
    // Libraries speak of their own matters, which are rarely ours.
    let others = match level.as_str() {
        "error" | "off" => level.as_str(),
        _ => "warn",
    };
    let by_level = format!("{others},{TOLD_ANYWAY}=off,executor={level}");
    LogSettings {
        filter: reader.optional_word("RUST_LOG").unwrap_or(by_level),
        format: LogFormat::of(&reader.word("SRC_LOG_FORMAT")),
    }
}

fn queue(reader: &mut Reader<'_>, queues: fn(&mut Reader<'_>) -> Queues) -> QueueSettings {
    // Both names are read, so that a fault of either is found.
    let older_cpus = reader.number("EXECUTOR_FIRECRACKER_NUM_CPUS");
    let older_memory = reader.word("EXECUTOR_FIRECRACKER_MEMORY");
    QueueSettings {
        queues: queues(reader),
        frontend_url: reader.word("EXECUTOR_FRONTEND_URL"),
        username: reader.username("EXECUTOR_FRONTEND_USERNAME"),
        password: Secret::new(reader.word("EXECUTOR_FRONTEND_PASSWORD")),
        poll_interval: reader.duration("EXECUTOR_QUEUE_POLL_INTERVAL"),
        num_cpus: reader
            .optional_number("EXECUTOR_JOB_NUM_CPUS")
            .unwrap_or(older_cpus),
        memory: reader
            .optional_word("EXECUTOR_JOB_MEMORY")
            .unwrap_or(older_memory),
        disk_space: reader.word("EXECUTOR_FIRECRACKER_DISK_SPACE"),
    }
}

/// Exactly one of the two manners must be set.
fn queues(reader: &mut Reader<'_>) -> Queues {
    let one = reader.optional_word("EXECUTOR_QUEUE_NAME");
    let several = reader.queues("EXECUTOR_QUEUE_NAMES");
    let is_set = |name| reader.is_set(name);
    if !is_set("EXECUTOR_QUEUE_NAME") && !is_set("EXECUTOR_QUEUE_NAMES") {
        reader.contradiction(
            "EXECUTOR_QUEUE_NAME",
            "must be set to one of 'batches, codeintel', or EXECUTOR_QUEUE_NAMES to several of \
             them (neither is set)",
        );
    }
    if one.is_some() && several.is_some() {
        reader.contradiction(
            "EXECUTOR_QUEUE_NAME",
            "and EXECUTOR_QUEUE_NAMES are both set; set only one",
        );
    }
    match several {
        Some(names) => Queues::Several(names),
        None => Queues::One(one.unwrap_or_default()),
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
    let is_restricted = reader.word("EXECUTOR_POD_SECURITY") == "restricted";
    let id = |id: Option<i64>| id.or(is_restricted.then_some(RESTRICTED_ID));
    let settings = JobSettings {
        max_runtime,
        deadline,
        graces: Graces {
            image_pull: reader.duration("EXECUTOR_IMAGE_PULL_GRACE"),
            scheduling: reader.duration("EXECUTOR_SCHEDULING_GRACE"),
            pod_start: reader.duration("EXECUTOR_POD_START_GRACE"),
        },
        resources: resources(reader),
        placement: placement(reader),
        volumes: volumes(reader),
        job_annotations: reader.json("KUBERNETES_JOB_ANNOTATIONS", annotations),
        pod_annotations: reader.json("KUBERNETES_JOB_POD_ANNOTATIONS", annotations),
        host_network: reader.boolean("KUBERNETES_JOB_HOST_NETWORK"),
        workspace_image: reader.optional_word("EXECUTOR_WORKSPACE_IMAGE"),
        pull_secrets: reader.names("KUBERNETES_IMAGE_PULL_SECRETS"),
        pull_policy: reader.word("EXECUTOR_IMAGE_PULL_POLICY"),
        registries: Registries::new(reader.registries("EXECUTOR_DOCKER_AUTH_CONFIG")),
        git_ca_certificate: reader.optional_word("KUBERNETES_GIT_CA_CERT"),
        is_restricted,
        run_as_user: id(reader.id("KUBERNETES_RUN_AS_USER")),
        run_as_group: id(reader.id("KUBERNETES_RUN_AS_GROUP")),
        fs_group: reader.id("KUBERNETES_FS_GROUP"),
        keep_jobs: reader.boolean("KUBERNETES_KEEP_JOBS"),
    };
    if is_restricted {
        refuse_what_restricted_forbids(reader, &settings);
    }
    settings
}

/// What the cluster would refuse for every job is told at the start.
fn refuse_what_restricted_forbids(reader: &mut Reader<'_>, settings: &JobSettings) {
    if settings.run_as_user == Some(0) {
        reader.contradiction(
            "KUBERNETES_RUN_AS_USER",
            "must not be 0, which is root, while EXECUTOR_POD_SECURITY is restricted",
        );
    }
    if settings.host_network {
        reader.contradiction(
            "KUBERNETES_JOB_HOST_NETWORK",
            "must not be true while EXECUTOR_POD_SECURITY is restricted",
        );
    }
    if let Some(volume) = settings.volumes.additional.host_path() {
        let problem = format!(
            "must not have a hostPath volume ({volume:?} is one) while EXECUTOR_POD_SECURITY is \
             restricted"
        );
        reader.contradiction("KUBERNETES_ADDITIONAL_JOB_VOLUMES", &problem);
    }
}

fn placement(reader: &mut Reader<'_>) -> Placement {
    Placement {
        node_name: reader.optional_word("EXECUTOR_KUBERNETES_NODE_NAME"),
        node_selector: reader.pairs("EXECUTOR_KUBERNETES_NODE_SELECTOR"),
        node_expressions: reader.json(
            "EXECUTOR_KUBERNETES_NODE_REQUIRED_AFFINITY_MATCH_EXPRESSIONS",
            fragments::node_requirements,
        ),
        node_fields: reader.json(
            "EXECUTOR_KUBERNETES_NODE_REQUIRED_AFFINITY_MATCH_FIELDS",
            fragments::node_requirements,
        ),
        pod_affinity: reader.json("EXECUTOR_KUBERNETES_POD_AFFINITY", fragments::pod_terms),
        pod_anti_affinity: reader.json(
            "EXECUTOR_KUBERNETES_POD_ANTI_AFFINITY",
            fragments::pod_terms,
        ),
        tolerations: reader.json(
            "EXECUTOR_KUBERNETES_NODE_TOLERATIONS",
            fragments::tolerations,
        ),
    }
}

fn volumes(reader: &mut Reader<'_>) -> VolumeSettings {
    const VOLUMES: &str = "KUBERNETES_ADDITIONAL_JOB_VOLUMES";
    const MOUNTS: &str = "KUBERNETES_ADDITIONAL_JOB_VOLUME_MOUNTS";
    let settings = VolumeSettings {
        is_claim: reader.word("KUBERNETES_JOB_VOLUME_TYPE") == "pvc",
        size: reader.word("KUBERNETES_JOB_VOLUME_SIZE"),
        additional: reader.json(VOLUMES, fragments::volumes),
        mounts: reader.json(MOUNTS, fragments::mounts),
    };
    // With a fault in the volumes nobody can tell which are missing.
    let is_known = !settings.additional.is_empty() || !reader.is_set(VOLUMES);
    if is_known && let Some(volume) = settings.mounts.without_volume(&settings.additional) {
        let problem = format!("must only name volumes of {VOLUMES} ({volume:?} is none)");
        reader.contradiction(MOUNTS, &problem);
    }
    settings
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
