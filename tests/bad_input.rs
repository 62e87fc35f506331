//! Malformed jobs: each fails alone, with a clear message, or is done right;
//! the daemon goes on and nothing leaks.

use serde_json::{Value, json};

use crate::frontend::record::JobState;
use crate::frontend::spec::StepSpec;
use crate::support::MINUTES;
use crate::support::stage::{STEP_IMAGE, Stage, TINY_IMAGE, tiny};

#[test]
fn malformed_jobs_fail_alone() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let step = |step: Value| json!({"version": 2, "dockerSteps": [step]});
    let cases = [
        (json!({"commit": 5}), "`commit` is wrong"),
        (step(json!({"commands": ["true"]})), "missing field `image`"),
        (
            step(json!({"image": TINY_IMAGE, "env": ["hunter2"]})),
            "not of the form NAME=value",
        ),
        (
            step(json!({"image": TINY_IMAGE, "dir": "../.."})),
            "must stay in the workspace",
        ),
        (
            json!({"files": {"../x": {"content": ""}}}),
            "must stay in the workspace",
        ),
        (
            json!({"version": 2, "files": {"x": {"content": "%"}}}),
            "is not base64",
        ),
        (
            json!({"repositoryName": "r", "repositoryDirectory": "/etc"}),
            "is absolute",
        ),
        (
            json!({"cliSteps": [{"key": "batch-exec"}]}),
            "native-ssbc-execution",
        ),
        (
            step(json!({"image": "Not An Image"})),
            "not the name of an image",
        ),
    ];
    let jobs: Vec<_> = cases
        .map(|(payload, message)| (stage.frontend.enqueue_raw("batches", payload), message))
        .into();
    for (job, message) in jobs {
        let view = stage.frontend.wait_finished(job, MINUTES);
        let said = view.state.message().unwrap_or("nothing").to_owned();
        assert!(said.contains(message), "{said:?} does not say {message:?}");
        assert!(!said.contains("hunter2"), "{said:?} repeats a value");
    }
    let good = stage
        .frontend
        .enqueue(stage.job().step(tiny("after", "echo fine")));
    let good = stage.frontend.wait_finished(good, MINUTES);
    assert!(
        matches!(good.state, JobState::Completed),
        "{:?}",
        good.state
    );
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_payload_without_id_harms_nobody() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    stage
        .frontend
        .enqueue_raw_text("batches", "<html>not a job</html>");
    stage.frontend.enqueue_raw("batches", json!({"id": null}));
    executor.wait_for_log("no `id`");
    let good = stage
        .frontend
        .enqueue(stage.job().step(tiny("after", "echo fine")));
    let good = stage.frontend.wait_finished(good, MINUTES);
    assert!(
        matches!(good.state, JobState::Completed),
        "{:?}",
        good.state
    );
    executor.stop();
    stage.namespace.wait_until_empty();
}

#[test]
fn unknown_fields_are_ignored() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let job = stage.frontend.enqueue_raw(
        "batches",
        json!({"version": 2, "fromTheFuture": {"a": [1]}, "repositoryName": "",
            "dockerSteps": [{"key": "x", "image": TINY_IMAGE, "commands": ["echo ran"],
                "dir": "", "env": null, "later": true}]}),
    );
    let job = stage.frontend.wait_finished(job, MINUTES);
    assert!(matches!(job.state, JobState::Completed), "{:?}", job.state);
    assert!(
        job.log_text().contains("stdout: ran\n"),
        "{}",
        job.log_text()
    );
    executor.stop();
    stage.namespace.wait_until_empty();
}

#[test]
fn large_jobs_arrive_whole() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let mut content = vec![0u8; 20 * 1024 * 1024];
    getrandom::fill(&mut content).unwrap();
    let comment = format!("# {}", "x".repeat(1024 * 1024));
    let sum = StepSpec::new("sum", STEP_IMAGE)
        .command("set +x")
        .command(comment)
        .command("wc -c < big.bin; cksum < big.bin");
    let expected = cksum(&content);
    let job = stage
        .frontend
        .enqueue(stage.job().file("big.bin", content).step(sum));
    let job = stage.frontend.wait_finished(job, MINUTES);
    assert!(
        matches!(job.state, JobState::Completed),
        "{:?} {}",
        job.state,
        job.log_text()
    );
    let text = &job.log("step.kubernetes.sum").unwrap().out;
    assert!(
        text.contains(&format!("stdout: {expected}\n")),
        "{text} is not {expected}"
    );
    executor.stop();
    stage.assert_clean();
}

/// What cksum prints for these bytes.
fn cksum(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let input = std::fs::File::open(file.path()).unwrap();
    let output = std::process::Command::new("cksum")
        .stdin(input)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn two_hundred_steps_run_in_order() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let count = 200;
    let steps = (0..count).fold(stage.job(), |job, number| {
        job.step(tiny(
            &format!("s.{number}"),
            &format!("echo {number} >> /job/order"),
        ))
    });
    let steps = steps.step(tiny("end", "cat /job/order"));
    let job = stage.frontend.enqueue(steps);
    let job = stage.frontend.wait_finished(job, 5 * MINUTES);
    assert!(matches!(job.state, JobState::Completed), "{:?}", job.state);
    let text = &job.log("step.kubernetes.end").unwrap().out;
    let numbers = text
        .lines()
        .filter_map(|line| line.strip_prefix("stdout: ")?.parse().ok());
    assert_eq!(
        numbers.collect::<Vec<u32>>(),
        (0..count).collect::<Vec<u32>>()
    );
    executor.stop();
    stage.assert_clean();
}
