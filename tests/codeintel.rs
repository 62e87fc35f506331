//! Code intelligence: an index is made in the clone and uploaded with the
//! executor's own token, which nobody gets to see.

use crate::frontend::record::{JobRef, JobView};
use crate::frontend::spec::{JobSpec, StepSpec};
use crate::support::stage::{REPOSITORY, STEP_IMAGE, Stage, TINY_IMAGE, lines, quiet};
use crate::support::{MINUTES, daemon, eventually};

fn executor(stage: &Stage) -> daemon::Builder {
    stage
        .executor()
        .env("EXECUTOR_QUEUE_NAME", "codeintel")
        .env("RUST_LOG", "warn,executor=trace")
}

fn job(stage: &Stage) -> JobSpec {
    JobSpec::new("codeintel")
        .repository(REPOSITORY, &stage.repository.head())
        .shallow(true)
}

/// The upload, with busybox in the place of `src`: the frontend says «ok» to
/// the right token only.
fn upload(stage: &Stage) -> StepSpec {
    let authorization = format!("token-executor {}", stage.frontend.token());
    StepSpec::new("upload", TINY_IMAGE)
        .dir("src")
        .env("SRC_ENDPOINT", &stage.frontend.url())
        .env("SRC_HEADER_AUTHORIZATION", &authorization)
        .command(
            "wget -q -O - --header \"Authorization: $SRC_HEADER_AUTHORIZATION\" \
             $SRC_ENDPOINT/.executors/test/auth; echo",
        )
        .command("echo \"$SRC_HEADER_AUTHORIZATION\"")
        .command("echo \"${SRC_HEADER_AUTHORIZATION#token-executor }\"")
}

/// Runs a job, of whose objects none may show the executor's token.
fn complete_in_secret(stage: &Stage, job: JobRef) -> JobView {
    let token = stage.frontend.token();
    let objects = eventually(
        "a pod",
        MINUTES,
        || Some(stage.namespace.list("jobs,pods")).filter(|objects| objects.len() == 2),
        || stage.frontend.transcript(job),
    );
    for object in objects {
        let text = object.to_string();
        assert!(!text.contains(token), "{token} is in {text}");
    }
    let job = stage.wait_complete(job);
    for request in stage.frontend.requests_to("ExecutionLogEntry") {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        assert!(!body.contains(token), "{body}");
    }
    job
}

#[test]
fn an_index_is_made_and_uploaded() {
    let stage = Stage::new();
    let executor = executor(&stage).start();
    let token = stage.frontend.token();
    let memory = |step: StepSpec| step.dir("src").env("VM_MEM", "12.0 GB");
    let index = quiet("indexer", STEP_IMAGE)
        .command("git rev-parse HEAD; git status --porcelain --untracked-files=no; pwd")
        .command("cat prepared; echo \"$VM_MEM\"");
    let prepare = quiet("pre-index.0", TINY_IMAGE).command("ls > prepared");
    let job = job(&stage)
        .redact(token, "PASSWORD_REMOVED")
        .redact(
            &format!("token-executor {token}"),
            "token-executor REDACTED",
        )
        .step(memory(prepare))
        .step(memory(index))
        .step(upload(&stage));
    let job = complete_in_secret(&stage, stage.frontend.enqueue(job));

    let keys: Vec<&str> = job.logs.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "setup.workspace",
            "step.kubernetes.pre-index.0",
            "step.kubernetes.indexer",
            "step.kubernetes.upload",
            "teardown.kubernetes.job",
        ]
    );
    let head = stage.repository.head();
    let expected = [&head, "/job/src", "cart.txt", "prepared", "12.0 GB"];
    assert_eq!(lines(&job, "indexer"), expected);
    let seen = lines(&job, "upload");
    for line in [
        "ok",
        "token-executor REDACTED",
        "PASSWORD_REMOVED",
        "+ echo 'token-executor REDACTED'",
    ] {
        assert!(seen.contains(&line), "no {line:?}: {seen:#?}");
    }
    let log = executor.log();
    assert!(!log.contains(token), "{log}");
    executor.stop();
    stage.assert_clean();
}

#[test]
fn our_own_token_needs_no_hint_to_be_hidden() {
    let stage = Stage::new();
    let executor = executor(&stage).start();
    let job = stage.frontend.enqueue(job(&stage).step(upload(&stage)));
    let job = complete_in_secret(&stage, job);
    let seen = lines(&job, "upload");
    for line in ["ok", "token-executor SECRET_REMOVED", "SECRET_REMOVED"] {
        assert!(seen.contains(&line), "no {line:?}: {seen:#?}");
    }
    executor.stop();
    stage.assert_clean();
}
