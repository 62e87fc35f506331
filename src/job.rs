//! The unit of work: what a queue hands out and what becomes of it.
//!
//! Pure values and rules. The shapes of the wire are in `queue/wire.rs`, the
//! objects of the cluster in `cluster/plan/`; neither is known here.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// One job as the server handed it out, checked and decoded.
#[derive(Clone, Debug)]
pub struct Job {
    /// Name of the queue that the job came from; ids are unique inside one only.
    pub queue: String,
    /// Number of the job inside its queue.
    pub id: i64,
    /// What authorises calls for this job alone; servers before job tokens send none.
    pub token: Option<Secret>,
    /// Repository to clone; without one, the workspace starts empty.
    pub repository: Option<Repository>,
    /// Files to put into the workspace, in order of their paths.
    pub files: Vec<WorkspaceFile>,
    /// Steps in the order in which they run; the first failure ends the job.
    pub steps: Vec<Step>,
    /// Whether the server asked for `src` command lines, which need Docker.
    pub has_cli_steps: bool,
    /// Text that must not be seen in any output, and what stands in its place.
    pub redacted_values: BTreeMap<String, String>,
    /// Registry credentials of this job.
    pub registries: Registries,
}

/// What names a job: ids are unique inside one queue only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey {
    /// Name of the queue.
    pub queue: String,
    /// Number inside the queue.
    pub id: i64,
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.queue, self.id)
    }
}

/// What to clone, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Name on the Sourcegraph instance, slashes included.
    pub name: String,
    /// Where the clone goes, relative to the workspace; empty means its root.
    pub directory: String,
    /// Full hash of the commit to check out.
    pub commit: String,
    /// Whether tags are wanted too.
    pub fetch_tags: bool,
    /// Whether the commit alone is enough, without history.
    pub shallow: bool,
    /// Patterns of a sparse checkout, not in cone mode; empty means everything.
    pub sparse_checkout: Vec<String>,
}

/// A file of the workspace.
#[derive(Clone, Debug)]
pub struct WorkspaceFile {
    /// Path relative to the workspace; proven to stay inside.
    pub path: String,
    /// Where the contents come from.
    pub source: FileSource,
    /// Modification time to give to the file, when the server knows one (RFC 3339).
    pub modified_at: Option<String>,
}

/// Where the contents of a workspace file come from.
#[derive(Clone, Debug)]
pub enum FileSource {
    /// The job itself carried them.
    Inline(Vec<u8>),
    /// The server's file store has them.
    Store {
        /// First part of the address in the store.
        bucket: String,
        /// Second part; may contain slashes.
        key: String,
    },
}

/// One step: a container with commands.
#[derive(Clone, Debug)]
pub struct Step {
    /// Name of the step, unique in the job; the index where the server gave none.
    pub key: String,
    /// Image to run.
    pub image: String,
    /// Shell lines.
    pub commands: Vec<String>,
    /// Working directory relative to the workspace; empty means its root.
    pub dir: String,
    /// Environment, in order; a later entry of the same name wins.
    pub env: Vec<(String, String)>,
}

/// Text that is never printed: not by `{}`, not by `{:?}`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a value.
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(value.into())
    }

    /// The value itself, for the one place that must send it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Registries and the credentials for each, in the form of Docker's
/// configuration file; never printed.
#[derive(Clone, Default, PartialEq)]
pub struct Registries(Map<String, Value>);

impl Registries {
    /// Takes what stands under `auths` in such a file.
    pub fn new(auths: Map<String, Value>) -> Registries {
        Registries(auths)
    }

    /// The file of these credentials and, for registries that have none here,
    /// those of `others`; none if there are none at all.
    pub fn docker_config(&self, others: &Registries) -> Option<Secret> {
        let mut auths = others.0.clone();
        auths.extend(self.0.clone());
        (!auths.is_empty()).then(|| Secret::new(json!({ "auths": auths }).to_string()))
    }
}

impl fmt::Debug for Registries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(credentials for {} registries)", self.0.len())
    }
}

/// What kind of end a job came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Every container was seen to end with exit code 0.
    Complete,
    /// It did not succeed, and trying again may help.
    Errored(String),
    /// It did not succeed and never will as it is, or a user cancelled it.
    Failed(String),
    /// The server gave it to someone else or does not know it any more:
    /// nothing is reported.
    Lost,
    /// It runs on, for the next process to follow: nothing is reported.
    HandedOver,
}

/// Brings a path of a job into plain form: relative, without `.` parts.
///
/// Refuses what would leave the workspace, and what no file can be called.
pub fn path_in_workspace(path: &str) -> Result<String, String> {
    if path.contains('\0') {
        return Err(format!("the path {path:?} contains a NUL byte"));
    }
    if path.starts_with('/') {
        return Err(format!(
            "the path {path:?} is absolute; it must be relative to the workspace"
        ));
    }
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if parts.contains(&"..") {
        return Err(format!(
            "the path {path:?} contains \"..\"; it must stay in the workspace"
        ));
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside_the_workspace() {
        assert_eq!(path_in_workspace("./a//b/."), Ok("a/b".to_string()));
        assert_eq!(path_in_workspace(""), Ok(String::new()));
        for outside in ["/etc/passwd", "../jobs/x", "a/../../b", "a\0b"] {
            assert!(path_in_workspace(outside).is_err(), "{outside} was taken");
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", Secret::new("walnut")), "(secret)");
        let registries = registries(json!({"a.example.org": {"auth": "walnut"}}));
        assert!(!format!("{registries:?}").contains("walnut"));
    }

    fn registries(auths: Value) -> Registries {
        Registries::new(auths.as_object().unwrap().clone())
    }

    #[test]
    fn a_jobs_own_registries_come_first() {
        let own = registries(json!({"a": {"auth": "1"}}));
        let others = registries(json!({"a": {"auth": "2"}, "b": {"auth": "3"}}));
        let config = own.docker_config(&others).unwrap();
        let config: Value = serde_json::from_str(config.reveal()).unwrap();
        assert_eq!(
            config,
            json!({"auths": {"a": {"auth": "1"}, "b": {"auth": "3"}}})
        );
        assert!(
            Registries::default()
                .docker_config(&Registries::default())
                .is_none()
        );
    }
}
