//! Why a job ended, what is known of it then, and what is there then.

use crate::cluster::error::ClusterError;
use crate::cluster::status::{Cause, Failure};
use crate::heartbeat::Stop;
use crate::job::Outcome;
use crate::metrics::jobs;

/// Why a job that began did not succeed.
pub(super) enum End {
    /// Stopped from outside.
    Stopped(Stop),
    /// It took longer than it may.
    TimedOut,
    /// The cluster says so.
    Failed(Failure),
    /// The objects could not be created.
    NotCreated(ClusterError),
}

/// What is in the cluster when a job has ended.
pub(super) struct Rest {
    /// Whether there is a pod, or may be one that was not seen yet.
    pub(super) may_have_pod: bool,
    /// Whether it may stay for somebody to look at: what was stopped would run
    /// on, and what is not complete never runs.
    pub(super) may_stay: bool,
}

impl Rest {
    pub(super) fn of(end: &Result<(), End>) -> Rest {
        Rest {
            may_have_pod: match end {
                Err(End::NotCreated(_)) => false,
                Err(End::Failed(failure)) => !failure.cause.is_without_pod(),
                _ => true,
            },
            may_stay: !matches!(end, Err(End::Stopped(_) | End::NotCreated(_))),
        }
    }

    /// A former process knew more.
    pub(super) fn of_decided(outcome: &Outcome) -> Rest {
        Rest {
            may_have_pod: true,
            may_stay: matches!(outcome, Outcome::Complete | Outcome::Errored(_)),
        }
    }
}

impl End {
    /// The word by which it is counted, if it is a failure.
    pub(super) fn cause(&self) -> Option<&'static str> {
        match self {
            End::Stopped(Stop::Cancelled) => Some(jobs::CANCELLED),
            End::Stopped(Stop::DrainLimit) => Some(jobs::STOPPED),
            End::Stopped(Stop::NotOurs | Stop::Handover) => None,
            End::TimedOut => Some(jobs::TIMED_OUT),
            End::Failed(failure) => Some(failure.cause.label()),
            End::NotCreated(_) => Some(jobs::NOT_CREATED),
        }
    }

    /// What the entry at which the job ended says of it, if the entry does not
    /// show it by itself.
    pub(super) fn reason(&self) -> Option<String> {
        match self {
            End::Stopped(Stop::Cancelled) => Some("The job was cancelled.".to_string()),
            End::Stopped(Stop::DrainLimit) => Some("The executor was stopped.".to_string()),
            End::TimedOut => Some("The job took longer than it may.".to_string()),
            End::Stopped(Stop::NotOurs | Stop::Handover) => None,
            End::Failed(failure) if matches!(failure.cause, Cause::ExitCode { .. }) => None,
            End::Failed(failure) => Some(failure.to_string()),
            End::NotCreated(error) => Some(error.to_string()),
        }
    }
}
