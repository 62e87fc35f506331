//! However calls are lost and repeated, a step runs in one pod.

use super::{assert_counted, enqueue_counting, wait_until_it_counts};
use crate::support::MINUTES;
use crate::support::proxy::Proxy;
use crate::support::proxy::fault::{Call, Fault};
use crate::support::stage::Stage;

/// How often the cluster says that something of this kind happened, over all
/// objects that ever were: events outlive them.
fn happened(stage: &Stage, reason: &str, part: &str) -> usize {
    let events = stage.namespace.list("events");
    let meant = events.iter().filter(|event| {
        let message = event["message"].as_str().unwrap_or_default();
        event["reason"] == reason && message.contains(part)
    });
    meant
        .map(|event| event["count"].as_u64().unwrap_or(1) as usize)
        .sum()
}

/// Fails unless so many pods were made and as many steps were started.
fn assert_starts(stage: &Stage, starts: usize) {
    let pods = happened(stage, "SuccessfulCreate", "Created pod");
    assert_eq!(pods, starts, "pods\n{}", stage.namespace.story());
    let steps = happened(stage, "Started", "step-kubernetes-count");
    assert_eq!(steps, starts, "steps\n{}", stage.namespace.story());
}

#[test]
fn a_creation_whose_answer_was_lost_starts_one_pod() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    for kind in ["secrets", "jobs"] {
        proxy.inject(Fault::on(Call::Create(kind)).times(2).reset_after());
        proxy.inject(Fault::on(Call::Create(kind)).answer(500));
    }
    let executor = stage.executor_through(&proxy).start();
    let numbers = 6;
    let job = enqueue_counting(&stage, numbers);
    assert_counted(&stage.frontend.wait_finished(job, MINUTES), numbers);
    assert_eq!(proxy.requests(Call::Create("jobs")).len(), 4);
    assert_starts(&stage, 1);
    executor.stop();
    stage.assert_clean();
}

/// Two executors ask one queue all the time; each job gets one pod.
#[test]
fn two_executors_start_each_job_once() {
    let stage = Stage::new();
    let executors = [stage.executor(), stage.executor()].map(|builder| {
        let builder = builder.env("EXECUTOR_QUEUE_POLL_INTERVAL", "50ms");
        builder.start()
    });
    let jobs: Vec<_> = (0..8).map(|_| enqueue_counting(&stage, 2)).collect();
    for job in &jobs {
        let view = stage.frontend.wait_finished(*job, MINUTES);
        assert_counted(&view, 2);
        assert_eq!(view.attempts, 1);
    }
    assert_starts(&stage, jobs.len());
    for executor in executors {
        executor.stop();
    }
    stage.assert_clean();
}

/// The server takes the job from its holder while it runs: the other executor
/// starts it anew, and the first one ends what it had begun.
#[test]
fn each_attempt_at_a_job_starts_one_pod() {
    let stage = Stage::new();
    let executors = [stage.executor(), stage.executor()].map(|builder| builder.start());
    let numbers = 40;
    let job = enqueue_counting(&stage, numbers);
    wait_until_it_counts(&stage, job);
    stage.frontend.give_away(job);
    let view = stage.frontend.wait_finished(job, MINUTES);
    assert_counted(&view, numbers);
    assert_eq!(view.attempts, 2);
    assert_starts(&stage, 2);
    for executor in executors {
        executor.stop();
    }
    stage.assert_clean();
}
