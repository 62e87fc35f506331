//! How jobs are handed out and taken back.

use std::time::Duration;

use serde_json::json;

use super::super::Frontend;
use super::super::record::{JobState, MarkKind};
use super::super::spec::{JobSpec, StepSpec};
use super::client::{Executor, SOON, impatient};

#[test]
fn the_version_selects_the_encoding() {
    let cases = [
        ("", None),
        ("4.2.9", None),
        ("4.3.0-rc.1", Some(2)),
        ("5.5.0", Some(2)),
        ("v6", Some(2)),
        ("dev", Some(2)),
        ("0.0.0+dev", Some(2)),
        ("193204_2022-11-23_4.2-8a3cf1f2f1ab", None),
        ("193204_2022-11-24_8a3cf1f2f1ab", Some(2)),
    ];
    let frontend = Frontend::start();
    let executor = Executor::new(&frontend, "one");
    for (version, expected) in cases {
        frontend.enqueue(JobSpec::new("codeintel").file("a.txt", "hi"));
        let body = json!({ "executorName": "one", "version": version, "numCPUs": 4 });
        let payload = executor.post("queue/codeintel/dequeue", body).json();
        assert_eq!(payload["version"].as_i64(), expected, "{version}");
        let content = if expected.is_some() { "aGk=" } else { "hi" };
        assert_eq!(payload["files"]["a.txt"]["content"], content, "{version}");
        assert_eq!(
            payload.get("dockerAuthConfig").is_some(),
            expected.is_some(),
            "{version}"
        );
    }
}

#[test]
fn bad_dequeues_are_explained() {
    let frontend = Frontend::start();
    frontend.enqueue(JobSpec::new("batches"));
    let executor = Executor::new(&frontend, "one");
    let cases = [
        (
            "queue/batches/dequeue",
            json!({}),
            500,
            "worker hostname cannot be empty",
        ),
        (
            "queue/batches/dequeue",
            json!({ "executorName": "one", "version": "x" }),
            500,
            "failed to check version \\\"x\\\": Invalid Semantic Version",
        ),
        (
            "queue/batches/dequeue",
            json!({ "executorName": 1 }),
            400,
            "Failed to unmarshal payload: ",
        ),
        ("queue/dequeue", json!({ "executorName": "one" }), 204, ""),
        (
            "queue/dequeue",
            json!({ "executorName": "one", "queues": ["batches", "other"] }),
            500,
            "Invalid queue name(s) 'other' found. Supported queue names are 'batches, codeintel'.",
        ),
        (
            "queue/codeintel/dequeue",
            json!({ "executorName": "one" }),
            204,
            "",
        ),
    ];
    for (path, body, status, text) in cases {
        let answer = executor.post(path, body.clone());
        assert_eq!(answer.status, status, "{body}");
        assert!(answer.text().contains(text), "{body}: {}", answer.text());
    }
    assert_eq!(frontend.max_processing(), 0);
}

#[test]
fn a_job_carries_all_its_parts() {
    let frontend = Frontend::start();
    let step = StepSpec::new("step.0.run", "alpine")
        .command("true")
        .dir("d")
        .env("A", "b=c");
    let job = frontend.enqueue(
        JobSpec::new("batches")
            .repository("git.example.org/shop/cart", "9c1e")
            .directory("repository")
            .shallow(true)
            .sparse("a/*")
            .step(step)
            .stored_file("tools/fix.sh", "spec9a/file3c", "2024-04-30T16:01:02.5Z")
            .redact("walnut", "${{ secrets.X }}")
            .registry("registry.example.org", "u", "p"),
    );
    let mut payload = Executor::new(&frontend, "one").take(job).payload;
    let token = payload["token"].take();
    assert_eq!(token.as_str().map(str::len), Some(40));
    let expected = json!({
        "version": 2,
        "id": 1,
        "token": null,
        "repositoryName": "git.example.org/shop/cart",
        "repositoryDirectory": "repository",
        "commit": "9c1e",
        "fetchTags": false,
        "shallowClone": true,
        "sparseCheckout": ["a/*"],
        "files": {"tools/fix.sh": {
            "bucket": "batch-changes",
            "key": "spec9a/file3c",
            "modifiedAt": "2024-04-30T16:01:02.5Z",
        }},
        "dockerSteps": [{
            "key": "step.0.run", "image": "alpine", "commands": ["true"], "dir": "d", "env": ["A=b=c"],
        }],
        "cliSteps": null,
        "redactedValues": {"walnut": "${{ secrets.X }}"},
        "dockerAuthConfig": {"auths": {"registry.example.org": {"auth": "dTpw"}}},
    });
    assert_eq!(payload, expected);
}

#[test]
fn made_up_payloads_go_out_untouched() {
    let frontend = Frontend::start();
    let executor = Executor::new(&frontend, "one");
    let take = |payload| {
        executor
            .take(frontend.enqueue_raw("batches", payload))
            .payload
    };
    let filled = take(json!({ "dockerSteps": 7 }));
    assert_eq!(
        (&filled["id"], &filled["dockerSteps"]),
        (&json!(1), &json!(7))
    );
    assert_eq!(filled["token"].as_str().map(str::len), Some(40));
    assert_eq!(take(json!({ "id": null, "token": null })), json!({}));
    assert_eq!(
        take(json!({ "id": "x", "token": "t" })),
        json!({ "id": "x", "token": "t" })
    );
    assert_eq!(take(json!([1])), json!([1]));
    frontend.enqueue_raw_text("batches", "{\"id\":");
    let answer = executor.post("queue/batches/dequeue", json!({ "executorName": "one" }));
    assert_eq!((answer.status, answer.text()), (200, "{\"id\":"));
}

#[test]
fn both_queues_can_be_served_together() {
    let frontend = Frontend::start();
    let first = frontend.enqueue(JobSpec::new("batches"));
    let second = frontend.enqueue(JobSpec::new("codeintel"));
    assert_eq!((first.id, second.id), (1, 1));
    let executor = Executor::new(&frontend, "one");
    let queues = ["batches", "codeintel"];
    let names = queues.map(|_| {
        let body = json!({ "executorName": "one", "queues": queues, "version": "dev" });
        executor.post("queue/dequeue", body).json()["queue"].clone()
    });
    assert_eq!(names, queues);
    frontend.cancel(second);
    let running = queues.map(|queue| json!({ "queueName": queue, "jobIds": ["1", "9"] }));
    let body = json!({ "executorName": "one", "queueNames": queues, "jobIdsByQueue": running });
    let answer = executor.post("queue/heartbeat", body).json();
    let expected =
        json!({ "knownIds": ["1-batches", "1-codeintel"], "cancelIds": ["1-codeintel"] });
    assert_eq!(answer, expected);
    assert_eq!(frontend.max_processing(), 2);
}

#[test]
fn bad_heartbeats_are_explained() {
    let frontend = Frontend::start();
    let executor = Executor::new(&frontend, "one");
    let by_queue = json!([{ "queueName": "codeintel", "jobIds": [] }]);
    let cases = [
        (
            "queue/batches/heartbeat",
            json!({ "jobIds": [] }),
            500,
            "worker hostname cannot be empty",
        ),
        (
            "queue/batches/heartbeat",
            json!({ "executorName": "one", "jobIds": ["x"] }),
            400,
            "Failed",
        ),
        (
            "queue/heartbeat",
            json!({ "executorName": "one" }),
            500,
            "queueNames must be set",
        ),
        (
            "queue/heartbeat",
            json!({ "executorName": "one", "queueNames": ["batches"], "jobIdsByQueue": by_queue }),
            500,
            "codeintel",
        ),
    ];
    for (path, body, status, text) in cases {
        let answer = executor.post(path, body.clone());
        assert_eq!(answer.status, status, "{body}");
        assert!(answer.text().contains(text), "{body}: {}", answer.text());
    }
    let body = json!({ "executorName": "one", "jobIds": null });
    let answer = executor.post("queue/batches/heartbeat", body);
    assert_eq!(
        answer.json(),
        json!({ "knownIds": null, "cancelIds": null })
    );
    assert_eq!(frontend.executors().len(), 1);
}

#[test]
fn heartbeats_keep_a_job() {
    let frontend = impatient().start();
    let executor = Executor::new(&frontend, "one");
    let held = executor.take(frontend.enqueue(JobSpec::new("batches")));
    for _ in 0..12 {
        assert_eq!(
            executor.beat(held.job),
            json!({ "knownIds": ["1"], "cancelIds": null })
        );
        let after = frontend
            .hub
            .wait(Duration::from_millis(100), |_| None::<()>);
        assert_eq!(after, None);
    }
    assert_eq!(frontend.job(held.job).resets, 0);
}

#[test]
fn a_stalled_job_goes_back() {
    let frontend = impatient().start();
    let executor = Executor::new(&frontend, "one");
    let job = frontend.enqueue(JobSpec::new("batches"));
    let first = executor.take(job);
    assert_eq!(executor.add(&first, "setup", "").status, 200);
    frontend.wait_for(job, SOON, |view| matches!(view.state, JobState::Queued));
    assert_eq!(
        executor.add(&first, "more", "").text(),
        "{\"error\":\"unknown job\"}"
    );
    let second = Executor::new(&frontend, "two").take(job);
    assert_ne!(first.token, second.token);
    assert_eq!(
        executor
            .mark(&first, MarkKind::Complete)
            .expect("an answer comes")
            .status,
        401
    );
    let view = frontend.job(job);
    assert_eq!((view.attempts, view.resets, view.logs.len()), (2, 1, 0));
}

#[test]
fn a_job_is_given_up_after_three_resets() {
    let frontend = impatient().start();
    let executor = Executor::new(&frontend, "one");
    let job = frontend.enqueue(JobSpec::new("batches"));
    for attempt in 1..=4 {
        executor.take(job);
        frontend.wait_for(job, SOON, |view| view.holder().is_none());
        assert_eq!(frontend.job(job).attempts, attempt);
    }
    let view = frontend.wait_finished(job, SOON);
    assert_eq!(view.resets, 3);
    assert_eq!(
        view.message(),
        "job processor died while handling this message too many times"
    );
}

#[test]
fn a_job_given_away_is_unknown_to_its_holder() {
    let frontend = Frontend::start();
    let executor = Executor::new(&frontend, "one");
    let given = executor.take(frontend.enqueue(JobSpec::new("batches")));
    let forgotten = executor.take(frontend.enqueue(JobSpec::new("batches")));
    frontend.give_away(given.job);
    frontend.forget(forgotten.job);
    for held in [given, forgotten] {
        assert_eq!(
            executor.beat(held.job),
            json!({ "knownIds": null, "cancelIds": null })
        );
        let answer = executor
            .mark(&held, MarkKind::Failed)
            .expect("an answer comes");
        assert_eq!((answer.status, answer.text()), (404, "null"));
    }
    assert_eq!(frontend.violations(), [""; 0]);
}

#[test]
fn a_waiting_job_is_canceled_at_once() {
    let frontend = Frontend::start();
    let job = frontend.enqueue(JobSpec::new("batches"));
    frontend.cancel(job);
    assert!(matches!(frontend.job(job).state, JobState::Canceled));
}

#[test]
fn a_failed_mark_confirms_a_cancellation() {
    let frontend = Frontend::start();
    let executor = Executor::new(&frontend, "one");
    let held = executor.take(frontend.enqueue(JobSpec::new("batches")));
    frontend.cancel(held.job);
    assert_eq!(
        executor.beat(held.job),
        json!({ "knownIds": ["1"], "cancelIds": ["1"] })
    );
    assert_eq!(
        executor
            .mark(&held, MarkKind::Failed)
            .expect("an answer comes")
            .status,
        204
    );
    assert!(matches!(frontend.job(held.job).state, JobState::Canceled));
}
