//! Writes the files of a job: those that the job carries, and those that it
//! only names, which are fetched from the server's store.

use std::fs::{File, FileTimes};
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rayon::prelude::*;
use ureq::Agent;

use super::error::WorkspaceError;
use super::spec::{FileSourceSpec, FileSpec, WorkspaceSpec};
use super::tree::Tree;
use super::{counted, say};
use crate::http::{self, Timeouts};

/// Files fetched at the same time; more would gain little and load the server.
const PARALLEL_MAX: usize = 8;

/// Times that one file is asked for before the job fails: with the pauses, a
/// server that restarts has half a minute to come back.
const TRIES_MAX: u32 = 6;

/// Wait before the second try; it doubles with each one after that.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The server keeps files of 10 MB at most, so ten minutes suit a slow line.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(10),
    response: Duration::from_secs(30),
    silence: Duration::from_secs(30),
    total: Duration::from_secs(600),
};

/// What Go's zero time looks like; servers send it for "not known".
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Writes all files of the specification.
pub(super) fn write(
    spec: &WorkspaceSpec,
    tree: &Tree,
    out: &mut impl Write,
) -> Result<(), WorkspaceError> {
    let store = Store {
        agent: http::agent(TIMEOUTS),
        spec,
        first_pause: FIRST_PAUSE,
    };
    let (inline, stored): (Vec<_>, Vec<_>) = spec
        .files
        .iter()
        .partition(|file| matches!(file.source, FileSourceSpec::Inline(_)));
    for file in &inline {
        write_one(file, tree, &store)?;
    }
    if !inline.is_empty() {
        say(out, &format!("Wrote {}", counted(inline.len())))?;
    }
    if !stored.is_empty() {
        write_parallel(&stored, tree, &store)?;
        let line = format!("Fetched {} from the server", counted(stored.len()));
        say(out, &line)?;
    }
    Ok(())
}

/// Fetches files, a few at the same time, and stops at the first failure.
fn write_parallel(
    files: &[&FileSpec],
    tree: &Tree,
    store: &Store<'_>,
) -> Result<(), WorkspaceError> {
    let threads = rayon::ThreadPoolBuilder::new()
        .num_threads(PARALLEL_MAX.min(files.len()))
        .build()
        .map_err(|error| WorkspaceError::Fetch {
            path: files[0].path.clone(),
            problem: error.to_string(),
        })?;
    threads.install(|| {
        files
            .par_iter()
            .try_for_each(|file| write_one(file, tree, store))
    })
}

/// Writes one file, wherever its contents are, and dates it.
fn write_one(file: &FileSpec, tree: &Tree, store: &Store<'_>) -> Result<(), WorkspaceError> {
    let modified_at = modification_time(file)?;
    let written = match &file.source {
        FileSourceSpec::Inline(contents) => {
            let mut target = tree.create(&file.path)?;
            target
                .write_all(contents)
                .map_err(|source| write_error(file, source))?;
            target
        }
        FileSourceSpec::Store { bucket, key } => store.fetch(file, bucket, key, tree)?,
    };
    match modified_at {
        // Last of all, because every write moves the time.
        Some(time) => written
            .set_times(FileTimes::new().set_modified(time))
            .map_err(|source| write_error(file, source)),
        None => Ok(()),
    }
}

/// The time that a file is to get, to the nanosecond; none to leave it.
fn modification_time(file: &FileSpec) -> Result<Option<SystemTime>, WorkspaceError> {
    match file.modified_at.as_deref() {
        None | Some(ZERO_TIME) => Ok(None),
        Some(text) => match text.parse::<Timestamp>() {
            Ok(time) => Ok(Some(time.into())),
            Err(_) => Err(WorkspaceError::Time {
                path: file.path.clone(),
                text: text.to_owned(),
            }),
        },
    }
}

fn write_error(file: &FileSpec, source: io::Error) -> WorkspaceError {
    WorkspaceError::Write {
        path: file.path.clone(),
        source,
    }
}

/// The server's file store, as one job may use it.
struct Store<'a> {
    agent: Agent,
    spec: &'a WorkspaceSpec,
    first_pause: Duration,
}

/// Why one try to fetch a file failed.
enum Failure {
    /// Another try would fail too.
    Final(WorkspaceError),
    /// Another try may succeed; the text says what happened.
    Passing(String),
}

impl Store<'_> {
    /// Streams a file into the workspace, with a few tries.
    fn fetch(
        &self,
        file: &FileSpec,
        bucket: &str,
        key: &str,
        tree: &Tree,
    ) -> Result<File, WorkspaceError> {
        let url = format!(
            "{}/.executors/files/{}/{}",
            self.spec.frontend_url,
            http::encoded_path(bucket),
            http::encoded_path(key)
        );
        let mut pause = self.first_pause;
        let mut tries = 1;
        loop {
            match self.try_fetch(file, &url, tree) {
                Ok(written) => return Ok(written),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(problem)) if tries == TRIES_MAX => {
                    return Err(WorkspaceError::Fetch {
                        path: file.path.clone(),
                        problem: format!("{problem} (tried {tries} times)"),
                    });
                }
                Err(Failure::Passing(_)) => thread::sleep(pause),
            }
            pause *= 2;
            tries += 1;
        }
    }

    /// Asks once. A try after a broken one starts with an empty file again.
    fn try_fetch(&self, file: &FileSpec, url: &str, tree: &Tree) -> Result<File, Failure> {
        let response = self
            .agent
            .get(url)
            .header("Authorization", &self.spec.authorization)
            .header("X-Sourcegraph-Job-ID", self.spec.job_id.to_string())
            .header("X-Sourcegraph-Executor-Name", &self.spec.executor_name)
            .call()
            .map_err(|error| self.unanswered(error))?;
        match response.status().as_u16() {
            200 => {}
            status => return Err(refused(file, status)),
        }
        let mut written = tree.create(&file.path).map_err(Failure::Final)?;
        copy(&mut response.into_body().into_reader(), &mut written, file)?;
        Ok(written)
    }

    /// What it means that there is no answer. A certificate stays what it is,
    /// anything else may be the network.
    fn unanswered(&self, error: ureq::Error) -> Failure {
        let cause = match &error {
            ureq::Error::Io(error) => error.get_ref(),
            _ => None,
        };
        match cause.and_then(|cause| cause.downcast_ref()) {
            Some(problem @ rustls::Error::InvalidCertificate(_)) => {
                Failure::Final(WorkspaceError::Certificate {
                    frontend_url: self.spec.frontend_url.clone(),
                    problem: problem.to_string(),
                })
            }
            _ => Failure::Passing(error.to_string()),
        }
    }
}

/// Copies a body into a file. A broken line may pass; a full disk will not.
fn copy(body: &mut impl io::Read, target: &mut File, file: &FileSpec) -> Result<(), Failure> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) => return Err(Failure::Passing(error.to_string())),
        };
        target
            .write_all(&buffer[..count])
            .map_err(|source| Failure::Final(write_error(file, source)))?;
    }
}

/// What a status other than 200 means.
fn refused(file: &FileSpec, status: u16) -> Failure {
    let path = file.path.clone();
    match status {
        404 => Failure::Final(WorkspaceError::FileNotFound { path }),
        429 | 500.. => Failure::Passing(format!("the server answered with status {status}")),
        401 | 403 => Failure::Final(WorkspaceError::Fetch {
            path,
            problem: format!(
                "the server refused this job's credentials with status {status}; \
                 the job may have been given to another executor"
            ),
        }),
        _ => Failure::Final(WorkspaceError::Fetch {
            path,
            problem: format!("the server answered with status {status}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use tempfile::TempDir;

    use super::super::testing::{Server, spec};
    use super::*;

    fn inline(path: &str, contents: &[u8], modified_at: Option<&str>) -> FileSpec {
        FileSpec {
            path: path.to_owned(),
            source: FileSourceSpec::Inline(contents.to_vec()),
            modified_at: modified_at.map(str::to_owned),
        }
    }

    fn stored(path: &str) -> FileSpec {
        FileSpec {
            path: path.to_owned(),
            source: FileSourceSpec::Store {
                bucket: "batch-changes".to_owned(),
                key: "spec 9/file3c".to_owned(),
            },
            modified_at: Some("2024-04-30T16:01:02.5Z".to_owned()),
        }
    }

    fn write_inline(file: FileSpec) -> Result<(TempDir, String), WorkspaceError> {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = spec("http://127.0.0.1:1");
        spec.files = vec![file];
        let mut out = Vec::new();
        write(&spec, &Tree::open(dir.path())?, &mut out)?;
        Ok((dir, String::from_utf8(out).unwrap()))
    }

    /// Fetches one file from a server with scripted answers, without pauses.
    fn fetch(answers: &[&str]) -> (Result<Vec<u8>, String>, Vec<String>) {
        let server = Server::start(answers);
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(&format!("{}/sub", server.url));
        let store = Store {
            agent: http::agent(TIMEOUTS),
            spec: &spec,
            first_pause: Duration::ZERO,
        };
        let result = write_one(&stored("a/f"), &Tree::open(dir.path()).unwrap(), &store)
            .map(|()| fs::read(dir.path().join("a/f")).unwrap())
            .map_err(|error| error.to_string());
        (result, server.requests())
    }

    const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    const CUT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhello";

    fn status(code: u16) -> String {
        format!("HTTP/1.1 {code} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    }

    #[test]
    fn contents_arrive_byte_for_byte() {
        let (dir, out) = write_inline(inline("a/b", b"\0\xff\r\nx", None)).unwrap();
        assert_eq!(fs::read(dir.path().join("a/b")).unwrap(), b"\0\xff\r\nx");
        assert_eq!(out, "Wrote 1 file\n");
    }

    #[test]
    fn modification_times_are_exact() {
        let time = "2024-04-30T18:01:02.123456789+02:00";
        let (dir, _) = write_inline(inline("f", b"x", Some(time))).unwrap();
        let metadata = fs::metadata(dir.path().join("f")).unwrap();
        assert_eq!(
            (metadata.mtime(), metadata.mtime_nsec()),
            (1_714_492_862, 123_456_789)
        );
    }

    #[test]
    fn the_zero_time_leaves_files_alone() {
        let (dir, _) = write_inline(inline("f", b"x", Some(ZERO_TIME))).unwrap();
        let modified = fs::metadata(dir.path().join("f"))
            .unwrap()
            .modified()
            .unwrap();
        assert!(modified.elapsed().unwrap() < Duration::from_secs(60));
    }

    #[test]
    fn a_bad_time_names_its_file() {
        let error = write_inline(inline("f", b"x", Some("yesterday"))).unwrap_err();
        let text = "the modification time \"yesterday\" of f is not an RFC 3339 time";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn store_requests_carry_the_job_headers() {
        let (result, requests) = fetch(&[GOOD]);
        assert_eq!(result.unwrap(), b"hello");
        let request = requests[0].to_lowercase();
        for line in [
            "get /sub/.executors/files/batch-changes/spec%209/file3c http/1.1\r\n",
            "\r\nauthorization: bearer hush\r\n",
            "\r\nx-sourcegraph-job-id: 17\r\n",
            "\r\nx-sourcegraph-executor-name: exec-0\r\n",
            concat!(
                "\r\nuser-agent: executor/",
                env!("CARGO_PKG_VERSION"),
                "\r\n"
            ),
        ] {
            assert!(request.contains(line), "{line:?} in {request}");
        }
    }

    #[test]
    fn passing_troubles_are_tried_again() {
        let (result, requests) = fetch(&[&status(503), &status(429), CUT, GOOD]);
        assert_eq!(result.unwrap(), b"hello");
        assert_eq!(requests.len(), 4);
    }

    #[test]
    fn troubles_that_stay_end_the_job() {
        let (result, requests) = fetch(&[&status(500); 7].map(String::as_str));
        let text = "cannot fetch workspace file a/f: the server answered with status 500 \
                    (tried 6 times)";
        assert_eq!(result.unwrap_err(), text);
        assert_eq!(requests.len(), 6);
    }

    #[test]
    fn refusals_and_redirects_are_final() {
        for (code, text) in [
            (401, "refused this job's credentials with status 401"),
            (403, "refused this job's credentials with status 403"),
            (302, "answered with status 302"),
            (404, "workspace file a/f does not exist on the server"),
        ] {
            let (result, requests) = fetch(&[&status(code), GOOD]);
            let error = result.unwrap_err();
            assert!(error.contains(text), "{error}");
            assert_eq!(requests.len(), 1);
        }
    }

    #[test]
    fn many_files_are_fetched_at_once() {
        let server = Server::start(&[GOOD; 20]);
        let dir = tempfile::tempdir().unwrap();
        let mut spec = spec(&server.url);
        spec.files = (0..20)
            .map(|index| stored(&format!("same/dir/{index}")))
            .collect();
        let mut out = Vec::new();
        write(&spec, &Tree::open(dir.path()).unwrap(), &mut out).unwrap();
        assert_eq!(out, b"Fetched 20 files from the server\n");
        assert_eq!(
            fs::read_dir(dir.path().join("same/dir")).unwrap().count(),
            20
        );
    }
}
