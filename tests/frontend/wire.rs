//! The bodies of requests, with their types checked.
//!
//! Unknown fields are ignored; a field of the wrong type refuses the request.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};

use super::response::Response;

/// Reads a body, or says what to answer.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Response> {
    serde_json::from_slice(body)
        .map_err(|error| Response::text(400, format!("Failed to unmarshal payload: {error}")))
}

/// An executor asks for work.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DequeueBody {
    pub(super) executor_name: String,
    pub(super) version: String,
    #[serde(rename = "numCPUs")]
    pub(super) num_cpus: i64,
    pub(super) memory: String,
    pub(super) disk_space: String,
    pub(super) queues: Option<Vec<String>>,
}

/// An executor tells that it is alive, in either form.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HeartbeatBody {
    pub(super) executor_name: String,
    pub(super) version: String,
    pub(super) job_ids: Option<Vec<LooseId>>,
    pub(super) job_ids_by_queue: Option<Vec<QueueJobs>>,
    pub(super) queue_names: Option<Vec<String>>,
    pub(super) os: String,
    pub(super) architecture: String,
    pub(super) docker_version: String,
    pub(super) executor_version: String,
    pub(super) git_version: String,
    pub(super) ignite_version: String,
    pub(super) src_cli_version: String,
    pub(super) prometheus_metrics: String,
}

/// The running jobs of one queue.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueueJobs {
    pub(super) queue_name: String,
    #[serde(default)]
    pub(super) job_ids: Option<Vec<LooseId>>,
}

/// A job id that may come as a number or as a string of digits.
#[derive(Clone, Copy)]
pub(super) struct LooseId(pub(super) i64);

impl<'de> Deserialize<'de> for LooseId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LooseId, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(i64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(id) => Ok(LooseId(id)),
            Either::Text(text) => text.parse().map(LooseId).map_err(D::Error::custom),
        }
    }
}

/// A log entry, new or with all it has so far.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogBody {
    #[serde(deserialize_with = "not_empty")]
    pub(super) executor_name: String,
    pub(super) job_id: i64,
    /// Only, and always, in updates.
    pub(super) entry_id: Option<i64>,
    #[serde(deserialize_with = "not_empty")]
    pub(super) key: String,
    pub(super) command: Option<Vec<String>>,
    #[serde(deserialize_with = "rfc3339")]
    pub(super) start_time: jiff::Timestamp,
    pub(super) exit_code: Option<i64>,
    #[serde(default)]
    pub(super) out: String,
    pub(super) duration_ms: Option<i64>,
}

/// The end of a job.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MarkBody {
    #[serde(deserialize_with = "not_empty")]
    pub(super) executor_name: String,
    pub(super) job_id: i64,
    pub(super) error_message: Option<String>,
}

fn not_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        Err(D::Error::custom("must not be empty"))
    } else {
        Ok(text)
    }
}

/// The form that Go reads: date, `T`, time with seconds, zone. The parser
/// behind it accepts more than that.
fn rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<jiff::Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    let shaped = marks
        .iter()
        .all(|(at, mark)| text.as_bytes().get(*at) == Some(mark));
    if !shaped || text.contains(['[', ' ']) {
        return Err(D::Error::custom(format!(
            "{text:?} is not a time of RFC 3339"
        )));
    }
    text.parse().map_err(D::Error::custom)
}
