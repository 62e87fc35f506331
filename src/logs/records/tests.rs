//! Logs as the kubelet serves them, cut and rotated at every place.

use std::collections::BTreeSet;

use super::*;
use crate::corpus;

fn read_all(records: &mut Records, stream: &[u8], chunk: usize) -> Vec<u8> {
    let mut content = Vec::new();
    for part in stream.chunks(chunk) {
        records.read(part, &mut content);
    }
    content
}

fn text(content: &[u8]) -> String {
    String::from_utf8_lossy(content).into_owned()
}

fn time(nanos: u64) -> String {
    let seconds = nanos / 1_000_000_000;
    let nanos = nanos % 1_000_000_000;
    format!("2026-11-23T17:08:{seconds:02}.{nanos:09}Z")
}

fn line(nanos: u64, text: &str) -> String {
    format!("{} {text}\n", time(nanos))
}

fn gap(after: u64, before: Option<u64>) -> Option<Gap> {
    let stamp = |nanos| time(nanos).parse().unwrap();
    Some(Gap {
        after: stamp(after),
        before: before.map(stamp),
    })
}

#[test]
fn times_are_taken_out_whatever_the_chunks() {
    let stream = [line(1, "one"), line(2, ""), line(2, "2026 is no time")].concat();
    for chunk in 1..stream.len() {
        let content = read_all(&mut Records::default(), stream.as_bytes(), chunk);
        assert_eq!(text(&content), "one\n\n2026 is no time\n");
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
    for tail in ["2026-11-23 is a day", "2026-11-23T17:08:09.9Z is before"] {
        let content = format!("{}{tail}\n", "a".repeat(PIECE_BYTES));
        let stream = format!("2026-11-23T17:08:10Z {content}");
        let read = read_all(&mut Records::default(), stream.as_bytes(), 7);
        assert_eq!(read, content.as_bytes());
    }
}

#[test]
fn a_reopened_stream_repeats_and_loses_nothing() {
    let whole = [
        line(5, "first"),
        line(7, "second"),
        line(7, "third"),
        line(7, "fourth"),
        line(900, "fifth"),
    ]
    .concat();
    for cut in 0..whole.len() {
        for second_cut in (0..whole.len()).step_by(7) {
            let mut records = Records::default();
            let mut content = read_all(&mut records, &whole.as_bytes()[..cut], 3);
            records.reopen();
            content.extend(read_all(&mut records, &whole.as_bytes()[..second_cut], 9));
            records.reopen();
            content.extend(read_all(&mut records, whole.as_bytes(), 5));
            assert_eq!(
                text(&content),
                "first\nsecond\nthird\nfourth\nfifth\n",
                "cut at {cut} and {second_cut}"
            );
            assert_eq!(records.take_gap(), None);
        }
    }
}

/// Standard output and standard error are stamped apart.
#[test]
fn times_that_go_back_do_not_confuse() {
    let second = 1_000_000_000;
    let whole = [
        line(second - 2, "a"),
        line(second + 30, "b"),
        line(second - 1, "c"),
        line(second + 20, "d"),
        line(second + 10, "e"),
        line(second + 40, "f"),
    ];
    for cut in 0..whole.concat().len() {
        let mut records = Records::default();
        let mut content = read_all(&mut records, &whole.concat().as_bytes()[..cut], 3);
        let since = records.since().map(|since| format!("{since:.9}"));
        records.reopen();
        let served = whole
            .iter()
            .filter(|line| since.as_ref().is_none_or(|since| **line >= *since));
        let served: String = served.cloned().collect();
        content.extend(read_all(&mut records, served.as_bytes(), 5));
        assert_eq!(text(&content), "a\nb\nc\nd\ne\nf\n", "cut at {cut}");
        assert_eq!(records.take_gap(), None, "cut at {cut}");
    }
}

#[test]
fn what_rotation_took_is_named() {
    let mut records = Records::default();
    let mut content = read_all(&mut records, line(7, "first").as_bytes(), 9);
    records.reopen();
    assert_eq!(records.open_gap(), gap(7, None));
    // Broken again before anything came.
    records.reopen();
    let newer = [line(5_000_000_009, "third"), line(5_000_000_010, "fourth")].concat();
    content.extend(read_all(&mut records, newer.as_bytes(), 9));
    assert_eq!(records.take_gap(), gap(7, Some(5_000_000_009)));
    assert_eq!((records.take_gap(), records.open_gap()), (None, None));
    assert_eq!(text(&content), "first\nthird\nfourth\n");
}

#[test]
fn a_stream_that_repeats_is_behind() {
    let whole = [line(5, "a"), line(7, "bcd")].concat();
    let mut records = Records::default();
    read_all(&mut records, whole.as_bytes(), 9);
    assert!(!records.is_behind());
    for cut in 0..=whole.len() {
        records.reopen();
        assert!(read_all(&mut records, &whole.as_bytes()[..cut], 9).is_empty());
        assert_eq!(records.is_behind(), cut < whole.len(), "cut at {cut}");
    }
}

#[test]
fn a_newer_file_with_the_last_record_is_no_gap() {
    let (old, newer) = ([line(5, "a"), line(7, "b")].concat(), line(9, "c"));
    for cut in old.len() + 31..=old.len() + newer.len() {
        let mut records = Records::default();
        let whole = [old.as_str(), newer.as_str()].concat();
        let mut content = read_all(&mut records, &whole.as_bytes()[..cut], 9);
        records.reopen();
        let served = [newer.as_str(), line(11, "d").as_str()].concat();
        content.extend(read_all(&mut records, served.as_bytes(), 9));
        assert_eq!(text(&content), "a\nb\nc\nd\n", "cut at {cut}");
        assert_eq!(records.take_gap(), None, "cut at {cut}");
    }
}

/// Newer kubelets leave out the time in the middle of a line, also where that
/// is what a stream begins with.
#[test]
fn the_rest_of_an_earlier_line_is_skipped() {
    let mut records = Records::default();
    let long = "x".repeat(2 * PIECE_BYTES);
    let first = [line(900_000_000, &long), line(1_600_000_001, "b")].concat();
    let mut content = read_all(&mut records, first.as_bytes(), 999);
    assert_eq!(records.since().unwrap().to_string(), "2026-11-23T17:08:01Z");
    records.reopen();
    let rest = format!("{}\n", "x".repeat(PIECE_BYTES + 5));
    let served = [rest, line(1_600_000_001, "b"), line(1_600_000_002, "c")].concat();
    content.extend(read_all(&mut records, served.as_bytes(), 999));
    assert_eq!(text(&content), format!("{long}\nb\nc\n"));
    assert_eq!(records.take_gap(), None);
}

#[test]
fn remarks_of_the_kubelet_are_no_output() {
    let mut records = Records::default();
    let stream = line(1, "one") + "failed to create fsnotify watcher: too many open files";
    let content = read_all(&mut records, stream.as_bytes(), 4);
    assert_eq!(text(&content), "one\n");
    let remark = records.remark().unwrap();
    assert_eq!(
        remark,
        "failed to create fsnotify watcher: too many open files"
    );
    records.reopen();
    assert_eq!(records.remark(), None);
    let served = [line(1, "one"), line(2, "two")].concat();
    assert_eq!(text(&read_all(&mut records, served.as_bytes(), 4)), "two\n");
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
    records.read(line(10_999_999_999, "x").as_bytes(), &mut Vec::new());
    assert_eq!(
        records.since().map(|t| t.to_string()),
        Some("2026-11-23T17:08:10Z".into())
    );
}

#[test]
fn a_log_without_times_passes_unchanged() {
    let whole = b"rpc error: code = NotFound\nmore\n";
    for cut in 0..whole.len() {
        let mut records = Records::default();
        let mut content = read_all(&mut records, &whole[..cut], 4);
        records.reopen();
        assert_eq!(records.since(), None);
        content.extend(read_all(&mut records, whole, 4));
        assert_eq!(text(&content), text(whole), "cut at {cut}");
    }
}

/// A small generator of numbers, so that a failure can be had again.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

/// The log files of one container: what the kubelet serves is the newest.
struct Node {
    /// Time and content of each piece; a line can have several.
    pieces: Vec<(u64, String)>,
    /// Index of the first piece in the newest file.
    rotated: usize,
    stamps_every_piece: bool,
}

impl Node {
    /// Lines of all lengths, with times that go back and silence. Equal times
    /// are had in theory alone.
    fn write(numbers: &mut Numbers, lines: u64, has_equal_times: bool) -> Node {
        let (mut now, mut pieces) = (0, Vec::new());
        let mut taken = BTreeSet::new();
        for number in 0..lines {
            now += match numbers.below(8) {
                0 => 0,
                1 => 900_000_000,
                _ => 1_000_000,
            };
            let mut stamp = now - numbers.below(2) * numbers.below(now.min(900_000) + 1);
            let length = numbers.below(2) * numbers.below(3 * PIECE_BYTES as u64);
            let line = format!("{number} {}\n", "x".repeat(length as usize));
            for piece in line.as_bytes().chunks(PIECE_BYTES) {
                while !taken.insert(stamp) && !has_equal_times {
                    stamp += 1;
                }
                pieces.push((stamp, text(piece)));
            }
        }
        Node {
            pieces,
            rotated: 0,
            stamps_every_piece: numbers.below(2) == 0,
        }
    }

    fn served(&self, since: Option<Timestamp>) -> String {
        let since = since.map(|since| format!("{since:.9}")).unwrap_or_default();
        let (mut is_new_line, mut stream) = (true, String::new());
        for (stamp, piece) in &self.pieces[self.rotated..] {
            let stamp = time(*stamp);
            if stamp >= since {
                if is_new_line || self.stamps_every_piece {
                    stream += &format!("{stamp} ");
                }
                stream += piece;
            }
            is_new_line = piece.ends_with('\n');
        }
        stream
    }
}

#[test]
fn any_cuts_lose_and_repeat_nothing() {
    for seed in 0..300 {
        let mut numbers = Numbers(seed);
        let node = Node::write(&mut numbers, 40, true);
        let (mut records, mut content) = (Records::default(), Vec::new());
        for _ in 0..12 {
            let stream = node.served(records.since());
            let cut = numbers.below(stream.len() as u64 + 1) as usize;
            let chunk = 1 + numbers.below(5000) as usize;
            records.reopen();
            content.extend(read_all(&mut records, &stream.as_bytes()[..cut], chunk));
        }
        let stream = node.served(records.since());
        records.reopen();
        content.extend(read_all(&mut records, stream.as_bytes(), 4096));
        let whole: String = node
            .pieces
            .iter()
            .map(|(_, piece)| piece.as_str())
            .collect();
        assert_eq!(text(&content), whole, "seed {seed}");
        assert_eq!(records.take_gap(), None, "seed {seed}");
    }
}

#[test]
fn rotation_is_never_silent() {
    let mut told = 0;
    for seed in 0..300 {
        let mut numbers = Numbers(seed);
        let mut node = Node::write(&mut numbers, 40, false);
        let whole = node.served(None);
        let cut = numbers.below(whole.len() as u64 + 1) as usize;
        let mut records = Records::default();
        let mut content = read_all(&mut records, &whole.as_bytes()[..cut], 4096);
        node.rotated = numbers.below(node.pieces.len() as u64) as usize;
        let stream = node.served(records.since());
        records.reopen();
        let mut gap = None;
        for part in stream.as_bytes().chunks(4096) {
            records.read(part, &mut content);
            gap = gap.or(records.take_gap());
        }
        let all: String = node
            .pieces
            .iter()
            .map(|(_, piece)| piece.as_str())
            .collect();
        let is_told = gap.or(records.open_gap()).is_some();
        told += u32::from(is_told);
        // Nothing was read before: then the first file is what the log is.
        let is_whole = text(&content) == all || (cut < 31 && text(&content).len() < all.len());
        assert!(is_whole || is_told, "seed {seed}: loss without a word");
    }
    assert!((50..250).contains(&told), "{told} of 300 had a gap");
}

/// Chunks are an accident of the network, whatever is in them.
#[test]
fn whatever_a_log_holds_its_chunks_change_nothing() {
    corpus::feed("log", |bytes| {
        let mut whole = Records::default();
        let content = read_all(&mut whole, bytes, usize::MAX);
        assert!(content.len() <= bytes.len(), "more came out than went in");
        for chunk in [1, 2, 7, 64] {
            let mut records = Records::default();
            assert_eq!(read_all(&mut records, bytes, chunk), content);
            assert_eq!(records.position(), whole.position());
            assert_eq!(records.remark(), whole.remark());
        }
        // The same again, as after a broken stream: nothing comes twice.
        whole.reopen();
        let again = read_all(&mut whole, bytes, 64);
        assert!(content.ends_with(&again), "{}", text(&again));
    });
}
