//! The cluster does not take the pod: quotas, limits, security, suspension.

use super::{assert_told, assert_told_at_once, fail_good_job, name_of, start, wait_for_log};
use crate::support::cluster::kubectl;
use crate::support::stage::{Stage, TINY_IMAGE, tiny};
use crate::support::{MINUTES, SOON, eventually};

#[test]
fn a_quota_that_is_too_small_is_told_at_once() {
    let stage = Stage::new();
    let small = ["create", "quota", "small", "--hard=limits.memory=64Mi"];
    stage.namespace.kubectl(&small);
    let view = fail_good_job(&stage, &[]);
    let words = "the pod is more than a quota allows at all";
    assert_told_at_once(&view, &[words, "exceeded quota: small, requested: limits"]);
}

/// A quota of nothing is how people pause a namespace.
#[test]
fn a_quota_of_nothing_is_waited_for() {
    let stage = Stage::new();
    let none = ["create", "quota", "none", "--hard=pods=0"];
    stage.namespace.kubectl(&none);
    let view = fail_good_job(&stage, &[("EXECUTOR_POD_START_GRACE", "8s")]);
    let words = "a quota leaves no room for the pod: pods";
    assert_told(&view, &[words, "exceeded quota: none, requested: pods=1"]);
    let line = format!("Waiting, for 8s at most: {words}");
    assert!(view.log_text().contains(&line), "{}", view.log_text());
}

#[test]
fn a_limit_range_that_refuses_is_told_at_once() {
    let stage = Stage::new();
    let range = r#"{"apiVersion":"v1","kind":"LimitRange","metadata":{"name":"small"},
        "spec":{"limits":[{"type":"Container","max":{"memory":"8Mi"}}]}}"#;
    let apply = ["-n", &stage.namespace.name, "apply", "-f", "-"];
    kubectl(&apply, Some(range));
    let view = fail_good_job(&stage, &[]);
    let words = "a LimitRange refuses the pod; EXECUTOR_KUBERNETES_RESOURCE_* sets";
    assert_told_at_once(&view, &[words, "maximum memory usage per Container is 8Mi"]);
}

#[test]
fn a_security_level_that_refuses_is_told_at_once() {
    let stage = Stage::new();
    let level = "pod-security.kubernetes.io/enforce=restricted";
    let label = ["label", "namespace", &stage.namespace.name, level];
    stage.namespace.kubectl(&label);
    let view = fail_good_job(&stage, &[("EXECUTOR_POD_SECURITY", "baseline")]);
    let words = "the namespace's Pod Security level refuses the pod; EXECUTOR_POD_SECURITY sets";
    assert_told_at_once(
        &view,
        &[words, "violates PodSecurity \"restricted:latest\""],
    );
}

/// The number of Jobs can have a quota of its own.
#[test]
fn a_job_that_is_one_too_many_is_waited_for() {
    let stage = Stage::new();
    let namespace = &stage.namespace;
    namespace.kubectl(&["create", "quota", "one", "--hard=count/jobs.batch=1"]);
    let image = format!("--image={TINY_IMAGE}");
    namespace.kubectl(&["create", "job", "other", &image, "--", "sleep", "600"]);
    // The quota counts what is there a moment later.
    let used = ["get", "quota", "one", "-o", "jsonpath={.status.used}"];
    eventually(
        "the quota is full",
        SOON,
        || namespace.kubectl(&used).contains("\"1\"").then_some(()),
        || namespace.story(),
    );
    let executor = start(&stage, &[]);
    let job = stage
        .frontend
        .enqueue(stage.job().step(tiny("s", "echo ran")));
    wait_for_log(&stage, job, "Waiting, for 10m0s at most: cannot create Job");
    namespace.kubectl(&["delete", "job", "other"]);
    let view = stage.frontend.wait_finished(job, MINUTES);
    assert_eq!(view.state.name(), "completed", "{}", view.log_text());
    let entry = &view.log("setup.workspace").unwrap().out;
    assert!(entry.contains("exceeded quota: one"), "{entry}");
    executor.stop();
    stage.assert_clean();
}

/// A full quota, then another controller that suspends the Job: both are told,
/// and when both have passed the job runs as if nothing had been.
#[test]
fn a_full_quota_and_a_suspension_can_pass() {
    let stage = Stage::new();
    let namespace = &stage.namespace;
    namespace.kubectl(&["create", "quota", "one", "--hard=pods=1"]);
    let sleep = ["--restart=Never", "--command", "--", "sleep", "600"];
    let image = format!("--image={TINY_IMAGE}");
    namespace.kubectl(&[&["run", "blocker", &*image], &sleep[..]].concat());
    let executor = start(&stage, &[]);
    let job = stage
        .frontend
        .enqueue(stage.job().step(tiny("s", "echo ran")));
    let quota = "Waiting, for 5m0s at most: a quota leaves no room for the pod: pods";
    wait_for_log(&stage, job, quota);
    let name = name_of(&stage, "jobs");
    let suspend = |is_suspended: bool| {
        let patch = format!(r#"{{"spec":{{"suspend":{is_suspended}}}}}"#);
        namespace.kubectl(&["patch", "job", &name, "-p", &patch])
    };
    suspend(true);
    let suspended = "Waiting, for 15m0s at most: another controller keeps the Job suspended";
    wait_for_log(&stage, job, suspended);
    namespace.kubectl(&["delete", "pod", "blocker", "--grace-period=0", "--force"]);
    suspend(false);
    let view = stage.frontend.wait_finished(job, MINUTES);
    assert_eq!(view.state.name(), "completed", "{}", view.log_text());
    let entry = &view.log("setup.workspace").unwrap().out;
    assert!(entry.contains("It goes on after "), "{entry}");
    executor.stop();
    stage.assert_clean();
}
