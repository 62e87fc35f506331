//! What is seen of a job's pod, and what that means. Pure.
//!
//! A view is what one observation tells; `PodView::followed_by` adds the next
//! one to what is known already, so that nothing that was seen is lost and
//! nothing that another pod did counts. `verdict.rs` judges what is known,
//! `evidence.rs` what the Job and Events tell beside it, and `failure.rs` is
//! the list of everything that can go wrong.

pub mod admission;
pub mod evidence;
mod failure;
pub mod label;
#[cfg(test)]
mod proof;
mod pull;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;

use crate::cluster::names::RUN_LABEL;
pub use failure::{Cause, Failure, Grace};
pub use verdict::Verdict;

/// The parts of a pod that the watch reads; the rest is not even decoded.
#[derive(Clone, Debug, Deserialize)]
pub struct WatchedPod {
    /// Who it is.
    pub metadata: WatchedMetadata,
    /// What it was made to be.
    #[serde(default)]
    pub spec: WatchedSpec,
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
    pub labels: BTreeMap<String, String>,
}

/// The parts of a pod's specification that the watch reads.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchedSpec {
    /// Where it runs, once that is known.
    #[serde(default)]
    pub node_name: Option<String>,
    /// The containers that run first, one after the other.
    #[serde(default)]
    pub init_containers: Vec<WatchedContainer>,
    /// The last one.
    #[serde(default)]
    pub containers: Vec<WatchedContainer>,
}

/// The parts of a container's specification that the watch reads.
#[derive(Clone, Debug, Deserialize)]
pub struct WatchedContainer {
    /// Its name.
    pub name: String,
    /// Its limits, those of a LimitRange included.
    #[serde(default)]
    pub resources: WatchedResources,
}

/// The parts of a container's resources that the watch reads.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct WatchedResources {
    /// The most that it may have.
    #[serde(default)]
    pub limits: BTreeMap<String, Quantity>,
}

impl WatchedPod {
    /// Name of the attempt that the pod belongs to.
    pub fn run(&self) -> Option<&str> {
        self.metadata.labels.get(RUN_LABEL).map(String::as_str)
    }

    /// A condition of its status, if that is as `wanted`.
    fn condition(&self, kind: &str, wanted: &str) -> Option<Condition> {
        let conditions = self.status.conditions.iter().flatten();
        conditions
            .filter(|condition| condition.type_ == kind && condition.status == wanted)
            .map(|condition| Condition {
                reason: condition.reason.clone().unwrap_or_default(),
                message: condition.message.clone().unwrap_or_default(),
            })
            .next()
    }
}

/// What is known of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    /// Name of the pod.
    pub name: String,
    /// Identity of the pod.
    pub uid: String,
    /// Name of the attempt that it belongs to, if it is known.
    pub run: String,
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
    /// Whether a node was found for it.
    pub has_node: bool,
    /// What the scheduler says while it finds no node.
    pub unscheduled: Option<Condition>,
    /// Whether network and volumes are there; older clusters do not say.
    pub sandbox_ready: Option<bool>,
    /// Why Kubernetes itself takes the pod away, if it does.
    pub disruption: Option<Condition>,
    /// All containers, in the order in which they run.
    pub containers: Vec<ContainerView>,
}

/// Reason and explanation of a condition of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Kubernetes' word for it.
    pub reason: String,
    /// Its explanation.
    pub message: String,
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

/// What is known of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerView {
    /// Name of the container.
    pub name: String,
    /// Its image, as the plan named it.
    pub image: String,
    /// Its memory limit, a quantity, if it has one.
    pub memory_limit: Option<String>,
    /// What it does.
    pub state: ContainerState,
    /// Whether its end was seen before anyone told the pod to end. Only then
    /// does an exit code tell of the container: one that is told to stop can
    /// end with 0 in the middle of its work.
    pub by_itself: bool,
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

impl ContainerView {
    /// The exit code, if the container ended by itself.
    pub fn own_exit(&self) -> Option<i32> {
        let (code, _) = self.state.ended()?;
        self.by_itself.then_some(code)
    }

    /// Whether something in it was killed because it used too much memory.
    /// With control groups of version 1 that may be a process beside the first
    /// one, and the container then ends with any exit code, even 0.
    pub fn ran_out_of_memory(&self) -> bool {
        matches!(&self.state, ContainerState::Ended { reason, .. } if reason == "OOMKilled")
    }

    /// What a reader of the log should know of a container that ended well.
    pub fn warning(&self) -> Option<String> {
        let is_silent = self.own_exit() == Some(0) && self.ran_out_of_memory();
        is_silent.then(|| {
            let limit = self.memory_limit.as_deref().unwrap_or("the node's memory");
            format!(
                "A process of this container was killed because all together used more memory \
                 than {limit} (OOMKilled), though the container ended with exit code 0."
            )
        })
    }

    /// Adds a later observation.
    fn followed_by(&self, next: ContainerView) -> ContainerView {
        use ContainerState::{Ended, Running, Waiting};
        match (&self.state, &next.state) {
            // A failure stays one, and who ended by itself did so.
            (Ended { exit_code, .. }, _) if self.by_itself && *exit_code != 0 => self.clone(),
            (
                Ended { exit_code: old, .. },
                Ended {
                    exit_code: new_code,
                    ..
                },
            ) => ContainerView {
                by_itself: next.by_itself || self.by_itself && old == new_code,
                ..next
            },
            // A status that was lost: containers are never started again.
            (Ended { .. } | Running { .. }, Waiting { .. }) => self.clone(),
            // The kubelet of older clusters drops the cause when it backs off.
            (
                Waiting { message, .. },
                Waiting {
                    reason,
                    message: newer,
                },
            ) if reason == pull::BACK_OFF
                && pull::is_bare_back_off(newer)
                && !message.is_empty() =>
            {
                ContainerView {
                    state: Waiting {
                        reason: reason.clone(),
                        message: message.clone(),
                    },
                    ..next
                }
            }
            _ => next,
        }
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
        let sandbox = "PodReadyToStartContainers";
        let is = |wanted: &str| pod.condition(sandbox, wanted).map(|_| wanted == "True");
        let mut view = PodView {
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            run: pod.run().unwrap_or_default().to_string(),
            phase,
            reason: status.reason.clone().unwrap_or_default(),
            message: status.message.clone().unwrap_or_default(),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            gone,
            has_node: pod.spec.node_name.is_some(),
            unscheduled: pod.condition("PodScheduled", "False"),
            sandbox_ready: is("True").or(is("False")),
            disruption: pod.condition("DisruptionTarget", "True"),
            containers: Vec::new(),
        };
        let is_stopped = view.is_stopped();
        let statuses = status.init_container_statuses.iter().flatten();
        let statuses = statuses.chain(status.container_statuses.iter().flatten());
        view.containers = statuses
            .map(|status| container_view(status, &pod.spec, is_stopped))
            .collect();
        view
    }

    /// A pod of which nothing but its identity is known.
    pub fn unseen(name: &str, uid: &str) -> PodView {
        let metadata = WatchedMetadata {
            name: name.to_string(),
            uid: uid.to_string(),
            resource_version: String::new(),
            deletion_timestamp: None,
            labels: BTreeMap::new(),
        };
        let pod = WatchedPod {
            metadata,
            spec: WatchedSpec::default(),
            status: core::PodStatus::default(),
        };
        PodView::new(&pod, false)
    }

    /// Adds a later observation to what is known. What another pod does says
    /// nothing: a job runs in the first pod that was seen of it, and only once.
    pub fn followed_by(self, next: PodView) -> PodView {
        if next.uid != self.uid {
            return self;
        }
        let was_stopped = self.is_stopped();
        let mut view = PodView {
            terminating: self.terminating || next.terminating,
            gone: self.gone || next.gone,
            ..next
        };
        for container in &mut view.containers {
            container.by_itself &= !was_stopped;
        }
        // A pod that has failed stays failed, for the first reason that it gave.
        let is_final = self.phase != Phase::Open && view.phase == Phase::Open;
        let gives_reason = self.reason.is_empty() && view.phase == Phase::Failed;
        if is_final || self.phase == Phase::Failed && !gives_reason {
            (view.phase, view.reason, view.message) = (self.phase, self.reason, self.message);
        }
        for (place, known) in self.containers.into_iter().enumerate() {
            let is_same = |container: &ContainerView| container.name == known.name;
            // Mostly they are in the same order.
            let found = match view.containers.get(place) {
                Some(container) if is_same(container) => Some(place),
                _ => view.containers.iter().position(is_same),
            };
            match found {
                Some(found) => {
                    let newer = view.containers[found].clone();
                    view.containers[found] = known.followed_by(newer);
                }
                None => view.containers.push(known),
            }
        }
        view
    }

    /// The container of this name, if the kubelet has reported it.
    pub fn container(&self, name: &str) -> Option<&ContainerView> {
        self.containers
            .iter()
            .find(|container| container.name == name)
    }

    /// Whether no container of it will run for long any more.
    pub fn is_over(&self) -> bool {
        self.gone || self.terminating || self.phase != Phase::Open
    }

    /// How far the pod has come, a number that grows: a node, network and
    /// volumes, then each container that has started.
    pub fn progress(&self) -> usize {
        let started = self.containers.iter().filter(|c| c.state.has_started());
        let started = started.count();
        let before = usize::from(self.has_node) + usize::from(self.sandbox_ready == Some(true));
        if started > 0 { 2 + started } else { before }
    }

    /// Whether these words name something that does not exist, and that nobody
    /// is about to create. Our own Secrets come after their Job; and while the
    /// node has not read what is there, the words are others.
    fn names_nothing(&self, words: &str) -> bool {
        let is_missing = words.contains("\" not found") || words.contains("non-existent");
        let is_ours = !self.run.is_empty() && words.contains(&format!("\"{}-", self.run));
        is_missing && !is_ours && !words.contains("failed to sync")
    }

    /// Whether anyone has told the pod to end before its time.
    fn is_stopped(&self) -> bool {
        self.terminating || self.phase == Phase::Failed && !self.reason.is_empty()
    }
}

fn container_view(
    status: &core::ContainerStatus,
    spec: &WatchedSpec,
    is_stopped: bool,
) -> ContainerView {
    let mut containers = spec.init_containers.iter().chain(&spec.containers);
    let limit = containers
        .find(|container| container.name == status.name)
        .and_then(|container| container.resources.limits.get("memory"));
    ContainerView {
        name: status.name.clone(),
        image: status.image.clone(),
        memory_limit: limit.map(|quantity| quantity.0.clone()),
        state: container_state(status.state.as_ref()),
        by_itself: !is_stopped,
    }
}

fn container_state(state: Option<&core::ContainerState>) -> ContainerState {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
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
    }
}
