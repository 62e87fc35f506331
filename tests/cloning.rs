//! The repository in the workspace: as much of it as the job asks for, where
//! it asks for it, and nothing beside it that tells how it came there.

use crate::frontend::Frontend;
use crate::frontend::fault::Fault;
use crate::frontend::record::{JobState, JobView};
use crate::frontend::spec::{JobSpec, StepSpec};
use crate::support::MINUTES;
use crate::support::stage::{REPOSITORY, STEP_IMAGE, Stage, tiny};

mod limits;
mod secrecy;
mod trust;
mod users;

/// A step in the clone that looks at it; what it prints is for `seen`.
fn look(commands: &str) -> StepSpec {
    look_in(STEP_IMAGE, "look", commands)
}

fn look_in(image: &str, key: &str, commands: &str) -> StepSpec {
    StepSpec::new(key, image)
        .dir("repository")
        .command("{ set +x -e; } 2>/dev/null")
        .command(commands)
}

/// Runs a job to its end, which must be a good one.
fn run(stage: &Stage, spec: JobSpec) -> JobView {
    let job = stage.frontend.enqueue(spec);
    let job = stage.frontend.wait_finished(job, MINUTES);
    let is_complete = matches!(job.state, JobState::Completed);
    assert!(is_complete, "{:?}\n{}", job.state, job.log_text());
    job
}

/// The lines that the step `look` printed.
fn seen(job: &JobView) -> Vec<&str> {
    seen_by(job, "look")
}

fn seen_by<'a>(job: &'a JobView, key: &str) -> Vec<&'a str> {
    let entry = job.log(&format!("step.kubernetes.{key}"));
    let text = &entry.expect("the step has run").out;
    let lines = text.lines().map(|line| {
        let line = line.strip_prefix("stdout: ");
        line.unwrap_or_else(|| panic!("every line has its prefix: {text}"))
    });
    lines.collect()
}

#[test]
fn a_shallow_clone_is_one_commit() {
    let stage = Stage::new();
    stage.repository.git(&["tag", "v1"]);
    let head = stage.repository.commit(&[("src/cart.txt", "plums\n")]);
    let executor = stage.executor().start();
    let look = look("git rev-parse HEAD; git rev-list --all --count; git tag; cat src/cart.txt");
    let job = run(&stage, stage.job().shallow(true).step(look));
    assert_eq!(seen(&job), [head.as_str(), "1", "plums"]);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_full_clone_has_all_history() {
    let stage = Stage::new();
    stage.repository.git(&["tag", "v1"]);
    stage.repository.commit(&[("src/cart.txt", "plums\n")]);
    let executor = stage.executor().start();
    let look = look("git rev-list --all --count; git tag; git show HEAD~1:src/cart.txt");
    let job = run(&stage, stage.job().shallow(false).step(look));
    assert_eq!(seen(&job), ["2", "apples", "pears"], "and no tags");
    executor.stop();
    stage.assert_clean();
}

#[test]
fn tags_come_when_asked_for() {
    let stage = Stage::new();
    stage.repository.git(&["tag", "v1"]);
    let tagged = stage.repository.head();
    stage.repository.commit(&[("src/cart.txt", "plums\n")]);
    let executor = stage.executor().start();
    for shallow in [true, false] {
        let spec = stage.job().shallow(shallow).fetch_tags(true);
        let job = run(
            &stage,
            spec.step(look("git tag; git rev-parse 'v1^{commit}'")),
        );
        assert_eq!(seen(&job), ["v1", tagged.as_str()], "shallow: {shallow}");
    }
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_sparse_clone_fetches_its_files_only() {
    let stage = Stage::new();
    stage.repository.commit(&[
        ("src/deep/basket.txt", "baskets\n"),
        ("src/private.txt", "private\n"),
        ("docs/cart.md", "# Docs\n"),
    ]);
    let blob = |path: &str| {
        stage
            .repository
            .git(&["rev-parse", &format!("HEAD:{path}")])
    };
    let mut absent: Vec<_> = ["README.md", "docs/cart.md", "src/private.txt"]
        .map(|path| format!("?{}", blob(path).trim()))
        .into();
    absent.sort();
    let executor = stage.executor().start();
    let look = look(
        "git status --porcelain; find . -path ./.git -prune -o -type f -print | sort\n\
         git rev-list --objects --all --missing=print | grep '^?' | sort",
    );
    let spec = stage.job().sparse("src/*").sparse("!/src/private.txt");
    let job = run(&stage, spec.step(look));
    let files = ["./src/cart.txt", "./src/deep/basket.txt"].map(str::to_owned);
    assert_eq!(seen(&job), [files.to_vec(), absent].concat());
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_clone_can_be_the_workspace_itself() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let look = look("cat README.md input.json; git status --porcelain").dir("");
    let spec = stage.job().directory("").file("input.json", "{}\n");
    let job = run(&stage, spec.step(look));
    let expected = ["# Cart", "{}", "?? .sourcegraph-executor/", "?? input.json"];
    assert_eq!(seen(&job), expected);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn without_a_repository_the_workspace_is_empty() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let look = look("pwd; ls -A; touch here").dir("");
    let job = run(&stage, JobSpec::new("batches").step(look));
    assert_eq!(seen(&job), ["/job", ".sourcegraph-executor"]);
    let setup = &job.log("setup.workspace").unwrap().out;
    assert!(!setup.contains("Cloning"), "{setup}");
    executor.stop();
    stage.assert_clean();
}

#[test]
fn an_instance_below_a_path_is_cloned_from() {
    let stage = Stage::with(Frontend::builder().prefix("/sourcegraph"));
    stage.frontend.put_file("spec1/file1", "stored\n");
    let executor = stage.executor().start();
    let spec = stage
        .job()
        .stored_file("stored.txt", "spec1/file1", "2024-04-30T16:01:02Z");
    let job = run(&stage, spec.step(look("cat README.md ../stored.txt")));
    assert_eq!(seen(&job), ["# Cart", "stored"]);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn modification_times_keep_their_fraction() {
    let stage = Stage::new();
    stage.frontend.put_file("spec1/file1", "stored\n");
    let executor = stage.executor().start();
    let spec = stage
        .job()
        .file_modified("a.txt", "inline\n", "2024-04-30T18:01:02.123456789+02:00")
        .stored_file("b.txt", "spec1/file1", "2023-01-31T00:00:00.5Z");
    let look = look("TZ=UTC stat --format='%n %s %y %A' ../a.txt ../b.txt");
    let job = run(&stage, spec.step(look));
    let expected = [
        "../a.txt 7 2024-04-30 16:01:02.123456789 +0000 -rwxrwxrwx",
        "../b.txt 7 2023-01-31 00:00:00.500000000 +0000 -rwxrwxrwx",
    ];
    assert_eq!(seen(&job), expected);
    executor.stop();
    stage.assert_clean();
}

/// Runs a job whose workspace cannot be made, and gives the last line of its
/// set-up log.
fn fail(stage: &Stage, spec: JobSpec) -> String {
    let job = stage.frontend.enqueue(spec.step(tiny("never", "echo ran")));
    let job = stage.frontend.wait_finished(job, MINUTES);
    let message = job.state.message().unwrap_or_default();
    let says = message.contains("the workspace could not be set up");
    assert!(says, "{:?}\n{}", job.state, job.log_text());
    assert!(job.log("step.kubernetes.never").is_none(), "no step runs");
    let log = &job.log("setup.workspace").unwrap().out;
    // What is wrong goes to another stream than what went well before, so that
    // it need not stand last.
    let said = log.lines().rfind(|line| line.contains("executor: "));
    said.unwrap_or_else(|| panic!("{log}")).to_owned()
}

#[test]
fn a_missing_commit_is_explained() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let missing = "0123456789abcdef0123456789abcdef01234567";
    let said = fail(&stage, stage.job().repository(REPOSITORY, missing));
    let expected = format!(
        "stdout: executor: commit {missing} was not found in repository {REPOSITORY} on {}; \
         was it force-pushed away?",
        stage.frontend.url()
    );
    assert_eq!(said, expected);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_removed_repository_is_explained() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let head = stage.repository.head();
    let said = fail(
        &stage,
        stage.job().repository("git.example.org/gone", &head),
    );
    let expected = format!(
        "stdout: executor: repository git.example.org/gone was not found on {}; was it \
         removed, or is a path missing in the executor's frontend URL?",
        stage.frontend.url()
    );
    assert_eq!(said, expected);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn refused_credentials_are_explained() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    for status in [401, 403] {
        stage.frontend.clear_faults();
        let fault = Fault::on("/info/refs").always().status(status);
        stage.frontend.inject(fault);
        let said = fail(&stage, stage.job());
        let expected = format!("does not let this job clone {REPOSITORY}; the executor's cred");
        assert!(said.contains(&expected), "{said}");
    }
    executor.stop();
    stage.assert_clean();
}
