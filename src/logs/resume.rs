//! Where a log was read up to, and how to find that place in a new stream.
//!
//! The API begins at a whole second. Which of the records that it then repeats
//! were had already cannot be told by their times alone: the runtime stamps
//! standard output and standard error apart, so that times go back by some
//! milliseconds now and then. But their order in the file is fixed. A stream
//! that begins with the same record as before has the same ones after it, and
//! counting finds the place. One that does not begins in a newer file, since
//! the kubelet serves only the newest: there the last record is looked for.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Times go back by less than this: a thread of the runtime was held up between
/// taking the time and writing the record.
const BACKWARDS_MAX: SignedDuration = SignedDuration::from_millis(500);

/// How far a log has been read: the record, and the bytes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Time of the last record that began.
    last: Option<Timestamp>,
    /// The latest time of all records.
    latest: Option<Timestamp>,
    /// Bytes of the last record that were passed on; without times, of all.
    pub(super) bytes: u64,
    /// The records since the second of `latest`, and since the one before.
    newest: Window,
    before: Window,
}

/// The records from a whole second on, in the order of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Window {
    second: i64,
    first: Option<Timestamp>,
    count: u64,
}

impl Window {
    fn add(&mut self, stamp: Timestamp) {
        if stamp.as_second() >= self.second {
            self.first.get_or_insert(stamp);
            self.count += 1;
        }
    }
}

impl Position {
    /// A record with this time begins.
    pub(super) fn begin(&mut self, stamp: Timestamp) {
        let empty = |second| Window {
            second,
            ..Window::default()
        };
        let second = stamp.as_second();
        if self.latest.is_none() || second > self.newest.second {
            self.before = match self.newest.second + 1 == second {
                true => self.newest,
                false => empty(second - 1),
            };
            self.newest = empty(second);
        }
        self.newest.add(stamp);
        self.before.add(stamp);
        self.latest = self.latest.max(Some(stamp));
        self.last = Some(stamp);
        self.bytes = 0;
    }

    pub(super) fn last(&self) -> Option<Timestamp> {
        self.last
    }

    /// Whether something was read of a log whose lines have no times.
    pub(super) fn is_timeless(&self) -> bool {
        self.last.is_none() && self.bytes > 0
    }

    /// The whole second from which on the API is asked to repeat.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.last?;
        Timestamp::from_second(self.window().second).ok()
    }

    /// The last record, which may have been read in part, must be in it, and so
    /// must those that come after it with an earlier time.
    fn window(&self) -> &Window {
        let earliest = self.last.map(|last| last - BACKWARDS_MAX);
        match earliest {
            Some(earliest) if earliest.as_second() < self.newest.second => &self.before,
            _ => &self.newest,
        }
    }
}

/// The search for a position in a new stream.
#[derive(Debug)]
pub(super) struct Resume {
    position: Position,
    /// Records of the new stream so far.
    seen: u64,
    /// Whether the new stream begins where `since` did before.
    is_aligned: bool,
    is_met: bool,
}

/// What a record of the new stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It was read before.
    Had,
    /// It is the last one that was read, perhaps in part.
    Last,
    /// It comes after what was read.
    New,
}

impl Resume {
    pub(super) fn new(position: Position) -> Resume {
        Resume {
            seen: 0,
            is_aligned: false,
            is_met: position.is_timeless(),
            position,
        }
    }

    /// Where the last stream ended.
    pub(super) fn position(&self) -> &Position {
        &self.position
    }

    pub(super) fn into_position(self) -> Position {
        self.position
    }

    /// Whether the last record that was read has come again.
    pub(super) fn is_met(&self) -> bool {
        self.is_met
    }

    /// Whether the log's lines have times.
    pub(super) fn has_times(&self) -> bool {
        self.position.last.is_some()
    }

    /// Takes the time of the next record of the new stream.
    pub(super) fn meet(&mut self, stamp: Timestamp) -> Meaning {
        if self.is_met {
            return Meaning::New;
        }
        let window = self.position.window();
        self.seen += 1;
        if self.seen == 1 {
            self.is_aligned = window.first == Some(stamp);
        }
        if self.is_aligned && self.seen < window.count {
            return Meaning::Had;
        }
        if self.position.last == Some(stamp) {
            self.is_met = true;
            Meaning::Last
        } else if self.position.latest >= Some(stamp) {
            Meaning::Had
        } else {
            Meaning::New
        }
    }
}
