//! Stop requests: the first signal drains, the second one ends at once.
//!
//! A request closes a channel, so every wait can be a `select!` on it. The
//! handler does nothing else: it runs on a thread of its own that a panic
//! would end.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, never};

/// What a channel carries that is only ever closed.
#[derive(Debug)]
pub enum Nothing {}

/// Tells whoever asks that the process should stop.
#[derive(Clone)]
pub struct Shutdown {
    drain: Receiver<Nothing>,
    force: Receiver<Nothing>,
}

/// Raises the requests.
pub struct Trigger {
    drain: Option<Sender<Nothing>>,
    force: Option<Sender<Nothing>>,
}

impl Trigger {
    /// The next stage: drain first, then force.
    pub fn pull(&mut self) {
        if self.drain.take().is_none() {
            self.force.take();
        }
    }
}

impl Shutdown {
    /// A request that nobody has raised yet, and what raises it.
    pub fn new() -> (Shutdown, Trigger) {
        let (drain_sender, drain) = crossbeam_channel::bounded(0);
        let (force_sender, force) = crossbeam_channel::bounded(0);
        let trigger = Trigger {
            drain: Some(drain_sender),
            force: Some(force_sender),
        };
        (Shutdown { drain, force }, trigger)
    }

    /// Listens to SIGINT, SIGTERM and SIGHUP.
    pub fn on_signals() -> Result<Shutdown, ctrlc::Error> {
        let (shutdown, mut trigger) = Shutdown::new();
        ctrlc::set_handler(move || trigger.pull())?;
        Ok(shutdown)
    }

    /// Closed when the process should take no more work.
    pub fn drain(&self) -> &Receiver<Nothing> {
        &self.drain
    }

    /// Closed when the process should end at once.
    pub fn force(&self) -> &Receiver<Nothing> {
        &self.force
    }

    /// Whether the process should take no more work.
    pub fn is_draining(&self) -> bool {
        is_closed(&self.drain)
    }

    /// Waits; false if a stop was requested meanwhile.
    pub fn wait(&self, time: Duration) -> bool {
        self.drain.recv_timeout(time) == Err(RecvTimeoutError::Timeout)
    }
}

impl PartialEq for Nothing {
    fn eq(&self, other: &Nothing) -> bool {
        match *other {}
    }
}

/// Whether a channel that nothing is sent into has been closed.
pub fn is_closed(channel: &Receiver<Nothing>) -> bool {
    channel.recv_timeout(Duration::ZERO) == Err(RecvTimeoutError::Disconnected)
}

/// The events of a channel that may not be there.
pub fn or_never<T>(channel: Option<&Receiver<T>>) -> Receiver<T> {
    channel.cloned().unwrap_or_else(never)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pull_drains_the_second_forces() {
        let (shutdown, mut trigger) = Shutdown::new();
        assert!(!shutdown.is_draining());
        assert!(shutdown.wait(Duration::from_millis(1)));
        trigger.pull();
        assert!(shutdown.is_draining());
        assert!(!is_closed(shutdown.force()));
        assert!(
            !shutdown.wait(Duration::from_secs(60)),
            "a stop ends every wait"
        );
        trigger.pull();
        assert!(is_closed(shutdown.force()));
    }
}
