//! Input that nobody means well with, for tests of what reads it: byte strings
//! that are kept in `tests/corpus`, and what random changes make of them.
//!
//! What once broke a reader is added to its folder there. `PROPTEST_CASES` says
//! how many strings each test tries beside those.

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};

/// Bytes that mean something to one reader or another.
const TOKENS: [&[u8]; 22] = [
    b"",
    b"\0",
    b"\n",
    b"\r\n",
    b" ",
    b"/",
    b"..",
    b"\"",
    b"\\",
    b"'",
    b"{}",
    b"[",
    b"null",
    b"-1",
    b"1e999",
    b"9223372036854775808",
    b"18446744073709551616",
    b"\xff\xfe",
    b"\xe2\x80\xae",
    b"$(HOME)",
    b"2026-11-23T17:08:10.395577033Z ",
    b"Ki",
];

/// Gives all strings of a folder of the corpus to a check, then as many that are
/// made of them. The check panics where something is wrong; the shortest string
/// with which it does is shown.
pub(crate) fn feed(folder: &str, check: impl Fn(&[u8])) {
    let seeds = seeds(folder);
    for seed in &seeds {
        check(seed);
    }
    // A file with failures beside the sources would belong to one machine.
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    let inputs = prop_oneof![
        1 => vec(any::<u8>(), 0..300),
        4 => (select(seeds), vec(change(), 1..6)).prop_map(|(mut bytes, changes)| {
            for change in &changes {
                change.apply(&mut bytes);
            }
            bytes
        }),
    ];
    let run = TestRunner::new(config).run(&inputs, |bytes| {
        check(&bytes);
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
}

fn seeds(folder: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(folder);
    let files = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let seeds: Vec<_> = files
        .map(|file| fs::read(file.unwrap().path()).unwrap())
        .collect();
    assert!(!seeds.is_empty(), "there is nothing in {}", dir.display());
    seeds
}

/// One thing that happens to a string.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Cut(Index),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    Repeat(Index, usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let token = select(TOKENS.as_slice()).prop_map(<[u8]>::to_vec);
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        any::<Index>().prop_map(Change::Cut),
        (any::<Index>(), 1..20_usize).prop_map(|(at, length)| Change::Remove(at, length)),
        (any::<Index>(), token).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<Index>(), 1..40_usize, 1..50_usize)
            .prop_map(|(at, length, times)| Change::Repeat(at, length, times)),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let at = |index: &Index, bytes: &[u8]| index.index(bytes.len() + 1);
        match self {
            Change::Set(index, byte) => {
                let at = at(index, bytes);
                if let Some(old) = bytes.get_mut(at) {
                    *old = *byte;
                }
            }
            Change::Cut(index) => bytes.truncate(at(index, bytes)),
            Change::Remove(index, length) => {
                let start = at(index, bytes);
                let end = bytes.len().min(start + length);
                bytes.drain(start..end);
            }
            Change::Insert(index, more) => {
                let at = at(index, bytes);
                bytes.splice(at..at, more.iter().copied());
            }
            Change::Repeat(index, length, times) => {
                let start = at(index, bytes);
                let end = bytes.len().min(start + length);
                let more = bytes[start..end].repeat(*times);
                bytes.splice(end..end, more);
            }
        }
    }
}
