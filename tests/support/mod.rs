//! What tests and the demo stand on: a namespace of their own in a real
//! cluster, a repository, the real binary, and waiting with a deadline.

#![allow(
    dead_code,
    reason = "one support serves the tests and the demo, and neither needs all of it"
)]

pub(crate) mod cluster;
pub(crate) mod daemon;
pub(crate) mod proxy;
pub(crate) mod repository;
pub(crate) mod stage;
pub(crate) mod tls;

use std::time::{Duration, Instant};

/// Long enough for a job of a few steps on a busy machine.
pub(crate) const MINUTES: Duration = Duration::from_secs(180);
/// Long enough for anything that should happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Asks until there is an answer. Panics with `story` when the time is over.
pub(crate) fn eventually<T>(
    what: &str,
    within: Duration,
    mut answer: impl FnMut() -> Option<T>,
    story: impl Fn() -> String,
) -> T {
    let end = Instant::now() + within;
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(
            Instant::now() < end,
            "{what}: not within {within:?}\n{}",
            story()
        );
        // The answer comes from another process, which cannot wake us.
        std::thread::park_timeout(Duration::from_millis(100));
    }
}
