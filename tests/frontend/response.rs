//! Answers, and the socket that they are written to.

use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// An answer whose body is at hand.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    /// Status code.
    pub(crate) status: u16,
    /// Headers beside the framing, which is added when it is written.
    pub(crate) headers: Vec<(String, String)>,
    /// Content; shared, so that serving a file does not copy it.
    pub(crate) body: Arc<Vec<u8>>,
}

impl Response {
    /// An answer without content.
    pub(crate) fn empty(status: u16) -> Response {
        Response::bytes(status, Vec::new())
    }

    /// An answer with bytes of no special type.
    pub(crate) fn bytes(status: u16, body: impl Into<Arc<Vec<u8>>>) -> Response {
        Response {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// A line of text, as Go's `http.Error` writes it.
    pub(crate) fn text(status: u16, text: impl AsRef<str>) -> Response {
        let line = format!("{}\n", text.as_ref());
        Response::bytes(status, line.into_bytes())
            .header("Content-Type", "text/plain; charset=utf-8")
    }

    /// A JSON document.
    pub(crate) fn json(status: u16, value: &serde_json::Value) -> Response {
        Response::bytes(status, value.to_string().into_bytes())
            .header("Content-Type", "application/json")
    }

    /// A handler's error, in the form that queue routes use.
    pub(crate) fn error(message: impl AsRef<str>) -> Response {
        Response::json(500, &serde_json::json!({ "error": message.as_ref() }))
    }

    /// The same answer with one header more.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Response {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Where an answer is written: a socket that may be told to fail early.
pub(crate) struct Outlet<'a> {
    stream: &'a TcpStream,
    allowance: Option<u64>,
}

impl<'a> Outlet<'a> {
    /// Writes to `stream`; with an allowance, a body is cut after that many bytes.
    pub(crate) fn new(stream: &'a TcpStream, allowance: Option<u64>) -> Outlet<'a> {
        Outlet { stream, allowance }
    }

    /// The socket itself.
    pub(crate) fn stream(&self) -> &'a TcpStream {
        self.stream
    }

    /// Tells the client that it may send the body.
    pub(crate) fn go_on(&mut self) -> io::Result<()> {
        self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
    }

    /// Writes a whole answer; one to `HEAD` has the length but not the content.
    pub(crate) fn send(&mut self, response: &Response, to_head: bool) -> io::Result<()> {
        let mut headers = response.headers.clone();
        if response.status != 204 {
            headers.push(("Content-Length".to_owned(), response.body.len().to_string()));
        }
        self.send_head(response.status, &headers)?;
        if to_head {
            Ok(())
        } else {
            self.send_content(&response.body)
        }
    }

    /// Writes status line and headers.
    pub(crate) fn send_head(
        &mut self,
        status: u16,
        headers: &[(String, String)],
    ) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(status));
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.stream.write_all(head.as_bytes())
    }

    /// Writes content, up to the allowance.
    pub(crate) fn send_content(&mut self, bytes: &[u8]) -> io::Result<()> {
        let allowed = self.allowance.unwrap_or(u64::MAX);
        let sent = bytes
            .len()
            .min(usize::try_from(allowed).unwrap_or(usize::MAX));
        self.stream.write_all(&bytes[..sent])?;
        self.allowance = self.allowance.map(|left| left - sent as u64);
        if self.allowance == Some(0) {
            return Err(io::Error::new(
                ErrorKind::ConnectionAborted,
                "cut by a fault",
            ));
        }
        Ok(())
    }

    /// Writes one chunk of a body of unknown length; an empty one ends it.
    pub(crate) fn send_chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream
            .write_all(format!("{:x}\r\n", bytes.len()).as_bytes())?;
        if !bytes.is_empty() {
            self.send_content(bytes)?;
        }
        self.stream.write_all(b"\r\n")
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Status",
    }
}
