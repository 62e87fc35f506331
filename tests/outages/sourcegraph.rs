//! Sourcegraph is away, gives jobs to others, or refuses the token.

use std::time::Duration;

use super::{assert_counted, enqueue_counting, pass, wait_until_it_counts};
use crate::frontend::Frontend;
use crate::frontend::fault::Fault;
use crate::support::stage::Stage;
use crate::support::{MINUTES, SOON, eventually};

/// How long Sourcegraph is away: for a restart, and for an upgrade. The jobs of
/// the test end in that time.
const OUTAGES: [Duration; 2] = [Duration::from_secs(20), Duration::from_secs(600)];

fn assert_all_arrives_once(outage: Duration) {
    let patient = Frontend::builder().stall_limit(outage + MINUTES);
    let stage = Stage::with(patient);
    let executor = stage.executor().start();
    let numbers = 12;
    let jobs = [(); 3].map(|()| enqueue_counting(&stage, numbers));
    for job in jobs {
        wait_until_it_counts(&stage, job);
    }
    let before = stage.frontend.requests_to("heartbeat").len();
    stage.frontend.stop_answering();
    pass(outage);
    // They are over, and nobody could be told.
    stage.namespace.wait_until_empty();
    stage.frontend.resume();
    for job in jobs {
        let view = stage.frontend.wait_finished(job, MINUTES);
        assert_counted(&view, numbers);
        let keys: Vec<_> = view.logs.iter().map(|entry| entry.key.as_str()).collect();
        let expected = [
            "setup.workspace",
            "step.kubernetes.count",
            "teardown.kubernetes.job",
        ];
        assert_eq!(keys, expected);
    }
    let after = stage.frontend.requests_to("heartbeat").len();
    assert!(after > before, "heartbeats go on");
    assert!(executor.log().contains("Heartbeats arrive again"));
    executor.stop();
    stage.assert_clean();
}

#[test]
fn everything_arrives_once_after_a_restart() {
    assert_all_arrives_once(OUTAGES[0]);
}

#[test]
fn everything_arrives_once_after_ten_minutes() {
    assert_all_arrives_once(OUTAGES[1]);
}

/// What the server does to lost answers must not make anything twice.
#[test]
fn lost_answers_double_nothing() {
    let stage = Stage::new();
    for call in [
        "addExecutionLogEntry",
        "updateExecutionLogEntry",
        "markComplete",
    ] {
        stage.frontend.inject(Fault::on(call).cut_after());
        stage.frontend.inject(Fault::on(call).status(503));
    }
    let executor = stage.executor().start();
    let numbers = 12;
    let job = enqueue_counting(&stage, numbers);
    stage.frontend.wait_finished(job, MINUTES);
    // Its end here as well.
    executor.stop();
    let view = stage.frontend.job(job);
    assert_eq!(view.state.name(), "completed", "{}", view.log_text());
    let accepted = view.marks.iter().filter(|mark| mark.status == 204);
    assert_eq!(accepted.count(), 1, "{:?}", view.marks);
    let keys: Vec<_> = view.logs.iter().map(|entry| entry.key.as_str()).collect();
    let expected = [
        "setup.workspace",
        "step.kubernetes.count",
        "teardown.kubernetes.job",
    ];
    assert_eq!(keys, expected);
    stage.assert_clean();
}

/// The server is away for so long that it gives the job to another executor.
#[test]
fn a_job_given_away_meanwhile_is_not_marked() {
    let stage = Stage::new();
    let mut first = stage.executor().env("EXECUTOR_NUM_TOTAL_JOBS", "1").start();
    let numbers = 30;
    let job = enqueue_counting(&stage, numbers);
    wait_until_it_counts(&stage, job);
    let holder = stage.frontend.job(job).holder().unwrap().to_owned();
    stage.frontend.stop_answering();
    stage.frontend.give_away(job);
    let second = stage.executor().spawn();
    pass(Duration::from_secs(3));
    stage.frontend.resume();
    assert_eq!(first.wait(SOON).code(), Some(0), "{}", first.log());
    assert!(first.log().contains("is not ours any more"));
    let view = stage.frontend.wait_finished(job, MINUTES);
    assert_counted(&view, numbers);
    assert_eq!(view.attempts, 2);
    assert_ne!(view.marks[0].executor, holder, "the first one says nothing");
    second.stop();
    stage.assert_clean();
}

#[test]
fn a_token_that_is_refused_is_told_and_asked_for_slowly() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    for call in ["dequeue", "heartbeat"] {
        stage.frontend.inject(Fault::on(call).always().status(401));
    }
    executor.wait_for_log("does not accept the executor token");
    let asked = |call: &str| {
        let requests = stage.frontend.requests_to(call);
        let refused = requests.into_iter().filter(|r| r.status == Some(401));
        refused.map(|request| request.at).collect::<Vec<_>>()
    };
    let dequeues = eventually(
        "several tries",
        MINUTES,
        || Some(asked("dequeue")).filter(|dequeues| dequeues.len() >= 7),
        || executor.log(),
    );
    let last = dequeues.len() - 1;
    let apart = dequeues[last] - dequeues[last - 1];
    assert!(apart >= Duration::from_secs(3), "the last two: {apart:?}");
    for pair in asked("heartbeat").windows(2) {
        let apart = pair[1] - pair[0];
        assert!(apart >= Duration::from_secs(4), "heartbeats: {apart:?}");
    }
    let log = executor.log();
    assert!(log.contains("executors.accessToken"), "{log}");
    stage.frontend.clear_faults();
    let job = enqueue_counting(&stage, 2);
    assert_counted(&stage.frontend.wait_finished(job, MINUTES), 2);
    executor.stop();
    stage.assert_clean();
}
