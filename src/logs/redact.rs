//! Replaces secrets in a stream of bytes, wherever the chunks are cut.
//!
//! Of several secrets that begin at one place the longest wins, so that the
//! result never depends on the order of a map. Bytes are held back only while
//! they may be the beginning of a secret.

use std::borrow::Cow;
use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use serde::{Deserialize, Serialize};

/// The secrets of a job, and what stands in their place.
pub struct Redactions {
    searcher: Option<AhoCorasick>,
    secrets: Vec<Vec<u8>>,
    replacements: Vec<Vec<u8>>,
}

impl Redactions {
    /// Takes secret → replacement. An empty secret would match everywhere and
    /// is left out.
    pub fn new(values: &BTreeMap<String, String>) -> Redactions {
        let values = || values.iter().filter(|(secret, _)| !secret.is_empty());
        let disguised = values().flat_map(|(secret, with)| disguises(secret, with));
        let plain = values().map(|(secret, with)| (secret.clone(), with.clone()));
        // What was asked for counts more than what was made of another secret.
        let all: BTreeMap<Vec<u8>, Vec<u8>> = disguised
            .chain(plain)
            .map(|(secret, with)| (secret.into_bytes(), with.into_bytes()))
            .collect();
        let (secrets, replacements): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        let searcher = (!secrets.is_empty()).then(|| {
            // The default would be a table of some hundred bytes for each byte
            // of a secret, which with long keys and many jobs is too much.
            AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .kind(Some(AhoCorasickKind::ContiguousNFA))
                .build(&secrets)
                .expect("secrets of a job are far below the limits of the search")
        });
        Redactions {
            searcher,
            secrets,
            replacements,
        }
    }

    /// Replaces every secret in a text that is complete.
    pub fn redact(&self, text: &str) -> String {
        let mut redactor = Redactor::default();
        let mut out = Vec::new();
        redactor.push(self, text.as_bytes(), &mut out);
        redactor.finish(self, &mut out);
        String::from_utf8(out)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    /// Whether a text holds a secret.
    pub fn matches(&self, text: &str) -> bool {
        self.searcher
            .as_ref()
            .is_some_and(|searcher| searcher.is_match(text))
    }

    /// Length of the longest end of `bytes` that begins a longer secret.
    fn held_back(&self, bytes: &[u8]) -> usize {
        self.secrets
            .iter()
            .map(|secret| {
                let most = bytes.len().min(secret.len() - 1);
                (1..=most)
                    .rev()
                    .find(|length| bytes.ends_with(&secret[..*length]))
                    .unwrap_or(0)
            })
            .max()
            .unwrap_or(0)
    }
}

/// The forms that a secret takes on its way into a log, each with what stands
/// in its place: steps print events as JSON, with more escapes if the program
/// is one in Go; they run with `set -x`, where bash and busybox show quotes and
/// bash without a locale shows letters in their own ways; and the runtime
/// takes the carriage returns from the ends of lines.
fn disguises(secret: &str, replacement: &str) -> [(String, String); 6] {
    let (json, in_json) = (in_json(secret), in_json(replacement));
    let go_json = json
        .replace('&', r"\u0026")
        .replace('<', r"\u003c")
        .replace('>', r"\u003e");
    let octal = |byte: u8| match byte.is_ascii() {
        true => char::from(byte).to_string(),
        false => format!("\\{byte:03o}"),
    };
    let plain = |form: String| (form, replacement.to_string());
    [
        (json, in_json.clone()),
        (go_json, in_json),
        plain(secret.replace('\'', r"'\''")),
        plain(secret.replace('\'', r#"'"'"'"#)),
        plain(secret.bytes().map(octal).collect()),
        plain(secret.replace("\r\n", "\n")),
    ]
}

/// A text as the inside of a JSON string.
fn in_json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_string()
}

/// The state of one stream: the bytes that may begin a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redactor {
    held: Vec<u8>,
}

impl Redactor {
    /// Reads a chunk and appends what is certain.
    pub fn push(&mut self, redactions: &Redactions, chunk: &[u8], out: &mut Vec<u8>) {
        if redactions.searcher.is_none() {
            out.extend_from_slice(chunk);
            return;
        }
        // As a rule nothing is held, and the chunk need not be copied.
        let bytes = match self.held.is_empty() {
            true => Cow::Borrowed(chunk),
            false => {
                self.held.extend_from_slice(chunk);
                Cow::Owned(std::mem::take(&mut self.held))
            }
        };
        // From here on a secret could be longer than what was read. Whatever
        // begins before is decided: it cannot be the beginning of a longer one.
        let certain = bytes.len() - redactions.held_back(&bytes);
        let done = replace(redactions, &bytes, certain, out);
        // In memory of its own size: there is one for each job that runs.
        self.held = bytes[done..].to_vec();
    }

    /// Ends the stream. What was held back is no long secret, but a shorter
    /// one may be inside.
    pub fn finish(&mut self, redactions: &Redactions, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        replace(redactions, &held, held.len(), out);
    }
}

/// Passes on what begins before `certain`, secrets replaced; tells how much that
/// is.
fn replace(redactions: &Redactions, bytes: &[u8], certain: usize, out: &mut Vec<u8>) -> usize {
    let mut done = 0;
    let found = redactions
        .searcher
        .iter()
        .flat_map(|searcher| searcher.find_iter(bytes));
    for found in found.take_while(|found| found.start() < certain) {
        out.extend_from_slice(&bytes[done..found.start()]);
        out.extend_from_slice(&redactions.replacements[found.pattern().as_usize()]);
        done = found.end();
    }
    // A match can reach over the border; what it took is not searched again.
    let end = certain.max(done);
    out.extend_from_slice(&bytes[done..end]);
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus;

    fn redactions(pairs: &[(&str, &str)]) -> Redactions {
        Redactions::new(
            &pairs
                .iter()
                .map(|(secret, replacement)| (secret.to_string(), replacement.to_string()))
                .collect(),
        )
    }

    fn in_chunks(redactions: &Redactions, text: &str, size: usize) -> String {
        let (mut redactor, mut out) = (Redactor::default(), Vec::new());
        for chunk in text.as_bytes().chunks(size) {
            redactor.push(redactions, chunk, &mut out);
        }
        redactor.finish(redactions, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn secrets_are_found_at_every_border() {
        let redactions = redactions(&[("walnut", "[w]"), ("nutmeg", "[n]"), ("wal", "[s]")]);
        let text = "a walnutmeg wal walnut nutwalnutmegnutme wal";
        let expected = "a [w]meg [s] [w] nut[w]megnutme [s]";
        for size in 1..=text.len() {
            assert_eq!(
                in_chunks(&redactions, text, size),
                expected,
                "chunks of {size}"
            );
        }
    }

    #[test]
    fn of_two_secrets_the_longer_wins() {
        let redactions = redactions(&[("X", "x"), ("token-executor X", "token-executor y")]);
        assert_eq!(
            redactions.redact("token-executor X and X"),
            "token-executor y and x"
        );
    }

    #[test]
    fn a_short_secret_inside_a_held_one_is_found() {
        let redactions = redactions(&[("abcdef", "1"), ("bc", "2")]);
        assert_eq!(in_chunks(&redactions, "abcd", 1), "a2d");
    }

    #[test]
    fn secrets_over_several_lines_are_found() {
        let redactions = redactions(&[("-KEY-\nabc\n-END-", "[key]")]);
        assert_eq!(redactions.redact("x\n-KEY-\nabc\n-END-\ny"), "x\n[key]\ny");
        assert_eq!(
            redactions.redact(r#"{"k":"-KEY-\nabc\n-END-"}"#),
            r#"{"k":"[key]"}"#
        );
    }

    #[test]
    fn secrets_are_found_in_every_disguise() {
        let redactions = redactions(&[("it's <ü> & so\r\non", "\"s\"")]);
        for (text, expected) in [
            (r#""it's <ü> & so\r\non""#, r#""\"s\"""#),
            (r#""it's \u003cü\u003e \u0026 so\r\non""#, r#""\"s\"""#),
            ("'it'\\''s <ü> & so\r\non'", "'\"s\"'"),
            ("'it'\"'\"'s <ü> & so\r\non'", "'\"s\"'"),
            ("$'it's <\\303\\274> & so\r\non'", "$'\"s\"'"),
            ("it's <ü> & so\non", "\"s\""),
        ] {
            assert_eq!(redactions.redact(text), expected, "{text}");
        }
    }

    #[test]
    fn long_secrets_take_little_memory() {
        let mut bytes = vec![0u8; 50 * 1024];
        getrandom::fill(&mut bytes).unwrap();
        let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let redactions = redactions(&[(&secret, "[s]")]);
        let memory = redactions.searcher.as_ref().unwrap().memory_usage();
        assert!(memory < 40 * secret.len(), "{memory} for {}", secret.len());
        assert_eq!(redactions.redact(&format!("a{secret}b")), "a[s]b");
    }

    #[test]
    fn an_empty_secret_changes_nothing() {
        let redactions = redactions(&[("", "oops")]);
        assert_eq!(redactions.redact("plain"), "plain");
    }

    #[test]
    fn only_what_may_be_secret_is_held_back() {
        let redactions = redactions(&[("walnut", "[w]")]);
        let (mut redactor, mut out) = (Redactor::default(), Vec::new());
        redactor.push(&redactions, b"no secret here: wa", &mut out);
        assert_eq!(out, b"no secret here: ");
    }

    /// The first lines of each string are secrets, the rest is what a step says.
    #[test]
    fn whatever_the_secrets_are_none_passes() {
        corpus::feed("redact", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let lines: Vec<&str> = text.split('\n').collect();
            let (secrets, output) = lines.split_at(lines.len().min(3));
            let values = secrets
                .iter()
                .map(|secret| (secret.to_string(), "#".to_string()));
            let redactions = Redactions::new(&values.collect());
            let output = format!("{} {}", output.join("\n"), secrets.join(" "));
            let whole = redactions.redact(&output);
            for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
                // What stands in a secret's place can make a new one with what is
                // round it, which nobody knew before.
                let is_made = secret.contains('#');
                assert!(
                    is_made || !whole.contains(secret),
                    "{secret:?} in {whole:?}"
                );
            }
            for size in [1, 2, 3, 17] {
                assert_eq!(in_chunks(&redactions, &output, size), whole, "by {size}");
            }
        });
    }
}
