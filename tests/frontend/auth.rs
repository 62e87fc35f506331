//! Who may call what: the checks of the executor token, of job tokens and of
//! HTTP Basic, with the statuses and texts of the server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Generation;
use super::http::Head;
use super::hub::Settings;
use super::record::Queue;
use super::response::Response;
use super::store::Store;

/// What a job's call wants to get at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope<'a> {
    /// Calls below a queue.
    Queue(Queue),
    /// The file store, which belongs to `batches`.
    Files,
    /// One repository.
    Repository(&'a str),
}

/// By what a call was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// The executor token, or Basic credentials.
    Executor,
    /// The token of one job.
    Job,
}

const NO_VALUE: &str = "no token value in the HTTP Authorization request header (recommended) or basic auth (deprecated)";

/// Lets an executor in: dequeue, heartbeat, `test/auth`, and every call of the
/// generations before job tokens.
pub(super) fn executor(settings: &Settings, head: &Head) -> Result<(), Response> {
    if settings.token.is_empty() {
        return Err(Response::text(
            500,
            "Executors are not configured on this instance",
        ));
    }
    if settings.generation == Generation::Basic {
        return basic(settings, head);
    }
    match credentials(head)? {
        ("token-executor", token) if token == settings.token => Ok(()),
        ("token-executor", _) => Err(Response::empty(401)),
        _ => Err(Response::text(
            401,
            "unrecognized HTTP Authorization request header scheme (supported values: token-executor)",
        )),
    }
}

/// Lets a job's call in.
pub(super) fn job(
    settings: &Settings,
    store: &Store,
    head: &Head,
    scope: Scope<'_>,
) -> Result<Caller, Response> {
    if settings.generation != Generation::JobToken {
        return executor(settings, head).map(|()| Caller::Executor);
    }
    match credentials(head)? {
        ("token-executor", token) if token == settings.token && !token.is_empty() => {
            Ok(Caller::Executor)
        }
        ("token-executor", _) => Err(Response::empty(403)),
        ("Bearer", token) => bearer(store, head, token, scope).map(|()| Caller::Job),
        _ => Err(Response::text(
            401,
            "unrecognized HTTP Authorization request header scheme (supported values: token-executor, Bearer)",
        )),
    }
}

/// The two parts of the header's value, which exactly one space separates.
fn credentials(head: &Head) -> Result<(&str, &str), Response> {
    let value = head.header("authorization").unwrap_or_default();
    if value.is_empty() {
        return Err(Response::text(401, NO_VALUE));
    }
    let parts: Vec<&str> = value.split(' ').collect();
    match parts[..] {
        [_, ""] => Err(Response::text(401, NO_VALUE)),
        [scheme, token] => Ok((scheme, token)),
        _ => Err(Response::text(
            401,
            "HTTP Authorization request header value must be of the following form: token-executor \"TOKEN\"",
        )),
    }
}

fn bearer(store: &Store, head: &Head, token: &str, scope: Scope<'_>) -> Result<(), Response> {
    let invalid = |status| Err(Response::text(status, "invalid token"));
    let id = head.header("x-sourcegraph-job-id").unwrap_or_default();
    if id.is_empty() {
        let text = "job ID not provided in header 'X-Sourcegraph-Job-ID'";
        return Err(Response::text(400, text));
    }
    let Ok(id) = id.parse::<i64>() else {
        let cause = format!("strconv.Atoi: parsing \"{id}\": invalid syntax");
        return Err(Response::text(
            400,
            format!("failed to parse Job ID: {cause}"),
        ));
    };
    if head
        .header("x-sourcegraph-executor-name")
        .unwrap_or_default()
        .is_empty()
    {
        return Err(Response::text(400, "worker hostname cannot be empty"));
    }
    let owner = store
        .jobs
        .values()
        .find(|view| view.token.as_deref() == Some(token));
    let Some(view) = owner else {
        return invalid(401);
    };
    let fits = match scope {
        Scope::Queue(queue) => view.job.queue == queue,
        Scope::Files => view.job.queue == Queue::Batches,
        Scope::Repository(name) => view.repository() == name,
    };
    if view.job.id == id && fits {
        Ok(())
    } else {
        invalid(403)
    }
}

fn basic(settings: &Settings, head: &Head) -> Result<(), Response> {
    let sent = head
        .header("authorization")
        .and_then(|value| value.strip_prefix("Basic "));
    let Some(sent) = sent else {
        return Err(Response::empty(401).header("WWW-Authenticate", "Basic realm=\"Sourcegraph\""));
    };
    let wanted = STANDARD.encode(format!("{}:{}", settings.username, settings.token));
    if sent == wanted {
        Ok(())
    } else {
        Err(Response::empty(403))
    }
}
