//! The calls about one job: log entries, marks, and the files it needs.

use std::time::Instant;

use serde_json::json;

use super::Generation;
use super::auth::{self, Caller, Scope};
use super::http::Head;
use super::hub::Hub;
use super::notes::Receipt;
use super::record::{JobRef, LogEntry, Mark, MarkKind, Queue};
use super::response::Response;
use super::store::Store;
use super::wire::{self, LogBody, MarkBody};

/// An answer, and what the client must hear of by it.
pub(super) type Reported = (Response, Option<Receipt>);

/// Adds or replaces a log entry.
pub(super) fn log(hub: &Hub, queue: Queue, is_new: bool, head: &Head, body: &[u8]) -> Reported {
    let endpoint = if is_new {
        "addExecutionLogEntry"
    } else {
        "updateExecutionLogEntry"
    };
    let decoded: Result<LogBody, Response> = wire::decode(body);
    let sender = match &decoded {
        Ok(body) => Some((body.job_id, body.executor_name.clone())),
        Err(_) => sender(head),
    };
    hub.change(|store| {
        if let Some((id, executor)) = &sender {
            store.note_call(JobRef { queue, id: *id }, executor, endpoint);
        }
        match auth::job(&hub.settings, store, head, Scope::Queue(queue)) {
            Err(refusal) => (refusal, None),
            Ok(caller) => match decoded {
                Err(refusal) => (refusal, None),
                Ok(body) => {
                    let job = JobRef {
                        queue,
                        id: body.job_id,
                    };
                    note_caller(store, job, caller, head, endpoint);
                    if is_new {
                        add(hub, store, job, body)
                    } else {
                        update(store, job, body)
                    }
                }
            },
        }
    })
}

/// Reports the end of a job. The attempt is written down even when refused.
pub(super) fn mark(hub: &Hub, queue: Queue, kind: MarkKind, head: &Head, body: &[u8]) -> Reported {
    let decoded: Result<MarkBody, Response> = wire::decode(body);
    let (sender, message) = match &decoded {
        Ok(body) => {
            let sender = Some((body.job_id, body.executor_name.clone()));
            (sender, body.error_message.clone())
        }
        Err(_) => (sender(head), None),
    };
    hub.change(|store| {
        if let Some((id, executor)) = &sender {
            store.note_call(JobRef { queue, id: *id }, executor, kind.endpoint());
        }
        let response = match auth::job(&hub.settings, store, head, Scope::Queue(queue)) {
            Err(refusal) => refusal,
            Ok(caller) => match decoded {
                Err(refusal) => refusal,
                Ok(body) => {
                    let job = JobRef {
                        queue,
                        id: body.job_id,
                    };
                    note_caller(store, job, caller, head, kind.endpoint());
                    finish(store, job, kind, &body)
                }
            },
        };
        let receipt = sender.and_then(|(id, executor)| {
            let status = response.status;
            let (at, attempt, answered) = (Instant::now(), 0, true);
            let mark = Mark {
                kind,
                executor,
                message,
                status,
                attempt,
                at,
                answered,
            };
            store.note_mark(JobRef { queue, id }, mark)
        });
        (response, receipt)
    })
}

/// Serves a file of the store.
pub(super) fn file(hub: &Hub, key: &str, head: &Head) -> Result<Response, Response> {
    let mut store = hub.lock();
    let caller = auth::job(&hub.settings, &store, head, Scope::Files)?;
    if let Some((id, _)) = sender(head) {
        let job = JobRef {
            queue: Queue::Batches,
            id,
        };
        note_caller(&mut store, job, caller, head, "a file");
    }
    let content = store.files.get(key).cloned();
    content
        .map(|content| {
            Response::bytes(200, content).header("Content-Type", "application/octet-stream")
        })
        .ok_or_else(|| Response::text(404, "workspace file does not exist"))
}

/// Who calls, as far as the headers tell.
pub(super) fn sender(head: &Head) -> Option<(i64, String)> {
    let id = head.header("x-sourcegraph-job-id")?.parse().ok()?;
    let executor = head
        .header("x-sourcegraph-executor-name")
        .unwrap_or_default();
    Some((id, executor.to_owned()))
}

/// Writes down what is odd about an authorised call: the wrong token, or
/// headers that speak of another job than the body.
pub(super) fn note_caller(
    store: &mut Store,
    job: JobRef,
    caller: Caller,
    head: &Head,
    endpoint: &str,
) {
    if caller == Caller::Executor {
        store.note_executor_token(job, endpoint);
    }
    if let Some((id, _)) = sender(head).filter(|(id, _)| *id != job.id) {
        store
            .violations
            .push(format!("job {job}: {endpoint} with the header of job {id}"));
    }
}

fn add(hub: &Hub, store: &mut Store, job: JobRef, body: LogBody) -> Reported {
    let executor = body.executor_name.clone();
    match store.add_log(job, &executor, entry(body)) {
        None => (unknown_job(), None),
        // The oldest servers had no use for the number, as they had no update.
        Some(_) if hub.settings.generation == Generation::Basic => (Response::empty(200), None),
        Some(id) => {
            let receipt = Store::log_receipt(job, id);
            (Response::json(200, &json!(id)), Some(receipt))
        }
    }
}

fn update(store: &mut Store, job: JobRef, body: LogBody) -> Reported {
    let executor = body.executor_name.clone();
    let Some(id) = body.entry_id else {
        let text = "Failed to unmarshal payload: missing field `entryId`";
        return (Response::text(400, text), None);
    };
    let updated = store.update_log(job, &executor, id, entry(body));
    (
        updated.map_or_else(unknown_job, |()| Response::empty(204)),
        None,
    )
}

fn entry(body: LogBody) -> LogEntry {
    LogEntry {
        key: body.key,
        command: body.command,
        start_time: body.start_time,
        exit_code: body.exit_code,
        out: body.out,
        duration_ms: body.duration_ms,
        updates: 0,
        answered: true,
    }
}

fn finish(store: &mut Store, job: JobRef, kind: MarkKind, body: &MarkBody) -> Response {
    let message = body.error_message.as_deref().unwrap_or_default();
    if (kind == MarkKind::Complete) != message.is_empty() {
        let endpoint = kind.endpoint();
        store.violations.push(format!(
            "job {job}: {endpoint} with the message {message:?}"
        ));
    }
    match store.mark(job, &body.executor_name, kind, message) {
        Some(()) => Response::empty(204),
        None => Response::json(404, &json!(null)),
    }
}

fn unknown_job() -> Response {
    Response::error("unknown job")
}
