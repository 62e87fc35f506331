//! Whether a pod that is slow to start is slow alone. Shared by all workers.
//!
//! A node that starts a hundred pods needs a minute and more for the last one.
//! To ask about each of them what keeps it would be as many requests again, and
//! the answer would be that nothing does. So a pod waits for those that waited
//! before it, a second for each, as long as some of them still start.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the cluster may need for each pod that was there before.
const EACH: Duration = Duration::from_secs(1);
/// A cluster in which nothing of ours started for so long has no more to do.
const STILL: Duration = Duration::from_secs(4);

/// All that wait, and when one of them stopped to.
#[derive(Debug, Default)]
pub struct Crowd {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: u32,
    last_start: Option<Instant>,
}

/// One that waits, until it is dropped.
#[derive(Debug)]
pub(super) struct Waiter<'a> {
    crowd: &'a Crowd,
    before: u32,
}

impl Crowd {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more waits.
    pub(super) fn join(&self) -> Waiter<'_> {
        let mut state = self.lock();
        let before = state.waiting;
        state.waiting += 1;
        Waiter {
            crowd: self,
            before,
        }
    }
}

impl Waiter<'_> {
    /// Until when to wait for the others, who were there before `since`.
    pub(super) fn patience(&self, since: Instant) -> Instant {
        let turn = since + self.before * EACH;
        match self.crowd.lock().last_start {
            Some(last) => turn.min(last.max(since) + STILL),
            None => turn.min(since + STILL),
        }
    }

    /// It waits no more, because it has started.
    pub(super) fn started(self, now: Instant) {
        self.crowd.lock().last_start = Some(now);
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.crowd.lock().waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_alone_waits_for_nobody() {
        let (crowd, since) = (Crowd::default(), Instant::now());
        let before = crowd.join();
        before.started(since);
        assert_eq!(crowd.join().patience(since), since);
    }

    #[test]
    fn many_wait_as_long_as_some_start() {
        let (crowd, since) = (Crowd::default(), Instant::now());
        let mut waiters: Vec<_> = (0..20).map(|_| crowd.join()).collect();
        let last = waiters.pop().unwrap();
        assert_eq!(last.patience(since), since + STILL, "nothing starts at all");
        waiters.remove(0).started(since + 10 * SECOND);
        assert_eq!(last.patience(since), since + 14 * SECOND);
        waiters.remove(0).started(since + 18 * SECOND);
        assert_eq!(
            last.patience(since),
            since + 19 * SECOND,
            "its turn has come"
        );
    }
}
