//! The journal: an append-only file of short lines, each with a checksum.
//!
//! A crash can tear the last line, and nothing else: reading stops at the
//! first line that is not whole, and what follows it is cut off. At each start
//! the file is written anew with what still counts, so that it stays small.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use flate2::Crc;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Found, FoundJob, private_file};
use crate::job::{JobKey, Outcome};

const FILE: &str = "journal";

/// One thing that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    /// The process got its name.
    Name { name: String },
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
    file: File,
}

impl Journal {
    /// Reads the journal of a slot and begins it anew with what still counts.
    pub(super) fn open(slot: &Path) -> io::Result<(Journal, Found)> {
        let path = slot.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let found = replay(read(&bytes));
        let next = slot.join("journal.next");
        let mut journal = Journal {
            file: private_file(&next)?,
        };
        for record in records(&found) {
            journal.append(&record, false)?;
        }
        journal.file.sync_all()?;
        fs::rename(&next, &path)?;
        File::open(slot)?.sync_all()?;
        Ok((journal, found))
    }

    /// Adds a record; `durably` waits until it is on the disk.
    pub(super) fn append(&mut self, record: &Record, durably: bool) -> io::Result<()> {
        let json = serde_json::to_string(record)?;
        let line = format!("{:08x} {json}\n", checksum(json.as_bytes()));
        // In one call, so that a killed process leaves whole lines.
        self.file.write_all(line.as_bytes())?;
        match durably {
            true => self.file.sync_data(),
            false => Ok(()),
        }
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// All records up to the first that is not whole.
fn read(bytes: &[u8]) -> Vec<Record> {
    let whole = |line: &[u8]| {
        let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
        let (sum, json) = line.split_once(' ')?;
        let sum = u32::from_str_radix(sum, 16).ok()?;
        (sum == checksum(json.as_bytes())).then(|| serde_json::from_str(json).ok())?
    };
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .map_while(whole)
        .collect()
}

fn replay(records: Vec<Record>) -> Found {
    let mut found = Found::default();
    for record in records {
        match record {
            Record::Name { name } => found.name = Some(name),
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
    let name = found.name.iter().cloned().map(|name| Record::Name { name });
    let mut records: Vec<Record> = name.collect();
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
    fn a_changed_byte_ends_the_reading() {
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
        assert_eq!(runs(slot.path()), ["a"]);
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
}
