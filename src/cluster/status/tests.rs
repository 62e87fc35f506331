//! What pods mean for their jobs, as clusters show them.

use super::*;

fn container(name: &str, state: ContainerState) -> ContainerView {
    ContainerView {
        name: name.to_string(),
        image: "image:1".to_string(),
        state,
    }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    ContainerState::Waiting {
        reason: reason.to_string(),
        message: message.to_string(),
    }
}

fn ended(exit_code: i32, reason: &str, message: &str) -> ContainerState {
    ContainerState::Ended {
        exit_code,
        reason: reason.to_string(),
        message: message.to_string(),
        started: None,
        finished: None,
    }
}

/// The verdict on a pod whose set-up ended well and whose only step is so.
fn verdict(phase: Phase, reason: &str, step: ContainerState) -> Verdict {
    let view = PodView {
        name: "pod".to_string(),
        uid: "1".to_string(),
        phase,
        reason: reason.to_string(),
        message: "in the words of the kubelet".to_string(),
        terminating: false,
        gone: false,
        unschedulable: None,
        containers: vec![
            container("setup-workspace", ended(0, "Completed", "")),
            container("step", step),
        ],
    };
    view.verdict(&["setup-workspace".to_string(), "step".to_string()])
}

#[test]
fn only_exit_codes_prove_success() {
    let well = || ended(0, "Completed", "");
    assert_eq!(verdict(Phase::Succeeded, "", well()), Verdict::Succeeded);
    // The kubelet reports the containers before it reports the phase.
    assert_eq!(verdict(Phase::Open, "", well()), Verdict::Succeeded);
    assert_eq!(
        verdict(Phase::Succeeded, "", waiting("", "")),
        Verdict::Failed(Failure::NoProof)
    );
}

#[test]
fn ends_are_told_apart() {
    for (step, told) in [
        (ended(42, "Error", ""), "ended with exit code 42"),
        (ended(137, "OOMKilled", ""), "more memory than its limit"),
        (
            ended(137, "ContainerStatusUnknown", "could not be located"),
            "the pod failed: ContainerStatusUnknown could not be located",
        ),
        (
            ended(128, "StartError", "exec: \"/bin/sh\": no such file"),
            "its image must have /bin/sh: exec",
        ),
        (
            ended(128, "StartError", "mkdir /job/f: not a directory"),
            "the step's directory, or one above it, is not a directory: mkdir",
        ),
        (
            ended(128, "StartError", "the runtime is unwell"),
            "container step cannot start: the runtime is unwell",
        ),
    ] {
        let Verdict::Failed(failure) = verdict(Phase::Failed, "", step) else {
            panic!("not failed, but it should be: {told}");
        };
        assert!(failure.to_string().contains(told), "{failure}, not: {told}");
    }
}

#[test]
fn the_pods_own_reason_comes_first() {
    let killed = || ended(137, "Error", "");
    let Verdict::Failed(failure) = verdict(Phase::Failed, "Evicted", killed()) else {
        panic!("an evicted pod has failed");
    };
    let told = "the node evicted the pod: in the words of the kubelet";
    assert_eq!(failure.to_string(), told);
    assert_eq!(
        verdict(Phase::Failed, "DeadlineExceeded", killed()),
        Verdict::Failed(Failure::DeadlineExceeded)
    );
}

#[test]
fn what_may_pass_is_waited_for() {
    for (reason, message) in [
        ("ImagePullBackOff", "Back-off pulling image"),
        ("CreateContainerError", "context deadline exceeded"),
        ("CreateContainerConfigError", "failed to sync secret cache"),
    ] {
        let verdict = verdict(Phase::Open, "", waiting(reason, message));
        assert!(
            matches!(verdict, Verdict::Stuck(_)),
            "{reason}: {verdict:?}"
        );
    }
    let going_on = verdict(Phase::Open, "", waiting("PodInitializing", ""));
    assert_eq!(going_on, Verdict::Running);
}

#[test]
fn what_cannot_pass_fails_at_once() {
    for (reason, message) in [
        ("InvalidImageName", "couldn't parse image name"),
        ("ErrImageNeverPull", ""),
        (
            "CreateContainerConfigError",
            "container has runAsNonRoot and image will run as root",
        ),
    ] {
        let verdict = verdict(Phase::Open, "", waiting(reason, message));
        assert!(
            matches!(verdict, Verdict::Failed(_)),
            "{reason}: {verdict:?}"
        );
    }
}
