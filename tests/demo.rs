//! `scripts/demo`: a batch change of three steps, from queue to diff.
//!
//! The frontend is the tests' stand-in, everything else is real: the
//! executor, the cluster, git. What the server would show is shown here while
//! it happens: each log entry as it grows, and in the end the diff.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "showing is what it is for"
)]

#[path = "frontend/mod.rs"]
mod frontend;
#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use frontend::record::{JobState, JobView};
use frontend::spec::StepSpec;
use support::stage::{STEP_IMAGE, Stage};

/// A job of three small steps takes seconds; pulling nothing, less.
const LIMIT: Duration = Duration::from_secs(300);
/// The step that prints the diff.
const DIFF_STEP: &str = "step.kubernetes.step.2.run";

fn main() -> ExitCode {
    let stage = Stage::new();
    stage.repository.commit(&[
        ("src/cart.txt", "apples\npears\n"),
        ("src/till.txt", "pears cost 2\napples cost 1\n"),
    ]);
    println!("frontend   {}", stage.frontend.url());
    println!("namespace  {}", stage.namespace.name);
    let executor = stage
        .executor()
        .env("RUST_LOG", "warn,executor=info")
        .start();
    let job = stage.frontend.enqueue(
        stage
            .job()
            .step(
                StepSpec::new("step.0.run", STEP_IMAGE)
                    .dir("repository")
                    .command("sed -i s/pears/plums/ src/*.txt; grep -n plums src/*.txt"),
            )
            .step(
                StepSpec::new("step.1.run", STEP_IMAGE)
                    .dir("repository")
                    .env("AUTHOR", "the batch change")
                    .command("echo \"Changed by $AUTHOR.\" > CHANGES.md; sleep 3; ls"),
            )
            .step(
                StepSpec::new("step.2.run", STEP_IMAGE)
                    .dir("repository")
                    .command("set +x; git add --all; git diff --cached"),
            ),
    );
    println!("job        {job}\n");
    let mut shown = Shown::default();
    let end = Instant::now() + LIMIT;
    let view = loop {
        let view = stage.frontend.job(job);
        shown.show(&view);
        if view.state.is_final() || Instant::now() > end {
            break view;
        }
        stage.frontend.wait_for_change(Duration::from_secs(1));
    };
    executor.signal("TERM");
    let mut executor = executor;
    let status = executor.wait(LIMIT);
    println!("\n----- what the executor logged -----\n{}", executor.log());
    if !matches!(view.state, JobState::Completed) || !status.success() {
        println!(
            "The job is {:?}, the executor ended with {status}.",
            view.state
        );
        return ExitCode::FAILURE;
    }
    stage.assert_clean();
    println!("----- the diff that the job made -----\n{}", diff(&view));
    ExitCode::SUCCESS
}

/// What was printed of each log entry.
#[derive(Default)]
struct Shown(BTreeMap<String, (usize, bool)>);

impl Shown {
    fn show(&mut self, view: &JobView) {
        for entry in &view.logs {
            let (length, ended) = self.0.entry(entry.key.clone()).or_default();
            for line in entry.out[*length..].lines() {
                println!("{:28} | {line}", entry.key);
            }
            *length = entry.out.len();
            if let (Some(code), false) = (entry.exit_code, *ended) {
                *ended = true;
                let time = entry.duration_ms.unwrap_or_default();
                println!("{:28} = exit code {code} after {time} ms", entry.key);
            }
        }
    }
}

/// The last step's output, without the marks of its lines.
fn diff(view: &JobView) -> String {
    let text = view
        .log(DIFF_STEP)
        .map(|entry| entry.out.as_str())
        .unwrap_or_default();
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("stdout: "));
    lines
        .filter(|line| !line.starts_with("+ set +x"))
        .fold(String::new(), |diff, line| diff + line + "\n")
}
