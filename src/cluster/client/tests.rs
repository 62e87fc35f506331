//! Calls whose answers are lost, or are not what one hopes for.

use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::testing::{Answer, ApiServer};

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_string()),
        ..ObjectMeta::default()
    }
}

fn job() -> batch::Job {
    batch::Job {
        metadata: named("run"),
        ..batch::Job::default()
    }
}

fn secrets(count: usize) -> Vec<core::Secret> {
    let secret = |number| core::Secret {
        metadata: named(&format!("run-workspace-{number}")),
        ..core::Secret::default()
    };
    (0..count).map(secret).collect()
}

/// Lines of the requests without their queries.
fn lines(server: &ApiServer) -> Vec<String> {
    let without_query = |line: &str| line.split('?').next().unwrap_or_default().to_string();
    let requests = server.requests();
    requests
        .iter()
        .map(|request| without_query(&request.line))
        .collect()
}

#[test]
fn a_created_job_tells_its_uid() {
    let server = ApiServer::start(|_| {
        Answer::Object(201, json!({"metadata": {"name": "run", "uid": "u-1"}}))
    });
    assert_eq!(server.cluster.create_job(&job()).unwrap(), "u-1");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_lost_answer_does_not_lose_the_job() {
    let is_there = std::sync::atomic::AtomicBool::new(false);
    let server = ApiServer::start(move |request| match &request.line[..4] {
        "POST" if is_there.swap(true, std::sync::atomic::Ordering::SeqCst) => {
            Answer::refusal(409, "AlreadyExists")
        }
        "POST" => Answer::Nothing,
        _ => Answer::Object(
            200,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": {"name": "run", "group": "batch", "kind": "jobs", "uid": "u-1"}}),
        ),
    });
    let lost = server.cluster.create_job(&job()).unwrap_err();
    assert!(lost.is_retryable(), "{lost}");
    assert_eq!(server.cluster.create_job(&job()).unwrap(), "u-1");
    let jobs = "/apis/batch/v1/namespaces/jobs/jobs";
    let expected = [
        format!("POST {jobs}"),
        format!("POST {jobs}"),
        format!("DELETE {jobs}/run"),
    ];
    assert_eq!(lines(&server), expected);
    let deletion = server.requests().remove(2).body;
    assert_eq!(deletion["dryRun"], json!(["All"]), "nothing is deleted");
}

#[test]
fn secrets_that_are_there_are_ours() {
    let server = ApiServer::start(|request| match request.body["metadata"]["name"].as_str() {
        Some("run-workspace-3") => Answer::refusal(409, "AlreadyExists"),
        _ => Answer::Object(201, request.body.clone()),
    });
    server.cluster.create_secrets(&secrets(9)).unwrap();
    let mut names: Vec<String> = server
        .requests()
        .iter()
        .map(|request| request.body["metadata"]["name"].to_string())
        .collect();
    names.sort();
    let expected: Vec<String> = (0..9).map(|n| format!("\"run-workspace-{n}\"")).collect();
    assert_eq!(names, expected);
}

#[test]
fn one_refused_secret_is_an_error() {
    let server = ApiServer::start(|request| match request.body["metadata"]["name"].as_str() {
        Some("run-workspace-3") => Answer::refusal(403, "Forbidden"),
        _ => Answer::Object(201, request.body.clone()),
    });
    let error = server.cluster.create_secrets(&secrets(5)).unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    assert!(error.to_string().contains("run-workspace-3"), "{error}");
}
