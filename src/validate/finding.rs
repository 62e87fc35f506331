//! One result of a check, and the report of all of them: a line each, and a
//! last one that sums up.

use std::fmt;
use std::io::{self, Write};

use crate::cluster::error::ClusterError;

/// What a result means for jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// As it should be.
    Ok,
    /// Jobs run, but something is not as it should be.
    Warning,
    /// Jobs cannot run.
    Failed,
    /// We may not look, or something that failed is in the way.
    Unknown,
}

/// One result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// What it means.
    pub(super) state: State,
    /// What was checked, in a word or two.
    pub(super) subject: &'static str,
    /// What was found.
    pub(super) result: String,
    /// What to do about it; empty when it is well.
    pub(super) advice: String,
}

impl Finding {
    /// All is well.
    pub(super) fn ok(subject: &'static str, result: impl Into<String>) -> Finding {
        Finding::new(State::Ok, subject, result, "")
    }

    /// Jobs run, but.
    pub(super) fn warning(
        subject: &'static str,
        result: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding::new(State::Warning, subject, result, advice)
    }

    /// Jobs cannot run.
    pub(super) fn failed(
        subject: &'static str,
        result: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding::new(State::Failed, subject, result, advice)
    }

    /// Nobody knows.
    pub(super) fn unknown(
        subject: &'static str,
        result: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding::new(State::Unknown, subject, result, advice)
    }

    fn new(
        state: State,
        subject: &'static str,
        result: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding {
            state,
            subject,
            result: result.into(),
            advice: advice.into(),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Failed => "failed",
            State::Unknown => "unknown",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (state, subject) = (self.state, self.subject);
        write!(f, "{state:<7}  {subject}: {}", sentence(&self.result))?;
        if !self.advice.is_empty() {
            write!(f, ". {}", sentence(&self.advice))?;
        }
        Ok(())
    }
}

/// A text on one line and without the full stop that somebody may have put:
/// servers say what they like.
fn sentence(text: &str) -> String {
    let is_gap = |c: char| c.is_whitespace() || c.is_control();
    let words: Vec<&str> = text.split(is_gap).filter(|word| !word.is_empty()).collect();
    words.join(" ").trim_end_matches('.').to_string()
}

/// Why there was no answer to a question, which reads as in `list pods`.
pub(super) fn no_answer(question: &str, error: &ClusterError) -> String {
    match error.is_forbidden() {
        true => format!("this account may not {question}"),
        false => error.to_string(),
    }
}

/// Writes findings as they come, so that a check that takes long does not hide
/// those before it, and counts them.
pub(super) struct Report<'a> {
    out: &'a mut dyn Write,
    failed: usize,
    unknown: usize,
    written: io::Result<()>,
}

impl<'a> Report<'a> {
    /// An empty one.
    pub(super) fn new(out: &'a mut dyn Write) -> Report<'a> {
        Report {
            out,
            failed: 0,
            unknown: 0,
            written: Ok(()),
        }
    }

    /// Adds a finding.
    pub(super) fn add(&mut self, finding: Finding) {
        match finding.state {
            State::Failed => self.failed += 1,
            State::Unknown => self.unknown += 1,
            State::Ok | State::Warning => {}
        }
        self.line(&finding.to_string());
    }

    /// Adds several.
    pub(super) fn add_all(&mut self, findings: impl IntoIterator<Item = Finding>) {
        findings.into_iter().for_each(|finding| self.add(finding));
    }

    /// Sums up. True if nothing failed and everything could be written.
    pub(super) fn finish(mut self) -> bool {
        let summary = match (self.failed, self.unknown) {
            (0, 0) => "Jobs can run.".to_string(),
            (0, 1) => "Jobs can run. 1 check is unknown.".to_string(),
            (0, unknown) => format!("Jobs can run. {unknown} checks are unknown."),
            (1, _) => "Jobs cannot run: 1 check failed.".to_string(),
            (failed, _) => format!("Jobs cannot run: {failed} checks failed."),
        };
        self.line(&summary);
        self.failed == 0 && self.written.is_ok()
    }

    fn line(&mut self, text: &str) {
        let written = writeln!(self.out, "{text}").and_then(|()| self.out.flush());
        if self.written.is_ok() {
            self.written = written;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(findings: &[Finding]) -> (String, bool) {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out);
        report.add_all(findings.iter().cloned());
        let can_run = report.finish();
        (String::from_utf8(out).unwrap(), can_run)
    }

    #[test]
    fn a_finding_is_one_line() {
        let finding = Finding::failed("quota", "a\r\n  b.\n", "Do c.");
        assert_eq!(finding.to_string(), "failed   quota: a b. Do c");
        let finding = Finding::ok("quota", "there is none");
        assert_eq!(finding.to_string(), "ok       quota: there is none");
    }

    #[test]
    fn only_what_failed_stops_jobs() {
        let ok = Finding::ok("a", "b");
        let warning = Finding::warning("a", "b", "c");
        let unknown = Finding::unknown("a", "b", "c");
        let failed = Finding::failed("a", "b", "c");
        for (findings, summary, expected) in [
            (vec![ok.clone(), warning], "Jobs can run.", true),
            (
                vec![ok.clone(), unknown.clone()],
                "Jobs can run. 1 check is unknown.",
                true,
            ),
            (
                vec![failed.clone()],
                "Jobs cannot run: 1 check failed.",
                false,
            ),
            (
                vec![failed.clone(), unknown, failed],
                "Jobs cannot run: 2 checks failed.",
                false,
            ),
        ] {
            let (text, can_run) = report(&findings);
            assert_eq!(text.lines().last(), Some(summary));
            assert_eq!(text.lines().count(), findings.len() + 1);
            assert_eq!(can_run, expected, "{text}");
        }
    }

    #[test]
    fn a_closed_output_is_a_failure() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut closed = Closed;
        let mut report = Report::new(&mut closed);
        report.add(Finding::ok("a", "b"));
        assert!(!report.finish());
    }
}
