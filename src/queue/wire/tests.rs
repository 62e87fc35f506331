//! Payloads and answers of every generation of servers, good and bad.

use serde_json::json;

use super::heartbeat::{HeartbeatAnswer, HeartbeatJobs};
use super::*;
use crate::corpus;
use crate::job::JobKey;

fn one() -> Queues {
    Queues::One("batches".to_string())
}

fn several() -> Queues {
    Queues::Several(vec!["batches".to_string(), "codeintel".to_string()])
}

fn key(queue: &str, id: i64) -> JobKey {
    JobKey {
        queue: queue.to_string(),
        id,
    }
}

fn job(value: Value) -> Job {
    match read_job(&one(), value.to_string().as_bytes()) {
        Ok(Dequeued::Job(job)) => *job,
        other => panic!("{value} was read as {other:?}"),
    }
}

fn problem(value: Value) -> String {
    match read_job(&one(), value.to_string().as_bytes()) {
        Ok(Dequeued::Malformed(malformed)) => malformed.problem,
        other => panic!("{value} was read as {other:?}"),
    }
}

#[test]
fn the_smallest_job_is_read() {
    let job = job(
        json!({"version": 2, "id": 1, "token": "t", "repositoryName": "r",
        "repositoryDirectory": "", "commit": "c", "fetchTags": false, "shallowClone": false,
        "sparseCheckout": null, "files": {}, "dockerSteps": null, "cliSteps": null,
        "redactedValues": null, "dockerAuthConfig": {}}),
    );
    assert_eq!(job.id, 1);
    assert_eq!(job.queue, "batches");
    assert_eq!(job.token, Some(Secret::new("t")));
    assert!(job.steps.is_empty() && job.files.is_empty());
    assert_eq!(job.registries, Registries::default());
}

#[test]
fn both_versions_of_files_are_decoded() {
    for (version, content) in [(json!(null), "plain"), (json!(2), "cGxhaW4=")] {
        let mut value = json!({"id": 1, "files": {"a": {"content": content}}});
        if !version.is_null() {
            value["version"] = version;
        }
        let files = job(value).files;
        let FileSource::Inline(bytes) = &files[0].source else {
            panic!("{files:?}")
        };
        assert_eq!(bytes, b"plain");
    }
    let files = job(json!({"id": 1, "files": {"a": "plain"}})).files;
    assert!(matches!(&files[0].source, FileSource::Inline(bytes) if bytes == b"plain"));
}

#[test]
fn stored_files_win_over_content() {
    let job = job(
        json!({"id": 1, "files": {"./a": {"content": "x", "bucket": "b",
        "key": "k/l", "modifiedAt": "0001-01-01T00:00:00Z"}}}),
    );
    assert_eq!(job.files[0].path, "a");
    assert_eq!(job.files[0].modified_at, None);
    let FileSource::Store { bucket, key } = &job.files[0].source else {
        panic!("{job:?}")
    };
    assert_eq!((bucket.as_str(), key.as_str()), ("b", "k/l"));
}

#[test]
fn steps_without_a_key_get_their_index() {
    let job = job(
        json!({"id": 1, "dockerSteps": [{"image": "i", "env": ["A=b=c\nd"]},
        {"key": "named", "image": " i ", "commands": null, "dir": "./x"}]}),
    );
    assert_eq!(job.steps[0].key, "0");
    assert_eq!(job.steps[0].env, [("A".to_string(), "b=c\nd".to_string())]);
    assert_eq!(
        (job.steps[1].key.as_str(), job.steps[1].dir.as_str()),
        ("named", "x")
    );
    assert_eq!(job.steps[1].image, "i");
}

#[test]
fn malformed_jobs_name_the_wrong_field() {
    let step = |step: Value| json!({"id": 1, "dockerSteps": [step]});
    let cases = [
        (
            json!({"id": 1, "commit": 5}),
            "`commit` is wrong: expected a string",
        ),
        (
            step(json!({"commands": []})),
            "`dockerSteps[0]`: missing field `image`",
        ),
        (
            step(json!({"image": ""})),
            "`dockerSteps[0]`: `image` is empty",
        ),
        (
            step(json!({"image": "i", "env": ["hunter2"]})),
            "`env[0]` is not of the form",
        ),
        (
            step(json!({"image": "i", "dir": "../x"})),
            "`dir`: the path \"../x\" contains",
        ),
        (
            json!({"id": 1, "files": {"/etc/x": {}}}),
            "\"/etc/x\" is absolute",
        ),
        (json!({"id": 1, "files": {".": {}}}), "names no file"),
        (
            json!({"id": 1, "version": 2, "files": {"a": {"content": "%"}}}),
            "is not base64",
        ),
        (
            json!({"id": 1, "repositoryName": "r", "repositoryDirectory": ".."}),
            "`repositoryDirectory`",
        ),
        (
            json!({"id": 1, "dockerSteps": [{"key": "a", "image": "i"},
            {"key": "a", "image": "i"}]}),
            "two steps have the key",
        ),
        (
            json!({"id": 1, "files": {"a": {"modifiedAt": "yesterday"}}}),
            "RFC 3339",
        ),
    ];
    for (value, expected) in cases {
        let problem = problem(value);
        assert!(
            problem.contains(expected),
            "{problem:?} does not say {expected:?}"
        );
        assert!(!problem.contains("hunter2"), "{problem}");
    }
}

#[test]
fn wrong_values_are_not_repeated() {
    let problem = problem(json!({"id": 1, "redactedValues": "hunter2"}));
    assert!(problem.contains("redactedValues"), "{problem}");
    assert!(!problem.contains("hunter2"), "{problem}");
}

#[test]
fn without_an_id_nothing_can_be_reported() {
    for body in [&b"{}"[..], b"{\"id\":\"x\"}", b"[]", b"<html>", b""] {
        assert!(read_job(&one(), body).is_err());
    }
}

#[test]
fn heartbeat_answers_of_all_servers_are_read() {
    let both = HeartbeatAnswer {
        known: [key("batches", 17), key("batches", 18)].into(),
        cancel: [key("batches", 18)].into(),
    };
    for body in [
        r#"{"knownIds":["17","18"],"cancelIds":["18"]}"#,
        r#"{"knownIDs":[17,18],"cancelIDs":[18]}"#,
        r#"{"knownIds":["17-batches","18-batches"],"cancelIds":["18-batches"]}"#,
    ] {
        assert_eq!(
            HeartbeatAnswer::parse(&one(), body.as_bytes()),
            Ok(both.clone())
        );
    }
    let bare = HeartbeatAnswer {
        known: [key("batches", 17)].into(),
        cancel: [].into(),
    };
    assert_eq!(HeartbeatAnswer::parse(&one(), b"[17]"), Ok(bare));
    let none = r#"{"knownIds":null,"cancelIds":null}"#;
    assert_eq!(
        HeartbeatAnswer::parse(&one(), none.as_bytes()),
        Ok(HeartbeatAnswer::default())
    );
    assert!(HeartbeatAnswer::parse(&one(), b"\"ok\"").is_err());
}

#[test]
fn jobs_of_several_queues_name_theirs() {
    let read = |body: Value| read_job(&several(), body.to_string().as_bytes());
    match read(json!({"id": 5, "queue": "codeintel"})) {
        Ok(job) => assert_eq!(job.ticket().key(), key("codeintel", 5)),
        Err(problem) => panic!("{problem}"),
    }
    for body in [json!({"id": 5}), json!({"id": 5, "queue": "other"})] {
        let problem = read(body).unwrap_err();
        assert!(problem.contains("no `queue`"), "{problem}");
    }
}

#[test]
fn heartbeats_have_a_form_for_each_manner() {
    let jobs = [key("batches", 2), key("batches", 10), key("codeintel", 2)];
    let form = |queues: &Queues, jobs: &[JobKey]| {
        serde_json::to_value(HeartbeatJobs::new(queues, jobs)).unwrap()
    };
    assert_eq!(form(&one(), &jobs[..2]), json!({"jobIds": [2, 10]}));
    assert_eq!(form(&one(), &[]), json!({"jobIds": []}));
    assert_eq!(
        form(&several(), &jobs),
        json!({"queueNames": ["batches", "codeintel"], "jobIdsByQueue": [
            {"queueName": "batches", "jobIds": ["2", "10"]},
            {"queueName": "codeintel", "jobIds": ["2"]},
        ]})
    );
    assert_eq!(
        form(&several(), &[]),
        json!({"queueNames": ["batches", "codeintel"]})
    );
}

#[test]
fn answers_for_several_queues_name_both() {
    let body = r#"{"knownIds":["17-batches","17-codeintel"],"cancelIds":["17-codeintel"]}"#;
    let answer = HeartbeatAnswer::parse(&several(), body.as_bytes()).unwrap();
    assert_eq!(answer.known.len(), 2);
    assert_eq!(answer.cancel, [key("codeintel", 17)].into());
    assert!(HeartbeatAnswer::parse(&several(), br#"{"knownIds":["17"]}"#).is_err());
}

#[test]
fn empty_credentials_are_none() {
    for config in [json!({}), json!({"auths": {}}), json!(null)] {
        let job = job(json!({"id": 1, "dockerAuthConfig": config}));
        assert_eq!(job.registries, Registries::default());
    }
    let text = problem(json!({"id": 1, "dockerAuthConfig": {"auths": "walnut"}}));
    assert!(text.contains("`dockerAuthConfig.auths`"), "{text}");
    assert!(!text.contains("walnut"), "{text}");
}

/// A path that names something in the workspace, or the workspace itself.
fn assert_stays_inside(path: &str) {
    let leaves = path.starts_with('/') || path.split('/').any(|part| part == "..");
    assert!(!leaves && !path.contains('\0'), "{path:?} was taken");
}

#[test]
fn whatever_is_handed_out_is_read_or_refused() {
    corpus::feed("payload", |bytes| {
        for queues in [one(), several()] {
            match read_job(&queues, bytes) {
                Ok(Dequeued::Job(job)) => {
                    for file in &job.files {
                        assert_stays_inside(&file.path);
                        assert!(!file.path.is_empty(), "a file without a name was taken");
                    }
                    for step in &job.steps {
                        assert_stays_inside(&step.dir);
                    }
                    if let Some(repository) = &job.repository {
                        assert_stays_inside(&repository.directory);
                    }
                }
                Ok(Dequeued::Malformed(malformed)) => {
                    assert!(!malformed.problem.contains("hunter2"), "{malformed:?}");
                }
                Err(problem) => assert!(!problem.contains("hunter2"), "{problem}"),
            }
        }
    });
}

#[test]
fn whatever_a_heartbeat_brings_is_read_or_refused() {
    corpus::feed("heartbeat", |bytes| {
        let answer = HeartbeatAnswer::parse(&one(), bytes);
        if let Ok(answer) = answer {
            let is_ours = |key: &JobKey| key.queue == "batches";
            assert!(answer.known.iter().all(is_ours) && answer.cancel.iter().all(is_ours));
        }
        let _ = HeartbeatAnswer::parse(&several(), bytes);
    });
}
