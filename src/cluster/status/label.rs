//! One short word for each cause of a failure, by which metrics count. Words
//! stay when sentences change, since people's alerts name them.

use crate::cluster::names::SETUP_CONTAINER;
use crate::cluster::status::Cause;

/// All words, in the order of the causes. The workspace and the steps end with
/// an exit code alike; whoever reads the numbers wants to know which it was.
pub const LABELS: [&str; 36] = [
    "no_pod",
    "suspended",
    "quota",
    "quota_too_small",
    "limit_range",
    "pod_security",
    "admission",
    "admission_down",
    "gated",
    "unschedulable",
    "node_refused",
    "volume_pending",
    "volume_missing",
    "volume_not_ready",
    "sandbox",
    "not_started",
    "invalid_image",
    "image_not_present",
    "image_not_found",
    "image_denied",
    "image_pull",
    "configuration",
    "not_created_yet",
    "cannot_start",
    "workspace",
    "step",
    "out_of_memory",
    "deadline",
    "evicted",
    "preempted",
    "node_lost",
    "deleted",
    "job_deleted",
    "suspended_running",
    "pod_failed",
    "no_proof",
];

impl Cause {
    /// The word for this cause, one of [`LABELS`].
    pub fn label(&self) -> &'static str {
        match self {
            Cause::NoPod => "no_pod",
            Cause::Suspended => "suspended",
            Cause::Quota => "quota",
            Cause::QuotaTooSmall => "quota_too_small",
            Cause::LimitRange => "limit_range",
            Cause::PodSecurity => "pod_security",
            Cause::Admission => "admission",
            Cause::AdmissionDown => "admission_down",
            Cause::Gated => "gated",
            Cause::Unschedulable => "unschedulable",
            Cause::NodeRefused => "node_refused",
            Cause::VolumePending => "volume_pending",
            Cause::VolumeMissing => "volume_missing",
            Cause::VolumeNotReady => "volume_not_ready",
            Cause::Sandbox => "sandbox",
            Cause::NotStarted => "not_started",
            Cause::InvalidImage { .. } => "invalid_image",
            Cause::ImageNotPresent { .. } => "image_not_present",
            Cause::ImageNotFound { .. } => "image_not_found",
            Cause::ImageDenied { .. } => "image_denied",
            Cause::ImagePull { .. } => "image_pull",
            Cause::Configuration { .. } => "configuration",
            Cause::NotCreatedYet { .. } => "not_created_yet",
            Cause::CannotStart { .. } => "cannot_start",
            Cause::ExitCode { container, .. } if container == SETUP_CONTAINER => "workspace",
            Cause::ExitCode { .. } => "step",
            Cause::OutOfMemory { .. } => "out_of_memory",
            Cause::Deadline => "deadline",
            Cause::Evicted { .. } => "evicted",
            Cause::Preempted => "preempted",
            Cause::NodeLost => "node_lost",
            Cause::Deleted => "deleted",
            Cause::JobDeleted => "job_deleted",
            Cause::SuspendedRunning => "suspended_running",
            Cause::PodFailed => "pod_failed",
            Cause::NoProof => "no_proof",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The match above must be complete, the list above it need not be.
    #[test]
    fn every_cause_has_its_word_in_the_list() {
        let text = include_str!("label.rs");
        let (_, rest) = text.split_once("match self {").unwrap();
        let (arms, _) = rest.split_once("#[cfg(test)]").unwrap();
        let words: Vec<&str> = arms
            .lines()
            .filter_map(|line| line.split_once("=> \"")?.1.strip_suffix("\","))
            .collect();
        assert_eq!(words, LABELS);
    }
}
