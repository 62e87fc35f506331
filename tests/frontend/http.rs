//! Just enough HTTP/1.1 to read requests: heads, and bodies of both framings.
//!
//! Nothing here knows what Sourcegraph is. Reading is bounded by the limits
//! below and by the timeouts that the socket carries.

use std::io::{self, BufRead, ErrorKind, Read};

/// A head larger than this is not one of ours.
const HEAD_BYTES_MAX: u64 = 64 << 10;

/// More headers than this are not sent by any client of ours.
const HEADERS_MAX: usize = 100;

/// Request line and headers.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// Verb, in capitals.
    pub(crate) method: String,
    /// Path without the query, as it was sent.
    pub(crate) path: String,
    /// What followed the question mark; empty without one.
    pub(crate) query: String,
    /// Header names in lower case, with their values.
    pub(crate) headers: Vec<(String, String)>,
    /// Whether the connection may serve another request afterwards.
    pub(crate) keep_alive: bool,
}

impl Head {
    /// Value of a header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }

    /// Whether the client waits for permission before it sends the body.
    pub(crate) fn expects_continue(&self) -> bool {
        self.header("expect")
            .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
    }

    /// Path and query, as on the request line.
    pub(crate) fn target(&self) -> String {
        if self.query.is_empty() {
            self.path.clone()
        } else {
            format!("{}?{}", self.path, self.query)
        }
    }
}

/// Value of the first header with that name, which is in lower case.
pub(crate) fn find_header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let (_, value) = headers.iter().find(|(key, _)| key == name)?;
    Some(value)
}

/// Reads the next head; `None` when the client has closed the connection.
pub(crate) fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let room = HEAD_BYTES_MAX - bytes.len() as u64;
        if reader.by_ref().take(room).read_until(b'\n', &mut bytes)? == 0 {
            return if bytes.is_empty() {
                Ok(None)
            } else {
                Err(bad("the request's head is cut off or too long"))
            };
        }
    }
    parse_head(&bytes).map(Some)
}

fn parse_head(bytes: &[u8]) -> io::Result<Head> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(bad("the request's head is incomplete")),
        Err(error) => return Err(bad(error.to_string())),
    }
    let target = request.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: Vec<(String, String)> = request
        .headers
        .iter()
        .map(|header| {
            let value = String::from_utf8_lossy(header.value).into_owned();
            (header.name.to_ascii_lowercase(), value)
        })
        .collect();
    let closes = find_header(&headers, "connection")
        .is_some_and(|value| value.to_ascii_lowercase().contains("close"));
    Ok(Head {
        method: request.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        keep_alive: request.version == Some(1) && !closes,
        headers,
    })
}

/// The body of one request, read on demand so that a large one is never held.
pub(crate) struct Body<'a, R> {
    reader: &'a mut R,
    left: Left,
    /// Bytes of content that were read so far.
    pub(crate) bytes_read: u64,
}

enum Left {
    /// Content of known length.
    Length(u64),
    /// The next thing on the wire is the size of a chunk.
    ChunkSize,
    /// Inside a chunk of which so many bytes are left.
    Chunk(u64),
    /// Everything has been read; the next request may follow.
    Nothing,
}

impl<'a, R: BufRead> Body<'a, R> {
    /// The body that belongs to a head. Two framings at once are refused, as
    /// nobody can tell which one is meant.
    pub(crate) fn new(head: &Head, reader: &'a mut R) -> io::Result<Body<'a, R>> {
        let coding = head.header("transfer-encoding");
        Body::framed(coding, head.header("content-length"), reader)
    }

    /// The same by the two headers that tell its framing.
    pub(crate) fn framed(
        coding: Option<&str>,
        length: Option<&str>,
        reader: &'a mut R,
    ) -> io::Result<Body<'a, R>> {
        let left = match (coding, length) {
            (None, None) => Left::Nothing,
            (None, Some(length)) => {
                Left::Length(length.parse().map_err(|_| bad("bad Content-Length"))?)
            }
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => Left::ChunkSize,
            _ => return Err(bad("unknown framing of a body")),
        };
        Ok(Body {
            reader,
            left,
            bytes_read: 0,
        })
    }

    /// Whether nothing of this body is left on the wire.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.left, Left::Nothing | Left::Length(0))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.reader
            .by_ref()
            .take(HEAD_BYTES_MAX)
            .read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn next_chunk(&mut self) -> io::Result<Left> {
        let line = self.line()?;
        let size = line.split(';').next().unwrap_or_default().trim();
        match u64::from_str_radix(size, 16) {
            Ok(0) => {
                while !self.line()?.is_empty() {}
                Ok(Left::Nothing)
            }
            Ok(size) => Ok(Left::Chunk(size)),
            Err(_) => Err(bad("bad size of a chunk")),
        }
    }

    fn read_some(&mut self, buffer: &mut [u8], left: u64) -> io::Result<u64> {
        let wanted = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let got = self.reader.read(&mut buffer[..wanted])?;
        if got == 0 && wanted > 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.bytes_read += got as u64;
        Ok(got as u64)
    }
}

impl<R: BufRead> Read for Body<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.left {
                Left::Nothing | Left::Length(0) => return Ok(0),
                Left::ChunkSize => self.left = self.next_chunk()?,
                Left::Length(left) => {
                    let got = self.read_some(buffer, left)?;
                    self.left = Left::Length(left - got);
                    return Ok(got as usize);
                }
                Left::Chunk(left) => {
                    let got = self.read_some(buffer, left)?;
                    self.left = Left::Chunk(left - got);
                    if left == got {
                        self.line()?;
                        self.left = Left::ChunkSize;
                    }
                    return Ok(got as usize);
                }
            }
        }
    }
}

fn bad(message: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, message.into())
}
