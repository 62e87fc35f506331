//! The Secrets of a job: what makes the workspace, hidden environment values,
//! and registry credentials. As a rule it is one Secret, since each costs a call
//! to create and one to delete; who may see which of its keys is in the pod.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1 as core;

use crate::cluster::plan::pod::Environment;
use crate::cluster::plan::{Setting, metadata, script};
use crate::job::{FileSource, Job};
use crate::workspace::spec::{
    FileSourceSpec, FileSpec, PART_BYTES_MAX, RepositorySpec, WorkspaceSpec,
};

/// Type of a Secret with registry credentials, which may hold other keys too.
const REGISTRY_TYPE: &str = "kubernetes.io/dockerconfigjson";
const REGISTRY_KEY: &str = ".dockerconfigjson";

/// The Secrets, and what of them is for whom.
pub struct JobSecrets {
    /// Where each part of the workspace specification is: Secret, key.
    pub workspace: Vec<(String, String)>,
    /// The Secret that has registry credentials, if the job has any.
    pub registry: Option<String>,
    objects: Vec<core::Secret>,
}

impl JobSecrets {
    /// The objects to create; the first one, before all others.
    pub fn into_objects(self) -> Vec<core::Secret> {
        self.objects
    }
}

/// Name of a Secret. The first one holds hidden values and credentials.
pub fn secret_name(run: &str, number: usize) -> String {
    format!("{run}-secrets-{number}")
}

/// Makes the Secrets of a job.
pub fn secrets(job: &Job, setting: &Setting<'_>, environments: &[Environment]) -> JobSecrets {
    let mut first: BTreeMap<String, Vec<u8>> = environments
        .iter()
        .flat_map(|environment| environment.hidden.iter())
        .map(|(key, value)| (key.clone(), value.clone().into_bytes()))
        .collect();
    let config = job.registries.docker_config(&setting.job.registries);
    let registry = config.map(|config| {
        let config = config.reveal().as_bytes().to_vec();
        first.insert(REGISTRY_KEY.to_string(), config);
        secret_name(&setting.run, 0)
    });
    let taken: usize = first.values().map(Vec::len).sum();
    let mut contents = vec![first];
    let mut workspace = Vec::new();
    for (index, part) in workspace_spec(job, setting).pack().into_iter().enumerate() {
        let has_room = index == 0 && (taken == 0 || taken + part.len() <= PART_BYTES_MAX);
        if !has_room {
            contents.push(BTreeMap::new());
        }
        let last = contents.len() - 1;
        let key = WorkspaceSpec::part_name(index);
        contents[last].insert(key.clone(), part);
        workspace.push((secret_name(&setting.run, last), key));
    }
    let make = |(number, data)| {
        let kind = registry.as_ref().filter(|_| number == 0);
        let name = secret_name(&setting.run, number);
        secret(job, setting, &name, data, kind.map(|_| REGISTRY_TYPE))
    };
    JobSecrets {
        objects: contents.into_iter().enumerate().map(make).collect(),
        workspace,
        registry,
    }
}

fn secret(
    job: &Job,
    setting: &Setting<'_>,
    name: &str,
    data: BTreeMap<String, Vec<u8>>,
    kind: Option<&str>,
) -> core::Secret {
    core::Secret {
        metadata: metadata(job, setting, Some(name.to_string())),
        data: Some(
            data.into_iter()
                .map(|(key, value)| (key, ByteString(value)))
                .collect(),
        ),
        immutable: Some(true),
        type_: kind.map(str::to_string),
        ..core::Secret::default()
    }
}

fn workspace_spec(job: &Job, setting: &Setting<'_>) -> WorkspaceSpec {
    let files = job.files.iter().map(|file| FileSpec {
        path: file.path.clone(),
        source: match &file.source {
            FileSource::Inline(content) => FileSourceSpec::Inline(content.clone()),
            FileSource::Store { bucket, key } => FileSourceSpec::Store {
                bucket: bucket.clone(),
                key: key.clone(),
            },
        },
        modified_at: file.modified_at.clone(),
    });
    let scripts = job.steps.iter().enumerate().map(|(index, step)| FileSpec {
        path: script::path(job, index),
        source: FileSourceSpec::Inline(script::script(step).into_bytes()),
        modified_at: None,
    });
    WorkspaceSpec {
        frontend_url: setting.frontend_url.to_string(),
        authorization: setting.authorization.clone(),
        executor_name: setting.executor_name.to_string(),
        job_id: job.id,
        repository: job.repository.as_ref().map(|repository| RepositorySpec {
            name: repository.name.clone(),
            directory: repository.directory.clone(),
            commit: repository.commit.clone(),
            fetch_tags: repository.fetch_tags,
            shallow: repository.shallow,
            sparse_checkout: repository.sparse_checkout.clone(),
            ca_certificate: setting.job.git_ca_certificate.clone(),
        }),
        files: files.chain(scripts).collect(),
    }
}

/// A Secret must hold a part and what Kubernetes adds to it.
const _: () = assert!(PART_BYTES_MAX < 1024 * 1024);
