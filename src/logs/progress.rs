//! When the log of a container is complete, and when its stream must be opened
//! again. Pure: it is told what happened and when.
//!
//! The kubelet ends a stream when the container has ended and all was said.
//! But the API server ends it in the same way when it loses the kubelet. So the
//! end of a stream proves something only if the container had ended by then,
//! and if the stream was not in the middle of a lot of output. And a kubelet
//! that is still busy with a large file when it puts that away misses the next
//! one: the stream falls silent and ends where the old file does. Where the end
//! is not certain, the log of the ended container is looked at once more.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::backoff::{self, Backoff};

/// The kubelet notices a container's end by itself in two places: where it
/// ends the stream, and where it reports the status. They lie no further apart.
const ENDS_APART: Duration = Duration::from_millis(2500);
/// A status that comes later than this is asked for no more often.
const ENDS_APART_MAX: Duration = Duration::from_secs(40);
/// How long a stream may stay silent after its container has ended.
const STREAM_END_PATIENCE: Duration = Duration::from_secs(15);
/// How long the log of a container that has ended is asked for in vain.
const AFTER_END_PATIENCE: Duration = Duration::from_secs(180);
/// How often it is asked for when the answer is that there is none.
const REFUSALS_AFTER_END: u32 = 5;
/// A stream that was silent for so long has nothing under way.
const QUIET: Duration = Duration::from_millis(500);
/// Neither has one that brought no more than this.
const LITTLE_BYTES: u64 = 16 * 1024;
/// A log that is no larger was in one file all the time: by default a kubelet
/// begins another after 10 MiB.
const ONE_FILE_BYTES: u64 = 1024 * 1024;
/// And it does so no more often than every ten seconds, by default.
const FILES_APART: SignedDuration = SignedDuration::from_secs(8);
/// The first silence after which a stream is doubted; the next ones double.
const SILENCE: Duration = Duration::from_secs(30);
const SILENCE_MAX: Duration = Duration::from_secs(480);

/// Times of statuses are cut to whole seconds.
const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// What is known of the container.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// Whether it, or its pod, has ended: it writes no more.
    pub is_over: bool,
    /// When it ended, by the node's clock and in whole seconds.
    pub finished: Option<Timestamp>,
    /// Whether its pod is gone, and the log with it.
    pub is_gone: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait until something happens, or until this time.
    Wait(Option<Instant>),
    /// Open the stream where it stopped, or at the beginning.
    Open,
    /// Ask by another request whether there is more than the stream brought.
    Probe,
    /// Nothing more will come.
    Complete,
    /// The rest cannot be had, for this reason.
    Lost(&'static str),
}

/// What has happened to the log of one container so far.
#[derive(Debug)]
pub struct Progress {
    stream: Stream,
    /// When the stream was opened or brought something.
    last_bytes: Instant,
    /// When any stream brought what was not had before.
    last_news: Instant,
    /// Bytes that the stream brought.
    bytes: u64,
    /// Whether it brought what no stream before it did.
    has_news: bool,
    /// Whether it was opened at the beginning of the log.
    is_from_start: bool,
    /// Whether the container was known to be over when it was opened.
    is_after_end: bool,
    over_since: Option<Instant>,
    /// How far the node's clock is ahead of ours, at least.
    lead: Option<SignedDuration>,
    silence: Duration,
    next_probe: Instant,
    backoff: Backoff,
    /// Streams that ended well, one after the other, while the container ran.
    ended_alone: u32,
    refusals: u32,
    is_double_check: bool,
}

#[derive(Clone, Copy, Debug)]
enum Stream {
    New,
    Open,
    Broken { again: Instant },
    Ended(End),
}

/// How a stream ended that ended well.
#[derive(Clone, Copy, Debug)]
struct End {
    at: Instant,
    /// By the node's clock, at the earliest.
    node_time: Option<Timestamp>,
    is_inside_record: bool,
}

impl Progress {
    /// A log that was not opened yet.
    pub fn new(now: Instant) -> Progress {
        Progress {
            stream: Stream::New,
            last_bytes: now,
            last_news: now,
            bytes: 0,
            has_news: false,
            is_from_start: false,
            is_after_end: false,
            over_since: None,
            lead: None,
            silence: SILENCE,
            next_probe: now + SILENCE,
            backoff: Backoff::new(Duration::from_millis(250), Duration::from_secs(10)),
            ended_alone: 0,
            refusals: 0,
            is_double_check: false,
        }
    }

    /// A stream was opened, at the beginning of the log or where it stopped.
    pub fn opened(&mut self, now: Instant, is_from_start: bool) {
        self.stream = Stream::Open;
        self.last_bytes = now;
        self.next_probe = now + self.silence;
        self.bytes = 0;
        self.has_news = false;
        self.is_from_start = is_from_start;
        self.is_after_end = self.over_since.is_some();
    }

    /// It brought so many bytes; `is_news` if some of them were not had before.
    pub fn brought(&mut self, now: Instant, bytes: usize, is_news: bool) {
        self.last_bytes = now;
        self.bytes += bytes as u64;
        if is_news {
            self.has_news = true;
            self.last_news = now;
            self.backoff.reset();
            self.ended_alone = 0;
            self.refusals = 0;
            self.silence = SILENCE;
        }
        self.next_probe = now + self.silence;
    }

    /// It is doubted now; the next time after twice as long a silence.
    pub fn probed(&mut self, now: Instant) {
        self.silence = (2 * self.silence).min(SILENCE_MAX);
        self.next_probe = now + self.silence;
    }

    /// It may not be doubted before that time.
    pub fn put_off_probe(&mut self, until: Instant) {
        self.next_probe = until;
    }

    /// A record with this time of the node came at this time of ours.
    pub fn compare_clocks(&mut self, node: Timestamp, ours: Timestamp) {
        self.lead = self.lead.max(Some(node.duration_since(ours)));
    }

    /// The stream ended well; `ours` is the time by our clock.
    pub fn ended(&mut self, now: Instant, ours: Timestamp, is_inside_record: bool) {
        self.stream = Stream::Ended(End {
            at: now,
            node_time: self.lead.and_then(|lead| ours.checked_add(lead).ok()),
            is_inside_record,
        });
    }

    /// The stream broke, or could not be opened. It is opened again after a
    /// time that grows, and not before the time that was asked for.
    pub fn broke(&mut self, now: Instant, stay_away: Duration, is_refused: bool) {
        let wait = self.backoff.next(backoff::random());
        // The first break of a stream that went well is mended at once: the
        // node may be about to put away what was not read.
        let wait = match self.has_news && self.backoff.failures() == 1 {
            true => Duration::ZERO,
            false => wait,
        };
        self.refusals += u32::from(is_refused);
        self.stream = Stream::Broken {
            again: now + wait.max(stay_away),
        };
    }

    /// Whether the last stream brought anything at all.
    pub fn has_bytes(&self) -> bool {
        self.bytes > 0
    }

    /// Whether the open stream brought nothing since that time.
    pub fn is_silent_since(&self, time: Instant) -> bool {
        matches!(self.stream, Stream::Open) && self.last_bytes <= time
    }

    /// Whether the last stream ended well, though the container still runs as
    /// far as is known.
    pub fn has_ended_alone(&self) -> bool {
        matches!(self.stream, Stream::Ended(_)) && self.over_since.is_none()
    }

    /// Whether the stream that is open was opened only to be certain.
    pub fn is_double_check(&self) -> bool {
        self.is_double_check && !self.has_news
    }

    /// Whether nothing can be missing where the stream that is open, before it
    /// brought any news, was found to go on after this time: the one before it
    /// came to the end of its file, and what follows is the next file. Were
    /// there another in between, it would have taken longer to fill.
    pub fn is_next_file(&self, pause: SignedDuration) -> bool {
        self.is_double_check() && pause < FILES_APART
    }

    /// What to do next.
    pub fn next(&mut self, now: Instant, known: &Known) -> Next {
        if self.over_since.is_none() && (known.is_over || known.is_gone) {
            self.over_since = Some(now);
            self.refusals = 0;
        }
        match self.stream {
            Stream::New if known.is_gone => Next::Lost("the pod was deleted before it was read"),
            Stream::New => Next::Open,
            Stream::Open => self.next_of_open(now),
            Stream::Broken { .. } if known.is_gone => {
                Next::Lost("the pod was deleted before it was read to its end")
            }
            Stream::Broken { again } if now < again => Next::Wait(Some(again)),
            Stream::Broken { .. } => self.open_again(now),
            Stream::Ended(end) => self.next_of_ended(now, end, known),
        }
    }

    fn next_of_open(&mut self, now: Instant) -> Next {
        if let Some(over_since) = self.over_since {
            let give_up = over_since.max(self.last_bytes) + STREAM_END_PATIENCE;
            return match now < give_up {
                true => Next::Wait(Some(give_up)),
                // A dead connection; the log is still there.
                false => self.open_again(now),
            };
        }
        match now < self.next_probe {
            true => Next::Wait(Some(self.next_probe)),
            false => Next::Probe,
        }
    }

    fn next_of_ended(&mut self, now: Instant, end: End, known: &Known) -> Next {
        let Some(over_since) = self.over_since else {
            // A container that ends is soon seen to end.
            let doubled = ENDS_APART * (1 << self.ended_alone.min(10));
            let at = end.at + doubled.min(ENDS_APART_MAX);
            if now < at {
                return Next::Wait(Some(at));
            }
            self.ended_alone += 1;
            return Next::Open;
        };
        if self.is_proof(end, over_since, known.finished) {
            return Next::Complete;
        }
        if known.is_gone {
            return Next::Lost("the pod was deleted before it was read to its end");
        }
        let is_as_expected = over_since.saturating_duration_since(end.at) < ENDS_APART;
        self.is_double_check = is_as_expected && !end.is_inside_record;
        self.open_again(now)
    }

    /// Whether the end of the stream proves that all was read.
    fn is_proof(&self, end: End, over_since: Instant, finished: Option<Timestamp>) -> bool {
        if self.is_after_end && !self.has_news {
            return true;
        }
        let second_over = finished.and_then(|time| time.checked_add(SECOND).ok());
        let had_ended = over_since <= end.at
            || second_over.is_some_and(|over| end.node_time.is_some_and(|node| over <= node));
        let has_nothing_under_way = self.bytes <= LITTLE_BYTES
            || end.at.saturating_duration_since(self.last_bytes) >= QUIET;
        let is_one_file = self.is_from_start && self.bytes <= ONE_FILE_BYTES;
        had_ended && has_nothing_under_way && is_one_file && !end.is_inside_record
    }

    /// Opens once more, unless that was done in vain for too long.
    fn open_again(&self, now: Instant) -> Next {
        let Some(over_since) = self.over_since else {
            return Next::Open;
        };
        let give_up = over_since.max(self.last_news) + AFTER_END_PATIENCE;
        match now > give_up || self.refusals > REFUSALS_AFTER_END {
            true => Next::Lost("the end of the log could not be read"),
            false => Next::Open,
        }
    }
}

#[cfg(test)]
mod tests;
