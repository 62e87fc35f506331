//! What goes wrong, with which requests, and how often.

use std::fmt;
use std::time::Duration;

use super::Request;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Any request at all.
    Any,
    /// A list of pods.
    List,
    /// The watch of pods.
    Watch,
    /// The log of a container.
    Log,
    /// The creation of any object.
    AnyCreate,
    /// The creation of an object of this kind, such as `jobs`.
    Create(&'static str),
    /// The deletion of one.
    Delete(&'static str),
}

impl Call {
    /// Whether a request is of this kind.
    pub(crate) fn is(self, request: &Request) -> bool {
        let Request { method, path, .. } = request;
        let is_get = |end: &str| method == "GET" && path.ends_with(end);
        let is_watch = request.query.contains("watch=true");
        match self {
            Call::Any => true,
            Call::List => is_get("/pods") && !is_watch,
            Call::Watch => is_get("/pods") && is_watch,
            Call::Log => is_get("/log"),
            Call::AnyCreate => method == "POST",
            Call::Create(kind) => method == "POST" && path.ends_with(&format!("/{kind}")),
            Call::Delete(kind) => method == "DELETE" && path.contains(&format!("/{kind}/")),
        }
    }
}

/// A fault that waits for its requests.
///
/// ```ignore
/// proxy.inject(Fault::on(Call::Create("jobs")).times(2).answer(503));
/// proxy.inject(Fault::on(Call::Log).of("step-0").times(12).cut(20_000, Place::InStamp));
/// ```
pub(crate) struct Fault {
    call: Call,
    part: String,
    skip: u32,
    /// How often it is to strike; without end if none.
    times: Option<u32>,
    struck: u32,
    is_over: bool,
    /// Whether it is fine if it strikes less often than it was meant to.
    may_miss: bool,
    trouble: Trouble,
    /// Added to where the answer is cut with each strike.
    further: u64,
}

/// What happens to one request.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// This is answered, and the request goes no further.
    Answer {
        status: u16,
        headers: Vec<(String, String)>,
        body: String,
    },
    /// The connection is reset, and the request goes no further.
    ResetBefore,
    /// The request has its effect, then the connection is reset.
    ResetAfter,
    /// The request goes no further and is never answered.
    Swallow,
    /// The request has its effect and is never answered.
    SwallowAnswer,
    /// The request goes on its way only after a while.
    Delay(Duration),
    /// The answer's body ends early.
    Cut { after: u64, place: Place, how: How },
}

/// Where an answer is cut, after so many bytes of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Just there.
    Here,
    /// After the next end of a line.
    AtBorder,
    /// Ten bytes into the line after that, which is inside of its time.
    InStamp,
}

/// How an answer ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// The connection is reset.
    Reset,
    /// As if all were said.
    Clean,
    /// Nothing comes any more, and the connection stays open.
    Mute,
    /// It goes on when all trouble is cleared.
    Pause,
}

impl Fault {
    /// A fault for one request of this kind.
    pub(crate) fn on(call: Call) -> Fault {
        Fault {
            call,
            part: String::new(),
            skip: 0,
            times: Some(1),
            struck: 0,
            is_over: false,
            may_miss: false,
            trouble: Trouble::ResetBefore,
            further: 0,
        }
    }

    /// Only requests whose path or query contains this.
    pub(crate) fn of(mut self, part: &str) -> Fault {
        self.part = part.to_owned();
        self
    }

    /// It lets so many requests pass first.
    pub(crate) fn skip(mut self, skip: u32) -> Fault {
        self.skip = skip;
        self
    }

    /// It strikes so many times.
    pub(crate) fn times(mut self, times: u32) -> Fault {
        self.times = Some(times);
        self
    }

    /// It strikes until `Proxy::clear`, and once at least.
    pub(crate) fn always(mut self) -> Fault {
        self.times = None;
        self
    }

    /// It may strike less often, or not at all: chance decides.
    pub(crate) fn perhaps(mut self) -> Fault {
        self.may_miss = true;
        self
    }

    /// Each strike cuts so many bytes later than the one before.
    pub(crate) fn further(mut self, bytes: u64) -> Fault {
        self.further = bytes;
        self
    }

    /// The request is refused with this status, in Kubernetes' own form.
    pub(crate) fn answer(self, status: u16) -> Fault {
        self.refuse(status, Vec::new())
    }

    /// The same, with the number of seconds to stay away.
    pub(crate) fn answer_retry_after(self, status: u16, seconds: u32) -> Fault {
        let header = ("Retry-After".to_owned(), seconds.to_string());
        self.refuse(status, vec![header])
    }

    fn refuse(self, status: u16, headers: Vec<(String, String)>) -> Fault {
        let body = status_object(status);
        self.trouble(Trouble::Answer {
            status,
            headers,
            body,
        })
    }

    /// A watch that begins well and at once ends well.
    pub(crate) fn say_nothing(self) -> Fault {
        self.trouble(Trouble::Answer {
            status: 200,
            headers: Vec::new(),
            body: String::new(),
        })
    }

    /// A watch that begins well and at once says that it is too old.
    pub(crate) fn say_gone(self) -> Fault {
        let object = status_object(410);
        self.trouble(Trouble::Answer {
            status: 200,
            headers: Vec::new(),
            body: format!("{{\"type\":\"ERROR\",\"object\":{object}}}\n"),
        })
    }

    /// The connection breaks before the request has an effect.
    pub(crate) fn reset_before(self) -> Fault {
        self.trouble(Trouble::ResetBefore)
    }

    /// The connection breaks after the effect and before the answer.
    pub(crate) fn reset_after(self) -> Fault {
        self.trouble(Trouble::ResetAfter)
    }

    /// The request is taken and never answered; it has no effect.
    pub(crate) fn swallow(self) -> Fault {
        self.trouble(Trouble::Swallow)
    }

    /// The request has its effect and is never answered.
    pub(crate) fn swallow_answer(self) -> Fault {
        self.trouble(Trouble::SwallowAnswer)
    }

    /// The request is kept for a while and then passed on, even if nobody
    /// waits for it any more.
    pub(crate) fn delay(self, time: Duration) -> Fault {
        self.trouble(Trouble::Delay(time))
    }

    /// The connection breaks inside of the answer.
    pub(crate) fn cut(self, after: u64, place: Place) -> Fault {
        let how = How::Reset;
        self.trouble(Trouble::Cut { after, place, how })
    }

    /// The answer ends early, as if all were said.
    pub(crate) fn end_early(self, after: u64, place: Place) -> Fault {
        let how = How::Clean;
        self.trouble(Trouble::Cut { after, place, how })
    }

    /// The answer goes silent, and the connection stays open.
    pub(crate) fn mute(self, after: u64, place: Place) -> Fault {
        let how = How::Mute;
        self.trouble(Trouble::Cut { after, place, how })
    }

    /// The answer goes silent until `Proxy::clear`, and then goes on.
    pub(crate) fn pause(self, after: u64, place: Place) -> Fault {
        let how = How::Pause;
        self.trouble(Trouble::Cut { after, place, how })
    }

    fn trouble(mut self, trouble: Trouble) -> Fault {
        self.trouble = trouble;
        self
    }

    /// Strikes the request if it is meant.
    pub(super) fn strike(&mut self, request: &Request) -> Option<Trouble> {
        let has_part = request.path.contains(&self.part) || request.query.contains(&self.part);
        let is_used_up = self.times.is_some_and(|times| self.struck >= times);
        if self.is_over || is_used_up || !has_part || !self.call.is(request) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.struck += 1;
        let trouble = self.trouble.clone();
        if let Trouble::Cut { after, .. } = &mut self.trouble {
            *after += self.further;
        }
        Some(trouble)
    }

    /// It strikes no more.
    pub(super) fn end(&mut self) {
        self.is_over = true;
    }

    /// Whether it has struck less than it was meant to.
    pub(super) fn has_missed(&self) -> bool {
        !self.may_miss && self.struck < self.times.unwrap_or(1)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.trouble {
            Trouble::Answer { status, .. } => write!(f, "answer {status}"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault {
            call,
            part,
            times,
            struck,
            ..
        } = self;
        write!(
            f,
            "{self} on {call:?} of {part:?}: {struck} of {times:?} times"
        )
    }
}

fn status_object(status: u16) -> String {
    let reason = match status {
        404 => "NotFound",
        410 => "Expired",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        _ => "Unknown",
    };
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("the proxy says {reason}"), "reason": reason, "code": status,
    });
    status.to_string()
}
