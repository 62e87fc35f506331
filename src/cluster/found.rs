//! What objects that are found in the cluster tell of the executor that made
//! them, by their metadata alone. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::cluster::names::{
    ADOPTABLE_ANNOTATION, EXECUTOR_ANNOTATION, EXECUTOR_POD_ANNOTATION,
    EXECUTOR_POD_UID_ANNOTATION, JOB_ID_LABEL, JOB_OBJECT_LABELS, KEPT_ANNOTATION, QUEUE_LABEL,
    RUN_LABEL, RUN_PREFIX,
};
use crate::job::JobKey;

/// How the released executor ends the name of a job's Secret, after the name
/// of the Job.
const RELEASED_SECRET_SUFFIX: &str = "-secrets";

/// An object, and no other one that once had or will have its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// What tells it from others of this name.
    pub uid: String,
}

/// A Job that an executor of this project made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundJob {
    /// The Job; its name is that of the run.
    pub job: Identity,
    /// Full name of the executor process that made it.
    pub executor: String,
    /// Which job of Sourcegraph it is an attempt at.
    pub key: Option<JobKey>,
    /// That executor's own Pod, if it is one of this namespace.
    pub executor_pod: Option<Identity>,
    /// Whether that executor goes on with it after a restart.
    pub is_adoptable: bool,
    /// Whether it is for a person, who removes it.
    pub is_kept: bool,
}

/// A Secret of a job that nothing in the cluster will remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundSecret {
    /// The Secret.
    pub secret: Identity,
    /// Name of the Job that it was made for.
    pub job: String,
    /// When it was made, by the clock of the API server.
    pub created: Option<Timestamp>,
}

impl FoundJob {
    /// What a Job tells; `None` if it is none of ours, or is being deleted.
    pub fn by_job(metadata: &ObjectMeta) -> Option<FoundJob> {
        FoundJob::new(metadata, identity(metadata)?)
    }

    /// What the pod of a Job tells; `None` if it is none of ours, or is being
    /// deleted. Labels can be copied: the Job must be its controller.
    pub fn by_pod(metadata: &ObjectMeta) -> Option<FoundJob> {
        let is_its_job =
            |owner: &&OwnerReference| owner.controller == Some(true) && owner.kind == "Job";
        let owners = metadata.owner_references.as_ref()?;
        let owner = owners.iter().find(is_its_job)?;
        let job = Identity {
            name: owner.name.clone(),
            uid: owner.uid.clone(),
        };
        FoundJob::new(metadata, job)
    }

    fn new(metadata: &ObjectMeta, job: Identity) -> Option<FoundJob> {
        let is_ours = is_made_by_us(metadata) && label(metadata, RUN_LABEL) == Some(&job.name);
        if !is_ours || metadata.deletion_timestamp.is_some() {
            return None;
        }
        let is_true = |key| annotation(metadata, key) == Some("true");
        Some(FoundJob {
            executor: annotation(metadata, EXECUTOR_ANNOTATION)?.to_string(),
            key: job_key(metadata),
            executor_pod: annotation(metadata, EXECUTOR_POD_ANNOTATION)
                .zip(annotation(metadata, EXECUTOR_POD_UID_ANNOTATION))
                .map(|(name, uid)| Identity {
                    name: name.to_string(),
                    uid: uid.to_string(),
                }),
            is_adoptable: is_true(ADOPTABLE_ANNOTATION),
            is_kept: is_true(KEPT_ANNOTATION),
            job,
        })
    }
}

impl FoundSecret {
    /// `None` if the Secret is none of a job, has an owner, which takes it
    /// along, or is being deleted. Such Secrets are those of the released
    /// executor and of our own first versions.
    pub fn new(metadata: &ObjectMeta) -> Option<FoundSecret> {
        let has_owner = metadata
            .owner_references
            .as_ref()
            .is_some_and(|owners| !owners.is_empty());
        if has_owner || metadata.deletion_timestamp.is_some() {
            return None;
        }
        let secret = identity(metadata)?;
        let job = if is_made_by_us(metadata) {
            label(metadata, RUN_LABEL)?.to_string()
        } else {
            secret
                .name
                .strip_suffix(RELEASED_SECRET_SUFFIX)?
                .to_string()
        };
        job.starts_with(RUN_PREFIX).then(|| FoundSecret {
            secret,
            job,
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
        })
    }
}

fn identity(metadata: &ObjectMeta) -> Option<Identity> {
    Some(Identity {
        name: metadata.name.clone()?,
        uid: metadata.uid.clone()?,
    })
}

fn is_made_by_us(metadata: &ObjectMeta) -> bool {
    let has = |(key, value): (&str, &str)| label(metadata, key) == Some(value);
    JOB_OBJECT_LABELS.into_iter().all(has)
}

fn job_key(metadata: &ObjectMeta) -> Option<JobKey> {
    Some(JobKey {
        queue: label(metadata, QUEUE_LABEL)?.to_string(),
        id: label(metadata, JOB_ID_LABEL)?.parse().ok()?,
    })
}

fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    let labels = metadata.labels.as_ref()?;
    labels.get(key).map(String::as_str)
}

fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    let annotations = metadata.annotations.as_ref()?;
    annotations.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const RUN: &str = "sg-executor-job-batches-17-0a1b2c3d";

    fn metadata() -> Value {
        json!({
            "name": RUN,
            "uid": "u-1",
            "labels": {
                "app.kubernetes.io/managed-by": "sourcegraph-executor",
                "app.kubernetes.io/name": "sourcegraph-executor-job",
                "executor.sourcegraph.com/run": RUN,
                "executor.sourcegraph.com/queue": "batches",
                "executor.sourcegraph.com/job-id": "17",
            },
            "annotations": {
                "executor.sourcegraph.com/executor": "executor-0-5b0c",
                "executor.sourcegraph.com/executor-pod": "executor-0",
                "executor.sourcegraph.com/executor-pod-uid": "u-9",
            },
        })
    }

    /// The metadata with another value at this path.
    fn with(path: &[&str], value: Value) -> ObjectMeta {
        let mut metadata = metadata();
        let place = path
            .iter()
            .fold(&mut metadata, |place, key| &mut place[*key]);
        *place = value;
        serde_json::from_value(metadata).unwrap()
    }

    fn found() -> FoundJob {
        FoundJob {
            job: Identity {
                name: RUN.to_string(),
                uid: "u-1".to_string(),
            },
            executor: "executor-0-5b0c".to_string(),
            key: Some(JobKey {
                queue: "batches".to_string(),
                id: 17,
            }),
            executor_pod: Some(Identity {
                name: "executor-0".to_string(),
                uid: "u-9".to_string(),
            }),
            is_adoptable: false,
            is_kept: false,
        }
    }

    #[test]
    fn jobs_tell_who_made_them() {
        let same = with(&["uid"], json!("u-1"));
        assert_eq!(FoundJob::by_job(&same), Some(found()));
        let marks = ["adoptable", "kept"].map(|mark| {
            let key = format!("executor.sourcegraph.com/{mark}");
            let metadata = with(&["annotations", &key], json!("true"));
            let job = FoundJob::by_job(&metadata).unwrap();
            (job.is_adoptable, job.is_kept)
        });
        assert_eq!(marks, [(true, false), (false, true)]);
    }

    #[test]
    fn pods_tell_of_their_job() {
        let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": RUN, "uid": "u-1",
            "controller": true, "blockOwnerDeletion": true});
        let mut pod = with(&["ownerReferences"], json!([owner]));
        pod.name = Some(format!("{RUN}-x7x7x"));
        pod.uid = Some("u-3".to_string());
        assert_eq!(FoundJob::by_pod(&pod), Some(found()));
        let loose = with(&["ownerReferences"], json!([]));
        assert_eq!(FoundJob::by_pod(&loose), None, "labels can be copied");
    }

    #[test]
    fn what_is_not_ours_is_not_found() {
        let managed_by = "app.kubernetes.io/managed-by";
        let run = "executor.sourcegraph.com/run";
        for (path, value) in [
            (["labels", managed_by].as_slice(), json!("helm")),
            (&["labels", run], json!("another")),
            (&["annotations"], json!({})),
            (&["uid"], Value::Null),
            (&["deletionTimestamp"], json!("2026-01-31T12:00:00Z")),
        ] {
            let metadata = with(path, value);
            assert_eq!(FoundJob::by_job(&metadata), None, "{path:?}");
        }
    }

    #[test]
    fn only_secrets_without_owner_are_found() {
        let ours = with(&["name"], json!(format!("{RUN}-secrets-0")));
        assert_eq!(FoundSecret::new(&ours).unwrap().job, RUN);
        let owner = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": RUN, "uid": "u-1"}]);
        assert_eq!(FoundSecret::new(&with(&["ownerReferences"], owner)), None);
        for (name, job) in [
            (
                "sg-executor-job-batches-5-secrets",
                Some("sg-executor-job-batches-5"),
            ),
            ("sg-executor-job-batches-5", None),
            ("registry-secrets", None),
        ] {
            let mut released = with(&["labels"], json!({}));
            released.name = Some(name.to_string());
            let found = FoundSecret::new(&released).map(|secret| secret.job);
            assert_eq!(found.as_deref(), job, "{name}");
        }
    }
}
