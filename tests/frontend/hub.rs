//! What all threads of one frontend share: the tables, their lock, and the
//! signal that something in them has changed.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Generation;
use super::fault::{Action, Trouble};
use super::journal::Request;
use super::store::Store;

/// How a frontend was built; never changes afterwards.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Address and port.
    pub(super) listen: String,
    /// The executor token, which is also the password of HTTP Basic.
    pub(super) token: String,
    /// The user of HTTP Basic.
    pub(super) username: String,
    /// Which age of server is played.
    pub(super) generation: Generation,
    /// What stands before `/.executors` in every path.
    pub(super) prefix: String,
    /// The silence after which a job is taken back.
    pub(super) stall_limit: Duration,
    /// The time between two looks for such silence.
    pub(super) resetter_interval: Duration,
}

/// The shared heart of a frontend.
pub(super) struct Hub {
    pub(super) settings: Settings,
    store: Mutex<Store>,
    changed: Condvar,
}

impl Hub {
    /// Empty tables.
    pub(super) fn new(settings: Settings) -> Hub {
        Hub {
            settings,
            store: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// The tables, to look at. A test that panics while it looks leaves them
    /// whole, so that a poisoned lock means nothing here.
    pub(super) fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the tables and wakes all who wait for a change.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `ready` gives something, for that long at most.
    pub(super) fn wait<T>(
        &self,
        within: Duration,
        mut ready: impl FnMut(&mut Store) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + within;
        let mut store = self.lock();
        loop {
            if let Some(result) = ready(&mut store) {
                return Some(result);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let (guard, _) = self
                .changed
                .wait_timeout(store, left)
                .unwrap_or_else(PoisonError::into_inner);
            store = guard;
        }
    }

    /// Waits inside a request. False when the server has gone down meanwhile.
    pub(super) fn pause(&self, delay: Duration, epoch: u64) -> bool {
        let ended = self.wait(delay, |store| (store.epoch != epoch).then_some(()));
        ended.is_none()
    }

    /// Writes a request down and draws the trouble it shall have.
    pub(super) fn admit(&self, request: Request) -> (usize, Trouble) {
        self.change(|store| {
            let struck = store
                .faults
                .iter_mut()
                .find_map(|fault| fault.strike(&request));
            store.faults.retain(|fault| !fault.is_used_up());
            let number = store.journal.open(request);
            (number, struck.unwrap_or_default())
        })
    }

    /// The resetter: runs until the frontend ends, through every outage, as it
    /// is another process on the real server.
    pub(super) fn reset_stalled_jobs(&self) {
        let is_ended = |store: &mut Store| store.is_ended.then_some(());
        while self
            .wait(self.settings.resetter_interval, is_ended)
            .is_none()
        {
            // Woken waiters look at everything again, so that they are woken
            // only when there is something to see.
            if self.lock().reset_stalled(self.settings.stall_limit) {
                self.changed.notify_all();
            }
        }
    }
}

impl Action {
    /// How much of the answer's body may leave.
    pub(super) fn allowance(&self) -> Option<u64> {
        match self {
            Action::CutWithin(bytes) => Some(*bytes),
            _ => None,
        }
    }
}
