//! Everything that can keep a job from succeeding in the cluster: one closed
//! list of causes. Each has a sentence for a person, and is either permanent
//! or can pass; the cluster's own words go with it.

use std::fmt;

use crate::cluster::names::{SETUP_CONTAINER, WORKSPACE_VOLUME};

/// Advice where a pod asks for too much or too little.
const RESOURCES: &str = "; EXECUTOR_KUBERNETES_RESOURCE_* sets what pods ask for";

/// Why a job does not succeed, or does not go on now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it is.
    pub cause: Cause,
    /// What the cluster says itself; may be empty.
    pub message: String,
}

/// The causes, in the order in which a job can meet them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "each cause is explained by its sentence below, and only fields that are not plain by \
              words of their own"
)]
pub enum Cause {
    // A Job without a pod.
    NoPod,
    Suspended,
    Quota,
    QuotaTooSmall,
    LimitRange,
    PodSecurity,
    Admission,
    AdmissionDown,
    // A pod that does not start its first container.
    Gated,
    Unschedulable,
    NodeRefused,
    VolumePending,
    VolumeMissing,
    VolumeNotReady,
    Sandbox,
    NotStarted,
    // A container that does not start.
    InvalidImage {
        image: String,
    },
    ImageNotPresent {
        image: String,
    },
    ImageNotFound {
        image: String,
    },
    ImageDenied {
        image: String,
    },
    ImagePull {
        image: String,
    },
    Configuration {
        container: String,
    },
    NotCreatedYet {
        container: String,
    },
    CannotStart {
        container: String,
    },
    // A container that ended in another way than with exit code 0.
    ExitCode {
        container: String,
        code: i32,
    },
    OutOfMemory {
        container: String,
        /// A quantity, if the container has a limit.
        limit: Option<String>,
        code: i32,
    },
    // A pod that was ended before its time.
    Deadline,
    Evicted {
        /// What ran short, such as `memory` or `volume job-data`.
        resource: Option<String>,
    },
    Preempted,
    NodeLost,
    Deleted,
    JobDeleted,
    SuspendedRunning,
    // A pod that ended, and does not show how its containers did.
    PodFailed,
    NoProof,
}

/// What is waited for. Each kind of waiting has a limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// That a pull succeeds.
    ImagePull,
    /// That there is a place for the pod.
    Scheduling,
    /// That the cluster makes the pod and prepares it.
    PodStart,
}

impl Cause {
    /// This cause, in the cluster's own words.
    pub fn with(self, message: impl Into<String>) -> Failure {
        Failure {
            cause: self,
            message: message.into(),
        }
    }

    /// What waiting is for; `None` if the cause is permanent.
    pub fn grace(&self) -> Option<Grace> {
        match self {
            Cause::ImagePull { .. } => Some(Grace::ImagePull),
            Cause::Unschedulable | Cause::Gated | Cause::Suspended => Some(Grace::Scheduling),
            Cause::NoPod
            | Cause::Quota
            | Cause::AdmissionDown
            | Cause::VolumePending
            | Cause::VolumeNotReady
            | Cause::Sandbox
            | Cause::NotStarted
            | Cause::NotCreatedYet { .. } => Some(Grace::PodStart),
            _ => None,
        }
    }

    /// Whether the Job has no pod, and is not about to get one.
    pub fn is_without_pod(&self) -> bool {
        matches!(
            self,
            Cause::NoPod
                | Cause::Suspended
                | Cause::Quota
                | Cause::QuotaTooSmall
                | Cause::LimitRange
                | Cause::PodSecurity
                | Cause::Admission
                | Cause::AdmissionDown
        )
    }

    /// What to do about it, as the end of its sentence; may be empty.
    fn advice(&self, message: &str) -> &'static str {
        match self {
            Cause::QuotaTooSmall | Cause::LimitRange => RESOURCES,
            Cause::Admission if message.contains("failed quota") => RESOURCES,
            Cause::PodSecurity => "; EXECUTOR_POD_SECURITY sets the level that pods fulfil",
            Cause::VolumePending => "; check the storage class and the claim",
            Cause::ImageNotFound { .. } => "; check its name",
            Cause::ImageDenied { .. } | Cause::ImagePull { .. } => {
                "; check its name, and the credentials in KUBERNETES_IMAGE_PULL_SECRETS"
            }
            Cause::CannotStart { .. } if message.contains("/bin/sh") => {
                "; its image must have /bin/sh"
            }
            Cause::CannotStart { .. } if message.contains("mkdir ") => {
                "; the step's directory, or one above it, is not a directory"
            }
            Cause::OutOfMemory { .. } => {
                "; raise EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY or let the step use less"
            }
            Cause::Evicted { resource: Some(it) } if it.contains(WORKSPACE_VOLUME) => {
                "; KUBERNETES_JOB_VOLUME_SIZE sets its limit"
            }
            _ => "",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Cause::NoPod => "the Job has no pod",
            Cause::Suspended => "another controller keeps the Job suspended",
            Cause::Quota => "a quota leaves no room for the pod",
            Cause::QuotaTooSmall => "the pod is more than a quota allows at all",
            Cause::LimitRange => "a LimitRange refuses the pod",
            Cause::PodSecurity => "the namespace's Pod Security level refuses the pod",
            Cause::Admission => "the cluster's admission refuses the pod",
            Cause::AdmissionDown => "the cluster cannot create the pod now",
            Cause::Gated => "another controller holds the pod back",
            Cause::Unschedulable => "no node can take the pod",
            Cause::NodeRefused => "the node did not take the pod",
            Cause::VolumePending => "a volume of the pod is not there",
            Cause::VolumeMissing => "a volume of the pod names what does not exist",
            Cause::VolumeNotReady => "a volume of the pod cannot be mounted",
            Cause::Sandbox => "the node cannot set up the pod's sandbox",
            Cause::NotStarted => "the pod does not start its first container",
            Cause::InvalidImage { image } => {
                return write!(f, "{image:?} is not the name of an image");
            }
            Cause::ImageNotPresent { image } => {
                return write!(f, "image {image} is not on the node, and may not be pulled");
            }
            Cause::ImageNotFound { image } => {
                return write!(f, "image {image} does not exist in its registry");
            }
            Cause::ImageDenied { image } => {
                return write!(f, "the registry does not give out image {image}");
            }
            Cause::ImagePull { image } => return write!(f, "image {image} cannot be pulled"),
            Cause::Deadline => {
                "the pod ran longer than KUBERNETES_JOB_DEADLINE allows (DeadlineExceeded)"
            }
            Cause::Evicted { resource: None } => "the node evicted the pod",
            Cause::Evicted { resource: Some(it) } => {
                return write!(f, "the node evicted the pod for its use of {it}");
            }
            Cause::Preempted => "the pod had to make room for one of higher priority",
            Cause::NodeLost => "the pod's node went away",
            Cause::Deleted => "the pod was deleted by someone else before it ended",
            Cause::JobDeleted => "the Job was deleted by someone else before it ended",
            Cause::SuspendedRunning => "another controller suspended the Job while it ran",
            Cause::PodFailed => "the pod failed",
            Cause::NoProof => "Kubernetes did not show that every step ended with exit code 0",
            Cause::Configuration { container } => {
                return write!(f, "container {container} cannot be configured");
            }
            Cause::NotCreatedYet { container } => {
                return write!(f, "container {container} could not be created yet");
            }
            Cause::CannotStart { container } => {
                return write!(f, "container {container} cannot start");
            }
            Cause::ExitCode { container, code } => return fmt_exit_code(f, container, *code),
            Cause::OutOfMemory {
                container,
                limit,
                code,
            } => return fmt_out_of_memory(f, container, limit.as_deref(), *code),
        };
        f.write_str(text)
    }
}

fn fmt_exit_code(f: &mut fmt::Formatter<'_>, container: &str, code: i32) -> fmt::Result {
    if container == SETUP_CONTAINER {
        return write!(
            f,
            "the workspace could not be set up (exit code {code}); the log of setup.workspace \
             says why"
        );
    }
    write!(
        f,
        "the step in container {container} ended with exit code {code}"
    )
}

fn fmt_out_of_memory(
    f: &mut fmt::Formatter<'_>,
    container: &str,
    limit: Option<&str>,
    code: i32,
) -> fmt::Result {
    write!(f, "container {container} used more memory than ")?;
    match limit {
        Some(limit) => write!(f, "its limit of {limit}")?,
        None => write!(f, "there is")?,
    }
    write!(f, " (OOMKilled, exit code {code})")
}

impl Failure {
    /// Whether waiting cannot help.
    pub fn is_permanent(&self) -> bool {
        self.cause.grace().is_none()
    }

    /// The failure in a form that stays the same while only numbers and names
    /// of the moment change: what is in quotes, and words with digits.
    pub fn substance(&self) -> String {
        let text = self.to_string();
        let unquoted = text.split('"').step_by(2).collect::<Vec<_>>().join(" ");
        let words = unquoted.split_whitespace();
        let steady = words.filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
        steady.collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.message.trim();
        write!(f, "{}{}", self.cause, self.cause.advice(message))?;
        match message {
            "" => Ok(()),
            message => write!(f, ": {message}"),
        }
    }
}
