//! How long a line of a quiet log takes to the frontend.

use std::thread;
use std::time::{Duration, Instant};

use crate::LIMIT;
use crate::crowd::{Crowd, name};
use crate::support::stage::Stage;
use crate::table::{Table, quantile};

const JOBS: usize = 8;
const LINES: usize = 20;
const REACH: f64 = 1.5;
/// The longest time between two lines, in milliseconds, and the shortest.
const PAUSE: std::ops::Range<u64> = 100..2500;

/// Lets jobs write a line now and then and looks for each at the frontend.
pub(crate) fn measure(table: &mut Table) {
    let stage = Stage::new();
    let workers = JOBS.to_string();
    let executor = stage
        .executor()
        .env("EXECUTOR_MAXIMUM_NUM_JOBS", &workers)
        .env("RUST_LOG", "warn,executor=info")
        .start();
    let crowd = Crowd::gather(&stage, JOBS, "echo \"$line\"");
    let (stage_ref, crowd_ref) = (&stage, &crowd);
    let times: Vec<f64> = thread::scope(|scope| {
        let threads: Vec<_> = (0..JOBS)
            .map(|number| scope.spawn(move || lines(stage_ref, crowd_ref, number)))
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .flat_map(|times| times.expect("every line arrives"))
            .collect()
    });
    crowd.finish(&stage, &crowd.jobs);
    executor.stop();
    let (median, p99) = (quantile(&times, 0.5), quantile(&times, 0.99));
    let count = times.len();
    table.add(
        format!("a line written to the line at the frontend, {count} lines of quiet logs"),
        format!("p99 {p99:.2} s, median {median:.2} s"),
        format!("p99 < {REACH} s"),
        p99 < REACH,
    );
}

/// Seconds that each line of one job took.
fn lines(stage: &Stage, crowd: &Crowd, number: usize) -> Vec<f64> {
    let job = crowd.jobs[number];
    let mut random = fastrand::Rng::with_seed(number as u64);
    let line = |count: usize| {
        thread::park_timeout(Duration::from_millis(random.u64(PAUSE)));
        let text = format!("line {count} of {number}.");
        let written = Instant::now();
        crowd.reins.say(&name(number), &text);
        stage.frontend.wait_for(job, LIMIT, |view| {
            let log = view.log("step.kubernetes.led");
            log.is_some_and(|log| log.out.contains(&text))
        });
        written.elapsed().as_secs_f64()
    };
    (0..LINES).map(line).collect()
}
