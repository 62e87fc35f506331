//! From a path to the call that it means, in each generation.

use super::Generation;
use super::http::Head;
use super::hub::Settings;
use super::record::{MarkKind, Queue};
use super::response::Response;

/// A call that the server knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Take a job; without a queue, from those that the request names.
    Dequeue(Option<Queue>),
    /// Keep jobs; without a queue, of all queues.
    Heartbeat(Option<Queue>),
    /// A new log entry.
    AddLog(Queue),
    /// Replace a log entry.
    UpdateLog(Queue),
    /// Report the end of a job.
    Mark(Queue, MarkKind),
    /// A file of the store, by `<spec>/<file>`.
    File(String),
    /// The two calls of git.
    Git {
        /// Repository, slashes included.
        repository: String,
        /// What is left for git: `/info/refs` or `/git-upload-pack`.
        rest: &'static str,
    },
    /// Check the executor token.
    TestAuth,
}

/// Finds the call, or what to answer when there is none.
pub(super) fn find(settings: &Settings, head: &Head) -> Result<Route, Response> {
    let unknown = || Response::text(404, "404 page not found");
    let path = head
        .path
        .strip_prefix(settings.prefix.as_str())
        .ok_or_else(unknown)?;
    let path = path.strip_prefix("/.executors/").ok_or_else(unknown)?;
    let (area, rest) = path.split_once('/').ok_or_else(unknown)?;
    let generation = settings.generation;
    let (methods, route): (&[&str], Option<Route>) = match area {
        "queue" => (&["POST"], queue_call(rest, generation)),
        "files" => (&["GET", "HEAD"], file(rest, generation)),
        "git" if rest.ends_with("/info/refs") => (&["GET"], git(rest, "/info/refs")),
        "git" => (&["POST"], git(rest, "/git-upload-pack")),
        "test" if rest == "auth" && generation != Generation::Basic => {
            (&["GET"], Some(Route::TestAuth))
        }
        _ => (&[], None),
    };
    let route = route.ok_or_else(unknown)?;
    if methods.contains(&head.method.as_str()) {
        Ok(route)
    } else {
        Err(Response::empty(405))
    }
}

fn queue_call(rest: &str, generation: Generation) -> Option<Route> {
    let Some((queue, call)) = rest.split_once('/') else {
        return match (rest, generation) {
            ("dequeue", Generation::JobToken) => Some(Route::Dequeue(None)),
            ("heartbeat", Generation::JobToken | Generation::Basic) => Some(Route::Heartbeat(None)),
            _ => None,
        };
    };
    let queue = Queue::named(queue)?;
    match call {
        "dequeue" => Some(Route::Dequeue(Some(queue))),
        "heartbeat" if generation != Generation::Basic => Some(Route::Heartbeat(Some(queue))),
        "addExecutionLogEntry" => Some(Route::AddLog(queue)),
        "updateExecutionLogEntry" if generation != Generation::Basic => {
            Some(Route::UpdateLog(queue))
        }
        _ => [MarkKind::Complete, MarkKind::Errored, MarkKind::Failed]
            .into_iter()
            .find(|kind| kind.endpoint() == call)
            .map(|kind| Route::Mark(queue, kind)),
    }
}

fn file(rest: &str, generation: Generation) -> Option<Route> {
    let key = rest.strip_prefix("batch-changes/")?;
    let (spec, file) = key.split_once('/')?;
    let is_key = !spec.is_empty() && !file.is_empty() && !file.contains('/');
    (is_key && generation != Generation::Basic).then(|| Route::File(decode(key)))
}

fn git(rest: &str, call: &'static str) -> Option<Route> {
    let repository = rest.strip_suffix(call).filter(|name| !name.is_empty())?;
    Some(Route::Git {
        repository: decode(repository),
        rest: call,
    })
}

/// Undoes percent encoding; what is not valid stays as it is.
fn decode(path: &str) -> String {
    let mut decoded = Vec::new();
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                decoded.push(byte);
                rest = &tail[2..];
            }
            _ => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
