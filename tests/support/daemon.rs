//! The real binary as a child process: a clean environment, its log kept,
//! killed when the test ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::{SOON, eventually};

/// An executor that is not started yet.
#[derive(Clone)]
pub(crate) struct Builder {
    environment: BTreeMap<String, String>,
    program: PathBuf,
}

/// A running executor.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
    output: PathBuf,
    _dir: tempfile::TempDir,
}

impl Builder {
    /// One with an empty environment but for the search path.
    pub(crate) fn new(program: &Path) -> Builder {
        let path = std::env::var("PATH").unwrap_or_default();
        Builder {
            environment: BTreeMap::from([("PATH".to_owned(), path)]),
            program: program.to_owned(),
        }
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Builder {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Removes a variable.
    pub(crate) fn without(mut self, name: &str) -> Builder {
        self.environment.remove(name);
        self
    }

    /// Starts it and does not wait for anything.
    pub(crate) fn spawn(self) -> Daemon {
        self.spawn_with(&["run"])
    }

    /// The same with other arguments.
    pub(crate) fn spawn_with(self, arguments: &[&str]) -> Daemon {
        self.launch(arguments, "log")
    }

    /// The same, with what it prints apart from its log.
    pub(crate) fn spawn_apart(self, arguments: &[&str]) -> Daemon {
        self.launch(arguments, "output")
    }

    fn launch(self, arguments: &[&str], output: &str) -> Daemon {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let open = |path: &Path| {
            let file = File::options().append(true).create(true).open(path);
            file.expect("the directory is writable")
        };
        let (log, output) = (dir.path().join("log"), dir.path().join(output));
        let child = Command::new(&self.program)
            .args(arguments)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(open(&output))
            .stderr(open(&log))
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        Daemon {
            child,
            log,
            output,
            _dir: dir,
        }
    }

    /// Starts it and waits until it listens to its queue.
    pub(crate) fn start(self) -> Daemon {
        let daemon = self.spawn();
        daemon.wait_for_log("Connected to Sourcegraph");
        daemon
    }
}

impl Daemon {
    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// What it has printed so far, where that is kept apart.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a line of the log contains the text.
    pub(crate) fn wait_for_log(&self, text: &str) {
        self.wait_for_log_within(text, SOON);
    }

    /// The same with another limit.
    pub(crate) fn wait_for_log_within(&self, text: &str, within: Duration) {
        eventually(
            &format!("the executor logs {text:?}"),
            within,
            || self.log().contains(text).then_some(()),
            || self.log(),
        );
    }

    /// Where it shows its metrics, by its own word.
    pub(crate) fn metrics_address(&self) -> SocketAddr {
        self.wait_for_log("Metrics are at ");
        let log = self.log();
        let rest = log.split_once("Metrics are at http://");
        let address = rest.and_then(|(_, rest)| rest.split('/').next());
        let address = address.and_then(|address| address.parse().ok());
        address.unwrap_or_else(|| panic!("no address is in the log\n{log}"))
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status()
            .expect("kill can be run");
        assert!(
            status.success(),
            "the executor is gone already\n{}",
            self.log()
        );
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self, within: Duration) -> ExitStatus {
        let log = self.log.clone();
        eventually(
            "the executor ends",
            within,
            || self.ended(),
            || String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned(),
        )
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Asks it to stop and waits; an exit code other than 0 fails the test.
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        let status = self.wait(SOON);
        assert!(
            status.success(),
            "the executor ended with {status}\n{}",
            self.log()
        );
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("----- log of the executor -----\n{}", self.log());
        }
    }
}
