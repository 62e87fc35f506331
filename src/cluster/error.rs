//! What can go wrong in a call to Kubernetes, and what that means.

use std::fmt;

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
            ClusterErrorKind::Unreachable(_) => true,
            ClusterErrorKind::Refused { status, .. } => {
                !self.is_too_large() && (*status == 429 || *status >= 500)
            }
        }
    }

    /// Whether the object is larger than the API server takes, or, with a
    /// status that says nothing, than its database does.
    fn is_too_large(&self) -> bool {
        match &self.kind {
            ClusterErrorKind::Refused {
                status, message, ..
            } => *status == 413 || message.contains("request is too large"),
            _ => false,
        }
    }

    /// Whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.has_status(404)
    }

    /// Whether the object exists already.
    pub fn is_conflict(&self) -> bool {
        self.has_status(409)
    }

    /// Whether we lack the permission.
    pub fn is_forbidden(&self) -> bool {
        self.has_status(403)
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
            ClusterErrorKind::Refused { message, .. } if self.is_too_large() => write!(
                f,
                "cannot {call}: the steps and their variables are more than Kubernetes can hold; \
                 put large values into files: {message}"
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
    fn what_is_too_large_is_not_tried_again() {
        let by_api = refused(413, "Request entity too large: limit is 3145728");
        let by_database = refused(500, "etcdserver: request is too large");
        for error in [by_api, by_database] {
            assert!(!error.is_retryable(), "{error}");
            assert!(error.to_string().contains("large values into files"));
        }
        assert!(refused(500, "etcdserver: leader changed").is_retryable());
    }
}
