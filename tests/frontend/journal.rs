//! What came in: every request, and who has sent heartbeats.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use serde_json::Value;

use super::http::{Head, find_header};
use super::record::Queue;

/// So many requests are kept; older ones are only counted.
const REQUESTS_MAX: usize = 20_000;

/// So much of each body is kept.
pub(crate) const BODY_BYTES_KEPT: usize = 32 << 10;

/// One request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// When its head had been read.
    pub(crate) at: Instant,
    /// Verb.
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    /// Names in lower case, with values.
    pub(crate) headers: Vec<(String, String)>,
    /// The first part of the body, up to `BODY_BYTES_KEPT`. A body that is
    /// streamed to git is not kept.
    pub(crate) body: Vec<u8>,
    /// Length of the whole body.
    pub(crate) body_length: u64,
    /// What was answered; none while it is being handled, or when the
    /// connection was cut instead.
    pub(crate) status: Option<u16>,
}

impl Request {
    /// A request without its body.
    pub(super) fn new(head: &Head) -> Request {
        Request {
            at: Instant::now(),
            method: head.method.clone(),
            path: head.target(),
            headers: head.headers.clone(),
            body: Vec::new(),
            body_length: 0,
            status: None,
        }
    }

    /// Value of a header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }

    /// The body as JSON; null when it is none or was kept in part only.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Last part of the path, such as `dequeue`; it names the call.
    pub(crate) fn endpoint(&self) -> &str {
        let path = self.path.split('?').next().unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default()
    }
}

/// How much came in for one kind of call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Number of requests.
    pub(crate) requests: u64,
    /// Bytes of their bodies.
    pub(crate) body_bytes: u64,
}

/// An executor that the server has heard of.
#[derive(Clone, Debug)]
pub(crate) struct ExecutorView {
    /// Its name.
    pub(crate) name: String,
    /// The queue of the last heartbeat's path; none in the multi-queue form.
    pub(crate) queue: Option<Queue>,
    /// When the first heartbeat came.
    pub(crate) first_seen: Instant,
    /// When the last one came.
    pub(crate) last_seen: Instant,
    /// How many came.
    pub(crate) heartbeats: u64,
    /// What the last one said.
    pub(crate) last_body: Value,
}

/// The requests of one frontend.
#[derive(Default)]
pub(super) struct Journal {
    requests: VecDeque<Request>,
    dropped: usize,
    traffic: BTreeMap<String, Traffic>,
}

impl Journal {
    /// Writes a request down and gives it a number.
    pub(super) fn open(&mut self, request: Request) -> usize {
        if self.requests.len() == REQUESTS_MAX {
            self.requests.pop_front();
            self.dropped += 1;
        }
        self.requests.push_back(request);
        self.dropped + self.requests.len() - 1
    }

    /// Completes what `open` began, once it is known how the request ended.
    pub(super) fn close(&mut self, number: usize, status: Option<u16>, body_length: u64) {
        let index = number.checked_sub(self.dropped);
        let Some(request) = index.and_then(|index| self.requests.get_mut(index)) else {
            return;
        };
        request.status = status;
        request.body_length = body_length;
        let traffic = self.traffic.entry(kind(request)).or_default();
        traffic.requests += 1;
        traffic.body_bytes += body_length;
    }

    /// All requests that are still kept, oldest first.
    pub(super) fn requests(&self) -> impl DoubleEndedIterator<Item = &Request> {
        self.requests.iter()
    }

    /// Sums by kind of call, over all requests that have ended.
    pub(super) fn traffic(&self) -> BTreeMap<String, Traffic> {
        self.traffic.clone()
    }
}

/// Files and git have a name in their last part, so that their kind is taken
/// from further up.
fn kind(request: &Request) -> String {
    let kind = ["files", "git"]
        .into_iter()
        .find(|kind| request.path.contains(&format!("/.executors/{kind}/")));
    kind.unwrap_or(request.endpoint()).to_owned()
}
