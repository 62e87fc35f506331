//! Dequeue and heartbeat: how jobs go out and how they are kept.

use std::time::Instant;

use serde_json::{Map, Value, json};

use super::Generation;
use super::auth;
use super::http::Head;
use super::hub::Hub;
use super::journal::ExecutorView;
use super::record::{JobRef, JobView, Payload, Queue};
use super::response::Response;
use super::store::Store;
use super::version::{self, Encoding};
use super::wire::{self, DequeueBody, HeartbeatBody};

const NO_NAME: &str = "worker hostname cannot be empty";

/// Hands out a job, if there is one.
pub(super) fn dequeue(
    hub: &Hub,
    queue: Option<Queue>,
    head: &Head,
    body: &[u8],
) -> Result<Response, Response> {
    auth::executor(&hub.settings, head)?;
    let request: DequeueBody = wire::decode(body)?;
    let queues = match queue {
        Some(queue) => vec![queue],
        None => named_queues(&request.queues.unwrap_or_default())?,
    };
    if queues.is_empty() {
        return Ok(Response::empty(204));
    }
    if request.executor_name.is_empty() {
        return Err(Response::error(NO_NAME));
    }
    let generation = hub.settings.generation;
    let encoding = match generation {
        Generation::Basic => Encoding::V0,
        _ => version::encoding(&request.version).map_err(Response::error)?,
    };
    let view = hub.change(|store| {
        let job = store.dequeue(&queues, &request.executor_name)?;
        let view = store.jobs.get_mut(&job)?;
        if generation == Generation::JobToken {
            view.token = token_for(&view.payload);
            store.tokens.extend(view.token.clone());
        }
        Some(view.clone())
    });
    Ok(match view {
        None => Response::empty(204),
        Some(view) => Response::bytes(200, payload(&view, encoding, queue.is_none()).into_bytes())
            .header("Content-Type", "application/json"),
    })
}

fn named_queues(names: &[String]) -> Result<Vec<Queue>, Response> {
    let unknown: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| Queue::named(name).is_none())
        .collect();
    if unknown.is_empty() {
        return Ok(names.iter().filter_map(|name| Queue::named(name)).collect());
    }
    Err(Response::error(format!(
        "Invalid queue name(s) '{}' found. Supported queue names are 'batches, codeintel'.",
        unknown.join(", ")
    )))
}

/// A new token, unless the payload brings its own or none at all.
fn token_for(payload: &Payload) -> Option<String> {
    let given = match payload {
        // Clients do not mind the case of the name.
        Payload::Raw(value) => value.get("token").or_else(|| value.get("Token")),
        Payload::Spec(_) | Payload::Text(_) => None,
    };
    match given {
        None => Some(new_token()),
        Some(value) => value.as_str().map(str::to_owned),
    }
}

fn new_token() -> String {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).expect("the machine has random numbers");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The body of a dequeue's answer. In a made-up value, a field that is there
/// stays as it is, and a field that is null is left out.
fn payload(view: &JobView, encoding: Encoding, is_multi_queue: bool) -> String {
    let mut fields = match &view.payload {
        Payload::Text(text) => return text.clone(),
        Payload::Spec(spec) => spec.payload(encoding),
        Payload::Raw(Value::Object(fields)) => fields.clone(),
        Payload::Raw(value) => return value.to_string(),
    };
    let mut own = Map::new();
    own.insert("id".to_owned(), json!(view.job.id));
    if let Some(token) = view
        .token
        .as_ref()
        .filter(|_| !fields.contains_key("Token"))
    {
        own.insert("token".to_owned(), json!(token));
    }
    if is_multi_queue {
        own.insert("queue".to_owned(), json!(view.job.queue.name()));
    }
    for (name, value) in own {
        fields.entry(name).or_insert(value);
    }
    for name in ["id", "token", "queue"] {
        if fields.get(name).is_some_and(Value::is_null) {
            fields.remove(name);
        }
    }
    Value::Object(fields).to_string()
}

/// Keeps jobs and tells which of them to stop.
pub(super) fn heartbeat(
    hub: &Hub,
    queue: Option<Queue>,
    head: &Head,
    body: &[u8],
) -> Result<Response, Response> {
    auth::executor(&hub.settings, head)?;
    let request: HeartbeatBody = wire::decode(body)?;
    if request.executor_name.is_empty() {
        return Err(Response::error(NO_NAME));
    }
    let generation = hub.settings.generation;
    let is_multi_queue = queue.is_none() && generation == Generation::JobToken;
    let sent = if is_multi_queue {
        jobs_by_queue(&request)?
    } else {
        jobs_of(queue, &request)
    };
    let kept = hub.change(|store| {
        register(store, queue, &request.executor_name, body);
        let mut kept = Kept::default();
        for job in resolve(store, queue, generation, &sent) {
            if let Some(stop) = store.beat(job, &request.executor_name) {
                kept.known.push(job);
                kept.cancel.extend(stop.then_some(job));
            }
        }
        kept
    });
    let is_old = generation == Generation::Basic
        || (generation == Generation::Token && request.version != "V2");
    let answer = if is_old {
        json!(kept.known.iter().map(|job| job.id).collect::<Vec<i64>>())
    } else {
        json!({
            "knownIds": names(&kept.known, is_multi_queue),
            "cancelIds": names(&kept.cancel, is_multi_queue),
        })
    };
    Ok(Response::json(200, &answer))
}

#[derive(Default)]
struct Kept {
    known: Vec<JobRef>,
    cancel: Vec<JobRef>,
}

fn register(store: &mut Store, queue: Option<Queue>, name: &str, body: &[u8]) {
    let now = Instant::now();
    let view = store
        .executors
        .entry(name.to_owned())
        .or_insert_with(|| ExecutorView {
            name: name.to_owned(),
            queue,
            first_seen: now,
            last_seen: now,
            heartbeats: 0,
            last_body: Value::Null,
        });
    view.queue = queue;
    view.last_seen = now;
    view.heartbeats += 1;
    view.last_body = serde_json::from_slice(body).unwrap_or_default();
}

/// The ids of the single-queue form. The oldest heartbeats have no queue at
/// all; `batches` stands in for it until `resolve`.
fn jobs_of(queue: Option<Queue>, request: &HeartbeatBody) -> Vec<JobRef> {
    let queue = queue.unwrap_or(Queue::Batches);
    let ids = request.job_ids.iter().flatten();
    ids.map(|id| JobRef { queue, id: id.0 }).collect()
}

fn jobs_by_queue(request: &HeartbeatBody) -> Result<Vec<JobRef>, Response> {
    let names = request.queue_names.as_deref().unwrap_or_default();
    if names.is_empty() {
        return Err(Response::error(
            "queueNames must be set for multi-queue heartbeats",
        ));
    }
    let unsupported = |name: &str| {
        Response::error(format!(
            "unsupported queue name(s) '{name}' submitted in queueNames"
        ))
    };
    if let Some(name) = names.iter().find(|name| Queue::named(name).is_none()) {
        return Err(unsupported(name));
    }
    let mut jobs = Vec::new();
    for entry in request.job_ids_by_queue.iter().flatten() {
        let queue = Queue::named(&entry.queue_name).filter(|_| names.contains(&entry.queue_name));
        let Some(queue) = queue else {
            return Err(unsupported(&entry.queue_name));
        };
        let ids = entry.job_ids.iter().flatten();
        jobs.extend(ids.map(|id| JobRef { queue, id: id.0 }));
    }
    Ok(jobs)
}

/// In the generation whose heartbeats name no queue, an id means the job of
/// any queue that is being worked on.
fn resolve(
    store: &Store,
    queue: Option<Queue>,
    generation: Generation,
    sent: &[JobRef],
) -> Vec<JobRef> {
    if queue.is_some() || generation != Generation::Basic {
        return sent.to_vec();
    }
    let ids = sent.iter().map(|job| job.id);
    ids.flat_map(|id| [Queue::Batches, Queue::Codeintel].map(|queue| JobRef { queue, id }))
        .filter(|job| {
            store
                .record(*job)
                .is_some_and(|view| view.holder().is_some())
        })
        .collect()
}

/// Ids as the server writes them: strings, null for none.
fn names(jobs: &[JobRef], is_multi_queue: bool) -> Value {
    if jobs.is_empty() {
        return Value::Null;
    }
    jobs.iter()
        .map(|job| {
            if is_multi_queue {
                job.to_string()
            } else {
                job.id.to_string()
            }
        })
        .collect()
}
