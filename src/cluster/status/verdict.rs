//! What is known of a pod → what that means for its job.
//!
//! A job is complete only if every one of its containers was seen to end by
//! itself with exit code 0. There is no other way to success.

use crate::cluster::status::failure::{Cause, Failure};
use crate::cluster::status::{ContainerState, ContainerView, Phase, PodView, pull};

/// The kubelet's reason for a container that it has lost: nobody saw how it
/// ended, and the exit code is made up.
const UNKNOWN_END: &str = "ContainerStatusUnknown";

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

impl Verdict {
    /// What stands in the way ends the job if it cannot pass.
    pub(super) fn of(failure: Failure) -> Verdict {
        match failure.is_permanent() {
            true => Verdict::Failed(failure),
            false => Verdict::Stuck(failure),
        }
    }
}

impl PodView {
    /// What this pod means for its job, which has these containers in this
    /// order.
    pub fn verdict(&self, expected: &[String]) -> Verdict {
        let last = expected.last();
        let known: Vec<_> = expected.iter().map(|name| self.container(name)).collect();
        let ended_well =
            |container: &ContainerView| container.ended_well(last == Some(&container.name));
        if !known.is_empty() && known.iter().all(|it| it.is_some_and(ended_well)) {
            return Verdict::Succeeded;
        }
        // What a container did by itself counts before what became of its pod.
        let mut known = known.into_iter().flatten();
        let failed = |it: &ContainerView| container_failure(it, last == Some(&it.name));
        if let Some(failure) = known.clone().find_map(failed) {
            return Verdict::Failed(failure);
        }
        match self.phase {
            Phase::Failed => Verdict::Failed(self.pod_failure()),
            _ if self.terminating || self.gone => Verdict::Failed(self.taken_away()),
            Phase::Succeeded => Verdict::Failed(Cause::NoProof.with("")),
            Phase::Open => match known.find_map(|it| self.waiting_failure(it)) {
                Some(failure) => Verdict::of(failure),
                None => self.trouble(),
            },
        }
    }

    /// Why a pod has failed of which no container failed by itself.
    fn pod_failure(&self) -> Failure {
        let reason = self.reason.as_str();
        let cause = match reason {
            "DeadlineExceeded" => Cause::Deadline,
            "Evicted" => Cause::Evicted {
                resource: evicted_resource(&self.message),
            },
            "Preempting" | "Preempted" => Cause::Preempted,
            "NodeLost" | "NodeShutdown" | "Shutdown" | "Terminated" => Cause::NodeLost,
            "NodeAffinity" | "NodePorts" | "UnexpectedAdmissionError" => Cause::NodeRefused,
            _ if reason.starts_with("OutOf") => Cause::NodeRefused,
            _ if self.message.starts_with("Pod was rejected") => Cause::NodeRefused,
            "" if self.terminating || self.gone || self.disruption.is_some() => {
                return self.taken_away();
            }
            _ => {
                let message = format!("{reason} {}", self.message);
                return Cause::PodFailed.with(match message.trim() {
                    "" => self.unknown_end().unwrap_or_default(),
                    message => message,
                });
            }
        };
        let message = match &cause {
            Cause::NodeRefused => format!("{reason}: {}", self.message),
            _ => self.message.clone(),
        };
        cause.with(message)
    }

    /// What the kubelet says of a container whose end it did not see.
    fn unknown_end(&self) -> Option<&str> {
        self.containers.iter().find_map(|it| match &it.state {
            ContainerState::Ended {
                reason, message, ..
            } if reason == UNKNOWN_END => Some(message.as_str()),
            _ => None,
        })
    }

    /// Why a pod goes that has not said why itself.
    fn taken_away(&self) -> Failure {
        let Some(disruption) = &self.disruption else {
            return Cause::Deleted.with("");
        };
        let cause = match disruption.reason.as_str() {
            "PreemptionByScheduler" => Cause::Preempted,
            "DeletionByTaintManager" | "DeletionByPodGC" => Cause::NodeLost,
            "EvictionByEvictionAPI" => Cause::Evicted { resource: None },
            _ => Cause::Deleted,
        };
        cause.with(disruption.message.as_str())
    }

    /// What keeps an open pod from starting its containers, if anything.
    fn trouble(&self) -> Verdict {
        if let Some(condition) = self.unscheduled.as_ref().filter(|_| !self.has_node) {
            let message = condition.message.as_str();
            let cause = if condition.reason == "SchedulingGated" {
                Cause::Gated
            } else if message.to_lowercase().contains("persistentvolumeclaim") {
                Cause::VolumePending
            } else {
                Cause::Unschedulable
            };
            return Verdict::of(cause.with(message));
        }
        match self.is_unprepared() {
            true => Verdict::of(Cause::NotStarted.with("")),
            false => Verdict::Running,
        }
    }

    /// What a waiting container's reason means; `None` for those that just say
    /// that it is being prepared. The kubelet tries again and again, so only
    /// what is known to be final ends a job at once.
    fn waiting_failure(&self, container: &ContainerView) -> Option<Failure> {
        let ContainerState::Waiting { reason, message } = &container.state else {
            return None;
        };
        let image = container.image.clone();
        let name = container.name.clone();
        let cause = match reason.as_str() {
            "InvalidImageName" => Cause::InvalidImage { image },
            "ErrImageNeverPull" => Cause::ImageNotPresent { image },
            "ErrImagePull"
            | pull::BACK_OFF
            | "RegistryUnavailable"
            | "ImageInspectError"
            | "SignatureValidationFailed" => {
                let message = pull::without_back_off(message);
                return Some(pull::cause(&image, message).with(message));
            }
            "CreateContainerConfigError"
                if is_contradiction(message) || self.names_nothing(message) =>
            {
                Cause::Configuration { container: name }
            }
            "CreateContainerError" | "RunContainerError" if is_impossible(message) => {
                Cause::CannotStart { container: name }
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                Cause::NotCreatedYet { container: name }
            }
            _ => return None,
        };
        Some(cause.with(message.as_str()))
    }

    /// Whether the first container cannot start yet, for reasons that are not
    /// in the pod's status: it has no place, or network and volumes are
    /// missing. Older clusters do not tell the second from a long pull.
    fn is_unprepared(&self) -> bool {
        let has_begun = self.containers.iter().any(|c| c.state.has_started());
        let is_silent = self.containers.is_empty();
        !has_begun && (is_silent || self.sandbox_ready == Some(false))
    }
}

impl ContainerView {
    /// Whether it has done its part: it ended by itself with exit code 0, and
    /// the next one can start, unless this is the last.
    pub fn ended_well(&self, is_last: bool) -> bool {
        self.own_exit() == Some(0) && container_failure(self, is_last).is_none()
    }
}

/// How a container failed by itself.
fn container_failure(container: &ContainerView, is_last: bool) -> Option<Failure> {
    let ContainerState::Ended {
        exit_code,
        reason,
        message,
        ..
    } = &container.state
    else {
        return None;
    };
    let code = *exit_code;
    let name = container.name.clone();
    if !container.by_itself || reason == UNKNOWN_END {
        return None;
    }
    // The kubelet starts nothing after a container that ran out of memory,
    // even if that ended with 0, and leaves its pod open for good.
    if container.ran_out_of_memory() && !(is_last && code == 0) {
        let cause = Cause::OutOfMemory {
            container: name,
            limit: container.memory_limit.clone(),
            code,
        };
        return Some(cause.with(message.as_str()));
    }
    match (code, reason.as_str()) {
        (0, _) => None,
        (_, "StartError" | "ContainerCannotRun") => {
            Some(Cause::CannotStart { container: name }.with(message.as_str()))
        }
        _ => Some(
            Cause::ExitCode {
                container: name,
                code,
            }
            .with(""),
        ),
    }
}

/// Whether a runtime says that it cannot make a container, rather than that it
/// did not get to it: on a busy node it often fails before it succeeds.
fn is_impossible(words: &str) -> bool {
    let known = [
        "exec: \"",
        "executable file",
        "exec format error",
        "not a directory",
        "no command specified",
    ];
    known.iter().any(|part| words.contains(part))
}

/// Whether the kubelet says that a container can never be configured so.
fn is_contradiction(words: &str) -> bool {
    let known = ["runAsNonRoot", "non-numeric user", "couldn't find key"];
    known.iter().any(|part| words.contains(part))
}

/// What ran short, by the words of the kubelet's eviction manager.
fn evicted_resource(message: &str) -> Option<String> {
    let after = |words: &str| message.split_once(words).map(|(_, rest)| rest);
    let until = |rest: &str, end: char| rest.split(end).next().map(str::to_string);
    if let Some(rest) = after("low on resource: ") {
        return until(rest, '.');
    }
    if let Some(rest) = after("had condition: [") {
        return until(rest, ']');
    }
    if let Some(rest) = after("EmptyDir volume \"") {
        return until(rest, '"').map(|name| format!("volume {name}"));
    }
    let is_storage = message.to_lowercase().contains("ephemeral");
    is_storage.then(|| "ephemeral-storage".to_string())
}
