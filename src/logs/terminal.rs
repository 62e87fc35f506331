//! Prints the log entries of one job for a person, while they grow.
//!
//! What steps write goes to one stream as it is; everything else, which the
//! executor says, goes to another one, a line each. The entries are those that
//! a server would get: secrets are replaced, and nothing keeps the worker from
//! its job while a terminal is slow.

use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::Receiver;

use crate::logs::entry::Entry;
use crate::logs::output::OutputReader;
use crate::logs::upload::{close_all, lock};
use crate::state::entries::OnServer;

/// How every line begins that the executor says.
const PREFIX: &str = "executor: ";
/// How the lines of an entry begin: those of a container, and our own.
const MARKS: [&[u8]; 2] = [b"stdout: ", b"stderr: "];
/// So much is printed at a time.
const BLOCK_BYTES: usize = 64 * 1024;
/// A longer line of ours is cut into several.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// Where a person reads along. Clones are the same terminal.
#[derive(Clone)]
pub struct Terminal {
    output: Arc<Mutex<dyn Write + Send>>,
    progress: Arc<Mutex<dyn Write + Send>>,
    step_code: Arc<Mutex<Option<i32>>>,
}

impl Terminal {
    /// Output of steps goes to the first one, what the executor says to the
    /// second one.
    pub fn new(
        output: impl Write + Send + 'static,
        progress: impl Write + Send + 'static,
    ) -> Terminal {
        Terminal {
            output: Arc::new(Mutex::new(output)),
            progress: Arc::new(Mutex::new(progress)),
            step_code: Arc::default(),
        }
    }

    /// Says a line. Control characters, which clusters and servers may have
    /// put into it, do not get through.
    pub fn say(&self, line: &str) {
        let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        let line: String = line.chars().map(plain).collect();
        let mut progress = held(&self.progress);
        // If nobody can read it, nobody misses it.
        let _ = writeln!(progress, "{PREFIX}{line}").and_then(|()| progress.flush());
    }

    /// Exit code of the last step that ended, once its output is printed.
    pub fn step_code(&self) -> Option<i32> {
        *held(&self.step_code)
    }

    fn print(&self, bytes: &[u8]) -> io::Result<()> {
        let mut output = held(&self.output);
        output.write_all(bytes)?;
        output.flush()
    }
}

fn held<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread that prints the entries of one job.
pub(super) struct Printer {
    terminal: Terminal,
    entries: Arc<Mutex<Vec<Entry>>>,
    sent: Arc<Condvar>,
    /// The entry that is printed, and how many of its bytes were.
    current: usize,
    printed: u64,
    lines: Lines,
    is_broken: bool,
}

/// What is new of an entry.
struct News {
    key: String,
    is_step: bool,
    output: OutputReader,
    /// If nothing will be added: exit code and duration, as far as known.
    end: Option<(Option<i32>, Option<Duration>)>,
}

impl Printer {
    pub(super) fn new(
        terminal: Terminal,
        entries: Arc<Mutex<Vec<Entry>>>,
        sent: Arc<Condvar>,
    ) -> Printer {
        Printer {
            terminal,
            entries,
            sent,
            current: 0,
            printed: 0,
            lines: Lines::default(),
            is_broken: false,
        }
    }

    /// Prints what there is until the worker is done, then the rest.
    pub(super) fn run(mut self, wake: &Receiver<()>) {
        loop {
            self.print_all();
            if wake.recv().is_err() {
                close_all(&self.entries);
                return self.print_all();
            }
        }
    }

    /// Prints entry after entry, to the first one that may still grow.
    fn print_all(&mut self) {
        while let Some(news) = self.news() {
            let end = news.end;
            self.print_output(&news.key, news.is_step, news.output);
            let Some((code, duration)) = end else { return };
            self.terminal.say(&ending(&news.key, code, duration));
            if news.is_step && code.is_some() {
                *held(&self.terminal.step_code) = code;
            }
            if let Some(entry) = lock(&self.entries).get_mut(self.current) {
                entry.upload.state = OnServer::All;
            }
            self.sent.notify_all();
            (self.current, self.printed) = (self.current + 1, 0);
            self.lines = Lines::default();
        }
    }

    fn news(&self) -> Option<News> {
        let entries = lock(&self.entries);
        let entry = entries.get(self.current)?;
        let mut output = entry.output.reader();
        output.skip(self.printed);
        Some(News {
            key: entry.key.clone(),
            is_step: entry.command.is_some(),
            output,
            end: entry.closed.then_some((entry.exit_code, entry.duration)),
        })
    }

    fn print_output(&mut self, key: &str, is_step: bool, mut output: OutputReader) {
        self.printed += output.remaining();
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let got = match output.read(&mut block) {
                Ok(0) => return,
                Ok(got) => got,
                Err(error) => {
                    let problem = format!("the output of {key} cannot be read again: {error}");
                    return self.terminal.say(&problem);
                }
            };
            self.lines.push(&block[..got], is_step);
            for line in self.lines.ours.drain(..) {
                self.terminal.say(&line);
            }
            let bytes = std::mem::take(&mut self.lines.output);
            if self.is_broken || bytes.is_empty() {
                continue;
            }
            if let Err(error) = self.terminal.print(&bytes) {
                self.is_broken = true;
                self.terminal
                    .say(&format!("no more output can be written: {error}"));
            }
        }
    }
}

/// Times of containers are whole seconds, so that many are none at all.
fn ending(key: &str, code: Option<i32>, duration: Option<Duration>) -> String {
    let time = match duration {
        None => String::new(),
        Some(time) if time < Duration::from_secs(1) => " within a second".to_string(),
        Some(time) => format!(" after {time:.1?}"),
    };
    match code {
        Some(code) => format!("{key} ended with exit code {code}{time}"),
        None => format!("{key} has no exit code"),
    }
}

/// Takes the text of an entry apart, which is the inside of a JSON string.
#[derive(Default)]
struct Lines {
    /// An escape sequence of which the end is missing.
    escape: Vec<u8>,
    /// How the line begins, as far as it is known.
    mark: Vec<u8>,
    /// A line of ours of which the end is missing.
    line: Vec<u8>,
    /// Output of a step, to be printed.
    output: Vec<u8>,
    /// Lines of ours, to be said.
    ours: Vec<String>,
}

impl Lines {
    fn push(&mut self, json: &[u8], is_step: bool) {
        for byte in json {
            match (self.escape.len(), *byte) {
                (0, b'\\') => self.escape.push(b'\\'),
                (0, byte) => self.add(byte, is_step),
                (1, b'u') => self.escape.push(b'u'),
                (1, byte) => {
                    self.escape.clear();
                    let meant = match byte {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        byte => byte,
                    };
                    self.add(meant, is_step);
                }
                // Four digits, which `output.rs` writes for control characters.
                (_, digit) => {
                    self.escape.push(digit);
                    if self.escape.len() == 6 {
                        let digits = String::from_utf8_lossy(&self.escape[2..]).into_owned();
                        self.escape.clear();
                        let control = u8::from_str_radix(&digits, 16);
                        self.add(control.unwrap_or(b'?'), is_step);
                    }
                }
            }
        }
    }

    /// Adds a byte of the text.
    fn add(&mut self, byte: u8, is_step: bool) {
        let [theirs, _] = MARKS;
        if self.mark.len() < theirs.len() {
            return self.mark.push(byte);
        }
        let is_theirs = is_step && self.mark == theirs;
        let ends = byte == b'\n';
        if is_theirs {
            self.output.push(byte);
        } else if !ends {
            self.line.push(byte);
        }
        if !is_theirs && (ends || self.line.len() >= LINE_BYTES_MAX) {
            let line = std::mem::take(&mut self.line);
            self.ours.push(String::from_utf8_lossy(&line).into_owned());
        }
        if ends {
            self.mark.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crossbeam_channel::{Sender, bounded, unbounded};
    use jiff::Timestamp;

    use super::*;
    use crate::logs::entry::Place;
    use crate::logs::redact::Redactions;
    use crate::logs::resume::Position;
    use crate::logs::upload::{JobLog, Sink};

    const SOON: Duration = Duration::from_secs(10);

    /// A stream whose writes arrive here.
    struct Stream(Sender<String>);

    impl Write for Stream {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let text = String::from_utf8_lossy(bytes).into_owned();
            self.0.send(text).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start(terminal: &Terminal) -> JobLog {
        let values = BTreeMap::from([("walnut".to_string(), "[hidden]".to_string())]);
        let redactions = Arc::new(Redactions::new(&values));
        let place = Place::Passing(std::env::temp_dir());
        JobLog::start(Sink::Terminal(terminal.clone()), redactions, place, false)
    }

    fn write(log: &JobLog, entry: usize, bytes: &[u8]) {
        log.write(entry, bytes, &Position::default());
    }

    #[test]
    fn steps_and_the_executor_have_a_stream_each() {
        let ((out, output), (err, progress)) = (unbounded(), unbounded());
        let terminal = Terminal::new(Stream(out), Stream(err));
        let log = start(&terminal);
        let setup = log.open("setup.workspace", None, Timestamp::now());
        write(&log, setup, b"Cloning\nin two par");
        write(&log, setup, b"ts\n");
        log.close(setup, Some(0), Some(Duration::ZERO));
        let step = log.open("step.a", Some(vec!["sh".to_string()]), Timestamp::now());
        write(
            &log,
            step,
            b"a\x1b[31m\ttab \"q\" \\ walnut \xe2\x82\xac\r\n\nstderr: faked",
        );
        log.note(step, "too \x1b[31m much");
        write(&log, step, b"last");
        log.close(step, Some(3), Some(Duration::from_secs(2)));
        assert!(log.finish().is_ok());
        let output: String = output.try_iter().collect();
        let expected = "a\x1b[31m\ttab \"q\" \\ [hidden] \u{20ac}\r\n\nstderr: faked\nlast\n";
        assert_eq!(output, expected);
        let progress: String = progress.try_iter().collect();
        assert_eq!(
            progress,
            "executor: Cloning\nexecutor: in two parts\n\
             executor: setup.workspace ended with exit code 0 within a second\n\
             executor: too \u{fffd}[31m much\nexecutor: step.a ended with exit code 3 after 2.0s\n"
        );
        assert_eq!(terminal.step_code(), Some(3));
    }

    #[test]
    fn a_line_is_printed_before_it_ends() {
        let (out, output) = unbounded();
        let terminal = Terminal::new(Stream(out), io::sink());
        let log = start(&terminal);
        let step = log.open("step.a", Some(Vec::new()), Timestamp::now());
        // What may become a secret is held back.
        write(&log, step, b"50 %....");
        assert_eq!(output.recv_timeout(SOON), Ok("50 %....".to_string()));
    }

    #[test]
    fn a_terminal_that_stands_still_keeps_nobody() {
        let (out, output) = bounded(0);
        let terminal = Terminal::new(Stream(out), io::sink());
        let log = start(&terminal);
        let step = log.open("step.a", Some(Vec::new()), Timestamp::now());
        let line = "0123456789abcdef\n";
        let lines = 20 * BLOCK_BYTES / line.len();
        for _ in 0..lines {
            write(&log, step, line.as_bytes());
        }
        log.close(step, Some(0), None);
        // Only now somebody reads.
        let reader = std::thread::spawn(move || output.iter().collect::<String>());
        assert!(log.finish().is_ok());
        drop(terminal);
        assert!(reader.join().unwrap() == line.repeat(lines), "bytes differ");
    }
}
