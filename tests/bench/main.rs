//! `scripts/bench`: what the executor costs beside the pods that it runs, on a
//! real cluster, with what it is to reach beside each figure.
//!
//! Times are ratios within one run, in which both sides take turns, wherever
//! something else does the same work, so that a machine whose speed drifts does
//! not matter. A figure that is not reached is marked and no failure: these are
//! measurements. What counts and does not depend on the machine is held by
//! `tests/economy.rs` too.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "showing is what it is for"
)]

#[path = "../frontend/mod.rs"]
mod frontend;
#[path = "../support/mod.rs"]
mod support;

mod bare;
mod crowd;
mod delay;
mod logs;
mod memory;
mod pods;
mod process;
mod quiet;
mod reins;
mod requests;
mod size;
mod start;
mod table;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use table::Table;

/// Nothing that is waited for takes longer.
const LIMIT: Duration = Duration::from_secs(600);
/// As many jobs as the table speaks of.
const JOBS: usize = 100;

/// Measures something and adds its rows.
type Measure = fn(&mut Table);

/// The parts by name, in the order in which they run.
const PARTS: [(&str, Measure); 8] = [
    ("size", size::measure),
    ("start", start::measure),
    ("pods", pods::measure),
    ("requests", requests::measure),
    ("quiet", quiet::measure),
    ("memory", memory::measure),
    ("logs", logs::measure),
    ("delay", delay::measure),
];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
    if wanted.iter().any(|name| !names.contains(&name.as_str())) {
        eprintln!("usage: scripts/bench [{}]...", names.join("|"));
        return ExitCode::from(2);
    }
    let mut table = Table::default();
    for (name, measure) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            let began = Instant::now();
            measure(&mut table);
            eprintln!("{name}: {:.0} s", began.elapsed().as_secs_f64());
        }
    }
    println!("{table}");
    ExitCode::SUCCESS
}
