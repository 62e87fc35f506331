//! Steps on reins: each holds a connection to the bench, prints every line that
//! it is told, and ends when it is let go. So the bench decides when a step
//! writes what, and knows when it did, whatever the node's clock says.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::LIMIT;
use crate::frontend::spec::StepSpec;
use crate::support::cluster::host_address;
use crate::support::eventually;
use crate::support::stage::tiny;

/// The first line of each step.
pub(crate) const WORD: &str = "ready";
/// How long a step may take to say its name.
const NAME_TIMEOUT: Duration = Duration::from_secs(10);

/// The bench's ends of all connections.
pub(crate) struct Reins {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    held: Mutex<BTreeMap<String, TcpStream>>,
    is_stopped: AtomicBool,
}

impl Reins {
    /// Listens where pods can reach it.
    pub(crate) fn new() -> Reins {
        let listener = TcpListener::bind(format!("{}:0", host_address()));
        let listener = listener.expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let shared: Arc<Shared> = Arc::default();
        let accepting = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || accept(&shared, &listener))
        };
        Reins {
            address,
            shared,
            accepting: Some(accepting),
        }
    }

    /// A step that says a word, holds on under this name, and does this with
    /// each line that it is told, which is in `$line`.
    pub(crate) fn step(&self, name: &str, action: &str) -> StepSpec {
        let (host, port) = (self.address.ip(), self.address.port());
        let told = format!("echo {name} | nc {host} {port}");
        tiny("led", "{ set +x; } 2>/dev/null")
            .command(format!("echo {WORD}"))
            .command(format!("{told} | while read -r line; do {action}; done"))
    }

    /// Waits until so many steps hold on.
    pub(crate) fn wait_for(&self, count: usize) {
        eventually(
            &format!("{count} steps run"),
            LIMIT,
            || (self.shared.lock().len() >= count).then_some(()),
            || format!("{} hold on", self.shared.lock().len()),
        );
    }

    /// Tells a step a line.
    pub(crate) fn say(&self, name: &str, line: &str) {
        let mut held = self.shared.lock();
        let stream = held.get_mut(name).expect("the step holds on");
        tell(stream, line);
    }

    /// Tells all steps a line.
    pub(crate) fn say_all(&self, line: &str) {
        self.shared
            .lock()
            .values_mut()
            .for_each(|stream| tell(stream, line));
    }

    /// Lets one step go, which ends well.
    pub(crate) fn release(&self, name: &str) {
        self.shared.lock().remove(name);
    }

    /// Lets all steps go.
    pub(crate) fn release_all(&self) {
        self.shared.lock().clear();
    }
}

impl Drop for Reins {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::SeqCst);
        // The listener looks at the flag after each connection.
        let _ = TcpStream::connect_timeout(&self.address, NAME_TIMEOUT);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, TcpStream>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(shared: &Shared, listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        if shared.is_stopped.load(Ordering::SeqCst) {
            return;
        }
        let mut name = String::new();
        let is_heard = stream.set_read_timeout(Some(NAME_TIMEOUT)).is_ok()
            && BufReader::new(&stream).read_line(&mut name).is_ok();
        if is_heard {
            shared.lock().insert(name.trim().to_owned(), stream);
        }
    }
}

fn tell(stream: &mut TcpStream, line: &str) {
    let told = stream.write_all(format!("{line}\n").as_bytes());
    told.expect("a step listens until it is let go");
}
