//! Shows metrics and health over HTTP to whoever reaches the port.
//!
//! Clients are strangers, so the means are fixed: one thread, which never
//! blocks on a client, a bounded number of connections, each with a small head
//! and a deadline. When all places are taken the oldest connection gives way:
//! neither slow clients nor many of them keep a scrape from its answer.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::metrics::Metrics;
use crate::metrics::connection::Connection;
use crate::metrics::pages::{Health, Pages};

/// Prometheus holds one connection, a probe another for a moment.
const CONNECTIONS_MAX: usize = 64;
/// Accepted in one go. Whoever is accepted is looked at a few times before
/// others can push him out.
const ACCEPTED_AT_ONCE: usize = CONNECTIONS_MAX / 4;
/// Before the next try when a connection could not be accepted, as when the
/// process has no file descriptor left: it stays in the queue, and asking
/// again at once would turn in circles.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The running server; dropping it ends it.
pub struct MetricsServer {
    address: SocketAddr,
    /// Closed to end the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsServer {
    /// Listens on `host:port` or, on all addresses of the machine, `:port`.
    /// Port 0 is any free one.
    pub fn start(address: &str, metrics: Metrics, health: Health) -> io::Result<MetricsServer> {
        let listener = listen(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = UnixStream::pair()?;
        let mut service = Service {
            listener,
            stopped,
            connections: VecDeque::new(),
            accept_after: None,
            pages: Pages { metrics, health },
        };
        let thread = std::thread::Builder::new()
            .name("metrics".to_string())
            .stack_size(256 * 1024)
            .spawn(move || {
                if let Err(error) = service.run() {
                    log::error!("Metrics are not served any more: {error}.");
                }
            })?;
        Ok(MetricsServer {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.stop.take();
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            log::error!("The metrics thread panicked.");
        }
    }
}

fn listen(address: &str) -> io::Result<TcpListener> {
    let Some(port) = address.strip_prefix(':') else {
        return TcpListener::bind(address);
    };
    // The addresses of both families, as in Go; some machines have only one.
    match TcpListener::bind(format!("[::]:{port}")) {
        Err(error) if error.kind() != ErrorKind::AddrInUse => {
            TcpListener::bind(format!("0.0.0.0:{port}"))
        }
        listener => listener,
    }
}

/// What the thread has.
struct Service {
    listener: TcpListener,
    stopped: UnixStream,
    /// Oldest first.
    connections: VecDeque<Connection>,
    accept_after: Option<Instant>,
    pages: Pages,
}

/// What can be done without waiting.
struct Ready {
    stopped: bool,
    listener: bool,
    connections: Vec<bool>,
}

impl Service {
    fn run(&mut self) -> io::Result<()> {
        loop {
            let ready = self.wait()?;
            if ready.stopped {
                return Ok(());
            }
            // Those that are there come first: no newcomer can push out a
            // client whose request has arrived.
            self.serve(&ready.connections);
            if ready.listener {
                self.accept();
            }
        }
    }

    /// Waits until something can be done, or the next limit of time.
    fn wait(&self) -> io::Result<Ready> {
        let now = Instant::now();
        let accepts = self.accept_after.is_none_or(|after| after <= now);
        let listens = if accepts {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        let mut waits = vec![
            PollFd::new(&self.stopped, PollFlags::IN),
            PollFd::new(&self.listener, listens),
        ];
        for connection in &self.connections {
            waits.push(PollFd::new(connection.stream(), connection.awaits()));
        }
        let deadlines = self
            .connections
            .iter()
            .map(|connection| connection.deadline);
        let next = deadlines
            .chain(self.accept_after.filter(|_| !accepts))
            .min();
        match poll(&mut waits, next.map(|next| time_until(next, now)).as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = waits.iter().map(|wait| !wait.revents().is_empty());
        Ok(Ready {
            stopped: ready.next().unwrap_or_default(),
            listener: ready.next().unwrap_or_default(),
            connections: ready.collect(),
        })
    }

    /// Goes on with those that can, and closes those that are done or late.
    fn serve(&mut self, ready: &[bool]) {
        let now = Instant::now();
        let mut ready = ready.iter();
        let pages = &self.pages;
        self.connections.retain_mut(|connection| {
            let can = ready.next().is_some_and(|ready| *ready);
            (!can || connection.advance(pages)) && connection.deadline > now
        });
    }

    fn accept(&mut self) {
        self.accept_after = None;
        for _ in 0..ACCEPTED_AT_ONCE {
            match self
                .listener
                .accept()
                .and_then(|(stream, _)| Connection::new(stream))
            {
                Ok(connection) => {
                    if self.connections.len() == CONNECTIONS_MAX {
                        self.connections.pop_front();
                    }
                    self.connections.push_back(connection);
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return,
                    // The client has gone already.
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {}
                    _ => {
                        log::debug!("A connection could not be accepted: {error}.");
                        self.accept_after = Some(Instant::now() + ACCEPT_PAUSE);
                        return;
                    }
                },
            }
        }
    }
}

fn time_until(end: Instant, now: Instant) -> Timespec {
    let time = end.saturating_duration_since(now);
    Timespec::try_from(time).unwrap_or_default()
}
