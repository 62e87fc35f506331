//! How log entries and marks are taken.

use serde_json::json;

use super::super::Frontend;
use super::super::record::MarkKind;
use super::super::spec::{JobSpec, StepSpec};
use super::client::{Executor, Held, entry};

fn taken(frontend: &Frontend) -> (Executor<'_>, Held) {
    let executor = Executor::new(frontend, "one");
    let held = executor.take(frontend.enqueue(JobSpec::new("batches")));
    (executor, held)
}

#[test]
fn log_entries_are_numbered_and_replaced() {
    let frontend = Frontend::start();
    let (executor, held) = taken(&frontend);
    assert_eq!(executor.add(&held, "setup.workspace", "").text(), "1");
    assert_eq!(
        executor
            .add(&held, "step.kubernetes.0", "stdout: a\n")
            .text(),
        "2"
    );
    let mut update = entry("step.kubernetes.0", "stdout: a\nstdout: b\n");
    update["entryId"] = json!(2);
    update["exitCode"] = json!(3);
    let answer = executor.report(&held, "updateExecutionLogEntry", update);
    assert_eq!(answer.expect("an answer comes").status, 204);
    let view = frontend.job(held.job);
    let log = view.log("step.kubernetes.0").expect("the entry is there");
    assert_eq!(
        (log.out.as_str(), log.exit_code, log.updates),
        ("stdout: a\nstdout: b\n", Some(3), 1)
    );
    assert!(view.log_text().contains("[step.kubernetes.0]\nstdout: a\n"));
    assert_eq!(frontend.violations(), [""; 0]);
}

#[test]
fn an_update_of_no_entry_is_refused() {
    let frontend = Frontend::start();
    let (executor, held) = taken(&frontend);
    for id in [-1, 0, 1] {
        let mut update = entry("a", "");
        update["entryId"] = json!(id);
        let answer = executor.report(&held, "updateExecutionLogEntry", update);
        let answer = answer.expect("an answer comes");
        assert_eq!(
            (answer.status, answer.text()),
            (500, "{\"error\":\"unknown job\"}")
        );
    }
}

#[test]
fn types_are_checked_strictly() {
    let frontend = Frontend::start();
    let (executor, held) = taken(&frontend);
    let cases = [
        ("jobId", json!("1")),
        ("executorName", json!("")),
        ("startTime", json!("yesterday")),
        ("startTime", json!("2024-05-02 09:14:07Z")),
        ("startTime", json!("2024-05-02T09:14:07")),
        ("durationMs", json!(1.5)),
        ("exitCode", json!("0")),
        ("command", json!("ls")),
        ("command", json!([1])),
        ("out", json!(["a"])),
        ("key", json!(null)),
    ];
    for (field, value) in cases {
        let mut body = entry("a", "");
        body[field] = value.clone();
        let answer = executor
            .report(&held, "addExecutionLogEntry", body)
            .expect("an answer comes");
        assert_eq!(answer.status, 400, "{field}: {value}");
        assert!(answer.text().starts_with("Failed to unmarshal payload: "));
    }
    let mut body = entry("a", "");
    body["unheardOf"] = json!({});
    body["startTime"] = json!("2024-05-02T09:14:07+02:00");
    let answer = executor
        .report(&held, "addExecutionLogEntry", body)
        .expect("an answer comes");
    assert_eq!(answer.status, 200);
}

#[test]
fn odd_log_calls_are_noted() {
    let frontend = Frontend::start();
    let (executor, held) = taken(&frontend);
    executor.add(&held, "a", "stdout: long\n");
    executor.add(&held, "a", "");
    let mut update = entry("b", "");
    update["entryId"] = json!(1);
    executor
        .report(&held, "updateExecutionLogEntry", update)
        .expect("an answer comes");
    assert_eq!(
        frontend.violations(),
        [
            "job 1-batches: a second log entry with the key a",
            "job 1-batches: log key a became b",
            "job 1-batches: log a shrank from 13 to 0 bytes",
        ]
    );
}

#[test]
fn only_the_holder_may_report() {
    let frontend = Frontend::start();
    let (_, held) = taken(&frontend);
    let other = Executor::new(&frontend, "two");
    let answer = other.add(&held, "a", "");
    assert_eq!(
        (answer.status, answer.text()),
        (500, "{\"error\":\"unknown job\"}")
    );
    let answer = other
        .mark(&held, MarkKind::Complete)
        .expect("an answer comes");
    assert_eq!((answer.status, answer.text()), (404, "null"));
}

#[test]
fn each_mark_has_its_own_state() {
    let frontend = Frontend::start();
    let cases = [
        (MarkKind::Complete, "completed", None),
        (MarkKind::Errored, "errored", Some("it broke")),
        (MarkKind::Failed, "failed", Some("it broke")),
    ];
    for (kind, state, message) in cases {
        let (executor, held) = taken(&frontend);
        assert_eq!(
            executor.mark(&held, kind).expect("an answer comes").status,
            204
        );
        let view = frontend.job(held.job);
        assert_eq!((view.state.name(), view.state.message()), (state, message));
        assert_eq!(view.accepted_mark().map(|mark| mark.kind), Some(kind));
    }
    assert_eq!(frontend.violations(), [""; 0]);
}

#[test]
fn post_steps_must_leave_results() {
    let frontend = Frontend::start();
    let executor = Executor::new(&frontend, "one");
    let event = "stdout: {\"operation\":\"CACHE_AFTER_STEP_RESULT\",\"metadata\":{}}\n";
    let cases = [
        (event, "completed"),
        ("stdout: hello\n", "failed"),
        (&event[8..], "failed"),
    ];
    for (out, state) in cases {
        let step = StepSpec::new("step.0.post", "helper");
        let held = executor.take(frontend.enqueue(JobSpec::new("batches").step(step)));
        executor.add(&held, "step.kubernetes.step.0.post", out);
        let answer = executor
            .mark(&held, MarkKind::Complete)
            .expect("an answer comes");
        assert_eq!(answer.status, 204);
        assert_eq!(frontend.job(held.job).state.name(), state, "{out}");
    }
}
