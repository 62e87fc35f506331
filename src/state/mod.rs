//! What outlives the process, so that a crash or a rollout loses no job: the
//! name towards Sourcegraph, the jobs that run, and how far their logs are.
//!
//! A base directory holds one numbered slot for each process that uses it; a
//! process takes the first slot that no other one has locked. In a slot there
//! are the journal (`journal.rs`) and, for each job, a directory with what the
//! server handed out and its log entries (`entries.rs`). Only the owner may
//! read any of it: jobs carry secrets.

pub mod entries;
mod journal;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rustix::fs::{Access, FlockOperation, flock};

use crate::config::StatePlace;
use crate::job::{JobKey, Outcome};
use entries::EntryFiles;
use journal::{Journal, Record};

/// More processes than this never share one directory.
const SLOTS_MAX: u32 = 64;
const PAYLOAD: &str = "payload";

/// Where the released manifests mount a volume.
const USUAL_DIR: &str = "/data";

/// The directory to keep state in, if there is one. An error if it cannot be
/// used, or if there must be one (`is_needed`) and there is none.
pub fn base(place: &StatePlace, is_needed: bool) -> Result<Option<&Path>, StateError> {
    let usual = Path::new(USUAL_DIR);
    let base = match place {
        StatePlace::Nowhere => None,
        StatePlace::At(path) => Some(path.as_path()),
        StatePlace::Usual => Some(usual).filter(|path| path.is_dir()),
    };
    let problem = match base {
        None if is_needed => Some("there is no such directory".to_string()),
        None => return Ok(None),
        Some(base) => unwritable(base),
    };
    let path = base.unwrap_or(usual).to_path_buf();
    match problem {
        None => Ok(base),
        Some(problem) if is_needed || *place != StatePlace::Usual => {
            Err(StateError { path, problem })
        }
        Some(problem) => {
            log::info!(
                "Running jobs do not outlive this process, since {USUAL_DIR} cannot be written \
                 ({problem}); an fsGroup in its Pod would help."
            );
            Ok(None)
        }
    }
}

/// Why no directory can be made in here, if so. What is missing counts by the
/// directory above it.
fn unwritable(path: &Path) -> Option<String> {
    let existing = path.ancestors().find(|path| path.exists())?;
    if !existing.is_dir() {
        return Some(format!("{} is not a directory", existing.display()));
    }
    let access = rustix::fs::access(existing, Access::WRITE_OK);
    access.err().map(|errno| io::Error::from(errno).to_string())
}

/// The state directory of this process; nobody else has it.
pub struct StateDir {
    slot: PathBuf,
    journal: Mutex<Journal>,
    /// Held until the process ends, however it ends.
    _lock: File,
}

/// What a former process left behind.
#[derive(Debug, Default)]
pub struct Found {
    /// Its name towards Sourcegraph, which holds its jobs, and the place of its
    /// objects.
    pub name: Option<(String, String)>,
    /// Jobs that it had not finished.
    pub jobs: Vec<FoundJob>,
}

/// A job that a former process had not finished.
#[derive(Clone, Debug)]
pub struct FoundJob {
    /// Names the job on the server.
    pub key: JobKey,
    /// Name of the attempt.
    pub run: String,
    /// When it was taken.
    pub began: Timestamp,
    /// Whether its Kubernetes Job was created.
    pub created: bool,
    /// Name and identity of its pod, if that was seen.
    pub pod: Option<(String, String)>,
    /// What its end is, if that was decided.
    pub outcome: Option<Outcome>,
}

/// Why a state directory cannot be used.
#[derive(Debug)]
pub struct StateError {
    path: PathBuf,
    problem: String,
}

impl std::fmt::Display for StateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (path, problem) = (self.path.display(), &self.problem);
        write!(
            f,
            "cannot keep state in {path}: {problem}; set EXECUTOR_STATE_DIR to a directory that \
             the executor may write, or to none"
        )
    }
}

impl std::error::Error for StateError {}

impl StateDir {
    /// Takes the first free slot below a directory, and reads what is there.
    pub fn open(base: &Path) -> Result<(Arc<StateDir>, Found), StateError> {
        let fail = |path: &Path, problem: io::Error| StateError {
            path: path.to_path_buf(),
            problem: problem.to_string(),
        };
        for number in 0..SLOTS_MAX {
            let slot = base.join(format!("executor-{number}"));
            let lock = make_private_dir(&slot).and_then(|()| open_lock(&slot));
            let lock = lock.map_err(|error| fail(&slot, error))?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => continue,
                Err(errno) => return Err(fail(&slot, errno.into())),
            }
            let (journal, found) = Journal::open(&slot).map_err(|error| fail(&slot, error))?;
            let state = StateDir {
                slot,
                journal: Mutex::new(journal),
                _lock: lock,
            };
            state.remove_strangers(&found);
            return Ok((Arc::new(state), found));
        }
        Err(StateError {
            path: base.to_path_buf(),
            problem: format!("{SLOTS_MAX} other executors use it"),
        })
    }

    /// Where it is, for the log.
    pub fn path(&self) -> &Path {
        &self.slot
    }

    /// Keeps the name of this process for the next one, and where its objects
    /// are: the API server and the namespace.
    pub fn keep_name(&self, name: &str, place: &str) -> Result<(), StateError> {
        let record = Record::Name {
            name: name.to_string(),
            place: place.to_string(),
        };
        self.append(&record, true).map_err(|error| StateError {
            path: self.slot.clone(),
            problem: error.to_string(),
        })
    }

    /// Keeps a job from now on until `JobState::done`. On the disk when this
    /// returns, since the objects in the cluster come next.
    pub fn take(
        self: &Arc<StateDir>,
        key: &JobKey,
        run: &str,
        payload: &[u8],
    ) -> io::Result<JobState> {
        let job = self.job(run);
        let taken = job.begin(payload).and_then(|()| {
            let record = Record::Taken {
                queue: key.queue.clone(),
                id: key.id,
                run: run.to_string(),
                began: Timestamp::now().to_string(),
            };
            self.append(&record, true)
        });
        match taken {
            Ok(()) => Ok(job),
            Err(error) => {
                // Half of it is worse than nothing.
                let _ = fs::remove_dir_all(job.dir());
                Err(error)
            }
        }
    }

    /// What was kept of a job.
    pub fn job(self: &Arc<StateDir>, run: &str) -> JobState {
        JobState {
            state: Arc::clone(self),
            run: run.to_string(),
        }
    }

    fn append(&self, record: &Record, durably: bool) -> io::Result<()> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.append(record, durably)
    }

    /// Removes directories of jobs that the journal does not know: they were
    /// done, or never quite taken.
    fn remove_strangers(&self, found: &Found) {
        let entries = fs::read_dir(&self.slot).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.path().is_dir()) {
            let name = entry.file_name();
            if !found.jobs.iter().any(|job| *job.run == *name) {
                // What stays takes room, and does no other harm.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// What is kept of one job. What cannot be written costs nothing but the
/// adoption after a crash, and is logged.
#[derive(Clone)]
pub struct JobState {
    state: Arc<StateDir>,
    run: String,
}

impl JobState {
    /// What the server handed out.
    pub fn payload(&self) -> io::Result<Vec<u8>> {
        fs::read(self.dir().join(PAYLOAD))
    }

    fn begin(&self, payload: &[u8]) -> io::Result<()> {
        make_private_dir(&self.dir())?;
        let mut file = private_file(&self.dir().join(PAYLOAD))?;
        file.write_all(payload)?;
        file.sync_all()?;
        File::open(self.dir())?.sync_all()?;
        File::open(&self.state.slot)?.sync_all()
    }

    /// The files of its log entries.
    pub fn entries(&self) -> EntryFiles {
        EntryFiles::new(self.dir())
    }

    /// The Kubernetes Job exists: from now on it is never created again.
    pub fn created(&self) {
        let run = self.run.clone();
        self.keep(&Record::Created { run }, false);
    }

    /// The pod of the job was seen for the first time.
    pub fn saw_pod(&self, name: &str, uid: &str) {
        let record = Record::Pod {
            run: self.run.clone(),
            name: name.to_string(),
            uid: uid.to_string(),
        };
        self.keep(&record, false);
    }

    /// The end of the job is decided. On the disk when this returns, since the
    /// proof of it is deleted next.
    pub fn decided(&self, outcome: &Outcome) {
        let record = Record::Decided {
            run: self.run.clone(),
            outcome: outcome.clone(),
        };
        self.keep(&record, true);
    }

    /// Nothing is left to do for the job.
    pub fn done(&self) {
        let run = self.run.clone();
        self.keep(&Record::Done { run }, false);
        if let Err(error) = fs::remove_dir_all(self.dir()) {
            log::warn!("Cannot remove {}: {error}.", self.dir().display());
        }
    }

    fn keep(&self, record: &Record, durably: bool) {
        if let Err(error) = self.state.append(record, durably) {
            log::warn!(
                "Cannot write to the journal in {}; after a crash this job cannot be taken up \
                 again: {error}.",
                self.state.path().display()
            );
            // What it had come to is not known any more: without this file
            // nobody begins it anew.
            let _ = fs::remove_file(self.dir().join(PAYLOAD));
        }
    }

    fn dir(&self) -> PathBuf {
        self.state.slot.join(&self.run)
    }
}

fn make_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A new file that only the owner may read.
fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}

fn open_lock(slot: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(slot.join("lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> JobKey {
        JobKey {
            queue: "batches".to_string(),
            id: 17,
        }
    }

    #[test]
    fn a_second_process_takes_another_slot() {
        let base = tempfile::tempdir().unwrap();
        let (first, _) = StateDir::open(base.path()).unwrap();
        let (second, _) = StateDir::open(base.path()).unwrap();
        assert_ne!(first.path(), second.path());
        let freed = first.path().to_path_buf();
        drop(first);
        let (third, _) = StateDir::open(base.path()).unwrap();
        assert_eq!(third.path(), freed);
    }

    #[test]
    fn the_next_process_finds_everything() {
        let base = tempfile::tempdir().unwrap();
        let (state, found) = StateDir::open(base.path()).unwrap();
        assert!(found.name.is_none() && found.jobs.is_empty());
        state.keep_name("host-1", "here").unwrap();
        let job = state.take(&key(), "run-a", b"{}").unwrap();
        job.created();
        job.saw_pod("pod", "uid");
        job.decided(&Outcome::Errored("why".to_string()));
        state.take(&key(), "run-b", b"[]").unwrap().done();
        drop((job, state));
        let (state, found) = StateDir::open(base.path()).unwrap();
        let name = ("host-1".to_string(), "here".to_string());
        assert_eq!(found.name, Some(name));
        assert_eq!(found.jobs.len(), 1, "{found:?}");
        let job = &found.jobs[0];
        assert_eq!((&job.key, job.run.as_str()), (&key(), "run-a"));
        assert!(job.created);
        assert_eq!(job.pod, Some(("pod".to_string(), "uid".to_string())));
        assert_eq!(job.outcome, Some(Outcome::Errored("why".to_string())));
        assert_eq!(state.job("run-a").payload().unwrap(), b"{}");
        assert!(!state.path().join("run-b").exists());
    }

    #[test]
    fn only_the_owner_may_read() {
        use std::os::unix::fs::PermissionsExt;
        let base = tempfile::tempdir().unwrap();
        let (state, _) = StateDir::open(base.path()).unwrap();
        state.take(&key(), "run", b"secret").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(state.path()), 0o700);
        assert_eq!(mode(&state.path().join("run/payload")), 0o600);
        assert_eq!(mode(&state.path().join("journal")), 0o600);
    }

    #[test]
    fn a_directory_without_write_access_is_named() {
        let error = StateDir::open(Path::new("/proc/executor")).err().unwrap();
        let text = error.to_string();
        assert!(text.contains("/proc/executor"), "{text}");
        assert!(text.contains("EXECUTOR_STATE_DIR"), "{text}");
    }
}
