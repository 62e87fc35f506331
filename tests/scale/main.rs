//! `scripts/scale`: thousands of jobs through one executor on the real servers
//! of Kubernetes and a simulated node, and whether anything grows on the way.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "telling what happens is what it is for"
)]

#[path = "../frontend/mod.rs"]
mod frontend;
mod kubelet;
mod process;
mod run;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::process::ExitCode;

use run::{Options, run};

const USAGE: &str = "usage: scripts/scale [--jobs N] [--at-once N]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(options) = read(&arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let report = run(&options);
    println!("{report}");
    match report.has_grown() {
        false => ExitCode::SUCCESS,
        true => ExitCode::FAILURE,
    }
}

/// Pairs of a name and a number, in any order.
fn read(arguments: &[String]) -> Option<Options> {
    let mut options = Options {
        jobs: 5000,
        at_once: 100,
    };
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return None };
        match name.as_str() {
            "--jobs" => options.jobs = value.parse().ok()?,
            "--at-once" => options.at_once = value.parse().ok()?,
            _ => return None,
        }
    }
    // Each of the table's rows needs a job that is its own.
    let is_possible = options.jobs >= table::ROWS && (1..=1000).contains(&options.at_once);
    is_possible.then_some(options)
}
