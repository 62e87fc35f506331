//! Sends the log entries of one job to the server while they grow, or has them
//! printed (`terminal.rs`).
//!
//! The worker writes into entries; a thread of its own sends them, so that a
//! slow server never keeps the worker from a pod's end or a cancellation.
//! An update carries the whole output, so updates are spaced by growth: all
//! together stay below three times the output and a constant (`entry.rs`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use jiff::Timestamp;

use crate::backoff::{self, Backoff};
use crate::logging;
use crate::logs::entry::{Entry, Place, Upload};
use crate::logs::redact::Redactions;
use crate::logs::resume::Position;
use crate::logs::terminal::{Printer, Terminal};
use crate::queue::client::{LogEntry, QueueClient};
use crate::queue::error::QueueError;
use crate::queue::wire::Ticket;
use crate::state::entries::OnServer;

/// The longest that an outage of the server may last at the end of a job.
/// By then the job was long given to another executor.
const OUTAGE_MAX: Duration = Duration::from_secs(3600);
/// How often an entry that grows is kept for the next process: what came later
/// must still be in the cluster's log, which loses its beginning in bursts.
const SAVE_INTERVAL: Duration = Duration::from_millis(100);

/// How often it is looked for entries that are due, if nothing changes.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// How long a worker that panics waits for its log.
const PANIC_PATIENCE: Duration = Duration::from_secs(10);

/// Where the log of a job goes.
#[allow(
    clippy::large_enum_variant,
    reason = "there is one for each job, and it is moved twice"
)]
pub enum Sink {
    /// To the server, as the log of this job.
    Server(QueueClient, Ticket),
    /// To a person.
    Terminal(Terminal),
}

/// The log of one job. Dropping it without `finish`, `leave` or `abandon`, as a
/// panic does, sends the rest for a moment and gives up what is left then.
pub struct JobLog {
    entries: Arc<Mutex<Vec<Entry>>>,
    /// Signals that the server has more than before.
    sent: Arc<Condvar>,
    place: Place,
    /// Whether a former process worked on this job.
    is_resumed: bool,
    /// Whether somebody looks on who wants to know of every step at once.
    is_watched: bool,
    redactions: Arc<Redactions>,
    /// Whether somebody else goes on, so that nothing is sent any more.
    is_left: Arc<AtomicBool>,
    changed: Option<Sender<()>>,
    thread: Option<JoinHandle<Result<(), QueueError>>>,
}

/// An entry that a former process began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// How the worker names it.
    pub index: usize,
    /// How far the container's log was read.
    pub position: Position,
    /// If nothing will be added: how the container ended, if that was seen.
    pub closed: Option<Option<i32>>,
}

impl JobLog {
    /// Starts the thread that sends. What a former process kept at the place is
    /// gone on with.
    pub fn start(
        sink: Sink,
        redactions: Arc<Redactions>,
        place: Place,
        is_resumed: bool,
    ) -> JobLog {
        let begun = place.restore(&redactions);
        let entries = Arc::new(Mutex::new(begun));
        // One place is enough: it means «look again», however often.
        let (changed, wake) = bounded(1);
        let is_left = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(Condvar::new());
        let is_watched = matches!(sink, Sink::Terminal(_));
        let worker = std::thread::current();
        let thread = std::thread::Builder::new()
            .name(format!("{}-log", worker.name().unwrap_or("worker")))
            .stack_size(256 * 1024);
        let (kept, left) = (Arc::clone(&entries), Arc::clone(&is_left));
        let thread = match sink {
            Sink::Server(client, ticket) => {
                let uploader = Uploader {
                    client,
                    ticket,
                    entries: kept,
                    sent: Arc::clone(&sent),
                    place: place.clone(),
                    is_left: left,
                    can_update: true,
                };
                thread.spawn(move || uploader.run(&wake))
            }
            Sink::Terminal(terminal) => {
                let printer = Printer::new(terminal, kept, Arc::clone(&sent));
                thread.spawn(move || {
                    printer.run(&wake);
                    Ok(())
                })
            }
        };
        let thread = match thread {
            Ok(thread) => Some(thread),
            Err(error) => {
                log::error!("Its log is lost, since no thread can be started for it: {error}.");
                None
            }
        };
        JobLog {
            entries,
            sent,
            place,
            is_resumed,
            is_watched,
            redactions,
            is_left,
            changed: Some(changed),
            thread,
        }
    }

    /// Whether somebody looks on, at a terminal: then `note` may tell of every
    /// step at once, which the log on a server shows by itself.
    pub fn is_watched(&self) -> bool {
        self.is_watched
    }

    /// The key of an entry.
    pub fn key(&self, index: usize) -> String {
        let entries = lock(&self.entries);
        entries
            .get(index)
            .map(|entry| entry.key.clone())
            .unwrap_or_default()
    }

    /// The entry with this key, if a former process began one.
    pub fn begun(&self, key: &str) -> Option<Begun> {
        let entries = lock(&self.entries);
        let index = entries.iter().position(|entry| entry.key == key)?;
        let entry = &entries[index];
        Some(Begun {
            index,
            position: entry.position.clone(),
            closed: entry.closed.then_some(entry.exit_code),
        })
    }

    /// Begins an entry and returns its index.
    pub fn open(&self, key: &str, command: Option<Vec<String>>, started: Timestamp) -> usize {
        let mut entries = lock(&self.entries);
        let now = Instant::now();
        let output = self.place.output(entries.len(), &self.redactions);
        // What a former process sent may not have been kept.
        let state = match self.is_resumed {
            true => OnServer::Perhaps,
            false => OnServer::Nothing,
        };
        entries.push(Entry {
            key: key.to_string(),
            command,
            opened: now,
            started,
            exit_code: None,
            duration: None,
            output,
            position: Position::default(),
            closed: false,
            upload: Upload::new(state),
            saved: None,
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

    /// Adds output of the container, which was read up to this position.
    pub fn write(&self, index: usize, bytes: &[u8], position: &Position) {
        self.change(index, |entry| {
            entry.output.push(bytes);
            entry.position.clone_from(position);
            let is_due = |saved: Instant| saved.elapsed() >= SAVE_INTERVAL;
            if entry.output.is_in_file() && entry.saved.is_none_or(is_due) {
                entry.save(index, &self.place);
            }
        });
    }

    /// Adds a line of the executor's own.
    pub fn note(&self, index: usize, text: &str) {
        self.change(index, |entry| {
            if !entry.closed {
                entry.output.note(text);
            }
        });
    }

    /// Ends an entry; without an exit code if none was ever seen.
    pub fn close(&self, index: usize, exit_code: Option<i32>, duration: Option<Duration>) {
        self.change(index, |entry| {
            // A former process may have come as far as this.
            if !entry.closed {
                entry.close(exit_code, duration);
                entry.save(index, &self.place);
            }
        });
    }

    /// Waits until the server has all of an entry, but no longer than that.
    pub fn wait_until_sent(&self, index: usize, patience: Duration) {
        let is_unsent = |entries: &mut Vec<Entry>| {
            let entry = entries.get(index);
            entry.is_some_and(|entry| entry.upload.state != OnServer::All)
        };
        let entries = lock(&self.entries);
        // Whether it was in time makes no difference to whoever waits.
        let _ = self.sent.wait_timeout_while(entries, patience, is_unsent);
    }

    /// Keeps every entry for the next process, and sends nothing any more. A
    /// call that is under way is not waited for.
    pub fn leave(mut self) {
        self.is_left.store(true, Ordering::Relaxed);
        for (index, entry) in lock(&self.entries).iter_mut().enumerate() {
            entry.save(index, &self.place);
        }
        self.thread.take();
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

    /// Sends nothing any more: the job is somebody else's.
    pub fn abandon(mut self) {
        self.is_left.store(true, Ordering::Relaxed);
        self.thread.take();
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

impl Drop for JobLog {
    /// What comes after is the mark, and nothing may be sent after that.
    fn drop(&mut self) {
        drop(self.changed.take());
        let Some(thread) = self.thread.take() else {
            return;
        };
        let give_up = Instant::now() + PANIC_PATIENCE;
        while !thread.is_finished() && Instant::now() < give_up {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        self.is_left.store(true, Ordering::Relaxed);
    }
}

/// A panic while an entry was changed leaves it usable: bytes may be missing,
/// the job fails anyway.
pub(super) fn lock(entries: &Mutex<Vec<Entry>>) -> MutexGuard<'_, Vec<Entry>> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread that sends the entries of one job.
struct Uploader {
    client: QueueClient,
    ticket: Ticket,
    entries: Arc<Mutex<Vec<Entry>>>,
    sent: Arc<Condvar>,
    place: Place,
    is_left: Arc<AtomicBool>,
    /// Servers of the first generation take an entry once, as it is.
    can_update: bool,
}

impl Uploader {
    /// Sends what is due until the worker is done, then the rest.
    fn run(mut self, wake: &Receiver<()>) -> Result<(), QueueError> {
        let _about = logging::about(&self.ticket.key());
        loop {
            let wait = self.send_patiently(wake)?.unwrap_or(LOOK_INTERVAL);
            if wake.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
                if self.is_left.load(Ordering::Relaxed) {
                    return Ok(());
                }
                close_all(&self.entries);
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
            if self.is_left.load(Ordering::Relaxed) {
                break;
            }
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
            let mut entries = lock(&self.entries);
            let entry = &mut entries[index];
            let state = entry.upload.state;
            if state == OnServer::Nothing {
                // Until an answer says more, whatever becomes of the call.
                entry.upload.state = OnServer::Perhaps;
            }
            // First for the next process, then for the server, so that the
            // server never has more than is kept here.
            entry.save(index, &self.place);
            (entry.snapshot(), entry.closed, state)
        };
        let sent = snapshot.output.remaining();
        let state = match state {
            OnServer::Known(id) => {
                self.client.update_log_entry(&self.ticket, id, snapshot)?;
                state
            }
            OnServer::Perhaps => self.find_or_add(index, snapshot)?,
            _ => self.add(snapshot)?,
        };
        let mut entries = lock(&self.entries);
        let entry = &mut entries[index];
        let upload = &mut entry.upload;
        upload.sent(sent);
        let was_known = matches!(upload.state, OnServer::Known(_));
        upload.state = if closed { OnServer::All } else { state };
        if !was_known || closed {
            entry.save(index, &self.place);
        }
        self.sent.notify_all();
        Ok(())
    }

    fn add(&mut self, snapshot: LogEntry) -> Result<OnServer, QueueError> {
        match self.client.add_log_entry(&self.ticket, snapshot)? {
            Some(id) => Ok(OnServer::Known(id)),
            None => {
                self.can_update = false;
                Ok(OnServer::Nothing)
            }
        }
    }

    /// A call to add the entry had no answer, here or in a former process.
    /// Servers number the entries of a job from 1, so its number tells whether
    /// that call arrived.
    fn find_or_add(&mut self, index: usize, snapshot: LogEntry) -> Result<OnServer, QueueError> {
        let id = index as i64 + 1;
        let again = lock(&self.entries)[index].snapshot();
        match self.client.update_log_entry(&self.ticket, id, snapshot) {
            Ok(()) => Ok(OnServer::Known(id)),
            Err(error) if error.is_not_ours() => self.add(again),
            Err(error) => Err(error),
        }
    }
}

/// A worker that panicked leaves entries open.
pub(super) fn close_all(entries: &Mutex<Vec<Entry>>) {
    for entry in lock(entries).iter_mut().filter(|entry| !entry.closed) {
        entry.close(None, None);
    }
}

/// Waits the whole time: news from the worker must not cut a back-off short.
fn wait_out(wake: &Receiver<()>, time: Duration) {
    let end = Instant::now() + time;
    while wake.recv_deadline(end).is_ok() {}
    // The worker's end closes the channel, which ends the waits at once.
    std::thread::park_timeout(end.saturating_duration_since(Instant::now()));
}
