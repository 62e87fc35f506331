//! What can go wrong in a call to Kubernetes, and what that means.

use std::fmt;
use std::time::Duration;

use crate::cluster::status::admission;

/// However long the API server asks us to stay away, jobs do not wait longer.
const STAY_AWAY_MAX: Duration = Duration::from_secs(30);

/// A call that did not do what it should.
#[derive(Debug)]
pub struct ClusterError {
    /// What was tried, as in «create Job sg-executor-job-batches-17-…».
    pub call: String,
    /// What happened.
    pub kind: ClusterErrorKind,
}

/// What happened to a call.
#[derive(Debug)]
pub enum ClusterErrorKind {
    /// The configuration of the client cannot be used.
    Configuration(String),
    /// No answer: no connection, a broken one, or one that took too long.
    Unreachable(String),
    /// The API server is too busy, and says when to come back.
    Busy {
        /// Status code of the answer.
        status: u16,
        /// How long to stay away.
        stay_away: Duration,
    },
    /// The API server refused.
    Refused {
        /// Status code of the answer.
        status: u16,
        /// Kubernetes' word for the refusal, such as `Forbidden`.
        reason: String,
        /// Its explanation.
        message: String,
    },
}

impl ClusterError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match &self.kind {
            ClusterErrorKind::Configuration(_) => false,
            ClusterErrorKind::Unreachable(_) | ClusterErrorKind::Busy { .. } => true,
            ClusterErrorKind::Refused {
                status: 403,
                message,
                ..
            } => admission::can_pass(message),
            ClusterErrorKind::Refused { status, .. } => {
                !self.is_too_large() && matches!(*status, 409 | 429 | 500..)
            }
        }
    }

    /// How long the API server asks us to stay away, up to our own limit.
    pub fn stay_away(&self) -> Duration {
        match self.kind {
            ClusterErrorKind::Busy { stay_away, .. } => stay_away.min(STAY_AWAY_MAX),
            _ => Duration::ZERO,
        }
    }

    /// Whether nobody knows if the call had its effect.
    pub fn is_uncertain(&self) -> bool {
        matches!(self.kind, ClusterErrorKind::Unreachable(_))
    }

    /// Whether the object is larger than Kubernetes takes: than its API does,
    /// or than its database does. For a Job the API server then tries once
    /// more, and stumbles over the labels that it has set itself.
    fn is_too_large(&self) -> bool {
        match &self.kind {
            ClusterErrorKind::Refused {
                status, message, ..
            } => match status {
                413 => true,
                422 => message.contains("spec.template.metadata.labels[controller-uid]"),
                _ => message.contains("etcdserver: request is too large"),
            },
            _ => false,
        }
    }

    /// Whether this account may not do that.
    pub fn is_forbidden(&self) -> bool {
        self.has_status(403)
    }

    /// Whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.has_status(404)
    }

    /// Whether the object exists already. Other conflicts, such as two changes
    /// of a quota at the same moment, have the same status and another reason.
    pub fn is_there_already(&self) -> bool {
        matches!(&self.kind, ClusterErrorKind::Refused { status: 409, reason, .. }
            if reason == "AlreadyExists")
    }

    /// Whether the object is no longer the one that the call was meant for.
    pub fn is_conflict(&self) -> bool {
        self.has_status(409) && !self.is_there_already()
    }

    /// Whether the log was asked for too early or is gone.
    pub fn is_bad_request(&self) -> bool {
        self.has_status(400)
    }

    fn has_status(&self, wanted: u16) -> bool {
        matches!(self.kind, ClusterErrorKind::Refused { status, .. } if status == wanted)
    }
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let call = &self.call;
        match &self.kind {
            ClusterErrorKind::Configuration(cause) => write!(f, "cannot {call}: {cause}"),
            ClusterErrorKind::Unreachable(cause) => {
                write!(
                    f,
                    "cannot {call}: no answer from the Kubernetes API: {cause}"
                )
            }
            ClusterErrorKind::Busy { status, stay_away } => write!(
                f,
                "cannot {call}: the Kubernetes API is too busy ({status}) and asks us to come \
                 back in {stay_away:?}"
            ),
            ClusterErrorKind::Refused { status: 401, .. } => write!(
                f,
                "cannot {call}: the Kubernetes API does not accept our credentials; check the \
                 service account, or EXECUTOR_KUBERNETES_CONFIG_PATH"
            ),
            ClusterErrorKind::Refused {
                status: 403,
                message,
                ..
            } => write!(f, "cannot {call}: Kubernetes forbids it: {message}"),
            ClusterErrorKind::Refused { .. } if self.is_too_large() => write!(
                f,
                "cannot {call}: the steps and their variables are more than Kubernetes can hold \
                 in one object, about 1.5 MiB; put large values into files"
            ),
            ClusterErrorKind::Refused {
                status,
                reason,
                message,
            } => {
                write!(
                    f,
                    "cannot {call}: Kubernetes refused ({status} {reason}): {message}"
                )
            }
        }
    }
}

impl std::error::Error for ClusterError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, message: &str) -> ClusterError {
        ClusterError {
            call: "create Job a".to_string(),
            kind: ClusterErrorKind::Refused {
                status,
                reason: String::new(),
                message: message.to_string(),
            },
        }
    }

    #[test]
    fn a_busy_server_is_heeded_up_to_a_limit() {
        for (asked, heeded) in [(2, 2), (3600, 30)] {
            let error = ClusterError {
                call: "create Job a".to_string(),
                kind: ClusterErrorKind::Busy {
                    status: 429,
                    stay_away: Duration::from_secs(asked),
                },
            };
            assert!(error.is_retryable());
            assert_eq!(error.stay_away(), Duration::from_secs(heeded));
        }
        assert_eq!(refused(500, "").stay_away(), Duration::ZERO);
    }

    #[test]
    fn not_every_conflict_means_that_it_exists() {
        let conflict = |reason: &str| ClusterError {
            call: "create Job a".to_string(),
            kind: ClusterErrorKind::Refused {
                status: 409,
                reason: reason.to_string(),
                message: String::new(),
            },
        };
        assert!(conflict("AlreadyExists").is_there_already());
        assert!(!conflict("Conflict").is_there_already());
        assert!(conflict("Conflict").is_retryable());
    }

    #[test]
    fn quotas_may_have_room_later() {
        let quota = |wanted: u8| {
            let amounts = format!("requested: cpu={wanted}, used: cpu=2, limited: cpu=2");
            refused(403, &format!("is forbidden: exceeded quota: q, {amounts}"))
        };
        assert!(quota(2).is_retryable());
        assert!(!quota(3).is_retryable());
        assert!(!refused(403, "is forbidden: User cannot create").is_retryable());
    }

    #[test]
    fn what_is_too_large_is_not_tried_again() {
        let by_api = refused(413, "Request entity too large: limit is 3145728");
        let by_database = refused(500, "etcdserver: request is too large");
        let once_more = "spec.template.metadata.labels[controller-uid]: Invalid value";
        for error in [by_api, by_database, refused(422, once_more)] {
            assert!(!error.is_retryable(), "{error}");
            assert!(error.to_string().contains("large values into files"));
        }
        assert!(refused(500, "etcdserver: leader changed").is_retryable());
    }
}
