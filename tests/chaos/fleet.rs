//! The executors of the run: replicas that share one state directory, each of
//! which is killed, asked to hand over, and started again.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::diary::Diary;
use crate::support::daemon::{Builder, Daemon};
use crate::support::{MINUTES, SOON, eventually};

/// How many there are. With two, a slot can change its owner.
pub(crate) const REPLICAS: usize = 2;
/// Jobs of one replica at once.
const WORKERS: usize = 5;
/// A handover waits 10 s for workers, and then for a heartbeat.
const HANDOVER_MAX: Duration = Duration::from_secs(30);
/// An answer of the metrics page takes no longer.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// All replicas.
pub(crate) struct Fleet {
    builder: Builder,
    dir: tempfile::TempDir,
    replicas: Vec<Replica>,
    /// Logs of processes that are gone, each under its name.
    logs: Vec<(String, String)>,
    /// What executors did although they should not.
    pub(crate) faults: Vec<String>,
}

#[derive(Default)]
struct Replica {
    daemon: Option<Daemon>,
    /// Since when it is asked to hand over.
    handing_over: Option<Instant>,
    starts: u32,
}

impl Fleet {
    /// Replicas by a builder that knows the servers; none is started yet.
    pub(crate) fn new(builder: Builder) -> Fleet {
        Fleet {
            builder,
            dir: tempfile::tempdir().expect("a directory can be made"),
            replicas: (0..REPLICAS).map(|_| Replica::default()).collect(),
            logs: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Starts a replica, if it is not running.
    pub(crate) fn start(&mut self, index: usize, diary: &mut Diary) {
        let replica = &mut self.replicas[index];
        if replica.daemon.is_some() {
            return;
        }
        let dir = self.dir.path().to_str().expect("the path is plain");
        let builder = self.builder.clone();
        let builder = builder
            .env("EXECUTOR_STATE_DIR", dir)
            .env("EXECUTOR_SHUTDOWN", "handover")
            .env("EXECUTOR_MAXIMUM_NUM_JOBS", &WORKERS.to_string());
        replica.daemon = Some(builder.spawn());
        replica.starts += 1;
        diary.tell(&format!(
            "executor {index} is started, start {}",
            replica.starts
        ));
    }

    /// Whether a replica runs and is not on its way out.
    pub(crate) fn is_running(&self, index: usize) -> bool {
        let replica = &self.replicas[index];
        replica.daemon.is_some() && replica.handing_over.is_none()
    }

    /// Kills a replica on the spot.
    pub(crate) fn kill(&mut self, index: usize, diary: &mut Diary) {
        if let Some(daemon) = &mut self.replicas[index].daemon {
            if daemon.ended().is_none() {
                daemon.signal("KILL");
                daemon.wait(SOON);
            }
            diary.tell(&format!("executor {index} is killed"));
            self.put_away(index);
        }
    }

    /// Asks a replica to hand over. `look` notices when it has.
    pub(crate) fn hand_over(&mut self, index: usize, diary: &mut Diary) {
        let replica = &mut self.replicas[index];
        if let Some(daemon) = &mut replica.daemon
            && daemon.ended().is_none()
        {
            daemon.signal("TERM");
            replica.handing_over = Some(Instant::now());
            diary.tell(&format!("executor {index} is asked to hand over"));
        }
    }

    /// Sees which replicas have ended. One that has handed over is started
    /// again; so is one that ended by itself, which is a fault.
    pub(crate) fn look(&mut self, diary: &mut Diary) {
        for index in 0..self.replicas.len() {
            let replica = &mut self.replicas[index];
            let Some(daemon) = &mut replica.daemon else {
                continue;
            };
            let Some(status) = daemon.ended() else {
                let since = replica.handing_over;
                if since.is_some_and(|since| since.elapsed() > HANDOVER_MAX) {
                    self.fault(format!("executor {index} does not hand over"), diary);
                    self.kill(index, diary);
                    self.start(index, diary);
                }
                continue;
            };
            let was_asked = replica.handing_over.is_some();
            diary.tell(&format!("executor {index} has ended with {status}"));
            if !was_asked || !status.success() {
                self.fault(format!("executor {index} ended with {status}"), diary);
            }
            self.put_away(index);
            self.start(index, diary);
        }
    }

    /// Stops all replicas in order.
    pub(crate) fn stop(&mut self, diary: &mut Diary) {
        for index in 0..self.replicas.len() {
            self.hand_over(index, diary);
        }
        for index in 0..self.replicas.len() {
            let Some(daemon) = &mut self.replicas[index].daemon else {
                continue;
            };
            let status = daemon.wait(HANDOVER_MAX);
            if !status.success() {
                self.fault(format!("executor {index} ended with {status}"), diary);
            }
            self.put_away(index);
        }
    }

    /// Waits until nothing of any job is kept.
    pub(crate) fn wait_until_forgotten(&self) {
        let left = || directories(self.dir.path(), 2);
        eventually(
            "an empty state directory",
            MINUTES,
            || left().is_empty().then_some(()),
            || format!("{:#?}\n{}", left(), self.log_between("", "~")),
        );
    }

    /// The metrics page of a replica, if it answers.
    pub(crate) fn metrics(&self, index: usize) -> Option<String> {
        let log = self.replicas[index].daemon.as_ref()?.log();
        let address = log.split_once("Metrics are at http://")?.1;
        let mut stream = TcpStream::connect(address.split_once('/')?.0).ok()?;
        stream.set_read_timeout(Some(PAGE_TIMEOUT)).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        Some(page)
    }

    /// Every log, each under the name of its process.
    pub(crate) fn logs(&self) -> Vec<(String, String)> {
        let running = self
            .replicas
            .iter()
            .enumerate()
            .filter_map(|(index, replica)| {
                let name = name(index, replica);
                replica.daemon.as_ref().map(|daemon| (name, daemon.log()))
            });
        self.logs.iter().cloned().chain(running).collect()
    }

    /// Lines of all logs between two times, which open every line.
    pub(crate) fn log_between(&self, from: &str, to: &str) -> String {
        let mut lines: Vec<(String, String)> = Vec::new();
        for (name, log) in self.logs() {
            let mut is_in = false;
            for line in log.lines() {
                // What a panic writes has no time: it stays with its line.
                if line.starts_with("20") {
                    is_in = (from..=to).contains(&line);
                }
                if is_in {
                    let time = line.split(' ').next().unwrap_or_default();
                    lines.push((time.to_owned(), format!("{name} {line}\n")));
                }
            }
        }
        lines.sort_by(|(a, _), (b, _)| a.cmp(b));
        lines.into_iter().map(|(_, line)| line).collect()
    }

    fn put_away(&mut self, index: usize) {
        let replica = &mut self.replicas[index];
        let name = name(index, replica);
        replica.handing_over = None;
        if let Some(daemon) = replica.daemon.take() {
            self.logs.push((name, daemon.log()));
        }
    }

    fn fault(&mut self, fault: String, diary: &mut Diary) {
        diary.tell(&format!("FAULT: {fault}"));
        self.faults.push(fault);
    }
}

fn name(index: usize, replica: &Replica) -> String {
    format!("{index}/{}", replica.starts)
}

/// Directories so many levels below another.
fn directories(dir: &Path, levels: usize) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir());
    match levels {
        1 => dirs.map(|path| path.display().to_string()).collect(),
        _ => dirs
            .flat_map(|path| directories(&path, levels - 1))
            .collect(),
    }
}
