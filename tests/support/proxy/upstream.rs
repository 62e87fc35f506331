//! The side towards the API server: TLS, and answers as they come.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use crate::frontend::http::{self, Body};

/// How long a connection may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a wait looks whether it is over.
pub(super) const TICK: Duration = Duration::from_millis(50);
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 64;

/// Where the API server is, and whom to trust.
pub(super) struct ApiServer {
    /// Host and port.
    pub(super) address: String,
    config: Arc<ClientConfig>,
}

/// What decides whether a wait is over.
pub(super) type IsOver<'a> = &'a dyn Fn() -> bool;

/// A connection to the API server.
pub(super) struct Upstream<'a> {
    reader: BufReader<Patient<'a, StreamOwned<ClientConnection, TcpStream>>>,
}

/// The head of an answer.
pub(super) struct AnswerHead {
    pub(super) status: u16,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
}

impl AnswerHead {
    /// Value of a header, by its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        http::find_header(&self.headers, name)
    }
}

impl ApiServer {
    /// The one of a kubeconfig's cluster.
    pub(super) fn of(cluster: &Value) -> ApiServer {
        let server = cluster["server"].as_str().expect("a cluster has a server");
        let address = server.strip_prefix("https://").expect("it speaks TLS");
        let authority = cluster["certificate-authority-data"].as_str();
        let authority = STANDARD.decode(authority.expect("a cluster has an authority"));
        let pem = authority.expect("it is base64");
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.expect("it is a certificate");
            roots.add(certificate).expect("it can be trusted");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows today's versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        ApiServer {
            address: address.trim_end_matches('/').to_owned(),
            config: Arc::new(config),
        }
    }

    /// Connects; waits on the connection end when `is_over` says so.
    pub(super) fn connect<'a>(&self, is_over: IsOver<'a>) -> io::Result<Upstream<'a>> {
        let host = self.address.rsplit_once(':').map_or("", |(host, _)| host);
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let config = Arc::clone(&self.config);
        let session = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let socket = TcpStream::connect(&self.address)?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(CONNECT_TIMEOUT))?;
        socket.set_read_timeout(Some(TICK))?;
        let stream = Patient {
            stream: StreamOwned::new(session, socket),
            is_over,
        };
        Ok(Upstream {
            reader: BufReader::new(stream),
        })
    }
}

impl Upstream<'_> {
    /// Sends a request.
    pub(super) fn send(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        let stream = self.reader.get_mut();
        // The handshake reads as well, and must not give up at each tick.
        while stream.stream.conn.is_handshaking() {
            let connection = &mut stream.stream;
            match connection.conn.complete_io(&mut connection.sock) {
                Ok(_) => {}
                Err(error) if is_tick(&error) && !(stream.is_over)() => {}
                Err(error) => return Err(error),
            }
        }
        stream.stream.write_all(head)?;
        stream.stream.write_all(body)?;
        stream.stream.flush()
    }

    /// Reads the head of the answer.
    pub(super) fn head(&mut self) -> io::Result<AnswerHead> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.reader.read_exact(&mut byte)?;
            bytes.push(byte[0]);
            if bytes.len() > HEAD_BYTES_MAX {
                return Err(io::Error::other("the answer's head is too long"));
            }
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut answer = httparse::Response::new(&mut headers);
        answer.parse(&bytes).map_err(io::Error::other)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(AnswerHead {
            status: answer.code.unwrap_or_default(),
            headers: answer
                .headers
                .iter()
                .map(|header| (header.name.to_ascii_lowercase(), text(header.value)))
                .collect(),
        })
    }

    /// The body that belongs to the head.
    pub(super) fn body(&mut self, head: &AnswerHead) -> io::Result<impl Read> {
        let coding = head.header("transfer-encoding");
        let length = head.header("content-length");
        Body::framed(coding, length, &mut self.reader)
    }
}

/// Reads from a socket with a time-out, again and again until it is over.
pub(super) struct Patient<'a, S> {
    pub(super) stream: S,
    pub(super) is_over: IsOver<'a>,
}

impl<S: Read> Read for Patient<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if is_tick(&error) && !(self.is_over)() => {}
                other => return other,
            }
        }
    }
}

fn is_tick(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
