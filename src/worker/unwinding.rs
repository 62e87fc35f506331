//! What is done for a job whose worker panics.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Does something when it is dropped by a panic, and nothing otherwise.
pub(super) struct OnPanic<F: FnMut()>(F);

impl<F: FnMut()> OnPanic<F> {
    pub(super) fn new(rescue: F) -> OnPanic<F> {
        OnPanic(rescue)
    }
}

impl<F: FnMut()> Drop for OnPanic<F> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        // A second panic that left this function would end the process.
        if catch_unwind(AssertUnwindSafe(&mut self.0)).is_err() {
            log::error!("What a panic left could not be cleaned up.");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::unbounded;

    use super::*;
    use crate::pool::Pool;

    const SOON: Duration = Duration::from_secs(10);

    /// One worker gets a job that panics, one whose rescue panics too, and one
    /// that does not.
    #[test]
    fn a_panic_cleans_up_after_itself_alone() {
        let (sender, events) = unbounded();
        let pool = Pool::start(1, move |job: &'static str| {
            let rescued = sender.clone();
            let _guard = OnPanic::new(move || {
                rescued.send(format!("{job} is cleaned up")).unwrap();
                assert!(job != "the worst", "its rescue panics");
            });
            assert!(!job.ends_with("st"), "{job} panics");
            sender.send(format!("{job} is done")).unwrap();
        })
        .unwrap();
        for job in ["the first", "the worst", "the good"] {
            pool.idle().recv_timeout(SOON).unwrap();
            pool.send(job);
        }
        pool.join();
        let events: Vec<String> = events.iter().collect();
        let expected = [
            "the first is cleaned up",
            "the worst is cleaned up",
            "the good is done",
        ];
        assert_eq!(events, expected);
    }
}
