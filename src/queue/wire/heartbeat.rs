//! Heartbeats: which jobs run here, and what the server says of them, in the
//! form for one queue and in the one for several.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::Value;

use crate::config::Queues;
use crate::job::JobKey;

/// Body of a heartbeat.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::queue) struct HeartbeatRequest<'a> {
    pub(in crate::queue) version: &'a str,
    pub(in crate::queue) executor_name: &'a str,
    #[serde(flatten)]
    pub(in crate::queue) jobs: HeartbeatJobs<'a>,
    pub(in crate::queue) os: &'a str,
    pub(in crate::queue) architecture: &'a str,
    pub(in crate::queue) docker_version: &'a str,
    pub(in crate::queue) executor_version: &'a str,
    pub(in crate::queue) git_version: &'a str,
    pub(in crate::queue) ignite_version: &'a str,
    pub(in crate::queue) src_cli_version: &'a str,
    pub(in crate::queue) prometheus_metrics: &'a str,
}

/// The running jobs in a heartbeat, in the form for one queue or for several.
#[derive(Debug, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub(in crate::queue) enum HeartbeatJobs<'a> {
    One {
        job_ids: Vec<i64>,
    },
    Several {
        queue_names: &'a [String],
        #[serde(skip_serializing_if = "Vec::is_empty")]
        job_ids_by_queue: Vec<QueueJobs<'a>>,
    },
}

/// The running jobs of one queue.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::queue) struct QueueJobs<'a> {
    queue_name: &'a str,
    job_ids: Vec<String>,
}

impl<'a> HeartbeatJobs<'a> {
    /// Jobs come in the order of their queues.
    pub(in crate::queue) fn new(queues: &'a Queues, jobs: &'a [JobKey]) -> HeartbeatJobs<'a> {
        let queue_names = match queues {
            Queues::One(_) => {
                let job_ids = jobs.iter().map(|job| job.id).collect();
                return HeartbeatJobs::One { job_ids };
            }
            Queues::Several(names) => names,
        };
        let by_queue = |jobs: &'a [JobKey]| QueueJobs {
            queue_name: &jobs[0].queue,
            job_ids: jobs.iter().map(|job| job.id.to_string()).collect(),
        };
        HeartbeatJobs::Several {
            queue_names,
            job_ids_by_queue: jobs
                .chunk_by(|a, b| a.queue == b.queue)
                .map(by_queue)
                .collect(),
        }
    }
}

/// What the server says of the jobs that a heartbeat named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    /// Jobs that are still ours.
    pub known: HashSet<JobKey>,
    /// Jobs that a user cancelled.
    pub cancel: HashSet<JobKey>,
}

impl HeartbeatAnswer {
    /// Reads an answer: an object, or the bare list of old servers. Ids come
    /// as numbers or as strings, with their queue where there are several.
    pub(in crate::queue) fn parse(queues: &Queues, body: &[u8]) -> Result<HeartbeatAnswer, String> {
        let value: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        match &value {
            Value::Array(_) | Value::Null => Ok(HeartbeatAnswer {
                known: keys(queues, &value)?,
                cancel: HashSet::new(),
            }),
            Value::Object(fields) => {
                let list = |names: [&str; 2]| {
                    names
                        .iter()
                        .find_map(|name| fields.get(*name))
                        .map_or(Ok(HashSet::new()), |value| keys(queues, value))
                };
                Ok(HeartbeatAnswer {
                    known: list(["knownIds", "knownIDs"])?,
                    cancel: list(["cancelIds", "cancelIDs"])?,
                })
            }
            _ => Err("neither an object nor a list".to_string()),
        }
    }
}

fn keys(queues: &Queues, value: &Value) -> Result<HashSet<JobKey>, String> {
    let items = match value {
        Value::Null => return Ok(HashSet::new()),
        Value::Array(items) => items,
        _ => return Err("the ids are not a list".to_string()),
    };
    items
        .iter()
        .map(|item| key(queues, item).ok_or_else(|| format!("{item} is not the id of a job")))
        .collect()
}

/// One queue answers with `17` or `"17"`, several with `"17-batches"`.
fn key(queues: &Queues, item: &Value) -> Option<JobKey> {
    let (id, queue) = match (item, queues) {
        (Value::Number(number), Queues::One(queue)) => (number.as_i64()?, queue.as_str()),
        (Value::String(text), Queues::One(queue)) => {
            let id = text.split('-').next()?.parse().ok()?;
            (id, queue.as_str())
        }
        (Value::String(text), Queues::Several(_)) => {
            let (id, queue) = text.split_once('-')?;
            (id.parse().ok()?, queue)
        }
        _ => return None,
    };
    Some(JobKey {
        queue: queue.to_string(),
        id,
    })
}
