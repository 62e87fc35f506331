//! One connection: reads requests, lets trouble happen, sends answers.

use std::io::{self, BufReader, Read};
use std::net::TcpStream;
use std::time::Duration;

use super::auth;
use super::fault::{Action, Trouble};
use super::git;
use super::http::{self, Body, Head};
use super::hub::Hub;
use super::journal::{BODY_BYTES_KEPT, Request};
use super::queue;
use super::report::{self, Reported};
use super::response::{Outlet, Response};
use super::route::{self, Route};

/// How long a client may say nothing, between requests or inside of one.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a client may take to accept a part of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// More of a body than this is not read.
const BODY_BYTES_MAX: u64 = 4 << 30;

/// Of a body that nobody wants, so much is read to keep the connection.
const UNWANTED_BYTES_MAX: u64 = 1 << 20;

/// Serves a connection until either side is done with it. Errors end it and
/// are the client's to notice.
pub(super) fn serve(hub: &Hub, stream: &TcpStream, epoch: u64) -> io::Result<()> {
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(64 << 10, stream.try_clone()?);
    while let Some(head) = http::read_head(&mut reader)? {
        let exchange = Exchange {
            hub,
            stream,
            epoch,
            head: &head,
        };
        if !exchange.run(&mut reader)? {
            break;
        }
    }
    Ok(())
}

/// One request and its answer.
struct Exchange<'a> {
    hub: &'a Hub,
    stream: &'a TcpStream,
    epoch: u64,
    head: &'a Head,
}

type RequestBody<'a> = Body<'a, BufReader<TcpStream>>;

impl Exchange<'_> {
    /// Handles the request; true when another one may follow.
    fn run(&self, reader: &mut BufReader<TcpStream>) -> io::Result<bool> {
        let mut body = Body::new(self.head, reader)?;
        let route = route::find(&self.hub.settings, self.head);
        let is_git = matches!(route, Ok(Route::Git { .. }));
        let content = if is_git {
            Vec::new()
        } else {
            self.read_whole(&mut body)?
        };
        let mut request = Request::new(self.head);
        request.body = content[..content.len().min(BODY_BYTES_KEPT)].to_vec();
        request.body_length = content.len() as u64;
        let (number, trouble) = self.hub.admit(request);
        let result = self.suffer(route, trouble, &content, &mut body);
        let status = *result.as_ref().unwrap_or(&None);
        self.hub
            .change(|store| store.journal.close(number, status, body.bytes_read));
        let was_answered = result?.is_some();
        Ok(was_answered && self.head.keep_alive && self.skip_rest(&mut body)?)
    }

    fn read_whole(&self, body: &mut RequestBody<'_>) -> io::Result<Vec<u8>> {
        if self.head.expects_continue() {
            Outlet::new(self.stream, None).go_on()?;
        }
        let mut content = Vec::new();
        body.take(BODY_BYTES_MAX).read_to_end(&mut content)?;
        Ok(content)
    }

    /// Reads what is left of the body. False when the connection cannot go on:
    /// too much is left, or the client waits to be told to send it.
    fn skip_rest(&self, body: &mut RequestBody<'_>) -> io::Result<bool> {
        let is_held_back = self.head.expects_continue() && body.bytes_read == 0;
        if !body.is_finished() && !is_held_back {
            io::copy(&mut body.take(UNWANTED_BYTES_MAX), &mut io::sink())?;
        }
        Ok(body.is_finished())
    }

    /// Lets the trouble happen, if there is some. Gives the status of the
    /// answer, or none when the connection shall be cut instead.
    fn suffer(
        &self,
        route: Result<Route, Response>,
        trouble: Trouble,
        content: &[u8],
        body: &mut RequestBody<'_>,
    ) -> io::Result<Option<u16>> {
        if !trouble.delay.is_zero() && !self.hub.pause(trouble.delay, self.epoch) {
            return Ok(None);
        }
        match &trouble.action {
            Action::CutBefore => Ok(None),
            Action::Answer(response) => self.send(response, None).map(Some),
            Action::Endless(pause) => self.send_endlessly(*pause).map(Some),
            action => match route {
                Err(refusal) => self.send(&refusal, None).map(Some),
                Ok(Route::Git { repository, rest }) => self.git(&repository, rest, action, body),
                Ok(route) => self.answer(&route, action, content),
            },
        }
    }

    /// Handles a call whose answer is short.
    fn answer(&self, route: &Route, action: &Action, content: &[u8]) -> io::Result<Option<u16>> {
        let (response, receipt) = self.handle(route, content);
        let sent = match action {
            Action::CutAfter => Ok(None),
            _ => self.send(&response, action.allowance()).map(Some),
        };
        if let (Some(receipt), Err(_) | Ok(None)) = (receipt, &sent) {
            self.hub.change(|store| store.answer_lost(receipt));
        }
        sent
    }

    fn handle(&self, route: &Route, content: &[u8]) -> Reported {
        let (hub, head) = (self.hub, self.head);
        let result = match route {
            Route::AddLog(queue) => return report::log(hub, *queue, true, head, content),
            Route::UpdateLog(queue) => return report::log(hub, *queue, false, head, content),
            Route::Mark(queue, kind) => return report::mark(hub, *queue, *kind, head, content),
            Route::Dequeue(queue) => queue::dequeue(hub, *queue, head, content),
            Route::Heartbeat(queue) => queue::heartbeat(hub, *queue, head, content),
            Route::File(key) => report::file(hub, key, head),
            Route::TestAuth => {
                auth::executor(&hub.settings, head).map(|()| Response::bytes(200, b"ok".to_vec()))
            }
            Route::Git { .. } => unreachable!("git answers for itself"),
        };
        (result.unwrap_or_else(|refusal| refusal), None)
    }

    fn git(
        &self,
        repository: &str,
        rest: &str,
        action: &Action,
        body: &mut RequestBody<'_>,
    ) -> io::Result<Option<u16>> {
        match git::admit(self.hub, repository, self.head) {
            Err(refusal) => self.send(&refusal, None).map(Some),
            // A fetch has no effect on the server, so that there is no after.
            Ok(_) if matches!(action, Action::CutAfter) => Ok(None),
            Ok(directory) => {
                let outlet = Outlet::new(self.stream, action.allowance());
                git::serve(&directory, rest, self.head, body, outlet).map(Some)
            }
        }
    }

    /// Sends until the client has had enough, or the frontend ends.
    fn send_endlessly(&self, pause: Duration) -> io::Result<u16> {
        let mut outlet = Outlet::new(self.stream, None);
        let framing = ("Transfer-Encoding".to_owned(), "chunked".to_owned());
        outlet.send_head(200, &[framing])?;
        let piece = vec![b' '; if pause.is_zero() { 64 * 1024 } else { 1 }];
        while pause.is_zero() || self.hub.pause(pause, self.epoch) {
            outlet.send_chunk(&piece)?;
        }
        Ok(200)
    }

    fn send(&self, response: &Response, allowance: Option<u64>) -> io::Result<u16> {
        let mut outlet = Outlet::new(self.stream, allowance);
        outlet.send(response, self.head.method == "HEAD")?;
        Ok(response.status)
    }
}
