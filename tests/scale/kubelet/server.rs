//! The kubelet's port: logs of containers for the API server, over TLS, which
//! does not look at the certificate.

use std::io::{self, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use super::lock;
use super::log::{Log, Logs};
use crate::frontend::http::{Head, read_head};
use crate::support::cluster::host_address;
use crate::support::tls::Terminator;

/// Where logs are on a kubelet.
const LOGS: &str = "/containerLogs/";
/// No container is silent for longer.
const SILENCE: Duration = Duration::from_secs(120);

/// Serves logs until it is dropped.
pub(super) struct Server {
    terminator: Terminator,
    connections: Connections,
}

/// Those that are open, and remains of those that were.
type Connections = Arc<Mutex<Vec<Weak<TcpStream>>>>;

impl Server {
    /// On a free port of the address under which the API server reaches us.
    pub(super) fn start(logs: Logs) -> Server {
        let listener = TcpListener::bind((host_address(), 0)).expect("a port is free");
        let plain = listener.local_addr().expect("the listener has an address");
        let connections = Connections::default();
        let open = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let stream = Arc::new(stream);
                lock(&open).push(Arc::downgrade(&stream));
                let logs = logs.clone();
                // The API server opens another connection when one breaks.
                thread::spawn(move || serve(&stream, &logs));
            }
        });
        Server {
            terminator: Terminator::before(plain),
            connections,
        }
    }

    /// Where TLS is spoken.
    pub(super) fn address(&self) -> SocketAddr {
        let url = self.terminator.url();
        let address = url.strip_prefix("https://").unwrap_or(&url).parse();
        address.expect("it is an IP address with a port")
    }
}

impl Drop for Server {
    /// Ends the connections that the API server keeps for later, since the
    /// terminator waits for all of them.
    fn drop(&mut self) {
        for stream in lock(&self.connections).iter().filter_map(Weak::upgrade) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// One request after the other, as long as the connection lasts.
fn serve(mut stream: &TcpStream, logs: &Logs) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let mut reader = BufReader::new(stream);
    while let Some(head) = read_head(&mut reader)? {
        match find(&head, logs) {
            Some(log) => {
                let ok = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\
                          Transfer-Encoding: chunked\r\n\r\n";
                stream.write_all(ok.as_bytes())?;
                send(stream, &log, since(&head))?;
            }
            None => {
                let answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer.as_bytes())?;
            }
        }
    }
    Ok(())
}

/// The log of `/containerLogs/NAMESPACE/POD/CONTAINER`.
fn find(head: &Head, logs: &Logs) -> Option<Arc<Log>> {
    let mut parts = head.path.strip_prefix(LOGS)?.split('/').skip(1);
    logs.find(parts.next()?, parts.next()?)
}

/// The whole second from which on lines are wanted.
fn since(head: &Head) -> Timestamp {
    let query = head.query.replace("%3A", ":");
    let mut parameters = query.split('&');
    let since = parameters.find_map(|parameter| parameter.strip_prefix("sinceTime="));
    since
        .and_then(|time| time.parse().ok())
        .unwrap_or(Timestamp::MIN)
}

/// A chunk for whatever is there, until the log is closed.
fn send(mut stream: &TcpStream, log: &Log, since: Timestamp) -> io::Result<()> {
    let mut number = 0;
    loop {
        let lines = log.read_from(number, SILENCE);
        if lines.is_empty() {
            return stream.write_all(b"0\r\n\r\n");
        }
        number += lines.len();
        let wanted = lines.iter().filter(|(time, _)| *time >= since);
        let text: String = wanted
            .map(|(time, line)| format!("{time} {line}\n"))
            .collect();
        if !text.is_empty() {
            stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())?;
        }
    }
}
