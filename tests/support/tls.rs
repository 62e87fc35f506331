//! HTTPS before a frontend that speaks plain HTTP, with a certificate authority
//! of its own that nobody trusts by himself.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

/// What openssl is to make; its own defaults differ from machine to machine.
const OPENSSL_SETTINGS: &str = "
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[server]
basicConstraints = CA:FALSE
subjectAltName = IP:";

/// How long either side may say nothing.
const SILENCE: Duration = Duration::from_secs(120);

/// Passes everything on that comes in over TLS, until it is dropped.
pub(crate) struct Terminator {
    address: SocketAddr,
    dir: tempfile::TempDir,
    is_stopped: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Terminator {
    /// One before a server, at the server's own IP address.
    pub(crate) fn before(server: SocketAddr) -> Terminator {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let config = Arc::new(certify(dir.path(), server.ip()));
        let listener = TcpListener::bind((server.ip(), 0)).expect("a port is free");
        let address = listener.local_addr().expect("the listener has an address");
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&is_stopped);
        let accepting = thread::Builder::new()
            .name("tls-accept".to_owned())
            .spawn(move || accept(&listener, server, &config, &stopped))
            .expect("one more thread can be had");
        Terminator {
            address,
            dir,
            is_stopped,
            accepting: Some(accepting),
        }
    }

    /// Base address, without a slash at its end.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The certificate to trust.
    pub(crate) fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        // The listener looks at the flag after each connection, so give it one.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

/// Makes an authority, and a certificate for the address that it signs.
fn certify(dir: &Path, address: IpAddr) -> ServerConfig {
    let settings = format!("{OPENSSL_SETTINGS}{address}\n");
    std::fs::write(dir.join("openssl.cnf"), settings).expect("the directory is writable");
    let request = "req -config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for line in [
        "-x509 -days 2 -subj /CN=authority -extensions authority -keyout ca.key -out ca.pem",
        "-subj /CN=server -keyout server.key -out server.csr",
    ] {
        openssl(dir, &format!("{request} {line}"));
    }
    openssl(
        dir,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -set_serial 1 -days 2 \
         -extfile openssl.cnf -extensions server -out server.pem",
    );
    let certificate = CertificateDer::from_pem_file(dir.join("server.pem")).expect("openssl's PEM");
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).expect("openssl's PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows the versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("the key is that of the certificate")
}

fn openssl(dir: &Path, line: &str) {
    let output = Command::new("openssl")
        .args(line.split_whitespace())
        .current_dir(dir)
        .output()
        .expect("openssl can be run");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {line}: {error}");
}

fn accept(
    listener: &TcpListener,
    server: SocketAddr,
    config: &Arc<ServerConfig>,
    is_stopped: &AtomicBool,
) {
    thread::scope(|scope| {
        for client in listener.incoming() {
            if is_stopped.load(Ordering::SeqCst) {
                return;
            }
            // What fails is one connection; its client will notice.
            scope.spawn(|| client.and_then(|client| relay(&client, server, config)));
        }
    });
}

/// Serves one connection, in two threads: one for each direction.
fn relay(client: &TcpStream, server: SocketAddr, config: &Arc<ServerConfig>) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    for stream in [client, &server] {
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        stream.set_nodelay(true)?;
    }
    let session = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    let session = Mutex::new(session);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = answers(client, &server, &session);
            let _ = client.shutdown(Shutdown::Both);
        });
        let result = requests(client, &server, &session);
        let _ = server.shutdown(Shutdown::Both);
        result
    })
}

fn requests(
    mut client: &TcpStream,
    mut server: &TcpStream,
    session: &Mutex<ServerConnection>,
) -> io::Result<()> {
    let mut block = [0; 16 << 10];
    loop {
        let count = client.read(&mut block)?;
        let mut received = &block[..count];
        if received.is_empty() {
            return Ok(());
        }
        while !received.is_empty() {
            let mut plain = Vec::new();
            {
                let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
                session.read_tls(&mut received)?;
                let state = session.process_new_packets();
                // Among them the alert that says why, should the state be bad.
                while session.wants_write() {
                    session.write_tls(&mut client)?;
                }
                plain.resize(
                    state.map_err(io::Error::other)?.plaintext_bytes_to_read(),
                    0,
                );
                session.reader().read_exact(&mut plain)?;
            }
            server.write_all(&plain)?;
        }
    }
}

fn answers(
    mut client: &TcpStream,
    mut server: &TcpStream,
    session: &Mutex<ServerConnection>,
) -> io::Result<()> {
    let mut block = [0; 16 << 10];
    loop {
        let count = server.read(&mut block)?;
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        match count {
            0 => session.send_close_notify(),
            _ => session.writer().write_all(&block[..count])?,
        }
        while session.wants_write() {
            session.write_tls(&mut client)?;
        }
        if count == 0 {
            return Ok(());
        }
    }
}
