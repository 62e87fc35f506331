//! A job from dequeue to mark: what runs, what the server gets to see of it,
//! and how many run at a time.

use crate::frontend::record::{JobState, JobView};
use crate::frontend::spec::StepSpec;
use crate::support::MINUTES;
use crate::support::stage::{STEP_IMAGE, Stage, TINY_IMAGE, quiet, tiny};

fn assert_complete(job: &JobView) {
    let done = matches!(job.state, JobState::Completed);
    assert!(done, "the job is {:?}\n{}", job.state, job.log_text());
}

#[test]
fn three_steps_change_files_in_order() {
    let stage = Stage::new();
    stage.frontend.put_file("spec1/file1", "stored\n");
    let executor = stage.executor().start();
    let edit = StepSpec::new("step.0.run", STEP_IMAGE)
        .dir("repository")
        .env(
            "FRUIT",
            "plums & \"quotes\" $(HOME) $$ ünïcode\nsecond line=x",
        )
        .command("echo \"$FRUIT\" >> src/cart.txt")
        .command("cat ../input.json ../tools/stored.sh");
    let check = tiny("step.1.run", "ls -l tools/stored.sh repository/src; pwd").dir("");
    let diff = StepSpec::new("step.2.run", STEP_IMAGE)
        .dir("repository")
        .command("git add --all && git diff --cached && git log --oneline");
    let job = stage.frontend.enqueue(
        stage
            .job()
            .file("input.json", "{\"steps\":[]}")
            .stored_file("tools/stored.sh", "spec1/file1", "2024-04-30T16:01:02.5Z")
            .step(edit)
            .step(check)
            .step(diff),
    );
    let job = stage.frontend.wait_finished(job, MINUTES);
    assert_complete(&job);
    let keys: Vec<&str> = job.logs.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "setup.workspace",
            "step.kubernetes.step.0.run",
            "step.kubernetes.step.1.run",
            "step.kubernetes.step.2.run",
            "teardown.kubernetes.job",
        ]
    );
    for entry in &job.logs {
        assert_eq!(entry.exit_code, Some(0), "{}: {}", entry.key, entry.out);
        assert!(entry.duration_ms.is_some(), "{} has a duration", entry.key);
    }
    let first = job.log("step.kubernetes.step.0.run").unwrap();
    assert!(
        first.out.contains("stdout: {\"steps\":[]}"),
        "{}",
        first.out
    );
    let command = first.command.as_ref().unwrap();
    assert_eq!(command[0], "/bin/sh");
    assert!(
        command[1].starts_with("/job/.sourcegraph-executor/"),
        "{command:?}"
    );
    let diff = &job.log("step.kubernetes.step.2.run").unwrap().out;
    assert!(
        diff.contains("stdout: +plums & \"quotes\" $(HOME) $$ ünïcode\n"),
        "{diff}"
    );
    assert!(diff.contains("stdout: +second line=x\n"), "{diff}");
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_failing_step_ends_the_job() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let job = stage.frontend.enqueue(
        stage
            .job()
            .step(tiny("step.0.run", "echo first"))
            .step(tiny("step.1.run", "echo second; exit 42"))
            .step(tiny("step.2.run", "echo third")),
    );
    let job = stage.frontend.wait_finished(job, MINUTES);
    assert!(
        matches!(job.state, JobState::Errored { .. }),
        "{:?}",
        job.state
    );
    assert_eq!(
        job.state.message(),
        Some("running command \"step.kubernetes.step.1.run\": exit code 42")
    );
    let failed = job.log("step.kubernetes.step.1.run").unwrap();
    assert_eq!(failed.exit_code, Some(42));
    assert!(failed.out.contains("stdout: second\n"), "{}", failed.out);
    assert!(
        job.log("step.kubernetes.step.2.run").is_none(),
        "later steps do not run"
    );
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_job_without_steps_is_complete() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let job = stage.frontend.enqueue(stage.job());
    assert_complete(&stage.frontend.wait_finished(job, MINUTES));
    executor.stop();
    stage.assert_clean();
}

#[test]
fn output_arrives_while_a_step_runs() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let job = stage.frontend.enqueue(
        stage
            .job()
            .step(tiny("slow", "echo early; sleep 8; echo late")),
    );
    let seen = stage.frontend.wait_for(job, MINUTES, |job| {
        job.log("step.kubernetes.slow")
            .is_some_and(|entry| entry.out.contains("early"))
    });
    let entry = seen.log("step.kubernetes.slow").unwrap();
    assert_eq!(entry.exit_code, None, "the step still runs");
    assert!(!entry.out.contains("late"), "{}", entry.out);
    assert_complete(&stage.frontend.wait_finished(job, MINUTES));
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_large_log_arrives_whole() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    // A log file of less than 10 MiB, which the kubelet does not rotate.
    let lines = 150_000;
    let write = format!("i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); done");
    let long = "head -c 100000 /dev/zero | tr '\\0' x; echo end";
    // The runtime drops what it has not read two seconds after a container's
    // end, which on a busy machine is the end of the output. What the step
    // writes last may be lost so: it is more than all pipes on the way hold,
    // so that everything before it was read when the step ends.
    let filler = "head -c 1000000 /dev/zero | tr '\\0' y; echo";
    let step = StepSpec::new("big", TINY_IMAGE)
        .command("set +x")
        .command(write)
        .command(long)
        .command(filler);
    let job = stage.frontend.enqueue(stage.job().step(step));
    let job = stage.frontend.wait_finished(job, MINUTES);
    assert_complete(&job);
    let text = &job.log("step.kubernetes.big").unwrap().out;
    let mut found = text
        .lines()
        .filter(|line| line.starts_with("stdout: line "));
    for number in 0..lines {
        assert_eq!(
            found.next(),
            Some(format!("stdout: line {number}").as_str())
        );
    }
    let long = format!("stdout: {}end", "x".repeat(100_000));
    assert!(
        text.lines().any(|line| line == long),
        "the long line is not whole"
    );
    let sent: u64 = stage.frontend.traffic()["updateExecutionLogEntry"].body_bytes;
    assert!(
        sent <= 3 * text.len() as u64 + (1 << 20),
        "{sent} bytes for {}",
        text.len()
    );
    executor.stop();
    stage.assert_clean();
}

#[test]
fn secrets_never_reach_the_server() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let step = StepSpec::new("leak", TINY_IMAGE)
        .env("NPM_TOKEN", "wal-nut-tree")
        .command("set +x; echo whole $NPM_TOKEN")
        .command("printf 'split wal-'; sleep 2; echo nut-tree")
        .command("echo $NPM_TOKEN | head -c 3 ; echo");
    let job = stage.frontend.enqueue(
        stage
            .job()
            .redact("wal-nut-tree", "${{ secrets.NPM }}")
            .step(step),
    );
    let held = stage.frontend.wait_processing(job, MINUTES);
    let token = held.token.clone().unwrap();
    let pod = crate::support::eventually(
        "a pod",
        MINUTES,
        || stage.namespace.list("pods").first().cloned(),
        || stage.frontend.transcript(job),
    );
    for secret in ["wal-nut-tree", token.as_str(), stage.frontend.token()] {
        assert!(
            !pod.to_string().contains(secret),
            "the pod shows {secret}: {pod:#}"
        );
    }
    let job = stage.frontend.wait_finished(job, MINUTES);
    assert_complete(&job);
    let text = job.log_text();
    assert!(
        text.contains("stdout: whole ${{ secrets.NPM }}\n"),
        "{text}"
    );
    assert!(
        text.contains("stdout: split ${{ secrets.NPM }}\n"),
        "{text}"
    );
    assert!(
        text.contains("stdout: wal\n"),
        "a part of a secret is none: {text}"
    );
    let sent = stage.frontend.requests_to("ExecutionLogEntry");
    assert!(!sent.is_empty());
    for request in sent {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        assert!(!body.contains("wal-nut-tree"), "{body}");
    }
    let log = executor.log();
    assert!(!log.contains("wal-nut") && !log.contains(&token), "{log}");
    executor.stop();
    stage.assert_clean();
}

#[test]
fn twenty_jobs_share_four_workers() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let jobs: Vec<_> = (0..20)
        .map(|number| {
            let step = tiny("only", &format!("echo job {number}"));
            stage.frontend.enqueue(stage.job().step(step))
        })
        .collect();
    for (number, job) in jobs.into_iter().enumerate() {
        let job = stage.frontend.wait_finished(job, 3 * MINUTES);
        assert_complete(&job);
        let text = &job.log("step.kubernetes.only").unwrap().out;
        assert!(text.contains(&format!("stdout: job {number}\n")), "{text}");
        assert_eq!(job.attempts, 1, "no job is started twice");
    }
    assert_eq!(
        stage.frontend.max_processing(),
        4,
        "never more, and not less, than four"
    );
    executor.stop();
    stage.assert_clean();
}

#[test]
fn two_executors_share_one_queue() {
    let stage = Stage::new();
    let executors = [stage.executor(), stage.executor()]
        .map(|builder| builder.env("EXECUTOR_MAXIMUM_NUM_JOBS", "2").start());
    let jobs: Vec<_> = (0..8)
        .map(|_| {
            stage
                .frontend
                .enqueue(stage.job().step(tiny("only", "sleep 1; echo ran")))
        })
        .collect();
    let mut holders = std::collections::BTreeSet::new();
    for job in jobs {
        let job = stage.frontend.wait_finished(job, 2 * MINUTES);
        assert_complete(&job);
        assert_eq!(job.attempts, 1, "no job is started twice");
        holders.insert(job.marks[0].executor.clone());
    }
    assert_eq!(holders.len(), 2, "both took part: {holders:?}");
    assert!(stage.frontend.max_processing() <= 4);
    for executor in executors {
        executor.stop();
    }
    stage.assert_clean();
}

#[test]
fn output_without_a_last_newline_arrives() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let job = stage.frontend.enqueue(
        stage
            .job()
            .step(quiet("one", TINY_IMAGE).command("printf 'first\\nlast'"))
            .step(tiny("two", "true")),
    );
    let job = stage.frontend.wait_finished(job, MINUTES);
    assert_complete(&job);
    let text = &job.log("step.kubernetes.one").unwrap().out;
    assert_eq!(text, "stdout: first\nstdout: last\n");
    executor.stop();
    stage.assert_clean();
}
