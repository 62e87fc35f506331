//! Clones the repository of a job with the real git.
//!
//! Credentials reach git by its configuration environment alone: never in an
//! address or an argument, which other processes and error messages show, and
//! never in `.git/config`, which the steps can read. When the clone is done,
//! its remote has the repository's name for an address, so nothing in the
//! workspace says where it came from or how to get more.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::error::{CloneError, WorkspaceError};
use super::say;
use super::spec::{RepositorySpec, WorkspaceSpec};
use super::tree::Tree;
use crate::http;

/// Times that git asks the server before the job fails: with the pauses, a
/// server that restarts has half a minute to come back.
const TRIES_MAX: u32 = 5;

/// Wait before the second try; it doubles after that.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// Silence on the line after which git gives up. A server says next to nothing
/// while it gathers a large pack, and a dead one is noticed sooner, by TCP.
const SILENCE_SECONDS_MAX: &str = "300";

/// What keeps git small whatever the size of the repository: packs go to the
/// disk as they are, large files are streamed into and out of them, and what
/// threads hold to resolve deltas has a bound that does not grow with the
/// number of processors. For our commands only, since later a file above the
/// threshold would count as binary.
const MEMORY_SETTINGS: [(&str, &str); 4] = [
    ("fetch.unpackLimit", "1"),
    ("core.bigFileThreshold", "8m"),
    ("core.deltaBaseCacheLimit", "16m"),
    ("pack.threads", "4"),
];

/// What git itself lists as local to one repository (`git rev-parse
/// --local-env-vars`): set from outside, each could turn it to another one.
const FOREIGN_VARIABLES: [&str; 16] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// Clones the repository at its commit into its directory of the workspace.
pub(super) fn clone(
    spec: &WorkspaceSpec,
    repository: &RepositorySpec,
    tree: &Tree,
    out: &mut impl Write,
) -> Result<(), WorkspaceError> {
    check_commit(&repository.commit)?;
    check_certificate(repository)?;
    let start = Instant::now();
    let dir = tree.make_dir(&repository.directory)?;
    remove_unfinished(&dir.join(".git"))?;
    let git = Git {
        spec,
        repository,
        dir,
        first_pause: FIRST_PAUSE,
    };
    say(out, &git.headline())?;
    git.prepare()?;
    git.fetch()?;
    git.check_out()?;
    git.disconnect()?;
    // Git writes the message of each commit into the same file, whose owner
    // would be the user of the first one, and the only one who may.
    let message = git.dir.join(".git/COMMIT_EDITMSG");
    fs::write(&message, "").map_err(|source| write_error(&message, source))?;
    let seconds = start.elapsed().as_secs_f64();
    say(out, &format!("Cloned in {seconds:.1} s"))
}

/// A commit that is no hash could be an option or a revision expression to git.
fn check_commit(commit: &str) -> Result<(), CloneError> {
    let length = commit.len();
    if (7..=64).contains(&length) && commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(CloneError::Commit {
        commit: commit.to_owned(),
    })
}

/// Of a file that it cannot read git only says that there is a problem.
fn check_certificate(repository: &RepositorySpec) -> Result<(), CloneError> {
    let Some(path) = &repository.ca_certificate else {
        return Ok(());
    };
    match fs::File::open(path) {
        Ok(_) => Ok(()),
        Err(source) => Err(CloneError::CertificateFile {
            path: path.clone(),
            source,
        }),
    }
}

/// Removes what an earlier run of this container left, if it was interrupted:
/// after the restart of a node, the kubelet runs it again on the same volume.
fn remove_unfinished(git_dir: &Path) -> Result<(), WorkspaceError> {
    match fs::remove_dir_all(git_dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(write_error(git_dir, source))
        }
        _ => Ok(()),
    }
}

fn write_error(path: &Path, source: io::Error) -> WorkspaceError {
    WorkspaceError::Write {
        path: path.display().to_string(),
        source,
    }
}

/// One clone, and all that its git commands share.
struct Git<'a> {
    spec: &'a WorkspaceSpec,
    repository: &'a RepositorySpec,
    dir: PathBuf,
    first_pause: Duration,
}

/// A git command that ended badly.
enum Failure {
    /// It could not be started.
    Start(io::Error),
    /// It said this on its way out.
    Exit(String),
}

impl Git<'_> {
    /// Says what is cloned, and in which way.
    fn headline(&self) -> String {
        let repository = self.repository;
        let sparse = !repository.sparse_checkout.is_empty();
        let ways: Vec<_> = [
            (repository.shallow, "shallow"),
            (repository.fetch_tags, "with tags"),
            (sparse, "sparse"),
        ]
        .into_iter()
        .filter_map(|(asked, way)| asked.then_some(way))
        .collect();
        let mut line = format!("Cloning {} at {}", repository.name, repository.commit);
        if !ways.is_empty() {
            line.push_str(&format!(" ({})", ways.join(", ")));
        }
        line
    }

    /// Makes an empty repository that knows its server.
    fn prepare(&self) -> Result<(), CloneError> {
        self.local(&["init", "--quiet"])?;
        // A collection in the background would run on while steps work.
        self.configure("gc.auto", "0")?;
        // Whatever the file mask of a step, those of other users can go on with
        // what its git makes.
        self.configure("core.sharedRepository", "0666")?;
        let url = format!(
            "{}/.executors/git/{}",
            self.spec.frontend_url,
            http::encoded_path(&self.repository.name)
        );
        self.configure("remote.origin.url", &url)?;
        self.configure("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")
    }

    /// Gets the commit, and as much around it as the job asks for.
    fn fetch(&self) -> Result<(), CloneError> {
        let repository = self.repository;
        // The file FETCH_HEAD would hold the server's address.
        let mut args = vec!["fetch", "--no-recurse-submodules", "--no-write-fetch-head"];
        if repository.fetch_tags {
            args.push("--tags");
        } else if repository.shallow {
            args.push("--no-tags");
        }
        if repository.shallow {
            args.push("--depth=1");
        }
        if !repository.sparse_checkout.is_empty() {
            args.push("--filter=blob:none");
        }
        args.extend(["--", "origin", &repository.commit]);
        self.remote(&args)
    }

    /// Writes the work tree. A sparse one asks the server for its files now.
    fn check_out(&self) -> Result<(), CloneError> {
        let repository = self.repository;
        if !repository.sparse_checkout.is_empty() {
            let mut args = vec!["sparse-checkout", "set", "--no-cone", "--"];
            args.extend(repository.sparse_checkout.iter().map(String::as_str));
            self.local(&args)?;
        }
        self.remote(&["checkout", "--force", "--detach", &repository.commit, "--"])
    }

    /// Puts the repository's name in the place of the server's address.
    ///
    /// The remote itself stays: tools read the name from it, and a clone
    /// without all blobs is whole in git's eyes only while it has the remote
    /// that promised them. To git the name is the path of a directory that
    /// does not exist, so a look for a missing blob fails at once. A name with
    /// a colon would mean a host to ask by ssh, if it were not made a path.
    fn disconnect(&self) -> Result<(), CloneError> {
        let repository = self.repository;
        let prefix = if !repository.sparse_checkout.is_empty() && repository.name.contains(':') {
            "./"
        } else {
            ""
        };
        self.configure("remote.origin.url", &format!("{prefix}{}", repository.name))
    }

    /// Sets one value in the repository's own configuration.
    fn configure(&self, key: &str, value: &str) -> Result<(), CloneError> {
        self.local(&["config", "--local", "--replace-all", key, value])
    }

    /// Runs a command that has no need of the server, without credentials.
    fn local(&self, args: &[&str]) -> Result<(), CloneError> {
        run(self.command(&Vec::new(), args)).map_err(|failure| self.explain(args, failure))
    }

    /// Runs a command that may ask the server, with credentials and some tries.
    fn remote(&self, args: &[&str]) -> Result<(), CloneError> {
        let settings = self.remote_settings();
        let mut pause = self.first_pause;
        let mut tries = 1;
        loop {
            let error = match run(self.command(&settings, args)) {
                Ok(()) => return Ok(()),
                Err(failure) => self.explain(args, failure),
            };
            // What could not be told apart may have been the network.
            if tries == TRIES_MAX || !matches!(error, CloneError::Git { .. }) {
                return Err(error);
            }
            self.remove_partial_packs();
            thread::sleep(pause);
            pause *= 2;
            tries += 1;
        }
    }

    /// Removes packs that broke off. Git leaves them to a collection that never
    /// comes here, and a few of a large repository would fill the volume.
    fn remove_partial_packs(&self) {
        let packs = fs::read_dir(self.dir.join(".git/objects/pack"));
        for entry in packs.into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("tmp_") {
                // One that stays takes room, and does no other harm.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Settings of a command that talks to the server, credentials among them.
    fn remote_settings(&self) -> Vec<(String, String)> {
        let spec = self.spec;
        let header = format!("http.{}/.extraHeader", spec.frontend_url);
        let mut settings = vec![
            (
                header.clone(),
                format!("Authorization: {}", spec.authorization),
            ),
            (
                header.clone(),
                "X-Sourcegraph-Actor-UID: internal".to_owned(),
            ),
            (
                header.clone(),
                format!("X-Sourcegraph-Job-ID: {}", spec.job_id),
            ),
            (
                header,
                format!("X-Sourcegraph-Executor-Name: {}", spec.executor_name),
            ),
        ];
        let mut set = |key: &str, value: &str| settings.push((key.to_owned(), value.to_owned()));
        set("protocol.version", "2");
        // Git sends extra headers to wherever it was redirected.
        set("http.followRedirects", "false");
        set("http.lowSpeedLimit", "1");
        set("http.lowSpeedTime", SILENCE_SECONDS_MAX);
        settings
    }

    /// A git command in the clone, which hears nothing from outside.
    fn command(&self, settings: &[(String, String)], args: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.current_dir(&self.dir).args(args);
        command.stdin(Stdio::null());
        for name in FOREIGN_VARIABLES {
            command.env_remove(name);
        }
        command
            .env("LC_ALL", "C")
            .env("HOME", "/nonexistent")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_LFS_SKIP_SMUDGE", "1");
        if let Some(path) = &self.repository.ca_certificate {
            // Not `http.sslCAInfo`: the image may set this, and then it wins.
            command.env("GIT_SSL_CAINFO", path);
        }
        // The root of the volume may belong to another user than ours.
        let own = [
            ("safe.directory", "*"),
            ("advice.detachedHead", "false"),
            ("init.defaultBranch", "main"),
        ];
        let own = own.into_iter().chain(MEMORY_SETTINGS);
        let settings = own.chain(
            settings
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str())),
        );
        let mut count = 0;
        for (key, value) in settings {
            command.env(format!("GIT_CONFIG_KEY_{count}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{count}"), value);
            count += 1;
        }
        command.env("GIT_CONFIG_COUNT", count.to_string());
        command
    }

    /// Turns a failure into the error that users read.
    ///
    /// Git ends with the same exit code whatever happened, so its words must
    /// tell; they are in English by our choice, and old enough to stay.
    fn explain(&self, args: &[&str], failure: Failure) -> CloneError {
        let output = match failure {
            Failure::Start(source) => return CloneError::Start { source },
            Failure::Exit(output) => output,
        };
        let says = |texts: &[&str]| texts.iter().any(|text| output.contains(text));
        let repository = self.repository.name.clone();
        let frontend_url = self.spec.frontend_url.clone();
        if says(&["not our ref", "couldn't find remote ref"]) {
            return CloneError::CommitNotFound {
                commit: self.repository.commit.clone(),
                repository,
                frontend_url,
            };
        }
        if says(&[
            "could not read Username",
            "Authentication failed",
            "error: 401",
            "error: 403",
        ]) {
            return CloneError::Refused {
                repository,
                frontend_url,
                output,
            };
        }
        if says(&[
            "certificate verif",
            "SSL certificate problem",
            "SSL CA cert",
        ]) {
            return CloneError::Certificate {
                frontend_url,
                output,
            };
        }
        if says(&["' not found", "does not appear to be a git repository"]) {
            return CloneError::RepositoryNotFound {
                repository,
                frontend_url,
            };
        }
        CloneError::Git {
            command: args[0].to_owned(),
            output,
        }
    }
}

/// Runs a command to its end, and keeps what it prints for the error message.
fn run(mut command: Command) -> Result<(), Failure> {
    let output = command.output().map_err(Failure::Start)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if text.is_empty() {
        return Err(Failure::Exit(output.status.to_string()));
    }
    Err(Failure::Exit(text))
}

#[cfg(test)]
mod tests;
