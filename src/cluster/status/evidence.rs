//! What Events and the Job tell where a pod's status is silent: why there is
//! no pod, why one does not start its next container, and who deleted it.
//!
//! The kubelet reports at once, as an Event, what it writes into the status at
//! its next try, ten seconds and more later.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use serde::Deserialize;

use crate::cluster::status::admission;
use crate::cluster::status::failure::{Cause, Failure};
use crate::cluster::status::{ContainerState, ContainerView, PodView, Verdict, pull};

/// What was found out about a job; each part is missing where it was not
/// asked for, or where we may not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Events of the Job or of its pod, the newest last.
    pub events: Option<Vec<EventView>>,
    /// The Job itself.
    pub job: Option<JobView>,
}

/// The parts of an Event that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventView {
    /// Kubernetes' word for what happened, such as `FailedMount`.
    pub reason: String,
    /// Its explanation.
    pub message: String,
    /// The container of the pod that it is about, if it is about one.
    pub container: Option<String>,
    /// When it happened last.
    pub time: Option<Timestamp>,
}

/// The parts of a Job that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobView {
    /// It does not exist, or not for long any more.
    Deleted,
    /// It waits until someone resumes it.
    Suspended,
    /// It has failed, with this reason.
    Failed(String),
    /// None of these.
    Open,
}

/// The parts of an Event that are read; the rest is not even decoded.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundEvent {
    #[serde(default)]
    metadata: ObjectTimes,
    #[serde(default)]
    involved_object: core::ObjectReference,
    reason: Option<String>,
    message: Option<String>,
    series: Option<core::EventSeries>,
    last_timestamp: Option<Time>,
    event_time: Option<MicroTime>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectTimes {
    creation_timestamp: Option<Time>,
}

impl EventView {
    /// Reads an Event.
    pub fn new(event: FoundEvent) -> EventView {
        let series = event.series.and_then(|series| series.last_observed_time);
        let times = [
            series.map(|time| time.0),
            event.last_timestamp.map(|time| time.0),
            event.event_time.map(|time| time.0),
            event.metadata.creation_timestamp.map(|time| time.0),
        ];
        // As in `spec.initContainers{setup-workspace}`.
        let path = event.involved_object.field_path.unwrap_or_default();
        let container = path
            .split_once('{')
            .and_then(|(_, rest)| rest.strip_suffix('}'));
        EventView {
            container: container.map(str::to_string),
            reason: event.reason.unwrap_or_default(),
            message: event.message.unwrap_or_default(),
            time: times.into_iter().flatten().next(),
        }
    }
}

impl JobView {
    /// Reads a Job.
    pub fn new(job: batch::Job) -> JobView {
        let conditions = job.status.and_then(|status| status.conditions);
        let failed = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == "Failed" && condition.status == "True");
        let is_suspended = job.spec.and_then(|spec| spec.suspend) == Some(true);
        if job.metadata.deletion_timestamp.is_some() {
            JobView::Deleted
        } else if is_suspended {
            JobView::Suspended
        } else if let Some(failed) = failed {
            JobView::Failed(failed.reason.unwrap_or_default())
        } else {
            JobView::Open
        }
    }
}

impl Evidence {
    /// What is known of these Events and this Job.
    pub fn new(events: Option<Vec<EventView>>, job: Option<JobView>) -> Evidence {
        let events = events.map(|mut events| {
            events.sort_by_key(|event| event.time);
            events
        });
        Evidence { events, job }
    }

    /// This, and what was known `before` where this time nothing came.
    pub fn or(self, before: Evidence) -> Evidence {
        Evidence {
            events: self.events.or(before.events),
            job: self.job.or(before.job),
        }
    }

    /// What a Job means that has no pod.
    pub fn without_pod(&self) -> Verdict {
        let newest = self.events.iter().flatten().last();
        let failure = match &self.job {
            Some(JobView::Deleted) => Cause::JobDeleted.with(""),
            Some(JobView::Suspended) => Cause::Suspended.with(""),
            Some(JobView::Failed(reason)) if reason == "DeadlineExceeded" => {
                Cause::Deadline.with("")
            }
            // It had a pod that nobody has seen.
            Some(JobView::Failed(_)) => Cause::Deleted.with(""),
            _ => match newest.map(|event| (event.reason.as_str(), &event.message)) {
                Some(("FailedCreate", message)) => admission::refusal(message),
                Some(("Suspended", message)) => Cause::Suspended.with(message.as_str()),
                _ => Cause::NoPod.with(""),
            },
        };
        Verdict::of(failure)
    }

    /// What a pod of these containers means whose status leaves open why it
    /// does not start the next one.
    pub fn before_start(&self, view: &PodView, expected: &[String], verdict: Verdict) -> Verdict {
        let of_container = next_container(view, expected).and_then(|it| self.of_container(it));
        let found = of_container.or_else(|| self.of_pod(view));
        found.map_or(verdict, Verdict::of)
    }

    /// Why a deleted pod was deleted, as far as its Job tells.
    pub fn deletion(&self) -> Failure {
        let cause = match &self.job {
            Some(JobView::Deleted) => Cause::JobDeleted,
            Some(JobView::Suspended) => Cause::SuspendedRunning,
            Some(JobView::Failed(reason)) if reason == "DeadlineExceeded" => Cause::Deadline,
            _ => Cause::Deleted,
        };
        cause.with("")
    }

    /// The image that is pulled now for a container, if its newest Event says so.
    pub fn pulling(&self, container: &str) -> Option<&str> {
        let mut events = self.events.iter().flatten().rev();
        let newest = events.find(|event| event.container.as_deref() == Some(container))?;
        let words = newest.message.strip_prefix("Pulling image \"")?;
        words.strip_suffix('"')
    }

    /// What keeps a container from being made, by the newest Events of it.
    fn of_container(&self, container: &ContainerView) -> Option<Failure> {
        let image = || container.image.clone();
        let events = self.events.iter().flatten().rev();
        let about = events.filter(|it| it.container.as_ref() == Some(&container.name));
        for event in about {
            let message = event.message.as_str();
            match event.reason.as_str() {
                "ErrImageNeverPull" => {
                    return Some(Cause::ImageNotPresent { image: image() }.with(message));
                }
                "InspectFailed" => return Some(pull::cause(&image(), message).with(message)),
                "Failed" if message.starts_with("Failed to pull image") => {
                    let words = message
                        .split_once("\": ")
                        .map_or(message, |(_, words)| words);
                    return Some(pull::cause(&image(), words).with(words));
                }
                // It tries again, or got past everything before.
                "Pulling" | "Pulled" | "Created" | "Started" => return None,
                _ => {}
            }
        }
        None
    }

    /// What keeps a pod from starting its first container, by its newest Events.
    fn of_pod(&self, view: &PodView) -> Option<Failure> {
        let has_begun = view.containers.iter().any(|it| it.state.has_started());
        if has_begun || view.sandbox_ready == Some(true) {
            return None;
        }
        let mut found: Option<Failure> = None;
        for event in self.events.iter().flatten().rev() {
            let cause = match event.reason.as_str() {
                // It got past everything that was reported before.
                "Pulling" | "Pulled" | "Created" | "Started" => break,
                "FailedMount" if view.names_nothing(&event.message) => Cause::VolumeMissing,
                "FailedMount" | "FailedAttachVolume" | "FailedMapVolume" => Cause::VolumeNotReady,
                "FailedCreatePodSandBox" | "NetworkNotReady" => Cause::Sandbox,
                _ => continue,
            };
            let failure = cause.with(event.message.as_str());
            // The kubelet sums up every two minutes which volumes are missing;
            // what is wrong with one of them says more.
            let is_summary = event
                .message
                .starts_with("Unable to attach or mount volumes");
            if !is_summary {
                return Some(failure);
            }
            found.get_or_insert(failure);
        }
        found
    }
}

/// Whether a pod's status, which means `verdict`, leaves open why the next of
/// these containers does not start.
pub fn is_open(view: &PodView, expected: &[String], verdict: &Verdict) -> bool {
    let says_nothing = match verdict {
        Verdict::Running => true,
        Verdict::Stuck(failure) => failure.cause == Cause::NotStarted,
        _ => false,
    };
    let is_due = view.containers.is_empty() || next_container(view, expected).is_some();
    says_nothing && view.has_node && is_due
}

/// The container whose turn it is; none while another one runs.
fn next_container<'a>(view: &'a PodView, expected: &[String]) -> Option<&'a ContainerView> {
    let mut known = expected.iter().filter_map(|name| view.container(name));
    let next = known.find(|it| it.state.ended().is_none())?;
    matches!(next.state, ContainerState::Waiting { .. }).then_some(next)
}
