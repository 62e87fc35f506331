//! The workers: a fixed number of named threads that drain a bounded channel.
//!
//! A worker says that it is idle before it waits; the dequeue thread asks the
//! server only when one has said so. A job therefore never ages in the
//! channel, and a send into it never blocks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

/// Stack of a worker. Its calls are shallow; a hundred of them must be cheap.
const STACK_BYTES: usize = 1024 * 1024;

/// The threads; `join` ends them.
pub struct Pool<T> {
    work: Sender<T>,
    idle: Receiver<()>,
    threads: Vec<JoinHandle<()>>,
}

impl<T: Send + 'static> Pool<T> {
    /// Starts `size` threads that call `run` for each piece of work.
    pub fn start(
        size: usize,
        run: impl Fn(T) + Send + Clone + 'static,
    ) -> std::io::Result<Pool<T>> {
        // Both have room for every worker: more than one message of a worker
        // is never on the way.
        let (work, inbox) = bounded(size);
        let (idle_sender, idle) = bounded(size);
        let threads = (0..size)
            .map(|number| {
                let (inbox, idle, run) = (inbox.clone(), idle_sender.clone(), run.clone());
                std::thread::Builder::new()
                    .name(format!("worker-{number}"))
                    .stack_size(STACK_BYTES)
                    .spawn(move || work_off(&inbox, &idle, &run))
            })
            .collect::<std::io::Result<_>>()?;
        Ok(Pool {
            work,
            idle,
            threads,
        })
    }

    /// Brings a message for every worker that became idle. Whoever takes one
    /// may send one piece of work.
    pub fn idle(&self) -> &Receiver<()> {
        &self.idle
    }

    /// Gives work to an idle worker.
    pub fn send(&self, work: T) {
        if self.work.send(work).is_err() {
            log::error!("All workers are gone; this is a defect.");
        }
    }

    /// Takes no more work and waits for what runs.
    pub fn join(self) {
        drop(self.work);
        for thread in self.threads {
            if thread.join().is_err() {
                log::error!("A worker thread panicked outside of a job.");
            }
        }
    }
}

fn work_off<T>(inbox: &Receiver<T>, idle: &Sender<()>, run: &impl Fn(T)) {
    loop {
        if idle.send(()).is_err() {
            return;
        }
        let Ok(work) = inbox.recv() else { return };
        // One job's panic may not end the worker, nor the other jobs.
        if catch_unwind(AssertUnwindSafe(|| run(work))).is_err() {
            log::error!("A job made its worker panic; the worker goes on.");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn a_panic_does_not_end_a_worker() {
        let (sender, results) = bounded(2);
        let pool = Pool::start(1, move |number: u32| {
            assert!(number != 1, "the first piece of work panics");
            sender.send(number).unwrap();
        })
        .unwrap();
        for number in [1, 2] {
            pool.idle().recv_timeout(SOON).unwrap();
            pool.send(number);
        }
        assert_eq!(results.recv_timeout(SOON), Ok(2));
        pool.join();
    }

    #[test]
    fn only_idle_workers_ask_for_work() {
        let (started, starts) = bounded(1);
        let (release, released) = bounded::<()>(0);
        let pool = Pool::start(1, move |()| {
            started.send(()).unwrap();
            released.recv().unwrap();
        })
        .unwrap();
        pool.idle().recv_timeout(SOON).unwrap();
        pool.send(());
        starts.recv_timeout(SOON).unwrap();
        assert!(pool.idle().is_empty(), "a busy worker is not idle");
        release.send(()).unwrap();
        pool.idle().recv_timeout(SOON).unwrap();
        pool.join();
    }
}
