//! The form of log lines: time, level, thread, then a sentence.
//!
//! What is logged is decided by `RUST_LOG`; without it, everything from
//! `info` of ours and warnings of the libraries.

use std::io::Write;

use env_logger::Env;
use jiff::Timestamp;

const DEFAULT_FILTER: &str = "warn,executor=info";

/// Starts logging to standard error.
pub fn start() {
    env_logger::Builder::from_env(Env::default().default_filter_or(DEFAULT_FILTER))
        .format(|line, record| {
            let thread = std::thread::current();
            writeln!(
                line,
                "{:.3} {:5} {} {}",
                Timestamp::now(),
                record.level(),
                thread.name().unwrap_or("-"),
                record.args()
            )
        })
        .init();
}
