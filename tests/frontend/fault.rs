//! Trouble on demand: what tests let happen to requests.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::journal::Request;
use super::response::Response;

/// A fault that waits for its requests. By itself it does nothing: say what
/// shall happen by `status`, `delay` or one of the cuts.
///
/// ```ignore
/// frontend.inject(Fault::on("markComplete").times(2).status(503));
/// frontend.inject(Fault::on("heartbeat").always().delay(Duration::from_secs(60)));
/// ```
pub(crate) struct Fault {
    part: String,
    when: Box<dyn Fn(&Request) -> bool + Send>,
    left: Option<u32>,
    trouble: Trouble,
}

/// What happens to one request.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble {
    /// Wait first.
    pub(super) delay: Duration,
    /// Then, in place of the usual answer or to it.
    pub(super) action: Action,
}

/// The part of a trouble that comes after the delay.
#[derive(Clone, Debug, Default)]
pub(super) enum Action {
    /// The request is handled as usual.
    #[default]
    Handle,
    /// This is answered, and the request has no effect.
    Answer(Response),
    /// The connection is dropped, and the request has no effect.
    CutBefore,
    /// The request has its effect, then the connection is dropped without an
    /// answer.
    CutAfter,
    /// The request has its effect, then the connection is dropped inside the
    /// answer's body.
    CutWithin(u64),
    /// Status 200 is answered and then bytes without end, a piece in each of
    /// these times. The request has no effect.
    Endless(Duration),
}

impl Fault {
    /// A fault for one request whose path contains `part`. The name of a call,
    /// such as `dequeue` or `git-upload-pack`, is a part of its path.
    pub(crate) fn on(part: &str) -> Fault {
        Fault {
            part: part.to_owned(),
            when: Box::new(|_| true),
            left: Some(1),
            trouble: Trouble::default(),
        }
    }

    /// It strikes so many times before it is used up.
    pub(crate) fn times(mut self, times: u32) -> Fault {
        self.left = Some(times);
        self
    }

    /// It strikes until `clear_faults`.
    pub(crate) fn always(mut self) -> Fault {
        self.left = None;
        self
    }

    /// It strikes only requests that fulfil the condition, which must not call
    /// the frontend. A request that git shall get comes without its body.
    pub(crate) fn when(mut self, condition: impl Fn(&Request) -> bool + Send + 'static) -> Fault {
        self.when = Box::new(condition);
        self
    }

    /// The request waits; an outage or the end of the frontend cuts the wait
    /// short, and the connection with it.
    pub(crate) fn delay(mut self, delay: Duration) -> Fault {
        self.trouble.delay = delay;
        self
    }

    /// This status is answered, with an empty body.
    pub(crate) fn status(self, status: u16) -> Fault {
        self.answer(Response::empty(status))
    }

    /// The body that goes with `status`.
    pub(crate) fn body(self, body: impl Into<Vec<u8>>) -> Fault {
        let mut response = self.response();
        response.body = Arc::new(body.into());
        self.answer(response)
    }

    /// A header that goes with `status`.
    pub(crate) fn header(self, name: &str, value: &str) -> Fault {
        let response = self.response().header(name, value);
        self.answer(response)
    }

    /// The connection is dropped before the request has an effect.
    pub(crate) fn cut_before(self) -> Fault {
        self.action(Action::CutBefore)
    }

    /// The connection is dropped after the effect and before the answer.
    pub(crate) fn cut_after(self) -> Fault {
        self.action(Action::CutAfter)
    }

    /// The connection is dropped after so many bytes of the answer's body.
    pub(crate) fn cut_within(self, bytes: u64) -> Fault {
        self.action(Action::CutWithin(bytes))
    }

    /// An answer begins that has no end: pieces of 64 KiB without a pause, or
    /// single bytes with one.
    pub(crate) fn endless(self, pause: Duration) -> Fault {
        self.action(Action::Endless(pause))
    }

    fn answer(self, response: Response) -> Fault {
        self.action(Action::Answer(response))
    }

    fn action(mut self, action: Action) -> Fault {
        self.trouble.action = action;
        self
    }

    fn response(&self) -> Response {
        match &self.trouble.action {
            Action::Answer(response) => response.clone(),
            _ => Response::empty(200),
        }
    }

    /// Strikes the request if it is meant, and is one time less good after.
    pub(super) fn strike(&mut self, request: &Request) -> Option<Trouble> {
        let is_meant = request.path.contains(&self.part) && (self.when)(request);
        if self.left == Some(0) || !is_meant {
            return None;
        }
        self.left = self.left.map(|left| left - 1);
        Some(self.trouble.clone())
    }

    /// Whether it will never strike again.
    pub(super) fn is_used_up(&self) -> bool {
        self.left == Some(0)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault")
            .field("part", &self.part)
            .field("left", &self.left)
            .field("trouble", &self.trouble)
            .finish_non_exhaustive()
    }
}
