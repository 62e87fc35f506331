//! Reads what the Pod log API sends and remembers where it stands.
//!
//! With `timestamps=true` the kubelet puts a time before every record. A
//! record is a line or, for long lines, a piece of 16 KiB; older kubelets put
//! a time before each piece, in the middle of the line, newer ones before the
//! first alone. This reader takes the times out again, wherever they stand,
//! and uses them to go on after a broken stream: the API can resume at whole
//! seconds only, so the records that were had already are skipped here.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The runtime cuts lines into pieces of this many bytes.
const PIECE_BYTES: usize = 16 * 1024;

/// No time of the kubelet is longer: `2026-11-23T17:08:10.395577033Z `, or an
/// offset in place of the Z.
const STAMP_BYTES_MAX: usize = 36;

/// Turns the bytes of a log stream into the bytes that the container wrote.
#[derive(Debug, Default)]
pub struct Records {
    position: Position,
    resume: Option<Position>,
    state: State,
    /// What may be a time, while it is not complete.
    held: Vec<u8>,
}

/// How far a log has been read: the record, and the bytes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Time of the last record that began.
    stamp: Option<Timestamp>,
    /// How many records with just this time have begun.
    ordinal: u64,
    /// Bytes of that record that were passed on.
    bytes: u64,
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
        self.resume.as_ref().unwrap_or(&self.position)
    }

    /// The time to ask the API for when a stream is opened again, in whole
    /// seconds; `None` when nothing was read yet.
    pub fn since(&self) -> Option<Timestamp> {
        let stamp = self.position.stamp?;
        Timestamp::from_second(stamp.as_second()).ok()
    }

    /// Whether what was read so far ends in the middle of a record: more must
    /// come, unless the container ended without a last newline.
    pub fn is_inside_record(&self) -> bool {
        self.state != State::Stamp || !self.held.is_empty()
    }

    /// Tells that a new stream begins, which repeats what was read since
    /// `since()`.
    pub fn reopen(&mut self) {
        self.resume = self.position.stamp.is_some().then(|| self.position.clone());
        self.position = Position::default();
        self.state = State::Stamp;
        self.held.clear();
    }

    /// Reads bytes of the stream and appends what the container wrote.
    pub fn read(&mut self, mut bytes: &[u8], content: &mut Vec<u8>) {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Content(piece) => self.read_content(piece, bytes, content),
                State::Stamp | State::MaybeStamp => self.read_stamp(bytes, content),
            };
        }
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
                Some(stamp) => self.begin(stamp),
                None => self.release_held(out),
            }
        } else if !may_be_stamp(&self.held) {
            self.release_held(out);
        }
        &bytes[1..]
    }

    /// A record begins.
    fn begin(&mut self, stamp: Timestamp) {
        let same = self.position.stamp == Some(stamp);
        self.position.ordinal = if same { self.position.ordinal + 1 } else { 1 };
        self.position.stamp = Some(stamp);
        self.position.bytes = 0;
        self.held.clear();
        self.state = State::Content(0);
    }

    /// What was held back is no time but content.
    fn release_held(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        self.state = State::Content(0);
        let rest = self.read_content(0, &held, out);
        debug_assert!(rest.is_empty(), "a newline ends what may be a time");
    }

    /// Passes content on, unless an earlier stream brought it already.
    fn pass(&mut self, content: &[u8], out: &mut Vec<u8>) {
        let before = self.position.bytes;
        self.position.bytes += content.len() as u64;
        let Some(resume) = &self.resume else {
            out.extend_from_slice(content);
            return;
        };
        let record = (self.position.stamp, self.position.ordinal);
        match record.cmp(&(resume.stamp, resume.ordinal)) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => {
                let had = resume
                    .bytes
                    .saturating_sub(before)
                    .min(content.len() as u64);
                out.extend_from_slice(&content[had as usize..]);
            }
            std::cmp::Ordering::Greater => {
                self.resume = None;
                out.extend_from_slice(content);
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
mod tests {
    use super::*;

    fn read_all(records: &mut Records, stream: &[u8], chunk: usize) -> Vec<u8> {
        let mut content = Vec::new();
        for part in stream.chunks(chunk) {
            records.read(part, &mut content);
        }
        content
    }

    fn line(nanos: u32, text: &str) -> String {
        format!("2026-11-23T17:08:10.{nanos:09}Z {text}\n")
    }

    #[test]
    fn times_are_taken_out_whatever_the_chunks() {
        let stream = [line(1, "one"), line(2, ""), line(2, "2026 is no time")].concat();
        for chunk in 1..stream.len() {
            let content = read_all(&mut Records::default(), stream.as_bytes(), chunk);
            assert_eq!(
                String::from_utf8_lossy(&content),
                "one\n\n2026 is no time\n"
            );
        }
    }

    #[test]
    fn long_lines_lose_the_times_between_pieces() {
        let (first, second) = ("a".repeat(PIECE_BYTES), "b".repeat(100));
        let old = format!("2026-11-23T17:08:10Z {first}2026-11-23T17:08:10.5Z {second}\n");
        let new = format!("2026-11-23T17:08:10Z {first}{second}\n");
        for stream in [old, new] {
            let content = read_all(&mut Records::default(), stream.as_bytes(), 1000);
            assert_eq!(content, format!("{first}{second}\n").as_bytes());
        }
    }

    #[test]
    fn content_like_a_time_at_a_border_stays() {
        let text = format!("{}2026-11-23 is a day", "a".repeat(PIECE_BYTES));
        let stream = format!("2026-11-23T17:08:10Z {text}\n");
        let content = read_all(&mut Records::default(), stream.as_bytes(), 7);
        assert_eq!(content, format!("{text}\n").as_bytes());
    }

    #[test]
    fn a_reopened_stream_repeats_and_loses_nothing() {
        let lines = [
            line(5, "first"),
            line(7, "second"),
            line(7, "third"),
            line(7, "fourth"),
            line(900, "fifth"),
        ];
        let whole = lines.concat();
        for cut in 0..whole.len() {
            let mut records = Records::default();
            let mut content = read_all(&mut records, &whole.as_bytes()[..cut], 3);
            records.reopen();
            content.extend(read_all(&mut records, whole.as_bytes(), 5));
            assert_eq!(
                String::from_utf8_lossy(&content),
                "first\nsecond\nthird\nfourth\nfifth\n",
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_cut_record_is_noticed() {
        let mut records = Records::default();
        assert!(!records.is_inside_record());
        records.read(b"2026-11-23T17:08:10Z line 197", &mut Vec::new());
        assert!(records.is_inside_record());
        records.read(b"856\n", &mut Vec::new());
        assert!(!records.is_inside_record());
        records.read(b"2026-11-23T1", &mut Vec::new());
        assert!(records.is_inside_record());
    }

    #[test]
    fn resuming_asks_for_a_whole_second() {
        let mut records = Records::default();
        assert_eq!(records.since(), None);
        records.read(line(999_999_999, "x").as_bytes(), &mut Vec::new());
        assert_eq!(
            records.since().map(|t| t.to_string()),
            Some("2026-11-23T17:08:10Z".into())
        );
    }

    #[test]
    fn a_stream_without_times_passes_unchanged() {
        let text = b"rpc error: code = NotFound\nmore\n";
        assert_eq!(read_all(&mut Records::default(), text, 4), text);
    }
}
