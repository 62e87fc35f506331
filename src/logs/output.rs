//! The output of one container on its way to the server: secrets replaced,
//! every line marked with its stream, written as the inside of a JSON string.
//!
//! The server reads events out of lines that begin with `stdout: `, so nothing
//! else about a line may change. What is stored is JSON already: an update of
//! any length is then sent as it lies there, without being encoded again.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::logs::redact::{Redactions, Redactor};

/// Output up to this size stays in memory; what is larger moves to a file.
const MEMORY_BYTES_MAX: usize = 64 * 1024;

/// Collects the output of one container.
pub struct Output {
    redactions: Arc<Redactions>,
    redactor: Redactor,
    at_line_start: bool,
    /// End of the text so far that is only part of a UTF-8 character.
    partial: Vec<u8>,
    spool: Spool,
}

impl Output {
    /// Starts empty. Large output is kept in a nameless file in `spool_dir`.
    pub fn new(redactions: Arc<Redactions>, spool_dir: &Path) -> Output {
        Output {
            redactions,
            redactor: Redactor::default(),
            at_line_start: true,
            partial: Vec::new(),
            spool: Spool::new(spool_dir),
        }
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

/// Bytes in memory while they are few, in a file without a name after that.
struct Spool {
    dir: std::path::PathBuf,
    memory: Vec<u8>,
    file: Option<Arc<File>>,
    len: u64,
}

impl Spool {
    fn new(dir: &Path) -> Spool {
        Spool {
            dir: dir.to_path_buf(),
            memory: Vec::new(),
            file: None,
            len: 0,
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        let to_file = match &self.file {
            Some(file) => file.as_ref().write_all(bytes),
            None => {
                self.memory.extend_from_slice(bytes);
                return self.move_to_file();
            }
        };
        if let Err(error) = to_file {
            // A full disk must not lose output: what the file has is read
            // back, and the rest of this output stays in memory.
            log::warn!("Cannot write output to a spool file, using memory: {error}.");
            let mut all = Vec::new();
            let had = self.len - bytes.len() as u64;
            if let Some(file) = self.file.take() {
                all.resize(had as usize, 0);
                if let Err(error) = file.read_exact_at(&mut all, 0) {
                    log::error!("Cannot read a spool file back, output is lost: {error}.");
                }
            }
            all.extend_from_slice(bytes);
            self.dir = std::path::PathBuf::new();
            self.memory = all;
        }
    }

    fn move_to_file(&mut self) {
        if self.memory.len() <= MEMORY_BYTES_MAX || self.dir.as_os_str().is_empty() {
            return;
        }
        let file = tempfile::tempfile_in(&self.dir)
            .and_then(|mut file| file.write_all(&self.memory).map(|()| file));
        match file {
            Ok(file) => {
                self.file = Some(Arc::new(file));
                self.memory = Vec::new();
            }
            Err(error) => {
                log::warn!(
                    "Cannot make a spool file in {}, large output stays in memory: {error}. \
                     Make the directory writable, or set TMPDIR.",
                    self.dir.display()
                );
                self.dir = std::path::PathBuf::new();
            }
        }
    }

    fn reader(&self) -> OutputReader {
        let source = match &self.file {
            Some(file) => Source::File(Arc::clone(file)),
            None => Source::Memory(self.memory.clone()),
        };
        OutputReader {
            source,
            position: 0,
            end: self.len,
        }
    }
}

/// Reads output as it was when the reader was made.
pub struct OutputReader {
    source: Source,
    position: u64,
    end: u64,
}

enum Source {
    Memory(Vec<u8>),
    File(Arc<File>),
}

impl OutputReader {
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
        let count = match &self.source {
            Source::Memory(bytes) => {
                let start = self.position as usize;
                buf[..most].copy_from_slice(&bytes[start..start + most]);
                most
            }
            Source::File(file) => file.read_at(&mut buf[..most], self.position)?,
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
    fn without_a_spool_directory_memory_serves() {
        let values = std::collections::BTreeMap::new();
        let redactions = Arc::new(Redactions::new(&values));
        let mut output = Output::new(redactions, Path::new("/nonexistent/spool"));
        output.push(&b"x\n".repeat(MEMORY_BYTES_MAX));
        assert_eq!(text(&output), "stdout: x\n".repeat(MEMORY_BYTES_MAX));
    }
}
