//! Reads what the Pod log API sends and remembers where it stands.
//!
//! With `timestamps=true` the kubelet puts a time before every record. A
//! record is a line or, for long lines, a piece of 16 KiB; older kubelets put
//! a time before each piece, in the middle of the line, newer ones before the
//! first alone. This reader takes the times out again, wherever they stand,
//! and knows by them where to go on after a broken stream (`resume.rs`).

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use crate::logs::resume::{Meaning, Position, Resume};

/// The runtime cuts lines into pieces of this many bytes.
const PIECE_BYTES: usize = 16 * 1024;
/// No time of the kubelet is longer: `2026-11-23T17:08:10.395577033Z `, or an
/// offset in place of the Z.
const STAMP_BYTES_MAX: usize = 36;
/// So much of what the kubelet says for itself is kept.
const REMARK_BYTES_MAX: usize = 300;

/// Turns the bytes of a log stream into the bytes that the container wrote.
#[derive(Debug, Default)]
pub struct Records {
    position: Position,
    /// Set while a stream that was opened again repeats what was had.
    resume: Option<Resume>,
    pass: Pass,
    state: State,
    /// What may be a time, while it is not complete.
    held: Vec<u8>,
    gap: Option<Gap>,
    remark: Vec<u8>,
}

/// Output that may be missing, by the times of the records around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Time of the last record that was read.
    pub after: Timestamp,
    /// Time of the next one; none if nothing came any more.
    pub before: Option<Timestamp>,
}

impl Gap {
    /// How much time lies in it; none if nothing came any more.
    pub fn duration(&self) -> Option<SignedDuration> {
        self.before.map(|before| before.duration_since(self.after))
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.after;
        match self.before {
            Some(before) => write!(f, "Output between {after} and {before} may be missing")?,
            None => write!(f, "Output after {after} may be missing")?,
        }
        write!(
            f,
            ": the node had put it into an older log file before it could be read"
        )
    }
}

/// What is passed on of the content that is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pass {
    #[default]
    All,
    Nothing,
    /// What comes after so many bytes of the record.
    After(u64),
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A record begins here: its time comes first.
    #[default]
    Stamp,
    /// Inside a record, so many bytes after its time or its last piece.
    Content(usize),
    /// After a whole piece: an older kubelet puts a time here.
    MaybeStamp,
    /// Inside a line that has no time, in a log whose lines have one.
    Remark,
}

impl Records {
    /// Goes on where another reader of the same log had come to.
    pub fn at(position: Position) -> Records {
        Records {
            position,
            ..Records::default()
        }
    }

    /// How far what was passed on reaches.
    pub fn position(&self) -> &Position {
        match &self.resume {
            Some(resume) => resume.position(),
            None => &self.position,
        }
    }

    /// The time to ask the API for when a stream is opened again, in whole
    /// seconds; `None` when nothing was read yet.
    pub fn since(&self) -> Option<Timestamp> {
        self.position().since()
    }

    /// Time of the last record that began in this stream.
    pub fn last(&self) -> Option<Timestamp> {
        self.position.last()
    }

    /// Whether what was read so far ends in the middle of a record: more must
    /// come, unless the container ended without a last newline.
    pub fn is_inside_record(&self) -> bool {
        self.state != State::Stamp || !self.held.is_empty()
    }

    /// Tells that a new stream begins, which repeats what was read since
    /// `since()`. Until it has come to where the last one ended, that remains
    /// the position, however often streams break.
    pub fn reopen(&mut self) {
        let position = match self.resume.take() {
            Some(resume) => resume.into_position(),
            None => std::mem::take(&mut self.position),
        };
        self.position = Position::default();
        self.pass = match position.is_timeless() {
            // Without times a stream begins at the first byte.
            true => Pass::After(position.bytes),
            false => Pass::All,
        };
        self.resume = (position != Position::default()).then(|| Resume::new(position));
        self.state = State::Stamp;
        self.held.clear();
        self.remark.clear();
    }

    /// Reads bytes of the stream and appends what the container wrote. A gap
    /// that this shows lies before what was appended.
    pub fn read(&mut self, mut bytes: &[u8], content: &mut Vec<u8>) {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Content(piece) => self.read_content(piece, bytes, content),
                State::Stamp | State::MaybeStamp => self.read_stamp(bytes, content),
                State::Remark => self.read_remark(bytes),
            };
        }
    }

    /// The gap that was found since the last call.
    pub fn take_gap(&mut self) -> Option<Gap> {
        self.gap.take()
    }

    /// The gap that is there if nothing more comes: this stream did not bring
    /// the record up to which the last one was read.
    pub fn open_gap(&self) -> Option<Gap> {
        let resume = self.resume.as_ref().filter(|resume| !resume.is_met())?;
        let after = resume.position().last()?;
        Some(Gap {
            after,
            before: None,
        })
    }

    /// Whether this stream has not come to where the last one ended.
    pub fn is_behind(&self) -> bool {
        let is_behind =
            |resume: &Resume| !resume.is_met() || self.position.bytes < resume.position().bytes;
        self.resume.as_ref().is_some_and(is_behind)
    }

    /// What the kubelet said in this stream for itself: why it ends, as a rule.
    pub fn remark(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.remark);
        Some(text.trim().to_string()).filter(|text| !text.is_empty())
    }

    /// Takes bytes up to the end of the line or of the piece.
    fn read_content<'a>(&mut self, piece: usize, bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let room = &bytes[..bytes.len().min(PIECE_BYTES - piece)];
        match room.iter().position(|byte| *byte == b'\n') {
            Some(newline) => {
                self.pass(&bytes[..=newline], out);
                self.state = State::Stamp;
                &bytes[newline + 1..]
            }
            None => {
                self.pass(room, out);
                self.state = match piece + room.len() {
                    PIECE_BYTES => State::MaybeStamp,
                    piece => State::Content(piece),
                };
                &bytes[room.len()..]
            }
        }
    }

    /// Takes one byte of what must be, or may be, a time.
    fn read_stamp<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        self.held.push(bytes[0]);
        if bytes[0] == b' ' {
            match parse_stamp(&self.held[..self.held.len() - 1]) {
                Some(stamp) if self.may_begin(stamp) => self.begin(stamp),
                _ => self.release_held(out),
            }
        } else if !may_be_stamp(&self.held) {
            self.release_held(out);
        }
        &bytes[1..]
    }

    /// In the middle of a line, only a time that goes on from the last one is
    /// the kubelet's and not the container's.
    fn may_begin(&self, stamp: Timestamp) -> bool {
        self.state == State::Stamp || self.position.last().is_none_or(|last| last <= stamp)
    }

    /// A record begins.
    fn begin(&mut self, stamp: Timestamp) {
        self.position.begin(stamp);
        self.held.clear();
        self.state = State::Content(0);
        let Some(resume) = &mut self.resume else {
            return;
        };
        self.pass = match resume.meet(stamp) {
            Meaning::Had => Pass::Nothing,
            Meaning::Last => Pass::After(resume.position().bytes),
            Meaning::New => {
                if !resume.is_met() {
                    self.gap = resume.position().last().map(|after| Gap {
                        after,
                        before: Some(stamp),
                    });
                }
                self.resume = None;
                Pass::All
            }
        };
    }

    /// What was held back is no time.
    fn release_held(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        let is_first = self.position.last().is_none();
        if self.state == State::Stamp && !is_first {
            self.state = State::Remark;
            self.read_remark(&held);
            return;
        }
        if self.state == State::Stamp && self.resume.as_ref().is_some_and(Resume::has_times) {
            // The rest of a line that began before the time that was asked for.
            self.pass = Pass::Nothing;
        }
        self.state = State::Content(0);
        let rest = self.read_content(0, &held, out);
        debug_assert!(rest.is_empty(), "a newline ends what may be a time");
    }

    fn read_remark<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let newline = bytes.iter().position(|byte| *byte == b'\n');
        let end = newline.map_or(bytes.len(), |newline| newline + 1);
        let room = REMARK_BYTES_MAX.saturating_sub(self.remark.len());
        self.remark.extend_from_slice(&bytes[..end.min(room)]);
        if newline.is_some() {
            self.state = State::Stamp;
        }
        &bytes[end..]
    }

    /// Passes content on, unless an earlier stream brought it already.
    fn pass(&mut self, content: &[u8], out: &mut Vec<u8>) {
        let before = self.position.bytes;
        self.position.bytes += content.len() as u64;
        match self.pass {
            Pass::All => out.extend_from_slice(content),
            Pass::Nothing => {}
            Pass::After(had) => {
                let skip = had.saturating_sub(before).min(content.len() as u64);
                out.extend_from_slice(&content[skip as usize..]);
                if self.position.bytes > had {
                    self.resume = None;
                    self.pass = Pass::All;
                }
            }
        }
    }
}

/// Whether these bytes can be the beginning of a time. Only digits, `T`, `Z`
/// and the marks between them occur, and a time begins with a year.
fn may_be_stamp(bytes: &[u8]) -> bool {
    bytes.len() <= STAMP_BYTES_MAX
        && bytes.iter().enumerate().all(|(index, byte)| match index {
            0..=3 => byte.is_ascii_digit(),
            4 | 7 => *byte == b'-',
            10 => *byte == b'T',
            13 | 16 => *byte == b':',
            _ => byte.is_ascii_digit() || matches!(byte, b'.' | b'Z' | b'+' | b'-' | b':'),
        })
}

fn parse_stamp(bytes: &[u8]) -> Option<Timestamp> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
