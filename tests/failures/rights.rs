//! An executor with the released permissions alone: it may read neither Events
//! nor Jobs, and goes on with what pods tell.

use super::{assert_told, assert_told_at_once, name_of, start, stubborn, wait_for_log};
use crate::support::MINUTES;
use crate::support::stage::{Stage, tiny};

/// Nothing hangs beyond its time, whatever may not be known of it, and what is
/// missing is said once.
#[test]
fn nothing_hangs_without_optional_permissions() {
    let stage = Stage::new();
    stage.namespace.drop_optional_rules();
    let environment = [
        ("EXECUTOR_POD_START_GRACE", "8s"),
        (
            "KUBERNETES_ADDITIONAL_JOB_VOLUMES",
            r#"[{"name":"v","configMap":{"name":"nope"}}]"#,
        ),
        (
            "KUBERNETES_ADDITIONAL_JOB_VOLUME_MOUNTS",
            r#"[{"name":"v","mountPath":"/v"}]"#,
        ),
    ];
    let executor = start(&stage, &environment);
    let job = || stage.frontend.enqueue(stage.job().step(tiny("s", "true")));
    let view = stage.frontend.wait_finished(job(), MINUTES);
    let advice = format!(
        "see kubectl --namespace {} get events --field-selector involvedObject.name=",
        stage.namespace.name
    );
    let started = "the pod does not start its first container";
    assert_told(&view, &[started, &advice]);
    let line = format!("Waiting, for 8s at most: {started}");
    assert!(view.log_text().contains(&line), "{}", view.log_text());

    let quota = ["create", "quota", "none", "--hard=pods=0"];
    stage.namespace.kubectl(&quota);
    for job in [job(), job()] {
        let view = stage.frontend.wait_finished(job, MINUTES);
        assert_told(&view, &["the Job has no pod", &advice]);
    }
    for missing in ["permission to list events", "permission to read Jobs"] {
        let log = executor.log();
        assert_eq!(log.matches(missing).count(), 1, "{missing}:\n{log}");
    }
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_deleted_pod_needs_no_optional_permission() {
    let stage = Stage::new();
    stage.namespace.drop_optional_rules();
    let executor = start(&stage, &[]);
    let job = stubborn(&stage);
    wait_for_log(&stage, job, "stdout: begun");
    let name = name_of(&stage, "jobs");
    stage.namespace.kubectl(&["delete", "job", &name]);
    let view = stage.frontend.wait_finished(job, MINUTES);
    assert_eq!(view.state.name(), "errored", "{}", view.log_text());
    assert_told_at_once(
        &view,
        &["the pod was deleted by someone else before it ended"],
    );
    executor.stop();
    stage.assert_clean();
}
