//! From a job to the objects that run it. Pure: the same job and settings
//! give the same objects.
//!
//! One Secret, or more for large jobs, carries what only the container that makes
//! the workspace may see, and values that must not be in a pod's specification;
//! one Job has one pod, whose init containers are the workspace and all steps
//! but the last. The Job owns the Secrets: however it goes, they go with it.

mod placement;
pub mod pod;
pub mod script;
pub mod secrets;
pub mod show;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::cluster::names::{
    ADOPTABLE_ANNOTATION, COMMIT_LABEL, EXECUTOR_ANNOTATION, EXECUTOR_POD_ANNOTATION,
    EXECUTOR_POD_UID_ANNOTATION, INSTANCE_LABEL, JOB_ID_LABEL, JOB_OBJECT_LABELS, KEPT_ANNOTATION,
    QUEUE_LABEL, REPOSITORY_LABEL, RUN_LABEL, SETUP_CONTAINER, SETUP_KEY, label_value,
    step_container, step_log_key,
};
use crate::config::JobSettings;
use crate::job::Job;
use crate::logs::redact::Redactions;

/// How long the cluster keeps a Job that its executor did not delete, in
/// seconds: long enough for an executor to come back after an outage.
const TTL_SECONDS: i32 = 1800;
/// How much longer than any limit of ours the cluster lets a Job live, in
/// seconds: the net below an executor that died.
const NET_SECONDS: i64 = 600;

/// What a plan needs to know beside the job.
#[derive(Clone)]
pub struct Setting<'a> {
    /// Limits, images and security by configuration.
    pub job: &'a JobSettings,
    /// Namespace of every object.
    pub namespace: &'a str,
    /// Base URL of the Sourcegraph instance.
    pub frontend_url: &'a str,
    /// Value of the Authorization header for this job's requests.
    pub authorization: String,
    /// Name of this process towards Sourcegraph.
    pub executor_name: &'a str,
    /// Image that makes the workspace: our own.
    pub workspace_image: &'a str,
    /// Pull secrets of that image, beside the configured ones.
    pub workspace_pull_secrets: &'a [String],
    /// The executor's own Pod, where known and in the same namespace.
    pub executor_pod: Option<&'a OwnerReference>,
    /// Owner of the Job, which goes with it.
    pub owner: Option<&'a OwnerReference>,
    /// Whether the next process goes on with the Job after a crash.
    pub is_adoptable: bool,
    /// What must not be seen in the cluster.
    pub redactions: &'a Redactions,
    /// Name of the attempt.
    pub run: String,
}

/// Everything that is created for a job.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the attempt, and of the Job.
    pub run: String,
    /// In the order of their creation, which is after the Job's; deleted after
    /// it too.
    pub secrets: Vec<core::Secret>,
    /// The Job.
    pub job: batch::Job,
    /// The pod's containers in the order in which they run.
    pub containers: Vec<PlannedContainer>,
}

impl Plan {
    /// Makes the Job with this UID the owner of the Secrets, so that whatever
    /// removes it (its deletion, its TTL, its own owner) removes them. The
    /// cluster needs no permission of ours for that, and we none for a
    /// reference that does not hold the Job back.
    pub fn own_secrets(&mut self, job_uid: &str) {
        let owner = OwnerReference {
            api_version: "batch/v1".to_string(),
            kind: "Job".to_string(),
            name: self.run.clone(),
            uid: job_uid.to_string(),
            ..OwnerReference::default()
        };
        for secret in &mut self.secrets {
            secret.metadata.owner_references = Some(vec![owner.clone()]);
        }
    }

    /// Keeps the names alone of what is created: a hundred jobs must be cheap.
    pub fn forget_contents(&mut self) {
        self.job = batch::Job::default();
        for secret in &mut self.secrets {
            let name = secret.metadata.name.take();
            *secret = core::Secret::default();
            secret.metadata.name = name;
        }
    }

    /// The Secrets in two batches: the second one is for when the first one is
    /// there. Each part of the workspace specification belongs to the volume
    /// without which no container of the pod can start; so none can miss what
    /// is in the first Secret, whether that holds a part or not.
    pub fn secret_batches(&self) -> [&[core::Secret]; 2] {
        let (first, others) = self.secrets.split_at(1);
        [first, others]
    }
}

/// A container, as the log knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedContainer {
    /// Name of the container.
    pub name: String,
    /// Key of its log entry.
    pub log_key: String,
    /// Its command, as the log entry shows it; none for the workspace.
    pub command: Option<Vec<String>>,
}

/// Plans a job that has steps.
pub fn plan(job: &Job, setting: &Setting<'_>) -> Plan {
    let steps = name_steps(job);
    let environments = pod::environments(job, &setting.run, setting.redactions);
    let secrets = secrets::secrets(job, setting, &environments);
    let mut containers = vec![PlannedContainer {
        name: SETUP_CONTAINER.to_string(),
        log_key: SETUP_KEY.to_string(),
        command: None,
    }];
    containers.extend(steps.iter().map(|step| PlannedContainer {
        name: step.container.clone(),
        log_key: step.log_key.clone(),
        command: Some(script::command(job, step.index)),
    }));
    let template = core::PodTemplateSpec {
        metadata: Some(with_annotations(
            &setting.job.pod_annotations,
            metadata(job, setting, None),
        )),
        spec: Some(pod::pod(job, setting, &steps, environments, &secrets)),
    };
    Plan {
        run: setting.run.clone(),
        job: kubernetes_job(job, setting, template),
        secrets: secrets.into_objects(),
        containers,
    }
}

fn kubernetes_job(job: &Job, setting: &Setting<'_>, template: core::PodTemplateSpec) -> batch::Job {
    let settings = setting.job;
    let longest = settings.max_runtime.max(settings.deadline).as_secs();
    // What is kept is for a person, who alone decides when it goes.
    let keep = settings.keep_jobs;
    let owner = setting.owner.filter(|_| !keep);
    batch::Job {
        metadata: ObjectMeta {
            owner_references: owner.map(|owner| vec![owner.clone()]),
            ..with_annotations(
                &settings.job_annotations,
                metadata(job, setting, Some(setting.run.clone())),
            )
        },
        spec: Some(batch::JobSpec {
            active_deadline_seconds: Some(longest as i64 + NET_SECONDS),
            backoff_limit: Some(0),
            // A second pod could start while the first one still ends.
            pod_replacement_policy: Some("Failed".to_string()),
            ttl_seconds_after_finished: (!keep).then_some(TTL_SECONDS),
            template,
            ..batch::JobSpec::default()
        }),
        status: None,
    }
}

/// A step with the names that it has in the cluster and in the log.
pub struct NamedStep {
    /// Its place in the job.
    pub index: usize,
    /// Name of its container.
    pub container: String,
    /// Key of its log entry.
    pub log_key: String,
}

fn name_steps(job: &Job) -> Vec<NamedStep> {
    let mut taken = std::collections::HashSet::new();
    let name = |(index, step): (usize, &crate::job::Step)| {
        let mut container = step_container(index, &step.key);
        // `a.b` and `a-b` would meet in one name.
        if !taken.insert(container.clone()) {
            container = format!("step-{index}");
        }
        NamedStep {
            index,
            container,
            log_key: step_log_key(&step.key),
        }
    };
    job.steps.iter().enumerate().map(name).collect()
}

/// Labels to select by and annotations to read, the same on all objects.
fn metadata(job: &Job, setting: &Setting<'_>, name: Option<String>) -> ObjectMeta {
    let mut labels = BTreeMap::from([
        (
            INSTANCE_LABEL.to_string(),
            label_value(setting.executor_name),
        ),
        (RUN_LABEL.to_string(), setting.run.clone()),
        (QUEUE_LABEL.to_string(), label_value(&job.queue)),
        (JOB_ID_LABEL.to_string(), label_value(&job.id.to_string())),
    ]);
    labels.extend(JOB_OBJECT_LABELS.map(|(key, value)| (key.to_string(), value.to_string())));
    let mut annotations = BTreeMap::from([(
        EXECUTOR_ANNOTATION.to_string(),
        setting.executor_name.to_string(),
    )]);
    if let Some(pod) = setting.executor_pod {
        annotations.insert(EXECUTOR_POD_ANNOTATION.to_string(), pod.name.clone());
        annotations.insert(EXECUTOR_POD_UID_ANNOTATION.to_string(), pod.uid.clone());
    }
    if setting.is_adoptable {
        annotations.insert(ADOPTABLE_ANNOTATION.to_string(), true.to_string());
    }
    if setting.job.keep_jobs {
        annotations.insert(KEPT_ANNOTATION.to_string(), true.to_string());
    }
    if let Some(repository) = &job.repository {
        let full = [
            (REPOSITORY_LABEL, &repository.name),
            (COMMIT_LABEL, &repository.commit),
        ];
        for (key, value) in full {
            labels.insert(key.to_string(), label_value(value));
            annotations.insert(key.to_string(), value.clone());
        }
    }
    ObjectMeta {
        namespace: name.is_some().then(|| setting.namespace.to_string()),
        name,
        labels: Some(labels),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    }
}

/// Adds configured annotations. Our own win, since tools rely on them.
fn with_annotations(configured: &BTreeMap<String, String>, mut metadata: ObjectMeta) -> ObjectMeta {
    let mut annotations = configured.clone();
    annotations.extend(metadata.annotations.take().unwrap_or_default());
    metadata.annotations = Some(annotations);
    metadata
}
