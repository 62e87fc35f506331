//! One connection of a client that may be anybody: a request is read, as far
//! as it matters, and answered once.
//!
//! It never blocks and never holds more than a small head and one answer. When
//! it is given up, and in whose favour, is the server's business.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use crate::metrics::pages::{Pages, response};

/// A scrape is done in milliseconds; who needs longer for question and answer
/// is gone, or means no good.
const TIME_MAX: Duration = Duration::from_secs(10);
/// What monitoring systems send is a tenth of it.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// A connection and how far it has come.
pub(super) struct Connection {
    stream: TcpStream,
    /// When it is closed, however far it has come.
    pub(super) deadline: Instant,
    state: State,
}

enum State {
    /// The head so far.
    Reading(Vec<u8>),
    /// The answer, and how much of it was sent.
    Writing(Vec<u8>, usize),
}

impl Connection {
    /// Begins with a stream that was just accepted.
    pub(super) fn new(stream: TcpStream) -> io::Result<Connection> {
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream,
            deadline: Instant::now() + TIME_MAX,
            state: State::Reading(Vec::new()),
        })
    }

    /// The socket, to wait for.
    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// What the connection waits for.
    pub(super) fn awaits(&self) -> PollFlags {
        match self.state {
            State::Reading(_) => PollFlags::IN,
            State::Writing(..) => PollFlags::OUT,
        }
    }

    /// Does what can be done now. False when nothing is left to do.
    pub(super) fn advance(&mut self, pages: &Pages) -> bool {
        match self.step(pages) {
            Ok(open) => open,
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    fn step(&mut self, pages: &Pages) -> io::Result<bool> {
        match &mut self.state {
            State::Reading(head) => {
                let mut piece = [0; 1024];
                let length = self.stream.read(&mut piece)?;
                head.extend_from_slice(&piece[..length]);
                if let Some(answer) = answer(head, pages) {
                    self.state = State::Writing(answer, 0);
                    return self.step(pages);
                }
                Ok(length > 0)
            }
            State::Writing(answer, sent) => {
                *sent += self.stream.write(&answer[*sent..])?;
                Ok(*sent < answer.len())
            }
        }
    }
}

/// The answer to a head, when there is enough of it to tell.
pub(super) fn answer(head: &[u8], pages: &Pages) -> Option<Vec<u8>> {
    let is_complete = head.windows(4).any(|end| end == b"\r\n\r\n");
    if is_complete {
        return Some(pages.answer(request_line(head)));
    }
    (head.len() > HEAD_BYTES_MAX).then(|| response("431 Request Header Fields Too Large", "", ""))
}

/// The first line; what follows it does not matter here.
fn request_line(head: &[u8]) -> &str {
    let end = head.iter().position(|byte| *byte == b'\r');
    std::str::from_utf8(&head[..end.unwrap_or_default()]).unwrap_or_default()
}
