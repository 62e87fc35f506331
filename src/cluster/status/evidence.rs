//! What Events and the Job tell where a pod's status is silent: why there is
//! no pod, why one does not start its first container, and who deleted it.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::core::v1 as core;

use crate::cluster::status::admission;
use crate::cluster::status::failure::{Cause, Failure};
use crate::cluster::status::{PodView, Verdict};

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

impl EventView {
    /// Reads an Event.
    pub fn new(event: core::Event) -> EventView {
        let series = event.series.and_then(|series| series.last_observed_time);
        let times = [
            series.map(|time| time.0),
            event.last_timestamp.map(|time| time.0),
            event.event_time.map(|time| time.0),
            event.metadata.creation_timestamp.map(|time| time.0),
        ];
        EventView {
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

    /// What a pod means whose status leaves open why it does not start.
    pub fn before_start(&self, view: &PodView, verdict: Verdict) -> Verdict {
        self.obstacle(view).map_or(verdict, Verdict::of)
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

    /// What the newest Events of a pod say that keeps it from starting.
    fn obstacle(&self, view: &PodView) -> Option<Failure> {
        let mut found: Option<Failure> = None;
        for event in self.events.iter().flatten().rev() {
            let cause = match event.reason.as_str() {
                // It got past everything that was reported before.
                "Pulling" | "Pulled" | "Created" | "Started" => break,
                "FailedMount" if view.names_nothing(&event.message) => Cause::VolumeMissing,
                "FailedMount" | "FailedAttachVolume" | "FailedMapVolume" => Cause::VolumeNotReady,
                "FailedCreatePodSandBox" => Cause::Sandbox,
                "NetworkNotReady" => Cause::Sandbox,
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

/// Whether a pod's status, which means `verdict`, leaves open why no container
/// of it starts. With network and volumes there, only pulls are left to wait
/// for, and those are in the status.
pub fn is_open(view: &PodView, verdict: &Verdict) -> bool {
    let says_nothing = match verdict {
        Verdict::Running => true,
        Verdict::Stuck(failure) => failure.cause == Cause::NotStarted,
        _ => false,
    };
    let has_begun = view.containers.iter().any(|c| c.state.has_started());
    says_nothing && view.has_node && !has_begun && view.sandbox_ready != Some(true)
}
