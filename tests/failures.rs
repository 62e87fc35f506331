//! Every cause of a failure that a cluster of one node can give: each is found
//! early, and told to whoever reads the job's page or its log.

/// The cluster does not take the pod.
mod admission;
/// Pods that were ended before their time.
mod ending;
/// A worker that panics.
mod panicking;
/// An executor with the released permissions alone.
mod rights;
/// Pods and containers that do not start.
mod starting;

use serde_json::Value;

use crate::frontend::record::{JobRef, JobView};
use crate::frontend::spec::JobSpec;
use crate::support::daemon::Daemon;
use crate::support::stage::{Stage, tiny};
use crate::support::{MINUTES, SOON, eventually};

fn start(stage: &Stage, environment: &[(&str, &str)]) -> Daemon {
    let builder = environment
        .iter()
        .fold(stage.executor(), |builder, (name, value)| {
            builder.env(name, value)
        });
    builder.start()
}

/// Runs one job to its end, which is no success.
fn fail(stage: &Stage, environment: &[(&str, &str)], job: JobSpec) -> JobView {
    let executor = start(stage, environment);
    let job = stage.frontend.enqueue(job);
    let view = stage.frontend.wait_finished(job, MINUTES);
    assert_eq!(view.state.name(), "errored", "{}", view.log_text());
    executor.stop();
    stage.assert_clean();
    view
}

/// The same for a job of one step that would succeed.
fn fail_good_job(stage: &Stage, environment: &[(&str, &str)]) -> JobView {
    fail(stage, environment, stage.job().step(tiny("good", "true")))
}

/// Both the mark and the log must have these words.
fn assert_told(view: &JobView, words: &[&str]) {
    let (message, log) = (view.message(), view.log_text());
    for words in words {
        assert!(message.contains(words), "{message:?} lacks {words:?}");
        assert!(log.contains(words), "the log lacks {words:?}:\n{log}");
    }
}

/// A cause that cannot pass is not waited for. (All limits of waiting are
/// longer than these tests may take.)
fn assert_told_at_once(view: &JobView, words: &[&str]) {
    assert_told(view, words);
    let log = view.log_text();
    let is_wait = |line: &str| line.contains("Waiting, for") && line.contains(words[0]);
    assert!(!log.lines().any(is_wait), "it was waited for:\n{log}");
}

/// A job that runs until something ends it, and then says that all is well.
fn stubborn(stage: &Stage) -> JobRef {
    let script = "trap 'exit 0' TERM; echo begun; while true; do sleep 0.2; done";
    stage
        .frontend
        .enqueue(stage.job().step(tiny("stubborn", script)))
}

fn wait_for_log(stage: &Stage, job: JobRef, words: &str) -> JobView {
    let has_words = |view: &JobView| view.log_text().contains(words);
    stage.frontend.wait_for(job, MINUTES, has_words)
}

/// The only object of this kind, once there is one.
fn object(stage: &Stage, kind: &str) -> Value {
    let first = || stage.namespace.list(kind).into_iter().next();
    eventually(kind, SOON, first, || stage.namespace.story())
}

fn name_of(stage: &Stage, kind: &str) -> String {
    let object = object(stage, kind);
    object["metadata"]["name"].as_str().unwrap().to_owned()
}
