//! The Secrets of a job: what makes the workspace, hidden environment values,
//! and registry credentials.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1 as core;

use crate::cluster::plan::pod::Environment;
use crate::cluster::plan::{Setting, metadata, script};
use crate::job::{FileSource, Job};
use crate::workspace::spec::{
    FileSourceSpec, FileSpec, PART_BYTES_MAX, RepositorySpec, WorkspaceSpec,
};

/// The Secrets, and which part of each is for whom.
pub struct JobSecrets {
    /// Each carries one part of the workspace specification: name, key.
    pub workspace: Vec<(String, String)>,
    /// Name of the registry credentials, if the job has any.
    pub registry: Option<String>,
    objects: Vec<core::Secret>,
}

impl JobSecrets {
    /// The objects to create, those of the workspace last.
    pub fn into_objects(self) -> Vec<core::Secret> {
        self.objects
    }
}

/// Name of the Secret that holds hidden environment values.
pub fn environment_secret(run: &str) -> String {
    format!("{run}-env")
}

/// Makes the Secrets of a job.
pub fn secrets(job: &Job, setting: &Setting<'_>, environments: &[Environment]) -> JobSecrets {
    let mut objects = Vec::new();
    let hidden: BTreeMap<String, Vec<u8>> = environments
        .iter()
        .flat_map(|environment| environment.hidden.iter())
        .map(|(key, value)| (key.clone(), value.clone().into_bytes()))
        .collect();
    if !hidden.is_empty() {
        let name = environment_secret(&setting.run);
        objects.push(secret(job, setting, &name, hidden, None));
    }
    let config = job.registries.docker_config(&setting.job.registries);
    let registry = config.map(|config| {
        let name = format!("{}-registry", setting.run);
        let data = [(
            ".dockerconfigjson".to_string(),
            config.reveal().as_bytes().to_vec(),
        )];
        let kind = Some("kubernetes.io/dockerconfigjson");
        objects.push(secret(job, setting, &name, data.into(), kind));
        name
    });
    let mut workspace = Vec::new();
    for (index, part) in workspace_spec(job, setting).pack().into_iter().enumerate() {
        let name = format!("{}-workspace-{index}", setting.run);
        let key = WorkspaceSpec::part_name(index);
        objects.push(secret(
            job,
            setting,
            &name,
            [(key.clone(), part)].into(),
            None,
        ));
        workspace.push((name, key));
    }
    JobSecrets {
        workspace,
        registry,
        objects,
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
