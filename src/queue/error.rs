//! What can go wrong in a call to Sourcegraph, and what that means.

use std::fmt;

/// A call that did not do what it should.
#[derive(Debug)]
pub struct QueueError {
    /// What was called: `dequeue`, `heartbeat`, `markComplete`, …
    pub call: &'static str,
    /// Base URL of the instance, for the person who reads the message.
    pub url: String,
    /// What happened.
    pub kind: QueueErrorKind,
}

/// What happened to a call.
#[derive(Debug)]
pub enum QueueErrorKind {
    /// No answer: no connection, a broken one, or one that took too long.
    Unreachable(String),
    /// The executor token or the user's password is wrong.
    Unauthorized,
    /// The server refused with a status and a text.
    Refused {
        /// Status code of the answer.
        status: u16,
        /// Its text, shortened.
        text: String,
    },
    /// The job is not ours any more: given away, finished or deleted.
    NotOurs,
    /// The server has no calls for several queues.
    OneQueueOnly,
    /// The server answered something that does not belong to the protocol.
    Malformed(String),
}

impl QueueError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match &self.kind {
            QueueErrorKind::Unreachable(_)
            | QueueErrorKind::Unauthorized
            | QueueErrorKind::OneQueueOnly => true,
            QueueErrorKind::Refused { status, .. } => *status == 429 || *status >= 500,
            QueueErrorKind::NotOurs | QueueErrorKind::Malformed(_) => false,
        }
    }

    /// Whether the server says that the job belongs to someone else now.
    pub fn is_not_ours(&self) -> bool {
        matches!(self.kind, QueueErrorKind::NotOurs)
    }

    /// Whether the credentials were refused: this needs an administrator.
    pub fn is_unauthorized(&self) -> bool {
        matches!(self.kind, QueueErrorKind::Unauthorized)
    }
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (call, url) = (self.call, &self.url);
        match &self.kind {
            QueueErrorKind::Unreachable(cause) => {
                write!(f, "no answer from Sourcegraph at {url} ({call}): {cause}")
            }
            QueueErrorKind::Unauthorized => write!(
                f,
                "Sourcegraph at {url} does not accept the executor token ({call}): \
                 EXECUTOR_FRONTEND_PASSWORD must equal `executors.accessToken` in the site \
                 configuration"
            ),
            QueueErrorKind::Refused { status, text } if text.is_empty() => {
                write!(
                    f,
                    "Sourcegraph at {url} refused {call} with status {status}"
                )
            }
            QueueErrorKind::Refused { status, text } => {
                write!(
                    f,
                    "Sourcegraph at {url} refused {call} with status {status}: {text}"
                )
            }
            QueueErrorKind::NotOurs => {
                write!(
                    f,
                    "Sourcegraph at {url} says that the job is not ours any more ({call})"
                )
            }
            QueueErrorKind::OneQueueOnly => write!(
                f,
                "Sourcegraph at {url} has no {call} for several queues: set EXECUTOR_QUEUE_NAME \
                 instead of EXECUTOR_QUEUE_NAMES, or is a path missing in EXECUTOR_FRONTEND_URL?"
            ),
            QueueErrorKind::Malformed(problem) => write!(
                f,
                "Sourcegraph at {url} answered {call} in an unknown form: {problem}; is \
                 EXECUTOR_FRONTEND_URL right?"
            ),
        }
    }
}

impl std::error::Error for QueueError {}
