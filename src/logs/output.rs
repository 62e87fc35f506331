//! The output of one container on its way to the server: secrets replaced,
//! every line marked with its stream, written as the inside of a JSON string.
//!
//! The server reads events out of lines that begin with `stdout: `, so nothing
//! else about a line may change. What is stored is JSON already: an update of
//! any length is then sent as it lies there, without being encoded again.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::logs::redact::{Redactions, Redactor};

/// Output up to this size stays in memory; what is larger moves to a file. A
/// hundred jobs must be cheap, and most output is less or far more.
const MEMORY_BYTES_MAX: usize = 8 * 1024;

/// Collects the output of one container.
pub struct Output {
    redactions: Arc<Redactions>,
    redactor: Redactor,
    at_line_start: bool,
    /// End of the text so far that is only part of a UTF-8 character.
    partial: Vec<u8>,
    spool: Spool,
}

/// Where the output that was saved stands, besides its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedOutput {
    /// Bytes of the file that are good, as JSON.
    pub length: u64,
    at_line_start: bool,
    partial: Vec<u8>,
    redactor: Redactor,
}

impl Output {
    /// Starts empty. Large output is kept in a nameless file in `spool_dir`.
    pub fn new(redactions: Arc<Redactions>, spool_dir: &Path) -> Output {
        Output::with(
            redactions,
            Spool::new(Place::Nameless(spool_dir.to_owned())),
        )
    }

    /// Starts empty. Large output, and all that is saved, is kept in this file.
    pub fn kept(redactions: Arc<Redactions>, path: PathBuf) -> Output {
        Output::with(redactions, Spool::new(Place::Named(path)))
    }

    fn with(redactions: Arc<Redactions>, spool: Spool) -> Output {
        Output {
            redactions,
            redactor: Redactor::default(),
            at_line_start: true,
            partial: Vec::new(),
            spool,
        }
    }

    /// Goes on with output that was saved in this file.
    pub fn restore(
        redactions: Arc<Redactions>,
        path: PathBuf,
        saved: &SavedOutput,
    ) -> io::Result<Output> {
        Ok(Output {
            redactions,
            redactor: saved.redactor.clone(),
            at_line_start: saved.at_line_start,
            partial: saved.partial.clone(),
            spool: Spool::reopen(path, saved.length)?,
        })
    }

    /// Whether it is in a file of its own already.
    pub fn is_in_file(&self) -> bool {
        self.spool.file.is_some()
    }

    /// Moves everything to its file and tells where it stands. None if it can
    /// only be kept in memory.
    pub fn save(&mut self) -> Option<SavedOutput> {
        self.spool.move_to_file();
        let is_whole = self.is_in_file() && self.spool.in_file == self.spool.len;
        is_whole.then(|| SavedOutput {
            length: self.spool.len,
            at_line_start: self.at_line_start,
            partial: self.partial.clone(),
            redactor: self.redactor.clone(),
        })
    }

    /// Adds bytes that the container wrote.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut clean = Vec::with_capacity(bytes.len());
        self.redactor.push(&self.redactions, bytes, &mut clean);
        self.add_lines(&clean, b"stdout: ");
    }

    /// Adds a line of the executor's own, marked so that no server takes it
    /// for output of the step.
    pub fn note(&mut self, text: &str) {
        // What is held back came before.
        let mut held = Vec::new();
        self.redactor.finish(&self.redactions, &mut held);
        self.add_lines(&held, b"stdout: ");
        self.end_line();
        let clean = self.redactions.redact(text);
        self.add_lines(clean.as_bytes(), b"stderr: ");
        self.end_line();
    }

    /// Ends the output: nothing is held back any more and the last line is
    /// complete.
    pub fn finish(&mut self) {
        let mut clean = Vec::new();
        self.redactor.finish(&self.redactions, &mut clean);
        self.add_lines(&clean, b"stdout: ");
        self.end_line();
    }

    /// Number of bytes so far, as JSON.
    pub fn bytes(&self) -> u64 {
        self.spool.len
    }

    /// The first `bytes()` bytes of now, readable while more are added.
    pub fn reader(&self) -> OutputReader {
        self.spool.reader()
    }

    fn end_line(&mut self) {
        if !self.at_line_start {
            self.add_lines(b"\n", b"");
        }
    }

    fn add_lines(&mut self, text: &[u8], mark: &[u8]) {
        let mut json = Vec::with_capacity(text.len() + text.len() / 8 + 16);
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            if self.at_line_start {
                json.extend_from_slice(mark);
            }
            escape(&mut self.partial, line, &mut json);
            self.at_line_start = line.ends_with(b"\n");
        }
        self.spool.append(&json);
    }
}

/// Appends `bytes` as the inside of a JSON string. What is not UTF-8 becomes
/// U+FFFD, sequence by sequence; so does NUL, which the server's database
/// cannot store. A character cut at the end waits in `partial`.
fn escape(partial: &mut Vec<u8>, bytes: &[u8], json: &mut Vec<u8>) {
    let joined;
    let mut rest = if partial.is_empty() {
        bytes
    } else {
        partial.extend_from_slice(bytes);
        joined = std::mem::take(partial);
        &joined
    };
    loop {
        let error = match std::str::from_utf8(rest) {
            Ok(text) => return escape_text(text, json),
            Err(error) => error,
        };
        let (valid, after) = rest.split_at(error.valid_up_to());
        escape_text(&String::from_utf8_lossy(valid), json);
        match error.error_len() {
            Some(length) => {
                json.extend_from_slice("\u{fffd}".as_bytes());
                rest = &after[length..];
            }
            None => return partial.extend_from_slice(after),
        }
    }
}

fn escape_text(text: &str, json: &mut Vec<u8>) {
    let mut plain = 0;
    for (index, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        json.extend_from_slice(&text.as_bytes()[plain..index]);
        plain = index + 1;
        match byte {
            b'"' => json.extend_from_slice(b"\\\""),
            b'\\' => json.extend_from_slice(b"\\\\"),
            b'\n' => json.extend_from_slice(b"\\n"),
            b'\r' => json.extend_from_slice(b"\\r"),
            b'\t' => json.extend_from_slice(b"\\t"),
            0 => json.extend_from_slice("\u{fffd}".as_bytes()),
            _ => json.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
        }
    }
    json.extend_from_slice(&text.as_bytes()[plain..]);
}

/// Bytes in memory while they are few, in a file after that; in memory again
/// once the disk is full.
struct Spool {
    place: Place,
    file: Option<Arc<File>>,
    /// How many of the bytes are in the file; they come first.
    in_file: u64,
    memory: Vec<u8>,
    len: u64,
}

/// Where the file of a spool is made.
enum Place {
    /// In this directory, without a name.
    Nameless(PathBuf),
    /// Here, for the next process.
    Named(PathBuf),
    /// Nowhere: it did not work.
    Memory,
}

impl Place {
    fn make_file(&self) -> io::Result<File> {
        match self {
            Place::Nameless(dir) => tempfile::tempfile_in(dir),
            Place::Named(path) => {
                let mut options = OpenOptions::new();
                options.read(true).write(true).create(true).truncate(true);
                options.mode(0o600).open(path)
            }
            Place::Memory => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl Spool {
    fn new(place: Place) -> Spool {
        Spool {
            place,
            file: None,
            in_file: 0,
            memory: Vec::new(),
            len: 0,
        }
    }

    /// Opens a file and cuts off what is more than `len`.
    fn reopen(path: PathBuf, len: u64) -> io::Result<Spool> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        file.set_len(len)?;
        Ok(Spool {
            place: Place::Named(path),
            file: Some(Arc::new(file)),
            in_file: len,
            memory: Vec::new(),
            len,
        })
    }

    fn append(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        if self.write_through(bytes) {
            return;
        }
        self.memory.extend_from_slice(bytes);
        if self.file.is_some() || self.memory.len() > MEMORY_BYTES_MAX {
            self.move_to_file();
        }
    }

    /// Writes behind what is in the file already, if nothing else waits for that.
    /// What fails goes the long way, which tells of it.
    fn write_through(&mut self, bytes: &[u8]) -> bool {
        let is_next = self.memory.is_empty() && !matches!(self.place, Place::Memory);
        let file = self.file.as_ref().filter(|_| is_next);
        let is_written = file.is_some_and(|file| file.write_all_at(bytes, self.in_file).is_ok());
        if is_written {
            self.in_file = self.len;
        }
        is_written
    }

    /// Moves what is in memory to the file, and makes that if there is none. If
    /// it does not work, what is in memory stays there.
    fn move_to_file(&mut self) {
        if matches!(self.place, Place::Memory) {
            return;
        }
        if let Err(error) = self.try_to_move() {
            let (path, advice) = match &self.place {
                Place::Named(path) => (path.display(), "EXECUTOR_STATE_DIR"),
                Place::Nameless(dir) => (dir.display(), "TMPDIR"),
                Place::Memory => return,
            };
            log::warn!(
                "Cannot write output to a file at {path}, it stays in memory: {error}. Make room, \
                 or set {advice} to another directory."
            );
            self.place = Place::Memory;
        }
    }

    fn try_to_move(&mut self) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(Arc::new(self.place.make_file()?)),
        };
        // By its place, so that a part that was written before an error is
        // written again.
        file.write_all_at(&self.memory, self.in_file)?;
        self.in_file = self.len;
        self.memory = Vec::new();
        Ok(())
    }

    fn reader(&self) -> OutputReader {
        OutputReader {
            file: self.file.clone(),
            in_file: self.in_file,
            memory: self.memory.clone(),
            position: 0,
            end: self.len,
        }
    }
}

/// Reads output as it was when the reader was made.
pub struct OutputReader {
    file: Option<Arc<File>>,
    in_file: u64,
    memory: Vec<u8>,
    position: u64,
    end: u64,
}

impl OutputReader {
    /// Leaves out bytes that were read before.
    pub fn skip(&mut self, bytes: u64) {
        self.position = self.end.min(self.position.saturating_add(bytes));
    }

    /// Bytes that are left to read.
    pub fn remaining(&self) -> u64 {
        self.end - self.position
    }
}

impl Read for OutputReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.remaining())
            .unwrap_or(usize::MAX)
            .min(buf.len());
        let count = match (&self.file, self.in_file.saturating_sub(self.position)) {
            (Some(file), left @ 1..) => {
                let most = most.min(usize::try_from(left).unwrap_or(usize::MAX));
                file.read_at(&mut buf[..most], self.position)?
            }
            _ => {
                let start = (self.position - self.in_file) as usize;
                buf[..most].copy_from_slice(&self.memory[start..start + most]);
                most
            }
        };
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(secret: &str) -> Output {
        let values = [(secret.to_string(), "[hidden]".to_string())].into();
        Output::new(Arc::new(Redactions::new(&values)), &std::env::temp_dir())
    }

    fn text(output: &Output) -> String {
        let mut json = vec![b'"'];
        output.reader().read_to_end(&mut json).unwrap();
        json.push(b'"');
        serde_json::from_slice(&json).unwrap()
    }

    #[test]
    fn every_line_is_marked_with_its_stream() {
        let mut output = output("walnut");
        for part in ["one\nt", "wo\n\n", "wal", "nut\nlast"] {
            output.push(part.as_bytes());
        }
        output.note("the pod is gone");
        output.finish();
        assert_eq!(
            text(&output),
            "stdout: one\nstdout: two\nstdout: \nstdout: [hidden]\nstdout: last\n\
             stderr: the pod is gone\n"
        );
    }

    #[test]
    fn binary_output_becomes_valid_and_the_rest_stays() {
        let mut output = output("walnut");
        let bytes = b"a\xff\xfeb \xe2\x82\xac \x00\x07\x1b[31m \"q\" \\ \t\xf0\x9f\x98\x80\xe2\x82";
        for byte in bytes {
            output.push(&[*byte]);
        }
        output.finish();
        assert_eq!(
            text(&output),
            "stdout: a\u{fffd}\u{fffd}b € \u{fffd}\u{7}\u{1b}[31m \"q\" \\ \t😀\u{fffd}\n"
        );
    }

    #[test]
    fn large_output_moves_to_a_file_unchanged() {
        let mut output = output("walnut");
        let line = "0123456789abcdef\n";
        let lines = 10 * MEMORY_BYTES_MAX / line.len();
        for _ in 0..lines {
            output.push(line.as_bytes());
        }
        let early = output.reader();
        output.push(b"more\n");
        assert!(output.spool.file.is_some());
        assert_eq!(
            early.remaining() + "stdout: more\\n".len() as u64,
            output.bytes()
        );
        let expected = format!("stdout: {line}").repeat(lines) + "stdout: more\n";
        assert!(text(&output) == expected, "the text differs");
    }

    #[test]
    fn saved_output_goes_on_as_if_never_left() {
        let dir = tempfile::tempdir().unwrap();
        let values = [("walnut".to_string(), "[hidden]".to_string())].into();
        let redactions = Arc::new(Redactions::new(&values));
        let whole = "one walnut\ntwo \u{20ac} wal\nthree walnut end".as_bytes();
        let expected =
            "stdout: one [hidden]\nstdout: two \u{20ac} wal\nstdout: three [hidden] end\n";
        for cut in 0..=whole.len() {
            let path = dir.path().join(cut.to_string());
            let mut first = Output::kept(Arc::clone(&redactions), path.clone());
            first.push(&whole[..cut]);
            let saved = serde_json::to_string(&first.save().unwrap()).unwrap();
            first.push(b"what a crash loses");
            drop(first);
            let saved = serde_json::from_str(&saved).unwrap();
            let mut second = Output::restore(Arc::clone(&redactions), path, &saved).unwrap();
            second.push(&whole[cut..]);
            second.finish();
            assert_eq!(text(&second), expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_full_disk_keeps_the_rest_in_memory() {
        let mut output = output("walnut");
        output.push(&b"x\n".repeat(MEMORY_BYTES_MAX));
        assert!(output.is_in_file());
        // What cannot be written any more.
        output.spool.file = Some(Arc::new(File::open("/dev/null").unwrap()));
        let before = output.spool.in_file;
        output.push(b"more\n");
        assert_eq!(output.spool.in_file, before);
        assert!(
            output.save().is_none(),
            "the next process must not trust it"
        );
        let mut rest = String::new();
        let mut reader = output.reader();
        reader.position = before;
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "stdout: more\\n");
    }

    #[test]
    fn without_a_spool_directory_memory_serves() {
        let values = std::collections::BTreeMap::new();
        let redactions = Arc::new(Redactions::new(&values));
        let mut output = Output::new(redactions, Path::new("/nonexistent/spool"));
        output.push(&b"x\n".repeat(MEMORY_BYTES_MAX));
        assert_eq!(text(&output), "stdout: x\n".repeat(MEMORY_BYTES_MAX));
    }
}
