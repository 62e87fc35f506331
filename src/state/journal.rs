//! The journal: an append-only file of short lines, each with a checksum.
//!
//! A crash can tear a line, and a full disk too: what is not whole is passed
//! over. The file is written anew with what still counts at each start and
//! whenever it has grown, so that it stays small.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::Crc;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Found, FoundJob, private_file};
use crate::job::{JobKey, Outcome};

const FILE: &str = "journal";
/// A journal of this size is written anew: about 2000 jobs.
const BYTES_MAX: u64 = 1024 * 1024;

/// One thing that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    /// The process got its name, for jobs in this cluster and namespace.
    Name { name: String, place: String },
    /// A job was taken from its queue.
    Taken {
        queue: String,
        id: i64,
        run: String,
        began: String,
    },
    /// Its Kubernetes Job was created.
    Created { run: String },
    /// Its pod was seen.
    Pod {
        run: String,
        name: String,
        uid: String,
    },
    /// Its end was decided.
    Decided { run: String, outcome: Outcome },
    /// It is over.
    Done { run: String },
}

/// The open file.
pub(super) struct Journal {
    slot: PathBuf,
    file: File,
    /// Where the next line goes: behind the last whole one.
    end: u64,
}

impl Journal {
    /// Reads the journal of a slot and begins it anew with what still counts.
    pub(super) fn open(slot: &Path) -> io::Result<(Journal, Found)> {
        let path = slot.join(FILE);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        let bytes = fs::read(&path)?;
        let found = replay(read(&bytes));
        // What broke off is written over.
        let end = bytes.iter().rposition(|byte| *byte == b'\n');
        let mut journal = Journal {
            slot: slot.to_path_buf(),
            file,
            end: end.map_or(0, |newline| newline as u64 + 1),
        };
        if let Err(error) = journal.rewrite(&found) {
            // On a full disk the old one is as good, only longer.
            log::warn!("Cannot write {} anew: {error}.", path.display());
        }
        Ok((journal, found))
    }

    /// Adds a record; `durably` waits until it is on the disk. After an error
    /// the record is not there.
    pub(super) fn append(&mut self, record: &Record, durably: bool) -> io::Result<()> {
        if self.end > BYTES_MAX {
            let found = replay(read(&fs::read(self.slot.join(FILE))?));
            self.rewrite(&found)?;
        }
        let line = line(record)?;
        let written = self.file.write_all_at(line.as_bytes(), self.end);
        let written = written.and_then(|()| match durably {
            true => self.file.sync_data(),
            false => Ok(()),
        });
        match written {
            Ok(()) => self.end += line.len() as u64,
            // If even this fails, the next line is written over it.
            Err(_) => drop(self.file.set_len(self.end)),
        }
        written
    }

    /// Replaces the file by one with the records that lead to what was found.
    fn rewrite(&mut self, found: &Found) -> io::Result<()> {
        let next = self.slot.join("journal.next");
        let mut text = String::new();
        for record in records(found) {
            text.push_str(&line(&record)?);
        }
        let file = private_file(&next)?;
        file.write_all_at(text.as_bytes(), 0)?;
        file.sync_all()?;
        fs::rename(&next, self.slot.join(FILE))?;
        File::open(&self.slot)?.sync_all()?;
        self.file = file;
        self.end = text.len() as u64;
        Ok(())
    }
}

fn line(record: &Record) -> io::Result<String> {
    let json = serde_json::to_string(record)?;
    Ok(format!("{:08x} {json}\n", checksum(json.as_bytes())))
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// All records that are whole.
fn read(bytes: &[u8]) -> Vec<Record> {
    let whole = |line: &[u8]| {
        let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
        let (sum, json) = line.split_once(' ')?;
        let sum = u32::from_str_radix(sum, 16).ok()?;
        (sum == checksum(json.as_bytes())).then(|| serde_json::from_str(json).ok())?
    };
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .filter_map(whole)
        .collect()
}

fn replay(records: Vec<Record>) -> Found {
    let mut found = Found::default();
    for record in records {
        match record {
            Record::Name { name, place } => found.name = Some((name, place)),
            Record::Taken {
                queue,
                id,
                run,
                began,
            } => found.jobs.push(FoundJob {
                key: JobKey { queue, id },
                run,
                began: began.parse().unwrap_or_else(|_| Timestamp::now()),
                created: false,
                pod: None,
                outcome: None,
            }),
            Record::Created { run } => change(&mut found, &run, |job| job.created = true),
            Record::Pod { run, name, uid } => {
                change(&mut found, &run, |job| job.pod = Some((name, uid)));
            }
            Record::Decided { run, outcome } => {
                change(&mut found, &run, |job| job.outcome = Some(outcome));
            }
            Record::Done { run } => found.jobs.retain(|job| job.run != run),
        }
    }
    found
}

fn change(found: &mut Found, run: &str, change: impl FnOnce(&mut FoundJob)) {
    if let Some(job) = found.jobs.iter_mut().find(|job| job.run == run) {
        change(job);
    }
}

/// The records that lead to what was found.
fn records(found: &Found) -> Vec<Record> {
    let name = found.name.iter().cloned();
    let mut records: Vec<Record> = name
        .map(|(name, place)| Record::Name { name, place })
        .collect();
    for job in &found.jobs {
        let run = job.run.clone();
        records.push(Record::Taken {
            queue: job.key.queue.clone(),
            id: job.key.id,
            run: run.clone(),
            began: job.began.to_string(),
        });
        if job.created {
            records.push(Record::Created { run: run.clone() });
        }
        if let Some((name, uid)) = job.pod.clone() {
            let run = run.clone();
            records.push(Record::Pod { run, name, uid });
        }
        if let Some(outcome) = job.outcome.clone() {
            records.push(Record::Decided { run, outcome });
        }
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus;

    fn taken(run: &str) -> Record {
        Record::Taken {
            queue: "batches".to_string(),
            id: 1,
            run: run.to_string(),
            began: Timestamp::now().to_string(),
        }
    }

    fn runs(slot: &Path) -> Vec<String> {
        let (_, found) = Journal::open(slot).unwrap();
        found.jobs.into_iter().map(|job| job.run).collect()
    }

    #[test]
    fn a_torn_last_record_is_dropped_alone() {
        let slot = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(slot.path()).unwrap();
        for run in ["a", "b"] {
            journal.append(&taken(run), true).unwrap();
        }
        let path = slot.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for length in second..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(runs(slot.path()), ["a"], "cut at {length}");
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(runs(slot.path()), ["a", "b"]);
    }

    #[test]
    fn a_changed_byte_costs_its_line() {
        let slot = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(slot.path()).unwrap();
        for run in ["a", "b", "c"] {
            journal.append(&taken(run), false).unwrap();
        }
        let path = slot.path().join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(runs(slot.path()), ["a", "c"]);
    }

    #[test]
    fn a_line_that_broke_off_is_written_over() {
        let slot = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(slot.path()).unwrap();
        journal.append(&taken("a"), false).unwrap();
        let end = journal.end;
        // As a full disk leaves it.
        journal.file.write_all_at(b"0123abcd {\"tak", end).unwrap();
        journal.append(&taken("b"), false).unwrap();
        assert_eq!(runs(slot.path()), ["a", "b"]);
    }

    #[test]
    fn a_long_journal_is_written_anew() {
        let slot = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(slot.path()).unwrap();
        journal.append(&taken("kept"), false).unwrap();
        let run = "x".repeat(1000);
        for _ in 0..3 * BYTES_MAX / 2000 {
            journal.append(&taken(&run), false).unwrap();
            let run = run.clone();
            journal.append(&Record::Done { run }, false).unwrap();
        }
        assert!(journal.end < BYTES_MAX, "{}", journal.end);
        assert_eq!(runs(slot.path()), ["kept"]);
    }

    #[test]
    fn each_start_forgets_what_is_done() {
        let slot = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(slot.path()).unwrap();
        for number in 0..1000 {
            let run = format!("run-{number}");
            journal.append(&taken(&run), false).unwrap();
            journal.append(&Record::Done { run }, false).unwrap();
        }
        let path = slot.path().join(FILE);
        assert!(fs::metadata(&path).unwrap().len() > 50_000);
        assert!(runs(slot.path()).is_empty());
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    }

    #[test]
    fn whatever_is_in_the_file_the_next_record_is_kept() {
        corpus::feed("journal", |bytes| {
            let slot = tempfile::tempdir().unwrap();
            fs::write(slot.path().join(FILE), bytes).unwrap();
            let (mut journal, found) = Journal::open(slot.path()).unwrap();
            journal.append(&taken("the-next"), false).unwrap();
            drop(journal);
            let mut expected: Vec<String> = found.jobs.into_iter().map(|job| job.run).collect();
            expected.push("the-next".to_string());
            assert_eq!(runs(slot.path()), expected);
        });
    }

    /// As when the disk is full, so that the file cannot be written anew.
    #[test]
    fn a_torn_record_does_not_spoil_the_next() {
        let slot = tempfile::tempdir().unwrap();
        let path = slot.path().join(FILE);
        let (mut journal, _) = Journal::open(slot.path()).unwrap();
        journal.append(&taken("a"), false).unwrap();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], b"0123abcd {\"tak"].concat()).unwrap();
        fs::create_dir(slot.path().join("journal.next")).unwrap();
        let (mut journal, found) = Journal::open(slot.path()).unwrap();
        assert_eq!(found.jobs.len(), 1);
        journal.append(&taken("b"), false).unwrap();
        drop(journal);
        assert_eq!(runs(slot.path()), ["a", "b"]);
    }
}
