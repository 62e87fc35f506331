//! `scripts/chaos`: random jobs through random trouble, and at the end a look
//! at every one of them.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "telling what happens is what it is for"
)]

#[path = "mod.rs"]
mod chaos;
#[path = "../frontend/mod.rs"]
mod frontend;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

use chaos::{Options, run};

const USAGE: &str = "usage: scripts/chaos [--seed S] [--jobs N] [--only NUMBER]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(options) = read(&arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let summary = run(&options);
    println!("{summary}");
    match summary.faults.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Pairs of a name and a number, in any order.
fn read(arguments: &[String]) -> Option<Options> {
    let mut options = Options {
        seed: 1,
        jobs: 0..200,
    };
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return None };
        match name.as_str() {
            "--seed" => options.seed = value.parse().ok()?,
            "--jobs" => options.jobs = 0..value.parse().ok()?,
            "--only" => {
                let number = value.parse().ok()?;
                options.jobs = number..number + 1;
            }
            _ => return None,
        }
    }
    Some(options)
}
