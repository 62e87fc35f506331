//! The shapes of the executor API and their translation to and from `job`.
//!
//! Pure. Decodes both payload versions (and the plain strings that file
//! contents were before them), takes null for empty, ignores what it does not
//! know, and says which field is wrong without repeating its value.

pub mod heartbeat;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::config::Queues;
use crate::job::{
    FileSource, Job, JobKey, Registries, Repository, Secret, Step, WorkspaceFile, path_in_workspace,
};

/// The version of the released executor whose API this one speaks. The server
/// hands out payload version 2 from 4.3.0 on.
pub const API_VERSION: &str = "5.5.0";

/// What identifies a job in calls about it.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// Queue that the job came from.
    pub queue: String,
    /// Number of the job in its queue.
    pub id: i64,
    /// Authorises calls about this job, where the server made one.
    pub token: Option<Secret>,
}

impl Ticket {
    /// Names the job among those that run here.
    pub fn key(&self) -> JobKey {
        JobKey {
            queue: self.queue.clone(),
            id: self.id,
        }
    }
}

/// A job that cannot be understood, though it can be reported.
#[derive(Debug)]
pub struct Malformed {
    /// For the report.
    pub ticket: Ticket,
    /// What is wrong, for the person who reads the job's page.
    pub problem: String,
}

/// What a dequeue brought.
#[derive(Debug)]
pub enum Dequeued {
    /// A job to run.
    Job(Box<Job>),
    /// A job to report as failed.
    Malformed(Malformed),
}

impl Dequeued {
    /// What identifies the job.
    pub fn ticket(&self) -> Ticket {
        match self {
            Dequeued::Malformed(malformed) => malformed.ticket.clone(),
            Dequeued::Job(job) => Ticket {
                queue: job.queue.clone(),
                id: job.id,
                token: job.token.clone(),
            },
        }
    }
}

/// Body of a dequeue request. Queues are named where they are not in the path.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DequeueRequest<'a> {
    pub(super) executor_name: &'a str,
    pub(super) version: &'a str,
    #[serde(rename = "numCPUs", skip_serializing_if = "is_zero")]
    pub(super) num_cpus: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) memory: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) disk_space: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub(super) queues: &'a [String],
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Body of the three marks.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MarkRequest<'a> {
    pub(super) executor_name: &'a str,
    pub(super) job_id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error_message: Option<&'a str>,
}

/// A log entry but for its output, which is sent as a stream.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogEntryHead<'a> {
    pub(super) executor_name: &'a str,
    pub(super) job_id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) entry_id: Option<i64>,
    pub(super) key: &'a str,
    pub(super) command: Option<&'a [String]>,
    pub(super) start_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) duration_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    #[serde(default, deserialize_with = "or_default")]
    version: i64,
    id: i64,
    #[serde(default, deserialize_with = "or_default")]
    repository_name: String,
    #[serde(default, deserialize_with = "or_default")]
    repository_directory: String,
    #[serde(default, deserialize_with = "or_default")]
    commit: String,
    #[serde(default, deserialize_with = "or_default")]
    fetch_tags: bool,
    #[serde(default, deserialize_with = "or_default")]
    shallow_clone: bool,
    #[serde(default, deserialize_with = "or_default")]
    sparse_checkout: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    files: BTreeMap<String, PayloadFile>,
    #[serde(default, deserialize_with = "or_default")]
    docker_steps: Vec<PayloadStep>,
    #[serde(default, deserialize_with = "or_default")]
    cli_steps: Vec<serde::de::IgnoredAny>,
    #[serde(default, deserialize_with = "or_default")]
    redacted_values: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    docker_auth_config: PayloadRegistries,
}

#[derive(Debug, Default, Deserialize)]
struct PayloadRegistries {
    #[serde(default, deserialize_with = "or_default")]
    auths: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum PayloadFile {
    /// Before payload version 1 a file was just its contents.
    Text(String),
    File(PayloadFileObject),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PayloadFileObject {
    #[serde(default, deserialize_with = "or_default")]
    content: String,
    #[serde(default, deserialize_with = "or_default")]
    bucket: String,
    #[serde(default, deserialize_with = "or_default")]
    key: String,
    #[serde(default)]
    modified_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct PayloadStep {
    #[serde(default, deserialize_with = "or_default")]
    key: String,
    image: String,
    #[serde(default, deserialize_with = "or_default")]
    commands: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    dir: String,
    #[serde(default, deserialize_with = "or_default")]
    env: Vec<String>,
}

/// Null is the same as absent.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads the answer to a dequeue.
///
/// An error means that not even id and queue could be read: then nothing can
/// be reported, and the server takes the job back by itself.
pub(crate) fn read_job(queues: &Queues, body: &[u8]) -> Result<Dequeued, String> {
    let value: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let id = value
        .get("id")
        .and_then(Value::as_i64)
        .ok_or("the job has no `id`, or it is not an integer")?;
    let token = ["token", "Token"]
        .iter()
        .find_map(|name| value.get(*name)?.as_str());
    let token = token.filter(|token| !token.is_empty()).map(Secret::new);
    let ticket = Ticket {
        queue: queue_of(queues, &value)?,
        id,
        token,
    };
    let job = serde_path_to_error::deserialize(value)
        .map_err(|error| wrong_field(&error))
        .and_then(|payload| to_job(payload, &ticket));
    Ok(match job {
        Ok(job) => Dequeued::Job(Box::new(job)),
        Err(problem) => Dequeued::Malformed(Malformed { ticket, problem }),
    })
}

/// The server names the queue of a job where it may be one of several.
fn queue_of(queues: &Queues, value: &Value) -> Result<String, String> {
    match (queues, value.get("queue").and_then(Value::as_str)) {
        (Queues::One(name), _) => Ok(name.clone()),
        (Queues::Several(names), Some(name)) if names.iter().any(|known| known == name) => {
            Ok(name.to_string())
        }
        (Queues::Several(names), _) => Err(format!(
            "the job has no `queue`, or it is none of {}",
            names.join(", ")
        )),
    }
}

/// Names the field and what was expected, never what stood there: it may be
/// a secret.
fn wrong_field(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let text = error.inner().to_string();
    let path = error.path().to_string();
    match (text.find("missing field"), text.find("expected")) {
        (Some(start), _) => format!("at `{path}`: {}", &text[start..]),
        (None, Some(start)) => format!("the field `{path}` is wrong: {}", &text[start..]),
        (None, None) => format!("the field `{path}` has the wrong form"),
    }
}

fn to_job(payload: Payload, ticket: &Ticket) -> Result<Job, String> {
    let repository = match payload.repository_name.is_empty() {
        true => None,
        false => Some(Repository {
            name: payload.repository_name,
            directory: path_in_workspace(&payload.repository_directory)
                .map_err(|problem| format!("`repositoryDirectory`: {problem}"))?,
            commit: payload.commit,
            fetch_tags: payload.fetch_tags,
            shallow: payload.shallow_clone,
            sparse_checkout: payload.sparse_checkout,
        }),
    };
    let files = payload
        .files
        .into_iter()
        .map(|(path, file)| to_file(path, file, payload.version))
        .collect::<Result<_, _>>()?;
    let steps = payload
        .docker_steps
        .into_iter()
        .enumerate()
        .map(|(index, step)| to_step(index, step))
        .collect::<Result<Vec<_>, _>>()?;
    refuse_repeated_keys(&steps)?;
    Ok(Job {
        queue: ticket.queue.clone(),
        id: payload.id,
        token: ticket.token.clone(),
        repository,
        files,
        steps,
        has_cli_steps: !payload.cli_steps.is_empty(),
        redacted_values: payload.redacted_values,
        registries: Registries::new(payload.docker_auth_config.auths),
    })
}

fn to_file(path: String, file: PayloadFile, version: i64) -> Result<WorkspaceFile, String> {
    let place = path_in_workspace(&path).map_err(|problem| format!("`files`: {problem}"))?;
    if place.is_empty() {
        return Err(format!("`files`: the path {path:?} names no file"));
    }
    let (source, modified_at) = match file {
        PayloadFile::Text(text) => (FileSource::Inline(text.into_bytes()), None),
        PayloadFile::File(file) if !file.bucket.is_empty() && !file.key.is_empty() => (
            FileSource::Store {
                bucket: file.bucket,
                key: file.key,
            },
            file.modified_at,
        ),
        PayloadFile::File(file) => {
            let content = match version {
                2.. => STANDARD.decode(&file.content).map_err(|error| {
                    format!("`files`: the content of {path:?} is not base64: {error}")
                })?,
                _ => file.content.into_bytes(),
            };
            (FileSource::Inline(content), file.modified_at)
        }
    };
    let modified_at = known_time(&path, modified_at)?;
    Ok(WorkspaceFile {
        path: place,
        source,
        modified_at,
    })
}

/// The zero time means that the server knows none.
fn known_time(path: &str, time: Option<String>) -> Result<Option<String>, String> {
    let Some(time) = time.filter(|time| !time.is_empty() && !time.starts_with("0001-01-01T"))
    else {
        return Ok(None);
    };
    match time.parse::<jiff::Timestamp>() {
        Ok(_) => Ok(Some(time)),
        Err(_) => Err(format!(
            "`files`: `modifiedAt` of {path:?} is not an RFC 3339 time"
        )),
    }
}

fn to_step(index: usize, step: PayloadStep) -> Result<Step, String> {
    let place = format!("`dockerSteps[{index}]`");
    if step.image.trim().is_empty() {
        return Err(format!("{place}: `image` is empty"));
    }
    let dir =
        path_in_workspace(&step.dir).map_err(|problem| format!("{place}: `dir`: {problem}"))?;
    let env = step
        .env
        .into_iter()
        .enumerate()
        .map(|(entry, text)| match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
            _ => Err(format!(
                "{place}: `env[{entry}]` is not of the form NAME=value"
            )),
        })
        .collect::<Result<_, _>>()?;
    let key = match step.key.is_empty() {
        true => index.to_string(),
        false => step.key,
    };
    Ok(Step {
        key,
        image: step.image.trim().to_string(),
        commands: step.commands,
        dir,
        env,
    })
}

fn refuse_repeated_keys(steps: &[Step]) -> Result<(), String> {
    let mut keys = HashSet::new();
    match steps.iter().find(|step| !keys.insert(step.key.as_str())) {
        None => Ok(()),
        Some(step) => Err(format!(
            "`dockerSteps`: two steps have the key {:?}",
            step.key
        )),
    }
}
