//! Servers that are away, busy or half dead: running jobs go on, end with the
//! right verdict and their whole log, and nothing happens twice.

/// The cluster goes on unseen.
mod blindness;
/// The API server.
mod cluster;
/// Sourcegraph.
mod sourcegraph;
/// Exactly one pod ever runs a step.
mod starts;

use std::time::{Duration, Instant};

use crate::frontend::record::{JobRef, JobView};
use crate::support::MINUTES;
use crate::support::stage::{Stage, TINY_IMAGE, lines, quiet};

/// Lets time pass, where time is what a test is about.
fn pass(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// A job whose step writes a number each half second.
fn enqueue_counting(stage: &Stage, numbers: u64) -> JobRef {
    let count = format!("i=0; while [ $i -lt {numbers} ]; do echo $i; i=$((i+1)); sleep 0.5; done");
    let step = quiet("count", TINY_IMAGE).command(count);
    stage.frontend.enqueue(stage.job().step(step))
}

/// Waits until a counting job writes.
fn wait_until_it_counts(stage: &Stage, job: JobRef) {
    stage.frontend.wait_for(job, MINUTES, |job| {
        let entry = job.log("step.kubernetes.count");
        entry.is_some_and(|entry| entry.out.contains("stdout: 1\n"))
    });
}

/// Fails unless every number is there once and in order, and the job was
/// marked once.
fn assert_counted(job: &JobView, numbers: u64) {
    let expected: Vec<String> = (0..numbers).map(|number| number.to_string()).collect();
    assert_eq!(job.state.name(), "completed", "{}", job.log_text());
    assert_eq!(lines(job, "count"), expected);
    assert_eq!(job.marks.len(), 1, "{:?}", job.marks);
}
