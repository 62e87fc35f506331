//! A job can be cancelled in every state: the deletion leaves before the next
//! heartbeat, what the job wrote is there, and its entry says what happened.

use std::time::{Duration, Instant};

use crate::frontend::fault::Fault as FrontendFault;
use crate::frontend::record::{JobRef, JobView, MarkKind};
use crate::support::proxy::Proxy;
use crate::support::proxy::fault::{Call, Fault};
use crate::support::stage::{Stage, tiny};
use crate::support::{MINUTES, SOON, eventually};

fn sleeper(stage: &Stage) -> JobRef {
    let step = tiny("long", "set +x; echo begun; sleep 600");
    stage.frontend.enqueue(stage.job().step(step))
}

fn wait_for_request(proxy: &Proxy, call: Call) {
    eventually(
        &format!("a request of kind {call:?}"),
        MINUTES,
        || (!proxy.requests(call).is_empty()).then_some(()),
        || proxy.story(),
    );
}

/// Keeps the namespace from having any pod.
fn forbid_pods(stage: &Stage) {
    let none = ["create", "quota", "none", "--hard=pods=0"];
    stage.namespace.kubectl(&none);
}

/// Waits until the Job is there and its pod was refused.
fn wait_for_podless_job(stage: &Stage) -> String {
    eventually(
        "a Job without a pod",
        MINUTES,
        || {
            let events = stage.namespace.list("events");
            let refused = events
                .iter()
                .find(|event| event["reason"] == "FailedCreate");
            let name = refused?["involvedObject"]["name"].as_str()?;
            Some(name.to_owned())
        },
        || stage.namespace.story(),
    )
}

/// Cancels the job, and fails unless the deletion left before the heartbeat
/// after the one that brought the word, and the entry says what happened.
fn cancel(stage: &Stage, proxy: &Proxy, job: JobRef) -> JobView {
    let asked = Instant::now();
    stage.frontend.cancel(job);
    let view = stage.frontend.wait_finished(job, MINUTES);
    let deletions = proxy.requests(Call::Delete("jobs"));
    let deleted = deletions.iter().find(|deletion| deletion.at > asked);
    let deleted = deleted.expect("the Job was deleted").at;
    let beats = stage.frontend.requests_to("heartbeat");
    let words: Vec<Instant> = beats
        .iter()
        .map(|beat| beat.at)
        .filter(|at| *at > asked && *at < deleted)
        .collect();
    assert!(words.len() <= 1, "the deletion waited\n{}", proxy.story());
    if let Some(word) = words.first() {
        eprintln!("cancelled after {:.3?}", deleted - *word);
    }
    assert_eq!(view.state.name(), "canceled", "{}", view.log_text());
    let kinds: Vec<MarkKind> = view.marks.iter().map(|mark| mark.kind).collect();
    assert_eq!(kinds, [MarkKind::Failed]);
    let text = view.log_text();
    assert!(text.contains("stderr: The job was cancelled.\n"), "{text}");
    view
}

#[test]
fn cancelled_before_anything_is_created() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    proxy.inject(Fault::on(Call::AnyCreate).always().answer(500));
    let executor = stage.executor_through(&proxy).start();
    let job = sleeper(&stage);
    executor.wait_for_log("Next try in");
    cancel(&stage, &proxy, job);
    executor.stop();
    stage.assert_clean();
}

/// The create has its effect, and its answer never comes.
#[test]
fn cancelled_while_it_is_created() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    proxy.inject(Fault::on(Call::Create("jobs")).swallow_answer());
    let executor = stage.executor_through(&proxy).start();
    let job = sleeper(&stage);
    wait_for_request(&proxy, Call::Create("jobs"));
    cancel(&stage, &proxy, job);
    executor.stop();
    stage.assert_clean();
}

/// The create has its effect only after the first deletion found nothing.
#[test]
fn a_late_creation_is_deleted_too() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    let late = Duration::from_secs(12);
    proxy.inject(Fault::on(Call::Create("jobs")).delay(late));
    let executor = stage.executor_through(&proxy).start();
    let job = sleeper(&stage);
    wait_for_request(&proxy, Call::Create("jobs"));
    cancel(&stage, &proxy, job);
    let statuses: Vec<_> = proxy
        .requests(Call::Delete("jobs"))
        .iter()
        .map(|deletion| deletion.status)
        .collect();
    assert_eq!(statuses.first(), Some(&Some(404)), "{}", proxy.story());
    assert!(statuses.contains(&Some(200)), "{}", proxy.story());
    executor.stop();
    stage.assert_clean();
}

#[test]
fn cancelled_while_no_pod_can_be_made() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    forbid_pods(&stage);
    let executor = stage.executor_through(&proxy).start();
    let job = sleeper(&stage);
    wait_for_podless_job(&stage);
    cancel(&stage, &proxy, job);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn cancelled_while_it_is_suspended() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    forbid_pods(&stage);
    let executor = stage.executor_through(&proxy).start();
    let job = sleeper(&stage);
    let name = wait_for_podless_job(&stage);
    let suspend = r#"{"spec":{"suspend":true}}"#;
    stage
        .namespace
        .kubectl(&["patch", "job", &name, "--type=merge", "--patch", suspend]);
    cancel(&stage, &proxy, job);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn cancelled_while_it_waits_for_a_node() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    let executor = stage
        .executor_through(&proxy)
        .env("EXECUTOR_KUBERNETES_NODE_SELECTOR", "made-of=cheese")
        .start();
    let job = sleeper(&stage);
    executor.wait_for_log_within("no node can take the pod", MINUTES);
    cancel(&stage, &proxy, job);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn cancelled_while_it_runs() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    let executor = stage.executor_through(&proxy).start();
    let step = tiny(
        "long",
        "set +x; while true; do date +%s%3N; sleep 0.1; done",
    );
    let job = stage.frontend.enqueue(stage.job().step(step));
    stage.frontend.wait_for(job, MINUTES, |job| {
        job.log("step.kubernetes.long").is_some()
    });
    let view = cancel(&stage, &proxy, job);
    let deleted = proxy.requests(Call::Delete("jobs"))[0].at;
    let sent = stage.frontend.requests_to("updateExecutionLogEntry");
    let before = sent.iter().filter(|request| request.at < deleted);
    let has_reason = |body: &[u8]| String::from_utf8_lossy(body).contains("was cancelled");
    assert!(
        before
            .map(|request| &request.body)
            .any(|body| has_reason(body)),
        "the last of the log goes before the pod does\n{}",
        view.log_text()
    );
    executor.stop();
    stage.assert_clean();
}

#[test]
fn cancelled_while_its_pod_goes() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    let executor = stage.executor_through(&proxy).start();
    let job = sleeper(&stage);
    stage
        .frontend
        .wait_for(job, MINUTES, |job| job.log_text().contains("stdout: begun"));
    // The first process of a container ignores the signal to end.
    let slowly = [
        "delete",
        "pods",
        "--all",
        "--grace-period=15",
        "--wait=false",
    ];
    stage.namespace.kubectl(&slowly);
    cancel(&stage, &proxy, job);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_hanging_log_does_not_keep_a_cancelled_job() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    let executor = stage.executor_through(&proxy).start();
    let job = sleeper(&stage);
    stage
        .frontend
        .wait_for(job, MINUTES, |job| job.log_text().contains("stdout: begun"));
    let hang = FrontendFault::on("updateExecutionLogEntry").delay(Duration::from_secs(15));
    stage.frontend.inject(hang);
    cancel(&stage, &proxy, job);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_word_during_the_clean_up_changes_nothing() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    proxy.inject(Fault::on(Call::Delete("jobs")).times(4).answer(503));
    let executor = stage.executor_through(&proxy).start();
    let job = stage.frontend.enqueue(stage.job().step(tiny("s", "true")));
    wait_for_request(&proxy, Call::Delete("jobs"));
    stage.frontend.cancel(job);
    let view = stage.frontend.wait_finished(job, SOON);
    assert_eq!(view.state.name(), "completed", "{}", view.log_text());
    assert_eq!(view.marks.len(), 1);
    executor.stop();
    stage.assert_clean();
}
