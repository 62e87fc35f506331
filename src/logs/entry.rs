//! One log entry: its output, what the server has of it, when that is due,
//! and how it is kept for the next process.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::logs::output::Output;
use crate::logs::redact::Redactions;
use crate::logs::resume::Position;
use crate::queue::client::LogEntry;
use crate::state::entries::{EntryFiles, OnServer, SavedEntry};

/// Between two updates of an entry that grows.
const UPDATE_INTERVAL: Duration = Duration::from_secs(1);
/// Small logs are sent every second whatever it costs.
const SENT_BYTES_FREE: u64 = 60 * 1024;
/// What a call has beside the output, as a rule at most.
const CALL_BYTES: u64 = 384;

/// Where entries are kept while they grow.
#[derive(Clone)]
pub enum Place {
    /// In memory and in nameless files of this directory: they go with us.
    Passing(PathBuf),
    /// In files that the next process goes on with.
    Lasting(EntryFiles),
}

/// One entry; its index is how the worker names it.
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) command: Option<Vec<String>>,
    pub(super) opened: Instant,
    pub(super) started: Timestamp,
    pub(super) exit_code: Option<i32>,
    pub(super) duration: Option<Duration>,
    pub(super) output: Output,
    /// How far the container's log was read.
    pub(super) position: Position,
    pub(super) closed: bool,
    pub(super) upload: Upload,
    /// When it was kept for the next process, if it ever was.
    pub(super) saved: Option<Instant>,
}

/// What the server has of an entry.
pub(super) struct Upload {
    pub(super) state: OnServer,
    /// Length of the output in the last update.
    pub(super) sent: u64,
    /// Sum over all updates.
    pub(super) sent_in_all: u64,
    /// When the last update was sent.
    pub(super) last: Instant,
}

impl Place {
    pub(super) fn output(&self, index: usize, redactions: &Arc<Redactions>) -> Output {
        let redactions = Arc::clone(redactions);
        match self {
            Place::Passing(dir) => Output::new(redactions, dir),
            Place::Lasting(files) => Output::kept(redactions, files.output(index)),
        }
    }

    /// The entries that a former process kept here.
    pub(super) fn restore(&self, redactions: &Arc<Redactions>) -> Vec<Entry> {
        let Place::Lasting(files) = self else {
            return Vec::new();
        };
        let saved = files.load().into_iter().enumerate();
        let restore = |(index, saved): (usize, SavedEntry)| {
            let path = files.output(index);
            let output = Output::restore(Arc::clone(redactions), path, &saved.output);
            output.ok().map(|output| Entry {
                key: saved.key,
                command: saved.command,
                opened: Instant::now(),
                started: saved.started.parse().unwrap_or_else(|_| Timestamp::now()),
                exit_code: saved.exit_code,
                duration: saved.duration_ms.map(Duration::from_millis),
                output,
                position: saved.position,
                closed: saved.closed,
                upload: Upload::new(saved.server),
                saved: None,
            })
        };
        saved.map_while(restore).collect()
    }
}

impl Upload {
    pub(super) fn new(state: OnServer) -> Upload {
        Upload {
            state,
            sent: 0,
            sent_in_all: 0,
            last: Instant::now(),
        }
    }

    /// Whether an output of so many bytes may be sent as it is now. Each call
    /// carries all of it; so that all calls, the last one included, stay below
    /// three times what the container wrote and the free bytes, some must have
    /// come since the last one. (Marks and escapes make the output longer than
    /// what was written, which is why it is less than one and three.)
    fn has_earned(&self, bytes: u64) -> bool {
        self.sent_in_all <= bytes / 4 * 3 + SENT_BYTES_FREE
    }

    /// An output of so many bytes was sent.
    pub(super) fn sent(&mut self, bytes: u64) {
        self.sent = bytes;
        self.sent_in_all += bytes + CALL_BYTES;
        self.last = Instant::now();
    }
}

impl Entry {
    /// When to send: now (zero), after some time, or not before a change.
    pub(super) fn due(&self, can_update: bool) -> Option<Duration> {
        match self.upload.state {
            OnServer::All => None,
            _ if self.closed => Some(Duration::ZERO),
            _ if !can_update => None,
            // A step that ends within the interval costs one request only.
            OnServer::Nothing | OnServer::Perhaps => {
                Some(UPDATE_INTERVAL.saturating_sub(self.opened.elapsed()))
            }
            OnServer::Known(_) if self.output.bytes() == self.upload.sent => None,
            OnServer::Known(_) if !self.upload.has_earned(self.output.bytes()) => None,
            OnServer::Known(_) => Some(UPDATE_INTERVAL.saturating_sub(self.upload.last.elapsed())),
        }
    }

    /// Keeps the entry as it is for the next process, where it can be kept.
    pub(super) fn save(&mut self, index: usize, place: &Place) {
        let Place::Lasting(files) = place else { return };
        let Some(output) = self.output.save() else {
            return;
        };
        let saved = SavedEntry {
            key: self.key.clone(),
            command: self.command.clone(),
            started: self.started.to_string(),
            exit_code: self.exit_code,
            duration_ms: self.duration.map(milliseconds),
            closed: self.closed,
            server: self.upload.state,
            output,
            position: self.position.clone(),
        };
        if let Err(error) = files.save(index, &saved) {
            log::warn!(
                "After a crash the rest of {} would be missing, as it cannot be kept: {error}.",
                self.key
            );
        }
        self.saved = Some(Instant::now());
    }

    pub(super) fn snapshot(&self) -> LogEntry {
        LogEntry {
            key: self.key.clone(),
            command: self.command.clone(),
            started: self.started,
            exit_code: self.exit_code,
            duration: self.duration,
            output: self.output.reader(),
        }
    }

    pub(super) fn close(&mut self, exit_code: Option<i32>, duration: Option<Duration>) {
        self.output.finish();
        self.exit_code = exit_code;
        self.duration = duration;
        self.closed = true;
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that is sent of a log that grows like this, if every update is sent
    /// that may be, and then the last one.
    fn sent_of(growth: impl Iterator<Item = u64>, most: u64) -> (u64, u64) {
        let (mut upload, mut bytes) = (Upload::new(OnServer::Known(1)), 0);
        for more in growth {
            bytes += more;
            if upload.has_earned(bytes) {
                upload.sent(bytes);
            }
            if bytes >= most {
                break;
            }
        }
        upload.sent(bytes);
        (bytes, upload.sent_in_all)
    }

    #[test]
    fn all_updates_stay_below_three_times_the_log() {
        for most in [1 << 10, 64 << 10, 1 << 20, 16 << 20, 256 << 20] {
            for step in [1, 100, 16 * 1024, 1 << 20, 100 << 20] {
                if most / step > 1 << 22 {
                    continue;
                }
                let (bytes, sent) = sent_of(std::iter::repeat(step), most);
                assert!(sent <= 3 * bytes + 64 * 1024, "{bytes} by {step}: {sent}");
                let (bytes, sent) = sent_of((1..).map(|round| round * step), most);
                assert!(
                    sent <= 3 * bytes + 64 * 1024,
                    "{bytes} by more than {step}: {sent}"
                );
            }
        }
    }

    #[test]
    fn a_small_log_is_sent_whenever_it_grows() {
        let mut upload = Upload::new(OnServer::Known(1));
        for line in 1..=40 {
            assert!(upload.has_earned(line * 40), "line {line}");
            upload.sent(line * 40);
        }
    }
}
