//! One connection of the executor: its requests, their trouble, their answers.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::fault::{How, Place, Trouble};
use super::upstream::{AnswerHead, Patient, TICK, Upstream};
use super::{Request, Shared};
use crate::frontend::http::{self, Body, Head};

/// How long the executor may take to accept a part of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// So much of an answer is passed on at once.
const CHUNK_BYTES_MAX: usize = 16 << 10;

/// Serves a connection until the client is done with it. An error means that
/// it must be reset.
pub(super) fn serve(shared: &Shared, client: &TcpStream) -> io::Result<()> {
    client.set_read_timeout(Some(TICK))?;
    client.set_write_timeout(Some(WRITE_TIMEOUT))?;
    client.set_nodelay(true)?;
    let epoch = shared.epoch.load(Ordering::SeqCst);
    let is_ended = || shared.is_over(epoch);
    let is_over = || is_ended() || has_hung_up(client);
    let mut reader = BufReader::new(Patient {
        stream: client,
        is_over: &is_ended,
    });
    let mut upstream = None;
    while let Some(head) = http::read_head(&mut reader)? {
        let mut body = Vec::new();
        Body::new(&head, &mut reader)?.read_to_end(&mut body)?;
        let (number, trouble) = shared.admit(Request {
            at: Instant::now(),
            method: head.method.clone(),
            path: head.path.clone(),
            query: head.query.clone(),
            status: None,
            bytes: 0,
            suffered: None,
        });
        let mut exchange = Exchange {
            shared,
            client,
            number,
            is_over: &is_over,
            upstream: &mut upstream,
        };
        exchange.run(&head, &body, trouble)?;
    }
    Ok(())
}

/// Whether the client has closed its side.
fn has_hung_up(client: &TcpStream) -> bool {
    match client.set_nonblocking(true) {
        Ok(()) => {
            let peeked = client.peek(&mut [0]);
            let is_blocking = client.set_nonblocking(false).is_ok();
            !is_blocking || matches!(peeked, Ok(0)) || peeked.is_err_and(|error| is_broken(&error))
        }
        Err(_) => true,
    }
}

fn is_broken(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::WouldBlock
}

/// One request and its answer.
struct Exchange<'a, 'b> {
    shared: &'a Shared,
    client: &'a TcpStream,
    number: usize,
    is_over: &'a dyn Fn() -> bool,
    upstream: &'b mut Option<Upstream<'a>>,
}

impl<'a> Exchange<'a, '_> {
    fn run(&mut self, head: &Head, body: &[u8], trouble: Option<Trouble>) -> io::Result<()> {
        match trouble {
            Some(Trouble::ResetBefore) => Err(broken()),
            Some(Trouble::Swallow) => self.hold(),
            Some(Trouble::Answer {
                status,
                headers,
                body,
            }) => self.answer(status, &headers, &body),
            Some(Trouble::ResetAfter) => {
                self.forward(head, body)?;
                self.drop_answer()?;
                Err(broken())
            }
            Some(Trouble::SwallowAnswer) => {
                self.forward(head, body)?;
                self.drop_answer()?;
                self.hold()
            }
            Some(Trouble::Delay(time)) => {
                let end = Instant::now() + time;
                while Instant::now() < end && !self.shared.is_stopped.load(Ordering::SeqCst) {
                    thread::park_timeout(TICK);
                }
                self.forward(head, body)?;
                self.pass_answer(None)
            }
            Some(Trouble::Cut { after, place, how }) => {
                self.forward(head, body)?;
                self.pass_answer(Some(Cut::new(after, place, how)))
            }
            None => {
                self.forward(head, body)?;
                self.pass_answer(None)
            }
        }
    }

    /// Says nothing until the connection is over.
    fn hold(&self) -> io::Result<()> {
        while !(self.is_over)() {
            thread::park_timeout(TICK);
        }
        Err(broken())
    }

    fn forward(&mut self, head: &Head, body: &[u8]) -> io::Result<()> {
        let mut text = format!("{} {} HTTP/1.1\r\n", head.method, head.target());
        for (name, value) in &head.headers {
            let value = match name.as_str() {
                "host" => self.shared.api.address.as_str(),
                "transfer-encoding" | "content-length" => continue,
                _ => value,
            };
            text += &format!("{name}: {value}\r\n");
        }
        text += &format!("content-length: {}\r\n\r\n", body.len());
        if self.upstream.is_none() {
            *self.upstream = Some(self.shared.api.connect(self.is_over)?);
        }
        self.upstream().send(text.as_bytes(), body)
    }

    fn upstream(&mut self) -> &mut Upstream<'a> {
        self.upstream.as_mut().expect("it was connected before")
    }

    /// Reads the answer for its effect alone.
    fn drop_answer(&mut self) -> io::Result<()> {
        let head = self.upstream().head()?;
        let mut body = self.upstream().body(&head)?;
        io::copy(&mut body, &mut io::sink()).map(drop)
    }

    fn answer(&mut self, status: u16, headers: &[(String, String)], body: &str) -> io::Result<()> {
        let mut text = format!("HTTP/1.1 {status} Trouble\r\ncontent-type: application/json\r\n");
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += &format!("content-length: {}\r\n\r\n{body}", body.len());
        self.shared.answered(self.number, status);
        self.client.write_all(text.as_bytes())
    }

    /// Passes the answer on as it comes, up to a cut.
    fn pass_answer(&mut self, mut cut: Option<Cut>) -> io::Result<()> {
        let (shared, number, client) = (self.shared, self.number, self.client);
        let (is_over, clears) = (self.is_over, shared.clears());
        let head = self.upstream().head()?;
        shared.answered(number, head.status);
        let mut outlet = Outlet::open(client, &head)?;
        let mut body = self.upstream().body(&head)?;
        let mut buffer = [0; CHUNK_BYTES_MAX];
        loop {
            let count = body.read(&mut buffer)?;
            if count == 0 {
                return outlet.close();
            }
            let bytes = &buffer[..count];
            let allowed = cut.as_mut().map_or(count, |cut| cut.allow(bytes));
            outlet.write(&bytes[..allowed])?;
            shared.passed(number, allowed);
            let Some(reached) = cut.take_if(|cut| cut.is_reached) else {
                continue;
            };
            if let How::Pause = reached.how {
                while shared.clears() == clears && !is_over() {
                    thread::park_timeout(TICK);
                }
                outlet.write(&bytes[allowed..])?;
                shared.passed(number, count - allowed);
                continue;
            }
            drop(body);
            // What is left of the answer is in the way of the next one.
            *self.upstream = None;
            return match reached.how {
                How::Clean => outlet.close(),
                How::Mute => self.hold(),
                How::Reset | How::Pause => Err(broken()),
            };
        }
    }
}

/// Writes an answer in the framing that its head has.
struct Outlet<'a> {
    client: &'a TcpStream,
    is_chunked: bool,
}

impl<'a> Outlet<'a> {
    fn open(client: &'a TcpStream, head: &AnswerHead) -> io::Result<Outlet<'a>> {
        let mut text = format!("HTTP/1.1 {} Passed on\r\n", head.status);
        for (name, value) in &head.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        let mut outlet = Outlet {
            client,
            is_chunked: head.header("transfer-encoding").is_some(),
        };
        outlet.client.write_all(text.as_bytes())?;
        Ok(outlet)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if !self.is_chunked {
            return self.client.write_all(bytes);
        }
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.client.write_all(&chunk)
    }

    fn close(mut self) -> io::Result<()> {
        match self.is_chunked {
            true => self.client.write_all(b"0\r\n\r\n"),
            false => Ok(()),
        }
    }
}

/// Finds the place of a cut in the bytes of an answer.
struct Cut {
    after: u64,
    place: Place,
    how: How,
    passed: u64,
    /// Set once the line has ended after which the cut comes.
    left: Option<usize>,
    is_reached: bool,
}

impl Cut {
    fn new(after: u64, place: Place, how: How) -> Cut {
        Cut {
            after,
            place,
            how,
            passed: 0,
            left: None,
            is_reached: false,
        }
    }

    /// How many of these bytes may pass.
    fn allow(&mut self, bytes: &[u8]) -> usize {
        let mut allowed = 0;
        for byte in bytes {
            if self.is_here() {
                self.is_reached = true;
                break;
            }
            if let Some(left) = &mut self.left {
                *left -= 1;
            } else if self.passed >= self.after && *byte == b'\n' {
                self.left = match self.place {
                    Place::Here => None,
                    Place::AtBorder => Some(0),
                    Place::InStamp => Some(10),
                };
            }
            self.passed += 1;
            allowed += 1;
        }
        self.is_reached |= self.is_here();
        allowed
    }

    fn is_here(&self) -> bool {
        match self.place {
            Place::Here => self.passed >= self.after,
            Place::AtBorder | Place::InStamp => self.left == Some(0),
        }
    }
}

fn broken() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}
