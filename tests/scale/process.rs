//! What the kernel tells of processes, from `/proc`.

use std::collections::HashSet;
use std::fs;

/// Units of processor time in a second; the same on every Linux of today.
const TICKS: f64 = 100.0;
/// The servers of Kubernetes that work on a job; the kernel keeps 15 letters
/// of a name.
const SERVERS: [(&str, &str); 4] = [
    ("kube-apiserver", "API server"),
    ("etcd", "etcd"),
    ("kube-controller", "controller manager"),
    ("kube-scheduler", "scheduler"),
];

/// What a process holds at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holding {
    /// Resident memory, in MiB.
    pub(crate) memory: f64,
    /// Threads.
    pub(crate) threads: f64,
    /// Open file descriptors.
    pub(crate) descriptors: f64,
    /// Established TCP connections.
    pub(crate) connections: f64,
}

impl Holding {
    /// What the process of this id holds.
    pub(crate) fn of(pid: u32) -> Holding {
        let status = read(&format!("/proc/{pid}/status"));
        let field = |name: &str| -> f64 {
            let line = status.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_whitespace().nth(1));
            let value = value.and_then(|value| value.parse().ok());
            value.unwrap_or_else(|| panic!("no {name} in\n{status}"))
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
        let descriptors = descriptors.expect("the descriptors of a child can be listed");
        let targets: Vec<String> = descriptors
            .flatten()
            // One that was closed meanwhile has no target any more.
            .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
            .map(|target| target.display().to_string())
            .collect();
        let established = established(pid);
        let connections = targets.iter().filter_map(|target| socket(target));
        Holding {
            memory: field("VmRSS:") / 1024.0,
            threads: field("Threads:"),
            connections: connections
                .filter(|inode| established.contains(*inode))
                .count() as f64,
            descriptors: targets.len() as f64,
        }
    }
}

/// The inode of `socket:[INODE]`.
fn socket(target: &str) -> Option<&str> {
    target.strip_prefix("socket:[")?.strip_suffix(']')
}

/// The inodes of all established TCP connections that the process can see.
fn established(pid: u32) -> HashSet<String> {
    let tables = ["tcp", "tcp6"].map(|table| read(&format!("/proc/{pid}/net/{table}")));
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    lines
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            (fields.get(3) == Some(&"01")).then(|| fields.get(9).map(|inode| (*inode).to_owned()))
        })
        .flatten()
        .collect()
}

/// Seconds of processor time since the start of each, by name.
#[derive(Clone, Debug)]
pub(crate) struct Processor {
    /// The executor.
    pub(crate) executor: f64,
    /// This process: the stand-ins for frontend and kubelet.
    pub(crate) stand_ins: f64,
    /// The servers of Kubernetes; none if they are not on this machine.
    pub(crate) servers: Vec<(&'static str, f64)>,
    /// All processors of the machine together, while they had nothing to do.
    pub(crate) idle: f64,
}

impl Processor {
    /// The times until now.
    pub(crate) fn now(executor: u32) -> Processor {
        Processor {
            executor: spent(&executor.to_string()).expect("the executor runs"),
            stand_ins: spent("self").expect("this process runs"),
            servers: servers(),
            idle: idle(),
        }
    }

    /// The times since then.
    pub(crate) fn since(&self, then: &Processor) -> Processor {
        let servers = self.servers.iter().zip(&then.servers);
        Processor {
            executor: self.executor - then.executor,
            stand_ins: self.stand_ins - then.stand_ins,
            servers: servers
                .map(|((name, now), (_, then))| (*name, now - then))
                .collect(),
            idle: self.idle - then.idle,
        }
    }

    /// All servers together.
    pub(crate) fn of_servers(&self) -> f64 {
        self.servers.iter().map(|(_, seconds)| seconds).sum()
    }
}

/// The time of each kind of server, over all processes of its name.
fn servers() -> Vec<(&'static str, f64)> {
    let mut found = SERVERS.map(|(_, name)| (name, 0.0));
    let processes = fs::read_dir("/proc").expect("there is /proc");
    for process in processes.flatten() {
        let pid = process.file_name().display().to_string();
        let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        let index = SERVERS
            .iter()
            .position(|(name, _)| *name == command.trim_end());
        if let Some(index) = index {
            found[index].1 += spent(&pid).unwrap_or_default();
        }
    }
    found.into()
}

/// The 14th and the 15th field, counted behind the program's name, which may
/// hold spaces.
fn spent(pid: &str) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = stat.rsplit_once(')')?.1.split_whitespace();
    let times: Vec<f64> = fields.skip(11).take(2).flat_map(str::parse).collect();
    Some(times.iter().sum::<f64>() / TICKS)
}

/// The fourth time of the line for all processors.
fn idle() -> f64 {
    let stat = read("/proc/stat");
    let ticks = stat
        .split_whitespace()
        .nth(4)
        .and_then(|text| text.parse::<f64>().ok());
    ticks.expect("the kernel tells the times of the processors") / TICKS
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}
