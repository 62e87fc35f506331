//! What the kernel tells of a running executor.

use std::fs;
use std::time::Duration;

use crate::support::daemon::Daemon;

/// Clock ticks in a second, in which the kernel tells processor time; the same
/// on every Linux that we run on.
const TICKS: f64 = 100.0;
const MIB: f64 = 1024.0 * 1024.0;

/// Memory that is resident now, in MiB.
pub(crate) fn resident(executor: &Daemon) -> f64 {
    status(executor, "VmRSS") / 1024.0
}

/// The most that ever was resident, in MiB.
pub(crate) fn resident_most(executor: &Daemon) -> f64 {
    status(executor, "VmHWM") / 1024.0
}

/// Number of threads.
pub(crate) fn threads(executor: &Daemon) -> f64 {
    status(executor, "Threads")
}

/// Number of open file descriptors.
pub(crate) fn descriptors(executor: &Daemon) -> usize {
    let entries = fs::read_dir(format!("/proc/{}/fd", executor.pid()));
    entries.expect("the executor runs").count()
}

/// Processor time so far, its own and the kernel's for it.
pub(crate) fn processor(executor: &Daemon) -> Duration {
    let path = format!("/proc/{}/stat", executor.pid());
    let text = fs::read_to_string(path).expect("the executor runs");
    // The name before it may hold spaces, and ends with the last parenthesis.
    let (_, fields) = text.rsplit_once(')').expect("the name is in parentheses");
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: f64 = ticks.filter_map(|field| field.parse::<f64>().ok()).sum();
    Duration::from_secs_f64(ticks / TICKS)
}

/// Bytes that it has written to files so far; what it sends is not among them.
pub(crate) fn written(executor: &Daemon) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/io", executor.pid()));
    let text = text.expect("the executor runs");
    let value = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    value
        .and_then(|value| value.parse().ok())
        .expect("the kernel tells it of every process")
}

/// Bytes in MiB.
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}

fn status(executor: &Daemon, field: &str) -> f64 {
    let path = format!("/proc/{}/status", executor.pid());
    let text = fs::read_to_string(path).expect("the executor runs");
    let line = text.lines().find(|line| line.starts_with(field));
    let value = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    value.expect("the kernel tells it of every process")
}
