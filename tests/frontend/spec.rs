//! Jobs as a test describes them, and what goes over the wire for them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::record::Queue;
use super::version::Encoding;

/// What the server writes for a modification time that it does not know.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// A job, built up by a test. Without further calls it is the smallest one:
/// no repository, no files, no steps.
#[derive(Clone, Debug)]
pub(crate) struct JobSpec {
    pub(super) queue: Queue,
    pub(super) repository: String,
    commit: String,
    directory: String,
    fetch_tags: bool,
    shallow: bool,
    sparse_checkout: Vec<String>,
    files: BTreeMap<String, FileSpec>,
    pub(super) steps: Vec<StepSpec>,
    cli_steps: Vec<Value>,
    redacted: BTreeMap<String, String>,
    registries: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
struct FileSpec {
    source: Source,
    modified_at: String,
}

#[derive(Clone, Debug)]
enum Source {
    Inline(Vec<u8>),
    Stored(String),
}

/// One step of a job: a container with shell lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct StepSpec {
    /// Name of the step; left out of the payload when empty.
    pub(crate) key: String,
    /// Image to run.
    pub(crate) image: String,
    /// Shell lines.
    pub(crate) commands: Vec<String>,
    /// Working directory relative to the workspace.
    pub(crate) dir: String,
    /// Environment as `NAME=value`.
    pub(crate) env: Vec<String>,
}

impl StepSpec {
    /// A step without commands, in the root of the workspace.
    pub(crate) fn new(key: &str, image: &str) -> StepSpec {
        StepSpec {
            key: key.to_owned(),
            image: image.to_owned(),
            ..StepSpec::default()
        }
    }

    /// Adds a shell line.
    pub(crate) fn command(mut self, line: impl Into<String>) -> StepSpec {
        self.commands.push(line.into());
        self
    }

    /// Sets the working directory.
    pub(crate) fn dir(mut self, dir: &str) -> StepSpec {
        self.dir = dir.to_owned();
        self
    }

    /// Adds a variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> StepSpec {
        self.env.push(format!("{name}={value}"));
        self
    }

    fn payload(&self) -> Value {
        let mut step = json!({
            "image": self.image,
            "commands": self.commands,
            "dir": self.dir,
            "env": null_if_empty(&self.env),
        });
        if !self.key.is_empty() {
            step["key"] = json!(self.key);
        }
        step
    }
}

impl JobSpec {
    /// A job of the queue `batches` or `codeintel`; another name panics.
    pub(crate) fn new(queue: &str) -> JobSpec {
        JobSpec {
            queue: Queue::named(queue).expect("the server has two queues only"),
            repository: String::new(),
            commit: String::new(),
            directory: String::new(),
            fetch_tags: false,
            shallow: false,
            sparse_checkout: Vec::new(),
            files: BTreeMap::new(),
            steps: Vec::new(),
            cli_steps: Vec::new(),
            redacted: BTreeMap::new(),
            registries: BTreeMap::new(),
        }
    }

    /// Sets what to clone and which commit to check out.
    pub(crate) fn repository(mut self, name: &str, commit: &str) -> JobSpec {
        self.repository = name.to_owned();
        self.commit = commit.to_owned();
        self
    }

    /// Sets where the clone goes, relative to the workspace.
    pub(crate) fn directory(mut self, directory: &str) -> JobSpec {
        self.directory = directory.to_owned();
        self
    }

    /// Asks for tags too.
    pub(crate) fn fetch_tags(mut self, wanted: bool) -> JobSpec {
        self.fetch_tags = wanted;
        self
    }

    /// Asks for the one commit without history.
    pub(crate) fn shallow(mut self, wanted: bool) -> JobSpec {
        self.shallow = wanted;
        self
    }

    /// Adds a pattern of a sparse checkout.
    pub(crate) fn sparse(mut self, pattern: &str) -> JobSpec {
        self.sparse_checkout.push(pattern.to_owned());
        self
    }

    /// Adds a file that travels inside the job.
    pub(crate) fn file(self, path: &str, content: impl Into<Vec<u8>>) -> JobSpec {
        self.file_modified(path, content, ZERO_TIME)
    }

    /// The same with a modification time (RFC 3339).
    pub(crate) fn file_modified(
        mut self,
        path: &str,
        content: impl Into<Vec<u8>>,
        modified_at: &str,
    ) -> JobSpec {
        let source = Source::Inline(content.into());
        let file = FileSpec {
            source,
            modified_at: modified_at.to_owned(),
        };
        self.files.insert(path.to_owned(), file);
        self
    }

    /// Adds a file that the workspace must fetch from the file store, where
    /// `key` is `<spec>/<file>` as given to `Frontend::put_file`.
    pub(crate) fn stored_file(mut self, path: &str, key: &str, modified_at: &str) -> JobSpec {
        let source = Source::Stored(key.to_owned());
        let file = FileSpec {
            source,
            modified_at: modified_at.to_owned(),
        };
        self.files.insert(path.to_owned(), file);
        self
    }

    /// Adds a step.
    pub(crate) fn step(mut self, step: StepSpec) -> JobSpec {
        self.steps.push(step);
        self
    }

    /// Adds a `src` command line, which cannot run on Kubernetes.
    pub(crate) fn cli_step(mut self, key: &str, command: &[&str]) -> JobSpec {
        self.cli_steps
            .push(json!({ "key": key, "command": command, "dir": ".", "env": null }));
        self
    }

    /// Adds text that must not be seen, and what stands in its place.
    pub(crate) fn redact(mut self, secret: &str, replacement: &str) -> JobSpec {
        self.redacted
            .insert(secret.to_owned(), replacement.to_owned());
        self
    }

    /// Adds registry credentials; only the second encoding carries them.
    pub(crate) fn registry(mut self, host: &str, user: &str, password: &str) -> JobSpec {
        let auth = STANDARD.encode(format!("{user}:{password}"));
        self.registries.insert(host.to_owned(), auth);
        self
    }

    /// The job as it is written for an executor that asked for `encoding`.
    pub(super) fn payload(&self, encoding: Encoding) -> Map<String, Value> {
        let files: Map<String, Value> = self
            .files
            .iter()
            .map(|(path, file)| (path.clone(), file.payload(encoding)))
            .collect();
        let steps: Vec<Value> = self.steps.iter().map(StepSpec::payload).collect();
        let mut payload = Map::new();
        let mut set = |name: &str, value: Value| payload.insert(name.to_owned(), value);
        set("repositoryName", json!(self.repository));
        set("repositoryDirectory", json!(self.directory));
        set("commit", json!(self.commit));
        set("fetchTags", json!(self.fetch_tags));
        set("shallowClone", json!(self.shallow));
        set("sparseCheckout", null_if_empty(&self.sparse_checkout));
        set("files", Value::Object(files));
        set("dockerSteps", null_if_empty(&steps));
        set("cliSteps", null_if_empty(&self.cli_steps));
        set("redactedValues", json!(self.redacted));
        if encoding == Encoding::V2 {
            set("version", json!(2));
            set("dockerAuthConfig", self.docker_config());
        }
        payload
    }

    fn docker_config(&self) -> Value {
        if self.registries.is_empty() {
            return json!({});
        }
        let auths: Map<String, Value> = self
            .registries
            .iter()
            .map(|(host, auth)| (host.clone(), json!({ "auth": auth })))
            .collect();
        json!({ "auths": auths })
    }
}

impl FileSpec {
    fn payload(&self, encoding: Encoding) -> Value {
        let mut file = json!({ "modifiedAt": self.modified_at });
        match (&self.source, encoding) {
            (Source::Inline(content), Encoding::V0) => {
                return json!(String::from_utf8_lossy(content));
            }
            (Source::Stored(_), Encoding::V0) => return json!(""),
            (Source::Stored(key), _) => {
                file["bucket"] = json!("batch-changes");
                file["key"] = json!(key);
            }
            // An empty content is left out, as the server leaves it out.
            (Source::Inline(content), _) if content.is_empty() => {}
            (Source::Inline(content), Encoding::V1) => {
                file["content"] = json!(String::from_utf8_lossy(content));
            }
            (Source::Inline(content), Encoding::V2) => {
                file["content"] = json!(STANDARD.encode(content));
            }
        }
        file
    }
}

/// Lists without elements travel as null, as Go writes them.
fn null_if_empty<T: serde::Serialize>(list: &[T]) -> Value {
    if list.is_empty() {
        Value::Null
    } else {
        json!(list)
    }
}
