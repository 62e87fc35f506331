//! Tells the service manager that started this process how it is, by the
//! protocol of `NOTIFY_SOCKET`: datagrams that nobody answers.
//!
//! Without such a manager nothing is sent. One that does not listen changes
//! nothing here but a line in the log.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;

/// The service manager, if there is one. Cheap to clone.
#[derive(Clone, Default)]
pub struct Supervisor(Option<Arc<Line>>);

struct Line {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Supervisor {
    /// The one that listens at this address, the value of `NOTIFY_SOCKET`: a
    /// path, or `@` and an abstract name.
    pub fn at(address: &OsStr) -> io::Result<Supervisor> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        // What it does not take at once is not worth waiting for.
        socket.set_nonblocking(true)?;
        Ok(Supervisor(Some(Arc::new(Line { socket, address }))))
    }

    /// Jobs are taken from now on.
    pub fn ready(&self, status: &str) {
        if let Err(error) = self.send(&format!("READY=1\nSTATUS={status}")) {
            log::warn!(
                "The service manager does not hear that we are ready, and may end us: {error}."
            );
        }
    }

    /// The process does not end before its jobs, which may take long.
    pub fn stopping(&self, status: &str) {
        // Whoever asked us to stop knows.
        let _ = self.send(&format!("STOPPING=1\nSTATUS={status}"));
    }

    /// Whoever calls this goes on as it should.
    pub fn alive(&self) {
        // If it is lost, the next one follows soon.
        let _ = self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) -> io::Result<()> {
        match &self.0 {
            Some(line) => line
                .socket
                .send_to_addr(message.as_bytes(), &line.address)
                .map(drop),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let limit = Some(Duration::from_secs(10));
        socket.set_read_timeout(limit).unwrap();
        let mut message = [0; 256];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    }

    #[test]
    fn paths_and_abstract_names_are_reached() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        Supervisor::at(path.as_os_str()).unwrap().ready("Well.");
        assert_eq!(received(&by_path), "READY=1\nSTATUS=Well.");

        let name = format!("executor-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let abstract_one = UnixDatagram::bind_addr(&address).unwrap();
        let supervisor = Supervisor::at(OsStr::new(&format!("@{name}"))).unwrap();
        supervisor.stopping("Jobs end.");
        assert_eq!(received(&abstract_one), "STOPPING=1\nSTATUS=Jobs end.");
    }

    /// With a socket that blocks, this would not end.
    #[test]
    fn a_manager_that_does_not_read_keeps_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let deaf = UnixDatagram::bind(&path).unwrap();
        let supervisor = Supervisor::at(path.as_os_str()).unwrap();
        let is_full = (0..100_000).any(|_| supervisor.send("WATCHDOG=1").is_err());
        assert!(is_full, "the kernel keeps datagrams without an end");
        supervisor.alive();
        drop(deaf);
        supervisor.ready("Nobody hears it.");
    }
}
