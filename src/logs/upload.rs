//! Sends the log entries of one job to the server while they grow.
//!
//! The worker writes into entries; a thread of its own sends them, so that a
//! slow server never keeps the worker from a pod's end or a cancellation.
//! An update carries the whole output, so updates are spaced by growth: what
//! was sent before the last update stays below twice the output plus a
//! constant, and the whole below three times.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use jiff::Timestamp;

use crate::backoff::{self, Backoff};
use crate::logs::output::Output;
use crate::queue::client::{LogEntry, QueueClient};
use crate::queue::error::QueueError;
use crate::queue::wire::Ticket;

/// Between two updates of an entry that grows.
const UPDATE_INTERVAL: Duration = Duration::from_secs(1);
/// An entry that grows too slowly to earn an update gets one all the same.
const UPDATE_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Small logs are sent every second whatever it costs.
const SENT_BYTES_FREE: u64 = 64 * 1024;
/// The longest that an outage of the server may last at the end of a job.
/// By then the job was long given to another executor.
const OUTAGE_MAX: Duration = Duration::from_secs(3600);

/// The log of one job. Dropping it without `finish` gives up what was not
/// sent.
pub struct JobLog {
    entries: Arc<Mutex<Vec<Entry>>>,
    changed: Option<Sender<()>>,
    thread: Option<JoinHandle<Result<(), QueueError>>>,
}

/// One entry; its index is how the worker names it.
struct Entry {
    key: String,
    command: Option<Vec<String>>,
    opened: Instant,
    started: Timestamp,
    exit_code: Option<i32>,
    duration: Option<Duration>,
    output: Output,
    closed: bool,
    upload: Upload,
}

/// What the server has of an entry.
struct Upload {
    state: UploadState,
    /// Length of the output in the last update.
    sent: u64,
    /// Sum over all updates.
    sent_in_all: u64,
    /// When the last update was sent.
    last: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum UploadState {
    /// The server does not know the entry.
    New,
    /// It does, by this id.
    Added(i64),
    /// It has everything.
    Done,
}

impl JobLog {
    /// Starts the thread that sends.
    pub fn start(client: QueueClient, ticket: Ticket) -> JobLog {
        let entries = Arc::new(Mutex::new(Vec::new()));
        // One place is enough: it means «look again», however often.
        let (changed, wake) = bounded(1);
        let uploader = Uploader {
            client,
            ticket,
            entries: Arc::clone(&entries),
            can_update: true,
        };
        let worker = std::thread::current();
        let thread = std::thread::Builder::new()
            .name(format!("{}-log", worker.name().unwrap_or("worker")))
            .stack_size(256 * 1024)
            .spawn(move || uploader.run(&wake));
        let thread = match thread {
            Ok(thread) => Some(thread),
            Err(error) => {
                log::error!("Cannot start a thread for logs, this job's log is lost: {error}.");
                None
            }
        };
        JobLog {
            entries,
            changed: Some(changed),
            thread,
        }
    }

    /// Begins an entry and returns its index.
    pub fn open(
        &self,
        key: &str,
        command: Option<Vec<String>>,
        started: Timestamp,
        output: Output,
    ) -> usize {
        let mut entries = lock(&self.entries);
        let now = Instant::now();
        entries.push(Entry {
            key: key.to_string(),
            command,
            opened: now,
            started,
            exit_code: None,
            duration: None,
            output,
            closed: false,
            upload: Upload {
                state: UploadState::New,
                sent: 0,
                sent_in_all: 0,
                last: now,
            },
        });
        let index = entries.len() - 1;
        drop(entries);
        self.wake();
        index
    }

    /// Corrects when an entry began that was opened before its container.
    pub fn began(&self, index: usize, started: Timestamp) {
        self.change(index, |entry| entry.started = started);
    }

    /// Adds output of the container.
    pub fn write(&self, index: usize, bytes: &[u8]) {
        self.change(index, |entry| entry.output.push(bytes));
    }

    /// Adds a line of the executor's own.
    pub fn note(&self, index: usize, text: &str) {
        self.change(index, |entry| entry.output.note(text));
    }

    /// Ends an entry; without an exit code if none was ever seen.
    pub fn close(&self, index: usize, exit_code: Option<i32>, duration: Option<Duration>) {
        self.change(index, |entry| entry.close(exit_code, duration));
    }

    /// Waits until the server has every entry, or has said that the job is
    /// not ours, or stayed away for an hour.
    pub fn finish(mut self) -> Result<(), QueueError> {
        drop(self.changed.take());
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) | None => Ok(()),
        }
    }

    fn change(&self, index: usize, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = lock(&self.entries).get_mut(index) {
            change(entry);
        }
        self.wake();
    }

    fn wake(&self) {
        if let Some(changed) = &self.changed {
            // A full channel has the same message in it already.
            let _ = changed.try_send(());
        }
    }
}

/// A panic while an entry was changed leaves it usable: bytes may be missing,
/// the job fails anyway.
fn lock(entries: &Mutex<Vec<Entry>>) -> MutexGuard<'_, Vec<Entry>> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entry {
    /// When to send: now (zero), after some time, or not before a change.
    fn due(&self, can_update: bool) -> Option<Duration> {
        match self.upload.state {
            UploadState::Done => None,
            _ if self.closed => Some(Duration::ZERO),
            _ if !can_update => None,
            // A step that ends within the interval costs one request only.
            UploadState::New => Some(UPDATE_INTERVAL.saturating_sub(self.opened.elapsed())),
            UploadState::Added(_) if self.output.bytes() == self.upload.sent => None,
            UploadState::Added(_) => {
                let earned = self.upload.sent_in_all <= self.output.bytes() + SENT_BYTES_FREE;
                let interval = if earned {
                    UPDATE_INTERVAL
                } else {
                    UPDATE_INTERVAL_MAX
                };
                Some(interval.saturating_sub(self.upload.last.elapsed()))
            }
        }
    }

    fn snapshot(&self) -> LogEntry {
        LogEntry {
            key: self.key.clone(),
            command: self.command.clone(),
            started: self.started,
            exit_code: self.exit_code,
            duration: self.duration,
            output: self.output.reader(),
        }
    }

    fn close(&mut self, exit_code: Option<i32>, duration: Option<Duration>) {
        self.output.finish();
        self.exit_code = exit_code;
        self.duration = duration;
        self.closed = true;
    }
}

/// The thread that sends the entries of one job.
struct Uploader {
    client: QueueClient,
    ticket: Ticket,
    entries: Arc<Mutex<Vec<Entry>>>,
    /// Servers of the first generation take an entry once, as it is.
    can_update: bool,
}

impl Uploader {
    /// Sends what is due until the worker is done, then the rest.
    fn run(mut self, wake: &Receiver<()>) -> Result<(), QueueError> {
        loop {
            let wait = self.send_patiently(wake)?.unwrap_or(UPDATE_INTERVAL_MAX);
            if wake.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
                self.close_all();
                return self.send_patiently(wake).map(drop);
            }
        }
    }

    /// Sends what is due, through outages of the server.
    fn send_patiently(&mut self, wake: &Receiver<()>) -> Result<Option<Duration>, QueueError> {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let began = Instant::now();
        loop {
            let error = match self.send_due() {
                Ok(next) => return Ok(next),
                Err(error) if !error.is_retryable() || began.elapsed() > OUTAGE_MAX => {
                    return Err(error);
                }
                Err(error) => error,
            };
            let wait = backoff.next(backoff::random());
            log::warn!("Cannot send the log, next try in {wait:.1?}: {error}.");
            wait_out(wake, wait);
        }
    }

    /// Sends every entry that is due, in order. Returns how long until the
    /// next one is, if one waits for time to pass.
    fn send_due(&mut self) -> Result<Option<Duration>, QueueError> {
        let mut next: Option<Duration> = None;
        for index in 0.. {
            let due = match lock(&self.entries).get(index) {
                None => break,
                Some(entry) => entry.due(self.can_update),
            };
            match due {
                Some(Duration::ZERO) => self.send(index)?,
                Some(wait) => next = Some(next.map_or(wait, |next| next.min(wait))),
                None => {}
            }
        }
        Ok(next)
    }

    /// Sends one entry as it is now. The lock is not held meanwhile, so the
    /// worker goes on writing.
    fn send(&mut self, index: usize) -> Result<(), QueueError> {
        let (snapshot, closed, state) = {
            let entries = lock(&self.entries);
            let entry = &entries[index];
            (entry.snapshot(), entry.closed, entry.upload.state)
        };
        let sent = snapshot.output.remaining();
        let state = match state {
            UploadState::Added(id) => {
                self.client.update_log_entry(&self.ticket, id, snapshot)?;
                state
            }
            _ => match self.client.add_log_entry(&self.ticket, snapshot)? {
                Some(id) => UploadState::Added(id),
                None => {
                    self.can_update = false;
                    UploadState::New
                }
            },
        };
        let mut entries = lock(&self.entries);
        let upload = &mut entries[index].upload;
        upload.sent = sent;
        upload.sent_in_all += sent;
        upload.last = Instant::now();
        upload.state = if closed { UploadState::Done } else { state };
        Ok(())
    }

    /// A worker that panicked leaves entries open.
    fn close_all(&self) {
        for entry in lock(&self.entries).iter_mut().filter(|entry| !entry.closed) {
            entry.close(None, None);
        }
    }
}

/// Waits the whole time: news from the worker must not cut a back-off short.
fn wait_out(wake: &Receiver<()>, time: Duration) {
    let end = Instant::now() + time;
    while wake.recv_deadline(end).is_ok() {}
    // The worker's end closes the channel, which ends the waits at once.
    std::thread::park_timeout(end.saturating_duration_since(Instant::now()));
}
