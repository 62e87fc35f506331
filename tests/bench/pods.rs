//! Jobs through the executor against their pods created bare, in turns.

use crate::bare::Bare;
use crate::frontend::spec::JobSpec;
use crate::support::stage::{Stage, tiny};
use crate::table::{Table, quantile};
use crate::{JOBS, LIMIT};

/// Steps of each job, none of which does anything.
pub(crate) const STEPS: usize = 3;
/// Rounds with one job.
const ROUNDS: usize = 20;

const ALONE_MOST: f64 = 1.05;
const AT_ONCE_MOST: f64 = 1.03;

/// Measures one job, then many at once.
pub(crate) fn measure(table: &mut Table) {
    let stage = Stage::new();
    let executor = stage
        .executor()
        .env("EXECUTOR_MAXIMUM_NUM_JOBS", &JOBS.to_string())
        .env("EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY", "128Mi")
        .env("RUST_LOG", "warn,executor=info")
        .start();
    let mut bare = Bare::new(&stage);
    // The first pod of each kind pays for what the node does only once.
    bare.run(1);
    run(&stage, 1);
    let alone = (0..ROUNDS).map(|_| (run(&stage, 1), bare.run(1)));
    let alone: Vec<_> = alone.collect();
    let (figure, ratio) = ratios(&alone);
    table.add(
        format!(
            "dequeue to mark, against the same pod bare, 1 job of {STEPS} no-op steps, median \
             of {ROUNDS}"
        ),
        figure,
        format!("≤ {ALONE_MOST}"),
        ratio <= ALONE_MOST,
    );
    let at_once = [(run(&stage, JOBS), bare.run(JOBS))];
    let (figure, ratio) = ratios(&at_once);
    table.add(
        format!("the same, {JOBS} jobs at once, makespan against {JOBS} bare pods"),
        figure,
        format!("≤ {AT_ONCE_MOST}"),
        ratio <= AT_ONCE_MOST,
    );
    executor.stop();
}

/// Runs jobs through the executor; seconds from the first dequeue to the last
/// mark, as the frontend saw them.
pub(crate) fn run(stage: &Stage, count: usize) -> f64 {
    let jobs: Vec<_> = (0..count)
        .map(|_| {
            let job = (0..STEPS).fold(JobSpec::new("batches"), |job, step| {
                job.step(tiny(&format!("step.{step}"), "true"))
            });
            stage.frontend.enqueue(job)
        })
        .collect();
    let views: Vec<_> = jobs
        .into_iter()
        .map(|job| stage.frontend.wait_finished(job, LIMIT))
        .collect();
    for view in &views {
        assert_eq!(view.state.name(), "completed", "{}", view.log_text());
    }
    let dequeued = views.iter().filter_map(|view| view.dequeued_at).min();
    let marks = views.iter().flat_map(|view| &view.marks);
    let marked = marks.map(|mark| mark.at).max();
    let time = marked
        .zip(dequeued)
        .map(|(marked, dequeued)| marked.duration_since(dequeued));
    let time = time.expect("every job was dequeued and marked");
    time.as_secs_f64()
}

/// The median of the ratios, with the median seconds of both sides.
fn ratios(pairs: &[(f64, f64)]) -> (String, f64) {
    let median = |side: fn(&(f64, f64)) -> f64| {
        let values: Vec<f64> = pairs.iter().map(side).collect();
        quantile(&values, 0.5)
    };
    let ratio = median(|(ours, bare)| ours / bare);
    let (ours, bare) = (median(|(ours, _)| *ours), median(|(_, bare)| *bare));
    (
        format!("{ratio:.3} ({ours:.2} s against {bare:.2} s)"),
        ratio,
    )
}
