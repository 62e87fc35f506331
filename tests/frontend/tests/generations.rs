//! How old servers differ.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::super::spec::JobSpec;
use super::super::{Frontend, Generation};
use super::client::{Executor, entry};

#[test]
fn basic_credentials_open_the_oldest_server() {
    let frontend = Frontend::builder().generation(Generation::Basic).start();
    let mut executor = Executor::new(&frontend, "one");
    let answer = executor.post("queue/batches/dequeue", json!({ "executorName": "one" }));
    assert_eq!(answer.status, 401);
    assert!(
        answer
            .head
            .contains("WWW-Authenticate: Basic realm=\"Sourcegraph\"")
    );
    executor.authorization = format!("Basic {}", STANDARD.encode("executor:wrong"));
    let answer = executor.post("queue/batches/dequeue", json!({ "executorName": "one" }));
    assert_eq!(answer.status, 403);
    let credentials = format!("{}:{}", frontend.username(), frontend.token());
    executor.authorization = format!("Basic {}", STANDARD.encode(credentials));
    let answer = executor.post("queue/batches/dequeue", json!({ "executorName": "one" }));
    assert_eq!(answer.status, 204);
}

#[test]
fn the_oldest_server_knows_fewer_calls() {
    let frontend = Frontend::builder().generation(Generation::Basic).start();
    let mut executor = Executor::new(&frontend, "one");
    let credentials = format!("{}:{}", frontend.username(), frontend.token());
    executor.authorization = format!("Basic {}", STANDARD.encode(credentials));
    let job = frontend.enqueue(JobSpec::new("codeintel").file("a.txt", "hi"));
    let payload = executor.take(job).payload;
    assert_eq!(payload["files"], json!({ "a.txt": "hi" }));
    assert!(payload.get("token").is_none() && payload.get("version").is_none());
    let beat = executor.post(
        "queue/heartbeat",
        json!({ "executorName": "one", "jobIds": [1, 2] }),
    );
    assert_eq!(beat.json(), json!([1]));
    let mut body = entry("a", "out");
    body["executorName"] = json!("one");
    body["jobId"] = json!(1);
    let added = executor.post("queue/codeintel/addExecutionLogEntry", body.clone());
    assert_eq!((added.status, added.text()), (200, ""));
    assert_eq!(
        executor
            .post("queue/codeintel/updateExecutionLogEntry", body)
            .status,
        404
    );
    assert_eq!(
        executor.post("queue/codeintel/heartbeat", json!({})).status,
        404
    );
    let end = json!({ "executorName": "one", "jobId": 1 });
    assert_eq!(
        executor.post("queue/codeintel/markComplete", end).status,
        204
    );
    assert_eq!(frontend.violations(), [""; 0]);
}

#[test]
fn servers_before_job_tokens_send_none() {
    let frontend = Frontend::builder().generation(Generation::Token).start();
    let executor = Executor::new(&frontend, "one");
    let held = executor.take(frontend.enqueue(JobSpec::new("batches")));
    assert_eq!(held.payload["version"], 2);
    assert!(held.payload.get("token").is_none());
    assert_eq!(executor.beat(held.job)["knownIds"], json!(["1"]));
    let old = executor.post(
        "queue/batches/heartbeat",
        json!({ "executorName": "one", "jobIds": ["1"] }),
    );
    assert_eq!(old.json(), json!([1]));
    assert_eq!(executor.post("queue/dequeue", json!({})).status, 404);
    assert_eq!(executor.add(&held, "a", "").status, 401);
    let end = json!({ "executorName": "one", "jobId": 1 });
    assert_eq!(executor.post("queue/batches/markComplete", end).status, 204);
    assert_eq!(frontend.violations(), [""; 0]);
}
