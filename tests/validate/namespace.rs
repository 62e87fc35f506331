//! Faults of the namespace: permissions, Pod Security, room, pull secrets.

use serde_json::{Value, json};

use super::{
    JOBS, LIMITS, LOGS, NAMESPACE, PODS, QUOTAS, RELEASED, SECRETS, SEE_SECRETS, Verdict,
    has_pod_security, stage, validate,
};
use crate::support::cluster::{Rule, kubeconfig, try_kubectl};
use crate::support::stage::Stage;
use crate::support::{SOON, eventually};

#[test]
fn every_missing_rule_is_named() {
    let stage = Stage::new();
    for (rules, missing, parts) in [
        (
            &[PODS, LOGS, SECRETS][..],
            "jobs: create, delete not allowed",
            ["apiGroups: [\"batch\"]", "resources: [jobs]"],
        ),
        (
            &[("batch", "jobs", &["create"]), PODS, LOGS, SECRETS],
            "jobs: delete not allowed",
            ["resources: [jobs]", "verbs: [create, delete]"],
        ),
        (
            &[JOBS, ("", "pods", &["get", "list"]), LOGS, SECRETS],
            "pods: watch not allowed",
            ["resources: [pods]", "verbs: [get, list, watch]"],
        ),
        (
            &[JOBS, PODS, SECRETS],
            "pods/log: get, list, watch not allowed",
            ["resources: [pods/log]", "verbs: [get, list, watch]"],
        ),
        (
            &[JOBS, PODS, LOGS],
            "secrets: create, delete not allowed",
            ["apiGroups: [\"\"]", "resources: [secrets]"],
        ),
    ] {
        stage.namespace.set_rules(rules);
        let verdict = validate(stage.executor());
        verdict.assert_failed("permissions", &[missing, parts[0], parts[1]]);
    }
}

#[test]
fn rules_that_nothing_needs_are_not_fatal() {
    let stage = Stage::new();
    let fewer: Rule<'_> = ("", "pods/log", &["get"]);
    stage.namespace.set_rules(&[JOBS, PODS, fewer, SECRETS]);
    let verdict = validate(stage.executor());
    verdict.assert_warned("permissions", &["pods/log: list, watch not allowed"]);
}

#[test]
fn a_namespace_that_does_not_exist_is_told_of() {
    let stage = stage(&[]);
    let elsewhere = || {
        stage
            .executor()
            .env("EXECUTOR_KUBERNETES_NAMESPACE", "not-there")
    };
    // Who may not look is told what to look for.
    let parts = [
        "may do nothing in namespace not-there",
        "may not even exist",
    ];
    let verdict = validate(elsewhere());
    verdict.assert_failed("permissions", &parts);
    verdict.assert(1, "unknown  dry run: not checked", &[]);
    let admin = kubeconfig().to_str().unwrap();
    let verdict = validate(elsewhere().env("EXECUTOR_KUBERNETES_CONFIG_PATH", admin));
    let parts = ["no namespace not-there", "kubectl create namespace"];
    verdict.assert_failed("namespace", &parts);
}

fn label(stage: &Stage, labels: &[&str]) {
    let name = &stage.namespace.name;
    let labels: Vec<String> = labels
        .iter()
        .map(|label| format!("pod-security.kubernetes.io/{label}"))
        .collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let arguments = [&["label", "--overwrite", "namespace", name], &labels[..]].concat();
    stage.namespace.kubectl(&arguments);
}

#[test]
fn a_namespace_that_enforces_restricted_is_told_of() {
    if !has_pod_security() {
        return;
    }
    let stage = stage(&[NAMESPACE]);
    label(&stage, &["enforce=restricted"]);
    let parts = ["enforce=restricted", "EXECUTOR_POD_SECURITY=restricted"];
    validate(stage.executor()).assert_failed("pod security", &parts);
    // This silences the server's warning, and pods are refused all the same.
    label(&stage, &["warn=privileged"]);
    validate(stage.executor()).assert_failed("pod security", &parts);
    let restricted = stage.executor().env("EXECUTOR_POD_SECURITY", "restricted");
    let verdict = validate(restricted);
    verdict.assert(0, "ok       pod security: ", &["enforces restricted"]);
    label(&stage, &["enforce=baseline", "warn=restricted"]);
    let verdict = validate(stage.executor());
    verdict.assert(0, "ok       pod security: ", &["enforces baseline"]);
    let host = stage.executor().env("KUBERNETES_JOB_HOST_NETWORK", "true");
    let parts = ["enforces baseline and will refuse", "Remove host networks"];
    validate(host).assert_failed("pod security", &parts);
}

#[test]
fn a_warning_without_labels_is_a_question() {
    if !has_pod_security() {
        return;
    }
    let stage = stage(&[]);
    label(&stage, &["enforce=restricted"]);
    let parts = [
        "would violate PodSecurity",
        "kubectl get namespace",
        "EXECUTOR_POD_SECURITY=restricted",
    ];
    validate(stage.executor()).assert_unknown("pod security", &parts);
    let restricted = stage.executor().env("EXECUTOR_POD_SECURITY", "restricted");
    validate(restricted).assert(0, "ok       pod security: ", &["warns of nothing"]);
}

fn quota(hard: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team"},
        "spec": {"hard": hard},
    })
}

#[test]
fn a_quota_too_small_for_any_job_is_told_of() {
    let stage = stage(&[QUOTAS, LIMITS]);
    stage
        .namespace
        .create(&quota(json!({"limits.memory": "256Mi"})));
    let parts = [
        "team has no room for a job, even when empty",
        "limits.memory is 256Mi, a job takes 512Mi",
        "EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY",
    ];
    validate(stage.executor()).assert_failed("quota", &parts);
}

#[test]
fn a_quota_that_refuses_objects_is_met_unseen() {
    let stage = stage(&[]);
    stage
        .namespace
        .create(&quota(json!({"count/jobs.batch": "0"})));
    let parts = ["create a Job as a dry run", "exceeded quota: team"];
    let verdict = eventually_refused(&stage);
    verdict.assert_failed("dry run", &parts);
    verdict.assert(1, "unknown  quota: ", &["list resourcequotas"]);
}

/// The API server takes a moment to learn of a new quota.
fn eventually_refused(stage: &Stage) -> Verdict {
    let dry = ["create", "job", "probe", "--image=any", "--dry-run=server"];
    eventually(
        "the quota counts",
        SOON,
        || {
            let arguments = [&["-n", stage.namespace.name.as_str()], &dry[..]].concat();
            try_kubectl(&arguments, None).err()
        },
        || stage.namespace.story(),
    );
    validate(stage.executor())
}

#[test]
fn a_quota_that_is_full_now_is_a_warning() {
    let stage = stage(&[QUOTAS, LIMITS]);
    stage
        .namespace
        .create(&quota(json!({"count/jobs.batch": "1"})));
    // One that takes its place and makes no pod.
    stage.namespace.create(&json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "other"},
        "spec": {"suspend": true, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "a", "image": "any"}],
        }}},
    }));
    let verdict = eventually_refused(&stage);
    verdict.assert_warned("quota", &["no room for a job now: count/jobs.batch is 1"]);
    verdict.assert_warned("dry run", &["exceeded quota: team", "full now"]);
    stage.namespace.kubectl(&["delete", "job", "other"]);
    stage.assert_clean();
}

#[test]
fn a_quota_for_fewer_jobs_says_how_many() {
    let stage = stage(&[QUOTAS, LIMITS]);
    stage
        .namespace
        .create(&quota(json!({"pods": "3", "requests.memory": "1Gi"})));
    let parts = [
        "team has room for 3 of 4 jobs at once: pods is 3",
        "EXECUTOR_MAX_NUM_JOBS",
    ];
    validate(stage.executor()).assert_warned("quota", &parts);
}

#[test]
fn a_quota_that_asks_for_limits_is_told_of() {
    let stage = stage(&[QUOTAS, LIMITS]);
    stage.namespace.create(&quota(json!({"limits.cpu": "8"})));
    let parts = [
        "do not set limits.cpu",
        "EXECUTOR_KUBERNETES_RESOURCE_LIMIT_CPU",
    ];
    validate(stage.executor()).assert_failed("quota", &parts);
}

#[test]
fn a_limit_range_below_the_settings_is_told_of() {
    let stage = stage(&[LIMITS]);
    stage.namespace.create(&json!({
        "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"},
        "spec": {"limits": [{"type": "Container", "max": {"memory": "256Mi"}}]},
    }));
    let parts = [
        "small refuses jobs: container setup-workspace has a memory limit of 512Mi",
        "above the maximum of 256Mi",
        "Lower EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY",
    ];
    validate(stage.executor()).assert_failed("limit range", &parts);
}

#[test]
fn nodes_too_small_for_a_job_are_warned_of() {
    let stage = Stage::new();
    let executor = stage
        .executor()
        .env(
            "EXECUTOR_KUBERNETES_CONFIG_PATH",
            kubeconfig().to_str().unwrap(),
        )
        .env("EXECUTOR_KUBERNETES_RESOURCE_REQUEST_MEMORY", "900Ti")
        .env("EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY", "900Ti");
    let parts = ["is large enough", "a job requests 900Ti memory"];
    validate(executor).assert_warned("nodes", &parts);
}

#[test]
fn claims_are_asked_for_their_storage_class() {
    let stage = stage(&[]);
    let executor = || stage.executor().env("KUBERNETES_JOB_VOLUME_TYPE", "pvc");
    let look = ["may not list storageclasses", "kubectl get storageclasses"];
    validate(executor()).assert_unknown("storage class", &look);
    let admin = kubeconfig().to_str().unwrap();
    let admin = executor().env("EXECUTOR_KUBERNETES_CONFIG_PATH", admin);
    validate(admin).assert(0, "ok       storage class: ", &["is the default"]);
}

#[test]
fn pull_secrets_are_looked_at_where_we_may() {
    let stage = stage(&[]);
    let executor = || {
        stage
            .executor()
            .env("KUBERNETES_IMAGE_PULL_SECRETS", "registry")
    };
    let look = ["kubectl --namespace", "get secret registry"];
    validate(executor()).assert_unknown("pull secret", &look);
    let rules = [&RELEASED[..], &[SEE_SECRETS]].concat();
    stage.namespace.set_rules(&rules);
    let missing = [
        "no Secret registry",
        "create secret docker-registry registry",
    ];
    validate(executor()).assert_failed("pull secret", &missing);
    let secret = |kind: &str, key: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "registry"},
            "type": kind, "stringData": {key: "{\"auths\":{}}"},
        })
    };
    stage.namespace.create(&secret("Opaque", "other"));
    let parts = ["of type Opaque", "kubernetes.io/dockerconfigjson"];
    validate(executor()).assert_failed("pull secret", &parts);
    stage.namespace.kubectl(&["delete", "secret", "registry"]);
    let kind = "kubernetes.io/dockerconfigjson";
    stage.namespace.create(&secret(kind, ".dockerconfigjson"));
    validate(executor()).assert(0, "ok       pull secret: registry", &[kind]);
}
