//! What people do to pods of jobs, through kubectl.

use serde_json::{Value, json};

use crate::frontend::record::{JobRef, Queue};
use crate::support::cluster::{Namespace, try_kubectl};

/// A pod that has not ended.
pub(crate) struct OpenPod {
    /// Its name.
    pub(crate) name: String,
    /// The job that it is for.
    pub(crate) job: JobRef,
}

/// All pods and Jobs of a namespace, as JSON; none if the cluster is busy.
pub(crate) fn everything(namespace: &Namespace) -> Option<String> {
    let get = ["-n", &namespace.name, "get", "pods,jobs", "-o", "json"];
    try_kubectl(&get, None).ok()
}

/// The pods in such a list that run or are about to.
pub(crate) fn open(list: &str) -> Vec<OpenPod> {
    let list: Value = serde_json::from_str(list).unwrap_or_default();
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items.iter().filter_map(open_pod).collect()
}

fn open_pod(object: &Value) -> Option<OpenPod> {
    let metadata = &object["metadata"];
    let phase = object["status"]["phase"].as_str()?;
    let is_open = object["kind"] == "Pod"
        && metadata["deletionTimestamp"].is_null()
        && ["Pending", "Running"].contains(&phase);
    let label =
        |name: &str| metadata["labels"][format!("executor.sourcegraph.com/{name}")].as_str();
    is_open.then_some(OpenPod {
        name: metadata["name"].as_str()?.to_owned(),
        job: JobRef {
            queue: Queue::named(label("queue")?)?,
            id: label("job-id")?.parse().ok()?,
        },
    })
}

/// Deletes a pod, as a person would. False if it was gone.
pub(crate) fn delete(namespace: &Namespace, pod: &str) -> bool {
    let delete = ["-n", &namespace.name, "delete", "pod", pod, "--wait=false"];
    try_kubectl(&delete, None).is_ok()
}

/// Evicts a pod, as a drain of its node would. False if it was gone.
pub(crate) fn evict(namespace: &Namespace, pod: &str) -> bool {
    let name = &namespace.name;
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": pod, "namespace": name},
    });
    let path = format!("/api/v1/namespaces/{name}/pods/{pod}/eviction");
    let create = ["create", "--raw", &path, "-f", "-"];
    try_kubectl(&create, Some(&eviction.to_string())).is_ok()
}
