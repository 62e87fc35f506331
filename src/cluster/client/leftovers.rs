//! Calls about what executors have left: lists of metadata, who still lives,
//! and deletions that name the object by its UID.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_client::Resource;
use kube_client::api::{DeleteParams, ListParams, Preconditions};
use serde::de::DeserializeOwned;

use super::KubeCluster;
use crate::cluster::error::ClusterError;
use crate::cluster::found::{FoundJob, FoundSecret, Identity};
use crate::cluster::names::JOB_OBJECT_LABELS;

/// Objects in one answer to a list.
const PAGE: u32 = 500;
/// The phases from which a pod never comes back.
const ENDED: [&str; 2] = ["Succeeded", "Failed"];

/// A Pod that has, or had, an executor in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorPod {
    /// What tells it from others of its name.
    pub uid: String,
    /// Whether all its containers have ended and none starts again.
    pub has_ended: bool,
}

impl KubeCluster {
    /// All Jobs that executors made. The released permissions do not allow it.
    pub fn jobs_found(&self) -> Result<Vec<FoundJob>, ClusterError> {
        self.list_all::<batch::Job, _>(Some(&selector()), FoundJob::by_job)
    }

    /// Those of them that have a pod.
    pub fn jobs_found_by_pods(&self) -> Result<Vec<FoundJob>, ClusterError> {
        let mut found = self.list_all::<core::Pod, _>(Some(&selector()), FoundJob::by_pod)?;
        found.sort_by(|a, b| a.job.uid.cmp(&b.job.uid));
        found.dedup_by(|a, b| a.job.uid == b.job.uid);
        Ok(found)
    }

    /// All Secrets of jobs that nothing in the cluster will remove. Asks for
    /// no contents; the released permissions do not allow it all the same.
    pub fn secrets_found(&self) -> Result<Vec<FoundSecret>, ClusterError> {
        self.list_all::<core::Secret, _>(None, FoundSecret::new)
    }

    /// The Pod of this name, if there is one.
    pub fn executor_pod(&self, name: &str) -> Result<Option<ExecutorPod>, ClusterError> {
        let pods = self.api::<core::Pod>();
        let call = format!("read Pod {name}");
        let answer = self.block(("get", "pods"), call, async { pods.get(name).await });
        let pod = match answer {
            Ok(pod) => pod,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let phase = pod.status.and_then(|status| status.phase);
        Ok(Some(ExecutorPod {
            uid: pod.metadata.uid.unwrap_or_default(),
            has_ended: phase.is_some_and(|phase| ENDED.contains(&phase.as_str())),
        }))
    }

    /// Whether there is a Job of this name.
    pub fn has_job(&self, name: &str) -> Result<bool, ClusterError> {
        match self.job_uid(name) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes this very Job and, in the background, what it owns. False if it
    /// is gone already.
    pub fn delete_found_job(&self, job: &Identity) -> Result<bool, ClusterError> {
        self.delete_found::<batch::Job>("Job", job)
    }

    /// Deletes this very Secret. False if it is gone already.
    pub fn delete_found_secret(&self, secret: &Identity) -> Result<bool, ClusterError> {
        self.delete_found::<core::Secret>("Secret", secret)
    }

    fn list_all<K, T>(
        &self,
        selector: Option<&str>,
        read: impl Fn(&ObjectMeta) -> Option<T>,
    ) -> Result<Vec<T>, ClusterError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let (api, resource) = (self.api::<K>(), K::plural(&()));
        let mut params = ListParams::default().limit(PAGE);
        params.label_selector = selector.map(str::to_string);
        let mut found = Vec::new();
        loop {
            let call = format!("list {resource} in namespace {}", self.namespace);
            let page = self.block(("list", &resource), call, async {
                api.list_metadata(&params).await
            })?;
            found.extend(page.items.iter().filter_map(|item| read(&item.metadata)));
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(found);
            }
        }
    }

    fn delete_found<K>(&self, kind: &str, object: &Identity) -> Result<bool, ClusterError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let api = self.api::<K>();
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(object.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        let call = format!("delete {kind} {}", object.name);
        let deleted = self.block(("delete", &K::plural(&())), call, async {
            api.delete(&object.name, &params).await
        });
        match deleted {
            Ok(_) => Ok(true),
            // Another one has the name now.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Selects everything that executors make for jobs.
fn selector() -> String {
    JOB_OBJECT_LABELS
        .map(|(key, value)| format!("{key}={value}"))
        .join(",")
}
