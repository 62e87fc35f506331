//! The cluster goes on while the executor sees no pod: the watch is refused,
//! and all other calls work.

use std::time::Duration;

use super::pass;
use crate::support::proxy::Proxy;
use crate::support::proxy::fault::{Call, Fault};
use crate::support::stage::{Stage, tiny};
use crate::support::{MINUTES, eventually};

/// From now on the executor sees no pod.
fn blind(proxy: &Proxy) {
    for call in [Call::List, Call::Watch] {
        proxy.inject(Fault::on(call).always().perhaps().answer(503));
    }
    proxy.end_connections();
}

/// How often the executor asked for a Job.
fn questions(proxy: &Proxy) -> usize {
    let requests = proxy.requests(Call::Any);
    let about_job = |path: &str| path.contains("/jobs/sg-executor-job-");
    let asked = requests
        .iter()
        .filter(|request| request.method == "GET" && about_job(&request.path));
    asked.count()
}

#[test]
fn a_job_that_failed_unseen_fails_for_its_reason() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    let executor = stage.executor_through(&proxy).start();
    blind(&proxy);
    let job = stage
        .frontend
        .enqueue(stage.job().step(tiny("s", "echo seen; exit 44")));
    let failed = ["get", "jobs", "-o", "jsonpath={.items[*].status.failed}"];
    eventually(
        "the Job has failed",
        MINUTES,
        || (stage.namespace.kubectl(&failed) == "1").then_some(()),
        || executor.log(),
    );
    let before = questions(&proxy);
    eventually(
        "the executor knows that",
        MINUTES,
        || (questions(&proxy) > before).then_some(()),
        || format!("{}\n{}", executor.log(), proxy.story()),
    );
    // Long enough for the answer to have its effect.
    pass(Duration::from_secs(3));
    proxy.clear();
    let job = stage.frontend.wait_finished(job, MINUTES);
    assert!(job.message().ends_with("exit code 44"), "{job:#?}");
    assert!(job.log_text().contains("stdout: seen"), "{job:#?}");
    executor.stop();
    stage.assert_clean();
}

#[test]
fn no_grace_ends_what_nobody_sees() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    let executor = stage
        .executor_through(&proxy)
        .env("EXECUTOR_POD_START_GRACE", "3s")
        .start();
    blind(&proxy);
    let job = stage.frontend.enqueue(stage.job().step(tiny("s", "true")));
    executor.wait_for_log("Created Job");
    // More than the grace.
    pass(Duration::from_secs(6));
    proxy.clear();
    let job = stage.frontend.wait_finished(job, MINUTES);
    assert_eq!(job.state.name(), "completed", "{}", executor.log());
    executor.stop();
    stage.assert_clean();
}
