//! The log entries of one job, as the next process needs them: for each a file
//! with its output and a small one that says how far that is good.
//!
//! The small file is replaced as a whole and never describes more than the
//! output file holds. It is written before an entry is sent, so that the server
//! never has more than what a crash leaves here; what a container wrote after
//! that is read from the cluster again.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::private_file;
use crate::logs::output::SavedOutput;
use crate::logs::resume::Position;

/// Names the files of a job's entries.
#[derive(Clone, Debug)]
pub struct EntryFiles {
    dir: PathBuf,
}

/// All that is known of an entry besides its output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedEntry {
    /// Key that the server groups by.
    pub key: String,
    /// The command, already redacted.
    pub command: Option<Vec<String>>,
    /// When the container started (RFC 3339).
    pub started: String,
    /// Exit code, once known.
    pub exit_code: Option<i32>,
    /// Run time in milliseconds, once known.
    pub duration_ms: Option<u64>,
    /// Whether nothing will be added.
    pub closed: bool,
    /// What the server has.
    pub server: OnServer,
    /// How far the output is good.
    pub output: SavedOutput,
    /// How far the container's log was read.
    pub position: Position,
}

/// What the server has of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnServer {
    /// It does not know the entry.
    Nothing,
    /// It may know the entry: the call to add it was under way.
    Perhaps,
    /// It knows the entry by this id.
    Known(i64),
    /// It has everything.
    All,
}

impl EntryFiles {
    pub(super) fn new(dir: PathBuf) -> EntryFiles {
        EntryFiles { dir }
    }

    /// Path of the output of an entry.
    pub fn output(&self, index: usize) -> PathBuf {
        self.dir.join(format!("{index}.out"))
    }

    /// Keeps an entry; its output is in its file already.
    pub fn save(&self, index: usize, entry: &SavedEntry) -> io::Result<()> {
        let next = self.dir.join(format!("{index}.next"));
        private_file(&next)?.write_all(&serde_json::to_vec(entry)?)?;
        fs::rename(next, self.dir.join(format!("{index}.json")))
    }

    /// All entries that were kept, in order; ends at the first that is not
    /// whole, whose container is then read from its start.
    pub fn load(&self) -> Vec<SavedEntry> {
        let load = |index: usize| {
            let bytes = fs::read(self.dir.join(format!("{index}.json"))).ok()?;
            let entry: SavedEntry = serde_json::from_slice(&bytes).ok()?;
            let length = fs::metadata(self.output(index)).ok()?.len();
            (length >= entry.output.length).then_some(entry)
        };
        (0..).map_while(load).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(length: u64) -> SavedEntry {
        let mut output = SavedOutput::default();
        output.length = length;
        SavedEntry {
            key: "step.0".to_string(),
            command: None,
            started: "2026-01-31T12:00:00Z".to_string(),
            exit_code: None,
            duration_ms: None,
            closed: false,
            server: OnServer::Known(1),
            output,
            position: Position::default(),
        }
    }

    #[test]
    fn entries_are_found_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let files = EntryFiles::new(dir.path().to_path_buf());
        assert!(files.load().is_empty());
        for index in 0..3 {
            fs::write(files.output(index), "12345").unwrap();
            files.save(index, &entry(index as u64)).unwrap();
        }
        files.save(0, &entry(5)).unwrap();
        let lengths: Vec<u64> = files.load().iter().map(|e| e.output.length).collect();
        assert_eq!(lengths, [5, 1, 2]);
    }

    #[test]
    fn an_entry_without_its_output_is_not_found() {
        let dir = tempfile::tempdir().unwrap();
        let files = EntryFiles::new(dir.path().to_path_buf());
        fs::write(files.output(0), "123").unwrap();
        files.save(0, &entry(4)).unwrap();
        assert!(files.load().is_empty(), "the file is shorter");
        fs::write(files.output(0), "1234").unwrap();
        assert_eq!(files.load().len(), 1);
    }
}
