//! What a person with kubectl sees of jobs: labels, and an Event for each one
//! that failed.

use std::process::Command;

use serde_json::Value;

use crate::frontend::record::{JobRef, JobState};
use crate::frontend::spec::StepSpec;
use crate::support::cluster::{kubeconfig, kubectl, project, try_kubectl};
use crate::support::stage::{REPOSITORY, Stage, TINY_IMAGE, tiny};
use crate::support::{MINUTES, SOON, eventually};

/// Between these lines the page has commands.
const BEGIN: &str = "<!-- kubectl -->\n";
const END: &str = "<!-- /kubectl -->";

/// The released rules, and the one of `manifests/events`.
const RULES: [(&str, &str, &[&str]); 5] = [
    ("batch", "jobs", &["create", "delete"]),
    ("", "pods", &["get", "list", "watch"]),
    ("", "pods/log", &["get", "list", "watch"]),
    ("", "secrets", &["create", "delete"]),
    ("", "events", &["create"]),
];

/// The commands of the page, each on one line, for the job of this number.
fn commands(stage: &Stage, job: JobRef) -> Vec<String> {
    let page = std::fs::read_to_string(project().join("docs/jobs.md")).unwrap();
    let (_, rest) = page.split_once(BEGIN).expect("the page has the mark");
    let (block, _) = rest.split_once(END).expect("the page has both marks");
    let scripts = block.split("```").skip(1).step_by(2);
    let commands: String = scripts.map(|it| it.trim_start_matches("sh\n")).collect();
    let ours = format!("--namespace {}", stage.namespace.name);
    let commands = commands
        .replace("\\\n", "")
        .replace("--namespace sourcegraph-executor", &ours)
        .replace("job-id=ID", &format!("job-id={}", job.id));
    commands.lines().map(str::to_owned).collect()
}

/// Runs a command as it stands.
fn run(command: &str) -> String {
    let programs = project().join("target/cluster/bin");
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("sh")
        .args(["-c", command])
        .env("KUBECONFIG", kubeconfig())
        .env("PATH", format!("{}:{path}", programs.display()))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}\n{error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_commands_of_the_page_find_a_job() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let step = tiny(
        "only",
        "echo begun; while [ ! -f /job/go ]; do sleep 0.2; done",
    );
    let job = stage.frontend.enqueue(stage.job().step(step));
    stage
        .frontend
        .wait_for(job, MINUTES, |view| view.log_text().contains("begun"));
    let commands = commands(&stage, job);
    assert_eq!(commands.len(), 5, "{commands:#?}");
    let id = job.id.to_string();
    let head = stage.repository.head();
    let run_name = format!("sg-executor-job-batches-{id}-");
    for (command, expected) in commands.iter().zip([
        &[&*run_name, "batches", &id, &REPOSITORY.replace('/', "-")][..],
        &[&*run_name, "Running"],
        &["step-kubernetes-only:", &run_name],
        &[&*run_name, REPOSITORY, &head],
        &[],
    ]) {
        let answer = run(command);
        for word in expected {
            assert!(answer.contains(word), "{command}\nno {word} in\n{answer}");
        }
    }
    stage.frontend.cancel(job);
    stage.frontend.wait_finished(job, MINUTES);
    executor.stop();
    stage.assert_clean();
}

/// The executor's own Events, once there are so many.
fn events(stage: &Stage, count: usize) -> Vec<Value> {
    let ours = || {
        let all = stage.namespace.list("events").into_iter();
        let ours = all.filter(|it| it["source"]["component"] == "sourcegraph-executor");
        let ours: Vec<Value> = ours.collect();
        (ours.len() >= count).then_some(ours)
    };
    eventually("the executor's Events", SOON, ours, || {
        stage.namespace.story()
    })
}

#[test]
fn each_failure_leaves_an_event_with_its_word() {
    let stage = Stage::new();
    stage.namespace.set_rules(&RULES);
    let executor = stage
        .executor()
        .env("EXECUTOR_IMAGE_PULL_POLICY", "Never")
        .start();
    let run_job = |step: StepSpec| stage.frontend.enqueue(stage.job().step(step));
    let fails = run_job(tiny("fails", "exit 3"));
    let absent = run_job(StepSpec::new("absent", "localhost/nope:1").command("true"));
    let cancelled = run_job(tiny("long", "echo begun; sleep 600"));
    let good = run_job(StepSpec::new("good", TINY_IMAGE).command("true"));
    stage
        .frontend
        .wait_for(cancelled, MINUTES, |view| view.log_text().contains("begun"));
    stage.frontend.cancel(cancelled);
    for job in [fails, absent, cancelled, good] {
        stage.frontend.wait_finished(job, MINUTES);
    }
    executor.stop();
    stage.assert_clean();
    let events = events(&stage, 3);
    assert_eq!(events.len(), 3, "{events:#?}");
    for (job, reason, words) in [
        (fails, "Step", "exit code 3"),
        (
            absent,
            "ImageNotPresent",
            "image localhost/nope:1 is not on the node",
        ),
        (cancelled, "Cancelled", "the job was cancelled"),
    ] {
        let name = format!("sg-executor-job-batches-{}-", job.id);
        let is_it = |it: &&Value| {
            let object = &it["involvedObject"]["name"];
            object.as_str().unwrap_or_default().starts_with(&name)
        };
        let event = events.iter().find(is_it).expect("each job has one");
        assert_eq!(event["reason"], reason);
        assert_eq!(event["involvedObject"]["kind"], "Job");
        assert!(event["involvedObject"]["uid"].is_string(), "{event}");
        let message = event["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
    }
    let answer = run(commands(&stage, fails).last().unwrap());
    assert!(answer.contains("ImageNotPresent"), "{answer}");
}

#[test]
fn events_that_are_forbidden_are_said_once() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let job = || {
        stage
            .frontend
            .enqueue(stage.job().step(tiny("s", "exit 3")))
    };
    let jobs = [job(), job(), job()];
    for job in jobs {
        let view = stage.frontend.wait_finished(job, MINUTES);
        assert!(
            matches!(view.state, JobState::Errored { .. }),
            "{:?}",
            view.state
        );
    }
    let said = "Failures of jobs leave no Events";
    executor.wait_for_log(said);
    // The next one is not even tried.
    stage.frontend.wait_finished(job(), MINUTES);
    assert_eq!(
        executor.log().matches(said).count(),
        1,
        "{}",
        executor.log()
    );
    executor.stop();
    stage.assert_clean();
}

#[test]
fn the_events_component_allows_what_it_says() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let text = "resources: [../../../manifests/base]\ncomponents: [../../../manifests/events]\n";
    std::fs::write(dir.path().join("kustomization.yaml"), text).unwrap();
    let render = ["kustomize", dir.path().to_str().unwrap()];
    let Ok(rendered) = try_kubectl(&render, None) else {
        eprintln!("not run: this kubectl is too old for the manifests");
        return;
    };
    let of_base = kubectl(&["kustomize", "manifests/base"], None);
    let rule = "- apiGroups:\n  - \"\"\n  resources:\n  - events\n  verbs:\n  - create\n";
    assert!(rendered.contains(rule), "{rendered}");
    assert!(!of_base.contains(rule), "the base keeps the released Role");
}
