//! Whether every thread still comes to the end of what it began.
//!
//! Each says what it does and by when that is over at the latest; bounds are
//! sums of timeouts and leave them room. What is late is a defect, or a call
//! into the system that hangs: `/healthz` says so, and a restart helps. Waiting
//! for a job, for a worker or for a server that is away is never late.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is under way. Cheap to clone; clones know the same.
#[derive(Clone, Default)]
pub struct Pulses(Arc<Mutex<UnderWay>>);

#[derive(Default)]
struct UnderWay {
    next: u64,
    expected: BTreeMap<u64, Expected>,
}

struct Expected {
    what: String,
    by: Instant,
}

/// Something that is under way; dropping it says that it is over.
pub struct Pulse {
    pulses: Pulses,
    number: u64,
    is_thread: bool,
}

impl Pulses {
    /// A thread works on something that it ends, or begins anew, within
    /// `bound`. One that panics does not come to that end, and so becomes late.
    pub fn of_thread(&self, what: &str, bound: Duration) -> Pulse {
        self.expect(what.to_string(), bound, true)
    }

    /// A job is worked on, for `bound` at most. Its panic is an end as well: its
    /// worker goes on with the next one.
    pub fn of_job(&self, what: String, bound: Duration) -> Pulse {
        self.expect(what, bound, false)
    }

    /// What should be over and is not.
    pub fn late(&self) -> Option<String> {
        let now = Instant::now();
        let under_way = self.lock();
        let late = under_way.expected.values().find(|it| it.by <= now)?;
        let time = now.duration_since(late.by);
        Some(format!("{} is stuck: late by {time:.0?}\n", late.what))
    }

    fn expect(&self, what: String, bound: Duration, is_thread: bool) -> Pulse {
        let mut under_way = self.lock();
        let number = under_way.next;
        under_way.next += 1;
        // An end too far away to be told is none.
        if let Some(by) = Instant::now().checked_add(bound) {
            under_way.expected.insert(number, Expected { what, by });
        }
        Pulse {
            pulses: self.clone(),
            number,
            is_thread,
        }
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        if !(self.is_thread && std::thread::panicking()) {
            self.pulses.lock().expected.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn only_what_is_over_its_bound_is_late() {
        let pulses = Pulses::default();
        let _job = pulses.of_job("job batches/17".to_string(), LONG);
        let endless = pulses.of_job("job batches/18".to_string(), Duration::MAX);
        assert_eq!(pulses.late(), None);
        let thread = pulses.of_thread("the heartbeat", Duration::ZERO);
        let late = pulses.late().unwrap();
        assert!(
            late.starts_with("the heartbeat is stuck: late by "),
            "{late}"
        );
        drop((thread, endless));
        assert_eq!(pulses.late(), None);
    }

    #[test]
    fn a_panic_ends_jobs_but_not_threads() {
        let pulses = Pulses::default();
        for is_thread in [false, true] {
            let inside = pulses.clone();
            let thread = std::thread::spawn(move || {
                let _pulse = inside.expect("it".to_string(), Duration::ZERO, is_thread);
                panic!("for the test");
            });
            assert!(thread.join().is_err());
            assert_eq!(pulses.late().is_some(), is_thread);
        }
    }
}
