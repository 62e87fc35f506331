//! Memory of the executor: without jobs, with many that write logs, and while
//! one writes a very large one.

use std::thread;
use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::frontend::spec::JobSpec;
use crate::reins::Reins;
use crate::support::daemon::Daemon;
use crate::support::stage::Stage;
use crate::table::Table;
use crate::{JOBS, LIMIT, process};

const IDLE_MOST: f64 = 12.0;
const STREAMING_MOST: f64 = 32.0;
const GROWTH_MOST: f64 = 8.0;
/// How long an executor without jobs settles: heartbeats, polls.
const SETTLING: Duration = Duration::from_secs(10);
/// How often each job of many writes, and for how long.
const BEAT: Duration = Duration::from_millis(500);
const BEATS: usize = 40;
/// Between two MiB of the large log.
const PAUSE: Duration = Duration::from_millis(50);
/// Bytes of the large log unless `EXECUTOR_BENCH_LOG_MIB` says otherwise.
const LARGE_MIB: usize = 1024;
/// Ten lines of a hundred bytes.
const TEN_LINES: &str = "l=0123456789abcdefghijklmnopqrstuvwxyz; l=$l-$l; \
    for i in 0 1 2 3 4 5 6 7 8 9; do echo \"$line $i $l some more words to a line\"; done";

/// Measures two executors.
pub(crate) fn measure(table: &mut Table) {
    many(table);
    large(table);
}

fn many(table: &mut Table) {
    let stage = Stage::new();
    let executor = stage
        .executor()
        .env("EXECUTOR_MAXIMUM_NUM_JOBS", &JOBS.to_string())
        .env("EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY", "128Mi")
        .env("RUST_LOG", "warn,executor=info")
        .start();
    thread::park_timeout(SETTLING);
    let idle = process::resident(&executor);
    let fds = process::descriptors(&executor);
    table.add(
        format!("resident memory, idle with {JOBS} workers"),
        format!(
            "{idle:.1} MiB ({} threads, {fds} descriptors)",
            process::threads(&executor)
        ),
        format!("≤ {IDLE_MOST} MiB"),
        idle <= IDLE_MOST,
    );
    let crowd = Crowd::gather(&stage, JOBS, TEN_LINES);
    for beat in 0..BEATS {
        crowd.reins.say_all(&beat.to_string());
        thread::park_timeout(BEAT);
    }
    let (now, most) = (
        process::resident(&executor),
        process::resident_most(&executor),
    );
    let fds = process::descriptors(&executor);
    table.add(
        format!("resident memory, highest with {JOBS} jobs streaming logs"),
        format!(
            "{most:.1} MiB (at the end {now:.1} MiB, {} threads, {fds} descriptors)",
            process::threads(&executor)
        ),
        format!("≤ {STREAMING_MOST} MiB"),
        most <= STREAMING_MOST,
    );
    crowd.finish(&stage, &crowd.jobs);
    executor.stop();
}

/// One step on a rein that writes a MiB each time that it is told to, no faster
/// than any reader of the kubelet's log can follow.
fn large(table: &mut Table) {
    let mebibytes = std::env::var("EXECUTOR_BENCH_LOG_MIB");
    let mebibytes = mebibytes.map_or(LARGE_MIB, |text| text.parse().expect("it is a number"));
    let stage = Stage::new();
    let executor = stage
        .executor()
        .env("RUST_LOG", "warn,executor=info")
        .start();
    // What the first job of a process costs is no growth.
    write(&stage, &executor, 1);
    let before = process::resident(&executor);
    let began = Instant::now();
    let (most, now, out) = write(&stage, &executor, mebibytes);
    let growth = most - before;
    table.add(
        format!("growth of it while one step writes {mebibytes} MiB"),
        format!(
            "{growth:.1} MiB ({before:.1} to {most:.1}, then {now:.1}), {out:.0} MiB at the server \
             after {:.0} s",
            began.elapsed().as_secs_f64()
        ),
        format!("≤ {GROWTH_MOST} MiB"),
        growth <= GROWTH_MOST && out >= mebibytes as f64,
    );
    executor.stop();
}

/// The highest and the last memory while a step writes so many MiB, and how many
/// there are at the server.
fn write(stage: &Stage, executor: &Daemon, mebibytes: usize) -> (f64, f64, f64) {
    let reins = Reins::new();
    let action = format!("yes \"{}\" | head -c {}", "x".repeat(99), 1 << 20);
    let step = reins.step("writer", &action);
    let job = stage.frontend.enqueue(JobSpec::new("batches").step(step));
    reins.wait_for(1);
    let mut most: f64 = 0.0;
    for _ in 0..mebibytes {
        reins.say("writer", "go");
        most = most.max(process::resident(executor));
        thread::park_timeout(PAUSE);
    }
    reins.release("writer");
    let is_final = || stage.frontend.glance(job, |view| view.state.is_final());
    let (later, now) = highest_until(executor, is_final);
    let view = stage.frontend.job(job);
    assert_eq!(view.state.name(), "completed");
    let log = view.log("step.kubernetes.led");
    let out = log.map_or(0, |log| log.out.len());
    (most.max(later), now, process::mib(out as u64))
}

/// The highest and the last memory until something has happened.
fn highest_until(executor: &Daemon, has_happened: impl Fn() -> bool) -> (f64, f64) {
    let give_up = Instant::now() + LIMIT;
    let mut most: f64 = 0.0;
    while !has_happened() {
        assert!(Instant::now() < give_up, "not within {LIMIT:?}");
        most = most.max(process::resident(executor));
        thread::park_timeout(Duration::from_millis(20));
    }
    (most, process::resident(executor))
}
