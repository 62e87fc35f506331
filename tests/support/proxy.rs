//! Trouble between an executor and the API server: a proxy that speaks plain
//! HTTP to the executor and TLS to the real API server, streams both ways as
//! bytes come, and lets things go wrong on demand.
//!
//! A thread for each connection and one that accepts; all end with the
//! `Proxy`. It writes down every request, and a fault that has not struck as
//! often as it was meant to fails the test when the proxy is dropped.

mod connection;
pub(crate) mod fault;
mod upstream;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cluster::Namespace;
use fault::{Call, Fault, Trouble};
use upstream::ApiServer;

/// More connections at once than this are not served.
const CONNECTIONS_MAX: usize = 256;
/// How long the call that wakes the listener may take.
const WAKE_TIMEOUT: Duration = Duration::from_secs(1);

/// A running proxy.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
    kubeconfig: PathBuf,
    _dir: tempfile::TempDir,
}

/// A request that came in.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// When its head had been read.
    pub(crate) at: Instant,
    /// Verb of HTTP.
    pub(crate) method: String,
    /// Path without the query.
    pub(crate) path: String,
    /// What followed the question mark; empty without one.
    pub(crate) query: String,
    /// What was answered; none while it is being handled, or without answer.
    pub(crate) status: Option<u16>,
    /// Bytes of the answer's body that were passed on.
    pub(crate) bytes: u64,
    /// The fault that it suffered.
    pub(crate) suffered: Option<String>,
}

struct Shared {
    api: ApiServer,
    is_stopped: AtomicBool,
    is_away: AtomicBool,
    /// Grows whenever all connections are to end.
    epoch: AtomicU64,
    /// Grows whenever all trouble is to end.
    clears: AtomicU64,
    journal: Mutex<Vec<Request>>,
    faults: Mutex<Vec<Fault>>,
}

impl Proxy {
    /// One before the API server of a namespace, for the same account.
    pub(crate) fn before(namespace: &Namespace) -> Proxy {
        let text = std::fs::read(&namespace.kubeconfig).expect("the file was written");
        let mut config: Value = serde_json::from_slice(&text).expect("it is JSON");
        let cluster = &mut config["clusters"][0]["cluster"];
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            api: ApiServer::of(cluster),
            is_stopped: AtomicBool::new(false),
            is_away: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            clears: AtomicU64::new(0),
            journal: Mutex::default(),
            faults: Mutex::default(),
        });
        *cluster = serde_json::json!({"server": format!("http://{address}")});
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let kubeconfig = dir.path().join("kubeconfig");
        std::fs::write(&kubeconfig, config.to_string()).expect("the directory is writable");
        let accepting = {
            let shared = Arc::clone(&shared);
            spawn("proxy-accept", move || accept(&shared, &listener))
        };
        Proxy {
            shared,
            address,
            accepting: Some(accepting),
            kubeconfig,
            _dir: dir,
        }
    }

    /// A kubeconfig that leads through the proxy.
    pub(crate) fn kubeconfig(&self) -> &str {
        self.kubeconfig.to_str().expect("the path is plain")
    }

    /// Adds trouble. Of several faults that fit, the one that came first
    /// strikes.
    pub(crate) fn inject(&self, fault: Fault) {
        lock(&self.shared.faults).push(fault);
    }

    /// Ends all trouble. What has not struck by now fails the test.
    pub(crate) fn clear(&self) {
        for fault in lock(&self.shared.faults).iter_mut() {
            fault.end();
        }
        self.shared.clears.fetch_add(1, Ordering::SeqCst);
    }

    /// The faults that have not struck as often as they are meant to.
    pub(crate) fn missed_faults(&self) -> Vec<String> {
        let faults = lock(&self.shared.faults);
        let missed = faults.iter().filter(|fault| fault.has_missed());
        missed.map(|fault| format!("{fault:?}")).collect()
    }

    /// Ends every connection at once, as when the API server restarts.
    pub(crate) fn end_connections(&self) {
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Begins an outage: nothing is open any more, and nobody gets in.
    pub(crate) fn go_away(&self) {
        self.shared.is_away.store(true, Ordering::SeqCst);
        self.end_connections();
    }

    /// Ends the outage.
    pub(crate) fn come_back(&self) {
        self.shared.is_away.store(false, Ordering::SeqCst);
    }

    /// All requests of one kind so far, oldest first.
    pub(crate) fn requests(&self, call: Call) -> Vec<Request> {
        let journal = lock(&self.shared.journal);
        let meant = journal.iter().filter(|request| call.is(request));
        meant.cloned().collect()
    }

    /// Everything so far, for the story of a failed test.
    pub(crate) fn story(&self) -> String {
        let now = Instant::now();
        let tell = |request: &Request| {
            let age = now.duration_since(request.at).as_secs_f64();
            let Request { method, path, .. } = request;
            let status = request.status.map_or("-".to_owned(), |s| s.to_string());
            let suffered = request.suffered.as_deref().unwrap_or_default();
            let bytes = request.bytes;
            format!("{age:8.3} s ago {status:>3} {method} {path} ({bytes} bytes) {suffered}\n")
        };
        lock(&self.shared.journal).iter().map(tell).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::SeqCst);
        // The listener looks at the flag after each connection, so give it one.
        let _ = TcpStream::connect_timeout(&self.address, WAKE_TIMEOUT);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
        if thread::panicking() {
            eprintln!("----- requests to the API server -----\n{}", self.story());
            return;
        }
        let missed = self.missed_faults();
        assert!(
            missed.is_empty(),
            "faults did not strike: {missed:#?}\n{}",
            self.story()
        );
    }
}

impl Shared {
    /// Whether connections that began in an epoch are to end.
    fn is_over(&self, epoch: u64) -> bool {
        self.is_stopped.load(Ordering::SeqCst) || self.epoch.load(Ordering::SeqCst) != epoch
    }

    /// How often all trouble was cleared.
    fn clears(&self) -> u64 {
        self.clears.load(Ordering::SeqCst)
    }

    /// Writes a request down and draws the trouble that it shall have.
    fn admit(&self, mut request: Request) -> (usize, Option<Trouble>) {
        let struck = lock(&self.faults).iter_mut().find_map(|fault| {
            let name = fault.to_string();
            Some((fault.strike(&request)?, name))
        });
        let (trouble, name) = struck.unzip();
        request.suffered = name;
        let mut journal = lock(&self.journal);
        journal.push(request);
        (journal.len() - 1, trouble)
    }

    fn answered(&self, number: usize, status: u16) {
        lock(&self.journal)[number].status = Some(status);
    }

    fn passed(&self, number: usize, bytes: usize) {
        lock(&self.journal)[number].bytes += bytes as u64;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for client in listener.incoming() {
        if shared.is_stopped.load(Ordering::SeqCst) {
            break;
        }
        threads.retain(|thread| !thread.is_finished());
        let Ok(client) = client else { continue };
        let is_away = shared.is_away.load(Ordering::SeqCst);
        if is_away || threads.len() >= CONNECTIONS_MAX {
            reset(client);
            continue;
        }
        let shared = Arc::clone(shared);
        threads.push(spawn("proxy-connection", move || {
            // What fails here is one connection; both its ends will notice.
            if connection::serve(&shared, &client).is_err() {
                reset(client);
            }
        }));
    }
    for thread in threads {
        let _ = thread.join();
    }
}

/// Closes a connection so that its other end is told that it broke.
fn reset(client: TcpStream) {
    let at_once = Some(Duration::ZERO);
    let _: io::Result<()> =
        rustix::net::sockopt::set_socket_linger(&client, at_once).map_err(io::Error::from);
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(work).expect("one more thread can be had")
}
