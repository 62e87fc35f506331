//! The API server is away, busy, or answers in half.

use std::time::Duration;

use super::{assert_counted, enqueue_counting, pass, wait_until_it_counts};
use crate::support::proxy::Proxy;
use crate::support::proxy::fault::{Call, Fault, Place};
use crate::support::stage::{Stage, tiny};
use crate::support::{MINUTES, eventually};

/// How long the API server is away: for a restart, and for repairs.
const OUTAGES: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(300)];

fn wait_until_faults_have_struck(proxy: &Proxy) {
    eventually(
        "every fault has struck",
        MINUTES,
        || proxy.missed_faults().is_empty().then_some(()),
        || format!("{:#?}\n{}", proxy.missed_faults(), proxy.story()),
    );
}

/// Three jobs: one ends while the API server is away, one after that, and one
/// cannot be created before. All must end as if nothing had been.
fn assert_outlived(outage: Duration) {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    let executor = stage.executor_through(&proxy).start();
    let (short, long) = (10, 2 * outage.as_secs() + 20);
    let during = enqueue_counting(&stage, short);
    let after = enqueue_counting(&stage, long);
    wait_until_it_counts(&stage, during);
    wait_until_it_counts(&stage, after);
    proxy.go_away();
    let late = enqueue_counting(&stage, short);
    pass(outage);
    assert!(executor.log().contains("The watch of pods broke"));
    proxy.come_back();
    for (job, numbers) in [(during, short), (after, long), (late, short)] {
        assert_counted(&stage.frontend.wait_finished(job, MINUTES), numbers);
    }
    executor.stop();
    stage.assert_clean();
}

#[test]
fn jobs_outlive_half_a_minute_without_the_cluster() {
    assert_outlived(OUTAGES[0]);
}

#[test]
fn jobs_outlive_five_minutes_without_the_cluster() {
    assert_outlived(OUTAGES[1]);
}

#[test]
fn restarts_of_the_api_server_are_survived() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    let executor = stage.executor_through(&proxy).start();
    let numbers = 30;
    let jobs = [(); 2].map(|()| enqueue_counting(&stage, numbers));
    for job in jobs {
        wait_until_it_counts(&stage, job);
    }
    for _ in 0..4 {
        proxy.end_connections();
        pass(Duration::from_secs(2));
    }
    for job in jobs {
        assert_counted(&stage.frontend.wait_finished(job, MINUTES), numbers);
    }
    assert!(proxy.requests(Call::Watch).len() > 4, "{}", proxy.story());
    assert!(proxy.requests(Call::Log).len() > 8, "{}", proxy.story());
    executor.stop();
    stage.assert_clean();
}

/// Breaks the watch, and fails unless a job that runs through all faults and
/// one that begins after them are well.
fn assert_watched(stage: &Stage, faults: Vec<Fault>) {
    let proxy = Proxy::before(&stage.namespace);
    let executor = stage.executor_through(&proxy).start();
    let numbers = 30;
    let through = enqueue_counting(stage, numbers);
    wait_until_it_counts(stage, through);
    for fault in faults {
        proxy.inject(fault);
    }
    proxy.end_connections();
    wait_until_faults_have_struck(&proxy);
    stage.complete(stage.job().step(tiny("s", "true")));
    assert_counted(&stage.frontend.wait_finished(through, MINUTES), numbers);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_watch_that_fails_in_every_way_is_opened_again() {
    let on_watch = || Fault::on(Call::Watch);
    let faults = vec![
        on_watch().say_nothing(),
        on_watch().say_gone(),
        on_watch().answer(410),
        on_watch().answer(500),
        on_watch().answer_retry_after(429, 1),
        on_watch().reset_before(),
    ];
    assert_watched(&Stage::new(), faults);
}

#[test]
fn a_list_that_fails_in_every_way_is_made_again() {
    let on_list = || Fault::on(Call::List);
    let faults = vec![
        on_list().answer(503),
        on_list().answer_retry_after(429, 1),
        on_list().answer(410),
        on_list().reset_after(),
        on_list().cut(50, Place::Here),
    ];
    assert_watched(&Stage::new(), faults);
}

#[test]
fn a_watch_that_is_cut_in_an_event_misses_nothing() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    let on_watch = || Fault::on(Call::Watch);
    proxy.inject(on_watch().cut(1000, Place::Here));
    proxy.inject(on_watch().cut(0, Place::AtBorder));
    proxy.inject(on_watch().end_early(3000, Place::Here));
    let executor = stage.executor_through(&proxy).start();
    let numbers = 4;
    let job = enqueue_counting(&stage, numbers);
    assert_counted(&stage.frontend.wait_finished(job, MINUTES), numbers);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn calls_are_made_again_when_they_may_succeed() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    proxy.inject(Fault::on(Call::Create("secrets")).answer(500));
    proxy.inject(Fault::on(Call::Create("jobs")).answer_retry_after(429, 3));
    proxy.inject(Fault::on(Call::Create("jobs")).answer(503));
    proxy.inject(Fault::on(Call::Log).answer_retry_after(429, 2));
    proxy.inject(Fault::on(Call::Log).answer(500));
    proxy.inject(Fault::on(Call::Delete("jobs")).answer_retry_after(429, 3));
    proxy.inject(Fault::on(Call::Delete("jobs")).reset_before());
    let executor = stage.executor_through(&proxy).start();
    let numbers = 4;
    let job = enqueue_counting(&stage, numbers);
    assert_counted(&stage.frontend.wait_finished(job, MINUTES), numbers);
    for (call, seconds) in [
        (Call::Create("jobs"), 3),
        (Call::Log, 2),
        (Call::Delete("jobs"), 3),
    ] {
        let requests = proxy.requests(call);
        let busy = requests.iter().position(|r| r.status == Some(429)).unwrap();
        let apart = requests[busy + 1].at - requests[busy].at;
        assert!(apart >= Duration::from_secs(seconds), "{call:?}: {apart:?}");
    }
    executor.stop();
    stage.assert_clean();
}

/// The watch says nothing any more; that the log has ended shows it.
#[test]
fn a_dead_watch_keeps_no_job_waiting() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    let executor = stage.executor_through(&proxy).start();
    let numbers = 16;
    let job = enqueue_counting(&stage, numbers);
    wait_until_it_counts(&stage, job);
    proxy.inject(Fault::on(Call::Watch).mute(0, Place::Here));
    proxy.end_connections();
    // The watch itself is doubted after more than two minutes.
    let minute = Duration::from_secs(60);
    assert_counted(&stage.frontend.wait_finished(job, minute), numbers);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_dead_log_stream_is_noticed_while_its_step_runs() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    let on_log = Fault::on(Call::Log).of("container=step-kubernetes-count");
    proxy.inject(on_log.mute(150, Place::AtBorder));
    let executor = stage.executor_through(&proxy).start();
    let numbers = 90;
    let job = enqueue_counting(&stage, numbers);
    executor.wait_for_log_within("A log stream was dead", MINUTES);
    assert!(!stage.frontend.job(job).state.is_final(), "the step runs");
    assert_counted(&stage.frontend.wait_finished(job, MINUTES), numbers);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_dead_log_stream_is_noticed_when_its_step_ends() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    let on_log = Fault::on(Call::Log).of("container=step-kubernetes-count");
    proxy.inject(on_log.mute(150, Place::InStamp));
    let executor = stage.executor_through(&proxy).start();
    let numbers = 12;
    let job = enqueue_counting(&stage, numbers);
    assert_counted(&stage.frontend.wait_finished(job, MINUTES), numbers);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn calls_that_are_never_answered_are_made_again() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    proxy.inject(Fault::on(Call::Create("jobs")).swallow());
    let executor = stage.executor_through(&proxy).start();
    let numbers = 4;
    let job = enqueue_counting(&stage, numbers);
    assert_counted(&stage.frontend.wait_finished(job, MINUTES), numbers);
    executor.stop();
    stage.assert_clean();
}

/// Three clean-ups hang; a fourth job is created, cancelled and reported.
#[test]
fn hanging_clean_ups_keep_nobody_waiting() {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    proxy.inject(Fault::on(Call::Delete("jobs")).times(3).swallow());
    let executor = stage.executor_through(&proxy).start();
    let done = [(); 3].map(|()| {
        let step = tiny("s", "true");
        stage.frontend.enqueue(stage.job().step(step))
    });
    wait_until_faults_have_struck(&proxy);
    let job = enqueue_counting(&stage, 600);
    wait_until_it_counts(&stage, job);
    stage.frontend.cancel(job);
    let view = stage.frontend.wait_finished(job, MINUTES);
    assert_eq!(view.state.name(), "canceled", "{}", view.log_text());
    for job in done {
        let view = stage.frontend.job(job);
        assert!(!view.state.is_final(), "its clean-up still hangs");
    }
    for job in done {
        stage.wait_complete(job);
    }
    executor.stop();
    stage.assert_clean();
}
