//! The listener and its threads, which an outage can end and begin anew.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::connection;
use super::hub::Hub;

/// How long the call that wakes the listener may take.
const WAKE_TIMEOUT: Duration = Duration::from_secs(1);

/// Accepts connections until it is stopped; all its threads are joined then.
pub(super) struct Server {
    hub: Arc<Hub>,
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    is_stopped: AtomicBool,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    next: u64,
    open: BTreeMap<u64, TcpStream>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens.
    pub(super) fn start(hub: &Arc<Hub>, address: &str) -> io::Result<Server> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let epoch = hub.change(|store| {
            store.up_since = Some(Instant::now());
            store.epoch
        });
        let accepting = {
            let (hub, shared) = (Arc::clone(hub), Arc::clone(&shared));
            spawn("frontend-accept", move || {
                accept(&hub, &shared, &listener, epoch)
            })?
        };
        Ok(Server {
            hub: Arc::clone(hub),
            address,
            shared,
            accepting: Some(accepting),
        })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::SeqCst);
        self.hub.change(|store| {
            store.epoch += 1;
            store.up_since = None;
        });
        // The listener looks at the flag after each connection, so give it one.
        let _ = TcpStream::connect_timeout(&reachable(self.address), WAKE_TIMEOUT);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
        let threads = {
            let mut connections = self.shared.lock();
            for stream in connections.open.values() {
                let _ = stream.shutdown(Shutdown::Both);
            }
            std::mem::take(&mut connections.threads)
        };
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Connections> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(hub: &Arc<Hub>, shared: &Arc<Shared>, listener: &TcpListener, epoch: u64) {
    for stream in listener.incoming() {
        if shared.is_stopped.load(Ordering::SeqCst) {
            return;
        }
        // What fails here is one connection; its client will notice.
        let _ = stream.and_then(|stream| begin(hub, shared, stream, epoch));
    }
}

fn begin(hub: &Arc<Hub>, shared: &Arc<Shared>, stream: TcpStream, epoch: u64) -> io::Result<()> {
    let mut connections = shared.lock();
    let number = connections.next;
    connections.next += 1;
    connections.open.insert(number, stream.try_clone()?);
    let thread = {
        let (hub, shared) = (Arc::clone(hub), Arc::clone(shared));
        spawn("frontend-connection", move || {
            let ended = Ended { shared, number };
            let _ = connection::serve(&hub, &stream, epoch);
            drop(ended);
        })?
    };
    connections.threads.retain(|thread| !thread.is_finished());
    connections.threads.push(thread);
    Ok(())
}

/// Closes a connection when its thread ends, be it by a panic.
struct Ended {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(stream) = self.shared.lock().open.remove(&self.number) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// An address that listens on all interfaces cannot be connected to as such.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(work)
}
