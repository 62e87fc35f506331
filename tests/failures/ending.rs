//! Pods that were ended before their time. The steps are of a kind that says
//! that all is well when it is told to stop, which must not be believed.

use serde_json::json;

use super::{assert_told, assert_told_at_once, fail, name_of, start, stubborn, wait_for_log};
use crate::frontend::record::JobView;
use crate::support::MINUTES;
use crate::support::stage::{Stage, tiny};

const SMALL_MEMORY: (&str, &str) = ("EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY", "48Mi");

/// The shell holds the whole text in memory.
const HUNGRY: &str = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}";

#[test]
fn a_step_out_of_memory_is_named_with_its_limit() {
    let stage = Stage::new();
    let view = fail(
        &stage,
        &[SMALL_MEMORY],
        stage.job().step(tiny("hungry", HUNGRY)),
    );
    let words = "container step-kubernetes-hungry used more memory than its limit of 48Mi \
                 (OOMKilled, exit code 137)";
    assert_told_at_once(&view, &[words]);
}

/// The node kills a process of the first step, which goes on and ends with 0
/// (or, with control groups of version 2, the whole step). The kubelet starts
/// nothing after it, and its pod would stay as it is until its deadline.
#[test]
fn a_lost_process_of_an_earlier_step_ends_the_job() {
    let stage = Stage::new();
    let first = tiny("first", &format!("({HUNGRY}); echo survived; exit 0"));
    let job = stage.job().step(first).step(tiny("second", "echo never"));
    let view = fail(&stage, &[SMALL_MEMORY], job);
    let words = "container step-kubernetes-first used more memory than its limit of 48Mi";
    assert_told_at_once(&view, &[words]);
    assert!(
        view.log("step.kubernetes.second").is_none(),
        "{}",
        view.log_text()
    );
}

/// The node measures volumes every one or two minutes.
#[test]
fn a_workspace_that_grows_too_large_is_evicted() {
    let stage = Stage::new();
    let executor = start(&stage, &[("KUBERNETES_JOB_VOLUME_SIZE", "20Mi")]);
    let grow = "head -c 50000000 /dev/zero > /job/large; echo grown; sleep 600";
    let job = stage.frontend.enqueue(stage.job().step(tiny("grow", grow)));
    let view = stage.frontend.wait_finished(job, 3 * MINUTES);
    assert_eq!(view.state.name(), "errored", "{}", view.log_text());
    let words = "the node evicted the pod for its use of volume job-data; \
                 KUBERNETES_JOB_VOLUME_SIZE sets its limit";
    assert_told_at_once(&view, &[words, "exceeds the limit \"20Mi\""]);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_deadline_is_no_success() {
    let stage = Stage::new();
    let executor = start(&stage, &[("KUBERNETES_JOB_DEADLINE", "12")]);
    let job = stubborn(&stage);
    let view = stage.frontend.wait_finished(job, MINUTES);
    assert_eq!(view.state.name(), "errored", "{}", view.log_text());
    let words = "the pod ran longer than KUBERNETES_JOB_DEADLINE allows (DeadlineExceeded)";
    assert_told_at_once(&view, &[words]);
    executor.stop();
    stage.assert_clean();
}

/// Starts a job, lets it be disturbed while its step runs, and gives its end.
fn disturb(stage: &Stage, disturbance: impl Fn()) -> JobView {
    let executor = start(stage, &[]);
    let job = stubborn(stage);
    wait_for_log(stage, job, "stdout: begun");
    disturbance();
    let view = stage.frontend.wait_finished(job, MINUTES);
    assert_eq!(view.state.name(), "errored", "{}", view.log_text());
    executor.stop();
    stage.assert_clean();
    view
}

#[test]
fn a_deleted_pod_is_no_success() {
    let stage = Stage::new();
    let view = disturb(&stage, || {
        let pod = name_of(&stage, "pods");
        stage.namespace.kubectl(&["delete", "pod", &pod]);
    });
    assert_told_at_once(
        &view,
        &["the pod was deleted by someone else before it ended"],
    );
}

#[test]
fn a_deleted_job_is_no_success() {
    let stage = Stage::new();
    let view = disturb(&stage, || {
        let job = name_of(&stage, "jobs");
        stage.namespace.kubectl(&["delete", "job", &job]);
    });
    assert_told_at_once(
        &view,
        &["the Job was deleted by someone else before it ended"],
    );
}

#[test]
fn a_job_suspended_while_it_runs_has_ended() {
    let stage = Stage::new();
    let view = disturb(&stage, || {
        let job = name_of(&stage, "jobs");
        let patch = r#"{"spec":{"suspend":true}}"#;
        stage
            .namespace
            .kubectl(&["patch", "job", &job, "-p", patch]);
    });
    assert_told_at_once(
        &view,
        &["another controller suspended the Job while it ran"],
    );
}

/// The cluster itself takes away pods on nodes that do not exist.
#[test]
fn a_node_that_is_gone_is_named() {
    let stage = Stage::new();
    let job = stage.job().step(tiny("s", "true"));
    let view = fail(
        &stage,
        &[("EXECUTOR_KUBERNETES_NODE_NAME", "no-such-node")],
        job,
    );
    assert_told(
        &view,
        &["the pod's node went away: PodGC: node no longer exists"],
    );
}

/// What only a larger cluster gives is written into the status of a pod that
/// waits for a node.
#[test]
fn a_lost_node_and_a_preemption_are_named() {
    let stage = Stage::new();
    let executor = start(
        &stage,
        &[("EXECUTOR_KUBERNETES_NODE_SELECTOR", "example.org/no=where")],
    );
    let failed = |reason: &str| {
        json!({"status": {"phase": "Failed", "reason": reason,
        "message": "as the test says"}})
    };
    let disrupted = |reason: &str| {
        json!({"status": {"phase": "Failed", "conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": reason,
        "message": "as the test says"}]}})
    };
    for (patch, words) in [
        (failed("NodeLost"), "the pod's node went away"),
        (failed("Preempting"), "make room for one of higher priority"),
        (
            failed("OutOfcpu"),
            "the node did not take the pod: OutOfcpu",
        ),
        (
            disrupted("DeletionByTaintManager"),
            "the pod's node went away",
        ),
        (
            disrupted("PreemptionByScheduler"),
            "make room for one of higher priority",
        ),
        (
            disrupted("EvictionByEvictionAPI"),
            "the node evicted the pod",
        ),
    ] {
        let job = stage.frontend.enqueue(stage.job().step(tiny("s", "true")));
        wait_for_log(&stage, job, "no node can take the pod");
        let pod = name_of(&stage, "pods");
        let patch = patch.to_string();
        let change = ["patch", "pod", &pod, "--subresource=status", "-p", &patch];
        stage.namespace.kubectl(&change);
        let view = stage.frontend.wait_finished(job, MINUTES);
        assert_eq!(view.state.name(), "errored", "{}", view.log_text());
        assert_told(&view, &[words, "as the test says"]);
        stage.namespace.wait_until_empty();
    }
    executor.stop();
    stage.assert_clean();
}
