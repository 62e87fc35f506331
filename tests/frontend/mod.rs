//! A Sourcegraph frontend to test against: the part of the server that
//! executors talk to, in this process, with the real one's rules.
//!
//! It checks tokens and headers, hands out each job once, knows who holds it,
//! refuses calls for a job that is not held, takes a job back whose heartbeats
//! stop, and serves files and, by the real `git http-backend`, repositories.
//! What a client may do but should not is let through, as the server lets it
//! through, and written down in `Frontend::violations`.
//!
//! A thread for each connection, one that accepts, one that takes jobs back;
//! all end with the `Frontend`. Tests act on it by the methods in `control`,
//! wait by those in `waiting`, and make trouble by `Fault`s.

#![allow(
    dead_code,
    reason = "one frontend serves the tests and the demo, and neither needs all of it"
)]

mod auth;
mod connection;
mod control;
pub(crate) mod fault;
mod git;
pub(crate) mod http;
mod hub;
pub(crate) mod journal;
mod notes;
mod queue;
pub(crate) mod record;
mod report;
mod response;
mod route;
mod server;
pub(crate) mod spec;
mod store;
mod version;
mod waiting;
mod wire;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hub::{Hub, Settings};
use server::Server;

/// How long `resume` tries to get its port back.
const REBIND_TIMEOUT: Duration = Duration::from_secs(10);

/// The time between two tries.
const REBIND_PAUSE: Duration = Duration::from_millis(50);

/// Which age of server is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    /// HTTP Basic; heartbeats on one path for all, answered by a bare array;
    /// log entries cannot be updated; files are plain strings.
    Basic,
    /// The executor token for everything; heartbeats are answered by an object
    /// if they say `V2`, else by a bare array; no multi-queue calls.
    Token,
    /// Today: job tokens and multi-queue calls; Basic credentials are refused.
    JobToken,
}

/// A running frontend. Dropping it closes every connection and joins every
/// thread. All methods may be called from any thread; none blocks for long but
/// those whose names begin with `wait`.
pub(crate) struct Frontend {
    hub: Arc<Hub>,
    address: SocketAddr,
    server: Mutex<Option<Server>>,
    resetter: Option<JoinHandle<()>>,
}

/// A frontend that is not started yet.
#[derive(Clone, Debug)]
pub(crate) struct Builder {
    settings: Settings,
}

impl Frontend {
    /// One with today's rules on a free port of the loopback interface.
    pub(crate) fn builder() -> Builder {
        let settings = Settings {
            listen: "127.0.0.1:0".to_owned(),
            token: "open-sesame-1234567890".to_owned(),
            username: "executor".to_owned(),
            generation: Generation::JobToken,
            prefix: String::new(),
            stall_limit: Duration::from_secs(25),
            resetter_interval: Duration::from_secs(1),
        };
        Builder { settings }
    }

    /// What `builder` gives, started.
    pub(crate) fn start() -> Frontend {
        Frontend::builder().start()
    }

    /// Base address, without a slash at its end.
    pub(crate) fn url(&self) -> String {
        format!("http://{}{}", self.address, self.hub.settings.prefix)
    }

    /// Where it listens, also while it does not answer.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The executor token; with the Basic generation, the password.
    pub(crate) fn token(&self) -> &str {
        &self.hub.settings.token
    }

    /// The user of HTTP Basic.
    pub(crate) fn username(&self) -> &str {
        &self.hub.settings.username
    }

    /// An outage: the port is closed and every connection is dropped, with
    /// whatever was under way on it. What the server knows stays.
    pub(crate) fn stop_answering(&self) {
        let server = self.server().take();
        drop(server);
    }

    /// The end of an outage: the same port is open again.
    pub(crate) fn resume(&self) {
        let mut server = self.server();
        if server.is_some() {
            return;
        }
        let deadline = Instant::now() + REBIND_TIMEOUT;
        let started = loop {
            match Server::start(&self.hub, &self.address.to_string()) {
                Ok(started) => break started,
                // Another process may have the port for a moment, as the local
                // end of a connection of its own.
                Err(error) if Instant::now() > deadline => {
                    panic!("{} cannot be had again: {error}", self.address)
                }
                Err(_) => drop(self.hub.wait(REBIND_PAUSE, |_| None::<()>)),
            }
        };
        *server = Some(started);
    }

    fn server(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Builder {
    /// Sets address and port to listen on; port 0 means a free one.
    pub(crate) fn listen(mut self, address: &str) -> Builder {
        self.settings.listen = address.to_owned();
        self
    }

    /// Sets the executor token. An empty one means that executors are not
    /// configured on the server.
    pub(crate) fn token(mut self, token: &str) -> Builder {
        self.settings.token = token.to_owned();
        self
    }

    /// Sets the user of HTTP Basic.
    pub(crate) fn username(mut self, username: &str) -> Builder {
        self.settings.username = username.to_owned();
        self
    }

    /// Sets the age of the server.
    pub(crate) fn generation(mut self, generation: Generation) -> Builder {
        self.settings.generation = generation;
        self
    }

    /// Puts everything below a path such as `/sourcegraph`.
    pub(crate) fn prefix(mut self, prefix: &str) -> Builder {
        self.settings.prefix = prefix.to_owned();
        self
    }

    /// Sets after what silence of its holder a job is taken back.
    pub(crate) fn stall_limit(mut self, limit: Duration) -> Builder {
        self.settings.stall_limit = limit;
        self
    }

    /// Sets how often stalled jobs are looked for.
    pub(crate) fn resetter_interval(mut self, interval: Duration) -> Builder {
        self.settings.resetter_interval = interval;
        self
    }

    /// Starts it; panics when the address cannot be had.
    pub(crate) fn start(self) -> Frontend {
        let listen = self.settings.listen.clone();
        let hub = Arc::new(Hub::new(self.settings));
        let server = Server::start(&hub, &listen)
            .unwrap_or_else(|error| panic!("the frontend cannot listen on {listen}: {error}"));
        let address = server.address();
        let resetter = {
            let hub = Arc::clone(&hub);
            thread::Builder::new()
                .name("frontend-resetter".to_owned())
                .spawn(move || hub.reset_stalled_jobs())
                .expect("one more thread can be had")
        };
        Frontend {
            hub,
            address,
            server: Mutex::new(Some(server)),
            resetter: Some(resetter),
        }
    }
}

impl Drop for Frontend {
    fn drop(&mut self) {
        self.stop_answering();
        self.hub.change(|store| store.is_ended = true);
        if let Some(resetter) = self.resetter.take() {
            let _ = resetter.join();
        }
    }
}
