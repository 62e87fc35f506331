//! How often log streams that say nothing are doubted, by all jobs together.
//!
//! A second look costs the API server a request. A hundred jobs that are quiet
//! for hours must not cost it one each few seconds; but a stream that is dead
//! though nobody said so is seldom alone, so that the first one that is found
//! lets the others look soon.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks.
const APART: Duration = Duration::from_secs(15);
/// The same, after a dead stream was found.
const APART_IN_TROUBLE: Duration = Duration::from_millis(500);
/// How long that counts.
const TROUBLE: Duration = Duration::from_secs(120);

/// One for the process.
#[derive(Debug, Default)]
pub struct Pace {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    trouble: Option<Instant>,
}

impl Pace {
    /// Allows a look now, or says when to ask again.
    pub fn take(&self, now: Instant) -> Result<(), Instant> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_trouble = state.trouble.is_some_and(|since| now < since + TROUBLE);
        let apart = match is_trouble {
            true => APART_IN_TROUBLE,
            false => APART,
        };
        match state.last.map(|last| last + apart) {
            Some(next) if now < next => Err(next),
            _ => {
                state.last = Some(now);
                Ok(())
            }
        }
    }

    /// A stream was dead.
    pub fn found_dead(&self, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.trouble = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks of a hundred streams that want one all the time, in so many seconds.
    fn looks(pace: &Pace, start: Instant, seconds: u32) -> usize {
        let steps = (0..seconds * 10).map(|step| start + step * Duration::from_millis(100));
        steps.filter(|now| pace.take(*now).is_ok()).count()
    }

    #[test]
    fn all_jobs_together_look_rarely() {
        let start = Instant::now();
        assert_eq!(looks(&Pace::default(), start, 600), 40);
    }

    #[test]
    fn a_dead_stream_lets_others_look_soon() {
        let (pace, start) = (Pace::default(), Instant::now());
        assert_eq!(pace.take(start), Ok(()));
        let soon = start + Duration::from_secs(1);
        assert_eq!(pace.take(soon), Err(start + APART));
        pace.found_dead(soon);
        assert_eq!(looks(&pace, soon, 60), 120);
        let later = soon + TROUBLE + APART;
        assert_eq!(looks(&pace, later, 60), 4);
    }
}
