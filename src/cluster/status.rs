//! From a pod's status to a verdict on its job. Pure.
//!
//! A job is complete only if every one of its containers was seen to end with
//! exit code 0; everything else is either still running or a failure with a
//! name. What the cluster said is kept in its own words.

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use serde::Deserialize;

use crate::cluster::names::{RUN_LABEL, SETUP_CONTAINER};

/// The parts of a pod that the watch reads; the rest is not even decoded.
#[derive(Clone, Debug, Deserialize)]
pub struct WatchedPod {
    /// Who it is.
    pub metadata: WatchedMetadata,
    /// How it is.
    #[serde(default)]
    pub status: core::PodStatus,
}

/// The parts of a pod's metadata that the watch reads.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchedMetadata {
    /// Name of the pod.
    pub name: String,
    /// Changes when a pod is replaced by another of the same name.
    pub uid: String,
    /// Version of this state, to resume a watch at.
    #[serde(default)]
    pub resource_version: String,
    /// Set while the pod is being deleted.
    #[serde(default)]
    pub deletion_timestamp: Option<String>,
    /// Labels, of which the run's is used.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
}

impl WatchedPod {
    /// Name of the attempt that the pod belongs to.
    pub fn run(&self) -> Option<&str> {
        self.metadata.labels.get(RUN_LABEL).map(String::as_str)
    }
}

/// A pod as it was seen last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    /// Name of the pod.
    pub name: String,
    /// Identity of the pod.
    pub uid: String,
    /// Whether it has ended, and how.
    pub phase: Phase,
    /// Kubernetes' word for why it is so, such as `Evicted`.
    pub reason: String,
    /// Its explanation.
    pub message: String,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether it does not exist any more.
    pub gone: bool,
    /// What the scheduler says while it finds no node.
    pub unschedulable: Option<String>,
    /// All containers, in the order in which they run.
    pub containers: Vec<ContainerView>,
}

/// The phases that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not ended.
    Open,
    /// All containers ended with exit code 0, says the kubelet.
    Succeeded,
    /// It ended in any other way.
    Failed,
}

/// A container as it was seen last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerView {
    /// Name of the container.
    pub name: String,
    /// Its image, as the plan named it.
    pub image: String,
    /// What it does.
    pub state: ContainerState,
}

/// What a container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// It has not started.
    Waiting {
        /// Kubernetes' word for why, such as `ImagePullBackOff`; may be empty.
        reason: String,
        /// Its explanation; may be empty.
        message: String,
    },
    /// It runs.
    Running {
        /// Since when.
        started: Option<Timestamp>,
    },
    /// It has ended.
    Ended {
        /// Its exit code.
        exit_code: i32,
        /// Kubernetes' word for how, such as `OOMKilled`.
        reason: String,
        /// Its explanation; may be empty.
        message: String,
        /// When it started.
        started: Option<Timestamp>,
        /// When it ended.
        finished: Option<Timestamp>,
    },
}

impl ContainerState {
    /// Whether there is a log to read.
    pub fn has_started(&self) -> bool {
        !matches!(self, ContainerState::Waiting { .. })
    }

    /// When it started, if that is known.
    pub fn started(&self) -> Option<Timestamp> {
        match self {
            ContainerState::Waiting { .. } => None,
            ContainerState::Running { started } | ContainerState::Ended { started, .. } => *started,
        }
    }

    /// Exit code and run time of a container that has ended.
    pub fn ended(&self) -> Option<(i32, Option<Duration>)> {
        let ContainerState::Ended {
            exit_code,
            started,
            finished,
            ..
        } = self
        else {
            return None;
        };
        let time = started
            .zip(*finished)
            .map(|(started, finished)| finished - started);
        Some((
            *exit_code,
            time.and_then(|time| Duration::try_from(time).ok()),
        ))
    }
}

impl PodView {
    /// Reads a pod's status. `gone` tells that it was deleted.
    pub fn new(pod: &WatchedPod, gone: bool) -> PodView {
        let status = &pod.status;
        let phase = match status.phase.as_deref() {
            Some("Succeeded") => Phase::Succeeded,
            Some("Failed") => Phase::Failed,
            _ => Phase::Open,
        };
        let unschedulable = status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
        let containers = status.init_container_statuses.iter().flatten();
        PodView {
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            phase,
            reason: status.reason.clone().unwrap_or_default(),
            message: status.message.clone().unwrap_or_default(),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            gone,
            unschedulable: unschedulable.map(|c| c.message.clone().unwrap_or_default()),
            containers: containers
                .chain(status.container_statuses.iter().flatten())
                .map(container_view)
                .collect(),
        }
    }

    /// A pod of which nothing but its identity is known.
    pub fn unseen(name: &str, uid: &str) -> PodView {
        PodView {
            name: name.to_string(),
            uid: uid.to_string(),
            phase: Phase::Open,
            reason: String::new(),
            message: String::new(),
            terminating: false,
            gone: false,
            unschedulable: None,
            containers: Vec::new(),
        }
    }

    /// The container of this name, if the kubelet has reported it.
    pub fn container(&self, name: &str) -> Option<&ContainerView> {
        self.containers
            .iter()
            .find(|container| container.name == name)
    }

    /// What this pod means for its job, which has these containers.
    pub fn verdict(&self, expected: &[String]) -> Verdict {
        let all_ended_well = expected.iter().all(|name| {
            self.container(name)
                .and_then(|c| c.state.ended())
                .is_some_and(|(code, _)| code == 0)
        });
        if all_ended_well && !expected.is_empty() {
            return Verdict::Succeeded;
        }
        match (self.phase, self.gone) {
            (Phase::Failed, _) => Verdict::Failed(self.failure(expected)),
            (Phase::Succeeded, _) => Verdict::Failed(Failure::NoProof),
            (Phase::Open, true) => Verdict::Failed(Failure::Deleted),
            (Phase::Open, false) => self.trouble(),
        }
    }

    /// Why a pod failed: the pod's own reason first, since containers that
    /// are killed for it end with misleading exit codes.
    fn failure(&self, expected: &[String]) -> Failure {
        let message = self.message.clone();
        match self.reason.as_str() {
            "DeadlineExceeded" => return Failure::DeadlineExceeded,
            "Evicted" => return Failure::Evicted { message },
            "Preempting" | "Preempted" => return Failure::Preempted { message },
            "NodeLost" | "NodeShutdown" | "Shutdown" | "Terminated" => {
                return Failure::NodeLost { message };
            }
            _ => {}
        }
        let failed = expected
            .iter()
            .filter_map(|name| self.container(name))
            .find_map(container_failure);
        failed.unwrap_or_else(|| Failure::PodFailed {
            reason: self.reason.clone(),
            message,
        })
    }

    /// What keeps a pod that is open from going on, if anything.
    fn trouble(&self) -> Verdict {
        if let Some(message) = &self.unschedulable {
            return Verdict::Stuck(Failure::Unschedulable {
                message: message.clone(),
            });
        }
        let stuck = self
            .containers
            .iter()
            .find_map(|container| match &container.state {
                ContainerState::Waiting { reason, message } => {
                    waiting_failure(container, reason, message)
                }
                _ => None,
            });
        match stuck {
            Some(failure) if failure.is_permanent() => Verdict::Failed(failure),
            Some(failure) => Verdict::Stuck(failure),
            None => Verdict::Running,
        }
    }
}

fn container_view(status: &core::ContainerStatus) -> ContainerView {
    let state = status.state.as_ref();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let state = if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        ContainerState::Ended {
            exit_code: ended.exit_code,
            reason: text(&ended.reason),
            message: text(&ended.message),
            started: ended.started_at.as_ref().map(|time| time.0),
            finished: ended.finished_at.as_ref().map(|time| time.0),
        }
    } else if let Some(running) = state.and_then(|state| state.running.as_ref()) {
        ContainerState::Running {
            started: running.started_at.as_ref().map(|time| time.0),
        }
    } else {
        let waiting = state
            .and_then(|state| state.waiting.clone())
            .unwrap_or_default();
        ContainerState::Waiting {
            reason: text(&waiting.reason),
            message: text(&waiting.message),
        }
    };
    ContainerView {
        name: status.name.clone(),
        image: status.image.clone(),
        state,
    }
}

fn container_failure(container: &ContainerView) -> Option<Failure> {
    let ContainerState::Ended {
        exit_code,
        reason,
        message,
        ..
    } = &container.state
    else {
        return None;
    };
    let name = container.name.clone();
    match (*exit_code, reason.as_str()) {
        (0, _) => None,
        // The exit code is made up: nobody saw how it ended.
        (_, "ContainerStatusUnknown") => Some(Failure::PodFailed {
            reason: reason.clone(),
            message: message.clone(),
        }),
        (_, "OOMKilled") => Some(Failure::OutOfMemory { container: name }),
        (_, "StartError" | "ContainerCannotRun") => Some(Failure::CannotStart {
            container: name,
            message: message.clone(),
        }),
        (code, _) => Some(Failure::ExitCode {
            container: name,
            code,
        }),
    }
}

/// What a waiting container's reason means; `None` for those that just say
/// that it is being prepared.
fn waiting_failure(container: &ContainerView, reason: &str, message: &str) -> Option<Failure> {
    let (name, message) = (container.name.clone(), message.to_string());
    let image = container.image.clone();
    match reason {
        "InvalidImageName" => Some(Failure::InvalidImage { image, message }),
        "ErrImageNeverPull" => Some(Failure::ImageNotPresent { image }),
        "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" | "ImageInspectError" => {
            Some(Failure::ImagePull { image, message })
        }
        "CreateContainerConfigError" => Some(Failure::Configuration {
            container: name,
            message,
        }),
        "CreateContainerError" | "RunContainerError" | "PostStartHookError" => {
            Some(Failure::CannotStart {
                container: name,
                message,
            })
        }
        _ => None,
    }
}

/// What to do about a container that cannot start, where the runtime's words
/// tell which of the things that we ask of an image or a job is missing.
fn start_advice(message: &str) -> &'static str {
    if message.contains("/bin/sh") {
        "; its image must have /bin/sh"
    } else if message.contains("mkdir ") {
        "; the step's directory, or one above it, is not a directory"
    } else {
        ""
    }
}

/// What a pod means for its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Running,
    /// It cannot go on now; it may, if what stands in the way passes.
    Stuck(Failure),
    /// Every container ended with exit code 0.
    Succeeded,
    /// It will not succeed.
    Failed(Failure),
}

/// Everything that can keep a job from succeeding in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "each variant is explained by its sentence below"
)]
pub enum Failure {
    ExitCode { container: String, code: i32 },
    OutOfMemory { container: String },
    CannotStart { container: String, message: String },
    Configuration { container: String, message: String },
    InvalidImage { image: String, message: String },
    ImageNotPresent { image: String },
    ImagePull { image: String, message: String },
    Unschedulable { message: String },
    DeadlineExceeded,
    Evicted { message: String },
    Preempted { message: String },
    NodeLost { message: String },
    Deleted,
    NoProof,
    PodFailed { reason: String, message: String },
}

impl Failure {
    /// Whether waiting cannot help. The kubelet tries again to make a
    /// container, and on a busy node it often fails before it succeeds.
    pub fn is_permanent(&self) -> bool {
        match self {
            Failure::InvalidImage { .. } | Failure::ImageNotPresent { .. } => true,
            Failure::Configuration { message, .. } => message.contains("runAsNonRoot"),
            _ => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::ExitCode { container, code } if container == SETUP_CONTAINER => write!(
                f,
                "the workspace could not be set up (exit code {code}); the log of \
                 setup.workspace says why"
            ),
            Failure::ExitCode { container, code } => {
                write!(
                    f,
                    "the step in container {container} ended with exit code {code}"
                )
            }
            Failure::OutOfMemory { container } => write!(
                f,
                "container {container} was killed because it used more memory than its limit \
                 (OOMKilled); raise EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY or let the step \
                 use less"
            ),
            Failure::CannotStart { container, message } => {
                let advice = start_advice(message);
                write!(f, "container {container} cannot start{advice}: {message}")
            }
            Failure::Configuration { container, message } => {
                write!(f, "container {container} cannot be configured: {message}")
            }
            Failure::InvalidImage { image, message } => {
                write!(f, "{image:?} is not the name of an image: {message}")
            }
            Failure::ImageNotPresent { image } => write!(
                f,
                "image {image} is not on the node, and the pull policy is Never"
            ),
            Failure::ImagePull { image, message } => write!(
                f,
                "image {image} cannot be pulled; check its name, and the credentials in \
                 KUBERNETES_IMAGE_PULL_SECRETS: {message}"
            ),
            Failure::Unschedulable { message } => {
                write!(f, "no node can take the pod: {message}")
            }
            Failure::DeadlineExceeded => f.write_str(
                "the pod ran longer than KUBERNETES_JOB_DEADLINE allows (DeadlineExceeded)",
            ),
            Failure::Evicted { message } => write!(f, "the node evicted the pod: {message}"),
            Failure::Preempted { message } => {
                write!(
                    f,
                    "the pod had to make room for one of higher priority: {message}"
                )
            }
            Failure::NodeLost { message } => write!(f, "the pod's node went away: {message}"),
            Failure::Deleted => f.write_str("the pod was deleted by someone else before it ended"),
            Failure::NoProof => f.write_str(
                "Kubernetes says that the pod succeeded, but not that every step ended with \
                 exit code 0",
            ),
            Failure::PodFailed { reason, message } if reason.is_empty() && message.is_empty() => {
                f.write_str("the pod failed, and Kubernetes gives no reason")
            }
            Failure::PodFailed { reason, message } => {
                write!(f, "the pod failed: {reason} {message}")
            }
        }
    }
}
