//! Payloads of every version, decoded by what they say of themselves.

use serde_json::{Value, json};

use crate::frontend::record::JobRef;
use crate::frontend::spec::StepSpec;
use crate::support::stage::{STEP_IMAGE, Stage, TINY_IMAGE, lines, quiet};
use crate::support::{MINUTES, eventually};

/// What the pull secrets of a pod must be.
const REGISTRY_TYPE: &str = "kubernetes.io/dockerconfigjson";

/// A step of a payload that shows a file.
fn show(file: &str) -> Value {
    let commands = ["{ set +x; } 2>/dev/null".to_owned(), format!("cat {file}")];
    json!({"key": "show", "image": TINY_IMAGE, "commands": commands, "dir": "", "env": null})
}

#[test]
fn files_are_decoded_by_the_payloads_own_version() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    // Base64 of «plain», or a text that just looks like it.
    let text = "cGxhaW4=";
    let payload =
        |file: Value| json!({"files": {"dir/file": file}, "dockerSteps": [show("dir/file")]});
    let object = json!({"content": text, "modifiedAt": "0001-01-01T00:00:00Z"});
    let mut second = payload(object.clone());
    second["version"] = json!(2);
    let cases = [
        (payload(json!(text)), text),
        (payload(object), text),
        (second, "plain"),
    ];
    let jobs = cases.map(|(payload, seen)| (stage.frontend.enqueue_raw("batches", payload), seen));
    for (job, seen) in jobs {
        let job = stage.wait_complete(job);
        assert_eq!(lines(&job, "show"), [seen]);
    }
    executor.stop();
    stage.assert_clean();
}

#[test]
fn null_is_the_same_as_empty() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let step =
        json!({"key": null, "image": TINY_IMAGE, "commands": null, "dir": null, "env": null});
    let file = json!({"content": null, "bucket": null, "key": null, "modifiedAt": null});
    let job = stage.frontend.enqueue_raw(
        "batches",
        json!({"version": null, "repositoryName": null, "repositoryDirectory": null,
            "commit": null, "fetchTags": null, "shallowClone": null, "sparseCheckout": null,
            "files": {"empty": file}, "dockerSteps": [step, show("empty")], "cliSteps": null,
            "redactedValues": null, "dockerAuthConfig": null}),
    );
    let job = stage.wait_complete(job);
    assert!(lines(&job, "show").is_empty(), "{:?}", lines(&job, "show"));
    let nothing = json!({"version": 2, "files": null, "dockerSteps": null});
    stage.wait_complete(stage.frontend.enqueue_raw("batches", nothing));
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_token_is_known_in_either_case() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let token = "6f1d0a4c2b7e95d8c3a1f0b6e4d2978501ac3be7";
    let job = stage.frontend.enqueue_raw(
        "batches",
        json!({"Token": token, "files": {"file": "x"}, "dockerSteps": [show("file")]}),
    );
    stage.wait_complete(job);
    let marks = stage.frontend.requests_to("markComplete");
    let authorization = marks[0].header("authorization");
    assert_eq!(authorization, Some(format!("Bearer {token}").as_str()));
    executor.stop();
    stage.assert_clean();
}

/// Waits for the pod of a job: the names of its pull secrets, and the pull
/// secrets that there are.
fn pull_secrets(stage: &Stage, job: JobRef) -> (Vec<String>, Vec<Value>) {
    let id = job.id.to_string();
    let is_of_job = |object: &Value| {
        object["metadata"]["labels"]["executor.sourcegraph.com/job-id"] == id.as_str()
    };
    let pod = eventually(
        "a pod",
        MINUTES,
        || stage.namespace.list("pods").into_iter().find(is_of_job),
        || stage.frontend.transcript(job),
    );
    let named = pod["spec"]["imagePullSecrets"].as_array().cloned();
    let named = named.unwrap_or_default().into_iter();
    let name = |secret: Value| secret["name"].as_str().unwrap_or_default().to_owned();
    let secrets = stage.namespace.list("secrets").into_iter();
    let made = secrets.filter(|secret| is_of_job(secret) && secret["type"] == REGISTRY_TYPE);
    (named.map(name).collect(), made.collect())
}

#[test]
fn registry_credentials_come_with_version_two() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let binary: Vec<u8> = (0..=255).collect();
    let look = quiet("look", STEP_IMAGE).command("od -An -v -tu1 -w256 binary; sleep 3");
    let job = stage.frontend.enqueue(
        stage
            .job()
            .registry("registry.example.org", "user", "pass\"word")
            .file("binary", binary.clone())
            .step(look),
    );
    let (named, made) = pull_secrets(&stage, job);
    assert_eq!(made.len(), 1, "{made:#?}");
    assert_eq!(named, [made[0]["metadata"]["name"].as_str().unwrap()]);
    // {"auths":{"registry.example.org":{"auth":"dXNlcjpwYXNzIndvcmQ="}}}
    assert_eq!(
        made[0]["data"][".dockerconfigjson"],
        "eyJhdXRocyI6eyJyZWdpc3RyeS5leGFtcGxlLm9yZyI6eyJhdXRoIjoiZFhObGNqcHdZWE56SW5kdmNtUT0ifX19"
    );
    let job = stage.wait_complete(job);
    let numbers: Vec<u8> = lines(&job, "look")[0]
        .split_whitespace()
        .map(|number| number.parse().unwrap())
        .collect();
    assert_eq!(numbers, binary, "every byte arrives as it is");
    executor.stop();
    stage.assert_clean();
}

#[test]
fn no_credentials_make_no_pull_secret() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let steps = json!([{"image": TINY_IMAGE, "commands": ["sleep 3"]}]);
    let jobs = [
        Value::Null,
        json!({}),
        json!({"auths": null}),
        json!({"auths": {}}),
    ]
    .map(|config| {
        let payload = json!({"version": 2, "dockerSteps": steps, "dockerAuthConfig": config});
        stage.frontend.enqueue_raw("batches", payload)
    });
    for job in jobs {
        let (named, made) = pull_secrets(&stage, job);
        assert!(named.is_empty() && made.is_empty(), "{named:?} {made:?}");
    }
    for job in jobs {
        stage.wait_complete(job);
    }
    executor.stop();
    stage.assert_clean();
}

#[test]
fn src_command_lines_say_what_to_set() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let spec = stage
        .job()
        .cli_step("batch-exec", &["src", "batch", "exec", "-f", "input.json"])
        .step(StepSpec::new("never", TINY_IMAGE).command("echo ran"));
    let job = stage
        .frontend
        .wait_finished(stage.frontend.enqueue(spec), MINUTES);
    let said = job.message();
    assert!(
        said.contains("setting the feature flag `native-ssbc-execution` to true"),
        "{said}"
    );
    assert!(job.logs.is_empty(), "nothing was started: {:?}", job.logs);
    executor.stop();
    stage.assert_clean();
}
