//! Questions that are asked before any job runs: what is there, what we may
//! do, and what the API server would say to the objects of a job.
//!
//! Nothing is changed: objects are created as a dry run. Answers are plain
//! values. Whoever asks sets an end for all questions together, so that a
//! cluster that hangs is not waited for once a question.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::authorization::v1 as authorization;
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::storage::v1 as storage;
use kube_client::api::{Api, ListParams, PostParams};
use kube_client::client::Body;
use kube_client::core::{Request, Status};
use kube_client::{Client, Resource};
use serde::Serialize;

use crate::cluster::client::{KubeCluster, OwnPod, outcome, own_pod};
use crate::cluster::error::{ClusterError, ClusterErrorKind};
use crate::cluster::inventory::{
    LimitItem, LimitKind, Node, Permission, Quota, Scope, ServerVersion, amounts,
};

/// A question that is not answered by then is not answered.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Objects of one list; a namespace with more of them is not looked at whole.
const LIST_MAX: u32 = 500;
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// Asks, until its time is over.
pub struct Inspector<'a> {
    cluster: &'a KubeCluster,
    until: Instant,
}

impl KubeCluster {
    /// Asks questions that take no longer than this, all together.
    pub fn inspect(&self, limit: Duration) -> Inspector<'_> {
        Inspector {
            cluster: self,
            until: Instant::now() + limit,
        }
    }
}

impl Inspector<'_> {
    /// Version of the API server, which also says whether it can be reached.
    pub fn version(&self) -> Result<ServerVersion, ClusterError> {
        let client = self.client();
        let version = self.ask("read the version of Kubernetes", async move {
            client.apiserver_version().await
        })?;
        Ok(ServerVersion {
            name: version.git_version,
            minor: leading_number(&version.minor),
        })
    }

    /// Labels of the namespace. They show whether it exists, too.
    pub fn namespace_labels(&self) -> Result<BTreeMap<String, String>, ClusterError> {
        let namespaces: Api<core::Namespace> = Api::all(self.client());
        let name = self.cluster.namespace.clone();
        let call = format!("read namespace {name}");
        let namespace = self.ask(&call, async move { namespaces.get(&name).await })?;
        Ok(namespace.metadata.labels.unwrap_or_default())
    }

    /// Which of these we may do in the namespace, in the same order.
    pub fn allowed(&self, permissions: &[Permission]) -> Result<Vec<bool>, ClusterError> {
        let reviews: Api<authorization::SelfSubjectAccessReview> = Api::all(self.client());
        let asked = permissions.iter().map(|permission| {
            let (reviews, review) = (reviews.clone(), self.review(permission));
            async move { reviews.create(&PostParams::default(), &review).await }
        });
        let answers = self.ask("ask what this account may do", try_join_all(asked))?;
        let allowed = answers
            .into_iter()
            .map(|answer| answer.status.is_some_and(|status| status.allowed));
        Ok(allowed.collect())
    }

    fn review(&self, permission: &Permission) -> authorization::SelfSubjectAccessReview {
        let (resource, subresource) = match permission.resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource.to_string())),
            None => (permission.resource, None),
        };
        let attributes = authorization::ResourceAttributes {
            namespace: Some(self.cluster.namespace.clone()),
            group: Some(permission.group.to_string()),
            resource: Some(resource.to_string()),
            subresource,
            verb: Some(permission.verb.to_string()),
            ..authorization::ResourceAttributes::default()
        };
        authorization::SelfSubjectAccessReview {
            spec: authorization::SelfSubjectAccessReviewSpec {
                resource_attributes: Some(attributes),
                ..authorization::SelfSubjectAccessReviewSpec::default()
            },
            ..authorization::SelfSubjectAccessReview::default()
        }
    }

    /// Reads the executor's own Pod, which may be in another namespace.
    pub fn own_pod(&self, namespace: &str, name: &str) -> Result<OwnPod, ClusterError> {
        let pods: Api<core::Pod> = Api::namespaced(self.client(), namespace);
        let call = format!("read our own Pod {namespace}/{name}");
        self.ask(&call, async move { pods.get(name).await })
            .map(own_pod)
    }

    /// The quotas of the namespace.
    pub fn quotas(&self) -> Result<Vec<Quota>, ClusterError> {
        let quotas = self.list::<core::ResourceQuota>("resourcequotas")?;
        Ok(quotas.into_iter().map(quota).collect())
    }

    /// The limit ranges of the namespace.
    pub fn limits(&self) -> Result<Vec<LimitItem>, ClusterError> {
        let ranges = self.list::<core::LimitRange>("limitranges")?;
        Ok(ranges.into_iter().flat_map(limits).collect())
    }

    /// Type of a Secret of the namespace. Its content is dropped unread.
    pub fn secret_type(&self, name: &str) -> Result<String, ClusterError> {
        let secrets = self.cluster.api::<core::Secret>();
        let call = format!("read Secret {}/{name}", self.cluster.namespace);
        let secret = self.ask(&call, async move { secrets.get(name).await })?;
        Ok(secret.type_.unwrap_or_default())
    }

    /// Name of the default storage class, if there is one.
    pub fn default_storage_class(&self) -> Result<Option<String>, ClusterError> {
        let classes: Api<storage::StorageClass> = Api::all(self.client());
        let list = self.ask("list storageclasses", async move {
            classes.list(&ListParams::default().limit(LIST_MAX)).await
        })?;
        let is_default = |class: &storage::StorageClass| {
            let annotations = class.metadata.annotations.as_ref();
            annotations.is_some_and(|all| all.get(DEFAULT_CLASS).is_some_and(|it| it == "true"))
        };
        let found = list.items.into_iter().find(is_default);
        Ok(found.and_then(|class| class.metadata.name))
    }

    /// The nodes that take pods.
    pub fn nodes(&self) -> Result<Vec<Node>, ClusterError> {
        let nodes: Api<core::Node> = Api::all(self.client());
        let list = self.ask("list nodes", async move {
            nodes.list(&ListParams::default().limit(LIST_MAX)).await
        })?;
        let is_open = |node: &core::Node| {
            let spec = node.spec.as_ref();
            spec.is_none_or(|spec| spec.unschedulable != Some(true))
        };
        let open = list.items.into_iter().filter(is_open).map(|node| Node {
            name: node.metadata.name.unwrap_or_default(),
            allocatable: amounts(node.status.and_then(|status| status.allocatable)),
        });
        Ok(open.collect())
    }

    /// What the API server would say to a Secret: warnings, or a refusal.
    pub fn dry_run_secret(&self, secret: &core::Secret) -> Result<Vec<String>, ClusterError> {
        self.dry_run("Secret", secret)
    }

    /// What the API server would say to a Job: warnings, or a refusal.
    pub fn dry_run_job(&self, job: &batch::Job) -> Result<Vec<String>, ClusterError> {
        self.dry_run("Job", job)
    }

    /// By the bare client, as the warnings are in headers of the answer.
    fn dry_run<K>(&self, kind: &str, object: &K) -> Result<Vec<String>, ClusterError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize,
    {
        let client = self.client();
        let path = K::url_path(&(), Some(&self.cluster.namespace));
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        self.ask(&format!("create a {kind} as a dry run"), async move {
            let body = serde_json::to_vec(object).map_err(kube_client::Error::SerdeError)?;
            let request = Request::new(path)
                .create(&params, body)
                .map_err(kube_client::Error::BuildRequest)?;
            let answer = client.send(request.map(Body::from)).await?;
            let status = answer.status();
            let headers = answer.headers().get_all("warning").iter();
            let warnings = headers.map(|value| warning(value.as_bytes())).collect();
            let body = answer.into_body().collect_bytes().await?;
            match status.is_success() {
                true => Ok(warnings),
                false => Err(refusal(status.as_u16(), &body)),
            }
        })
    }

    fn list<K>(&self, kinds: &str) -> Result<Vec<K>, ClusterError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug,
    {
        let api = self.cluster.api::<K>();
        let call = format!("list {kinds} in namespace {}", self.cluster.namespace);
        let list = self.ask(&call, async move {
            api.list(&ListParams::default().limit(LIST_MAX)).await
        })?;
        Ok(list.items)
    }

    fn client(&self) -> Client {
        self.cluster.client.clone()
    }

    fn ask<T>(
        &self,
        call: &str,
        future: impl Future<Output = Result<T, kube_client::Error>>,
    ) -> Result<T, ClusterError> {
        let left = self.until.saturating_duration_since(Instant::now());
        let limit = left.min(CALL_TIMEOUT);
        if limit.is_zero() {
            let cause = "the time for all checks was over before".to_string();
            return Err(ClusterError {
                call: call.to_string(),
                kind: ClusterErrorKind::Unreachable(cause),
            });
        }
        let answer = self.cluster.wait(limit, future);
        outcome(call.to_string(), limit, answer)
    }
}

/// Reads `34` out of `34+`, as some vendors write it.
fn leading_number(text: &str) -> u32 {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text[..end.unwrap_or(text.len())].parse().unwrap_or(0)
}

fn quota(quota: core::ResourceQuota) -> Quota {
    let spec = quota.spec.unwrap_or_default();
    let status = quota.status.unwrap_or_default();
    let named = spec.scopes.into_iter().flatten().map(|name| Scope {
        name,
        operator: "Exists".to_string(),
    });
    let selector = spec.scope_selector.and_then(|all| all.match_expressions);
    let selected = selector.into_iter().flatten().map(|term| Scope {
        name: term.scope_name,
        operator: term.operator,
    });
    Quota {
        name: quota.metadata.name.unwrap_or_default(),
        scopes: named.chain(selected).collect(),
        // A quota that is new has no status yet.
        hard: amounts(status.hard.or(spec.hard)),
        used: amounts(status.used),
    }
}

fn limits(range: core::LimitRange) -> Vec<LimitItem> {
    let name = range.metadata.name.unwrap_or_default();
    let items = range.spec.map(|spec| spec.limits).unwrap_or_default();
    items
        .into_iter()
        .map(|item| LimitItem {
            range: name.clone(),
            kind: match item.type_.as_str() {
                "Container" => LimitKind::Container,
                "Pod" => LimitKind::Pod,
                "PersistentVolumeClaim" => LimitKind::Claim,
                _ => LimitKind::Other,
            },
            min: amounts(item.min),
            max: amounts(item.max),
            ratio: amounts(item.max_limit_request_ratio),
            default: amounts(item.default),
            default_request: amounts(item.default_request),
        })
        .collect()
}

/// The text of a `Warning` header: a code, who warns, and a quoted string.
fn warning(header: &[u8]) -> String {
    let header = String::from_utf8_lossy(header);
    let quoted = header.split_once('"').map(|(_, rest)| rest);
    let Some(quoted) = quoted.and_then(|rest| rest.rsplit_once('"')) else {
        return header.into_owned();
    };
    let mut text = String::new();
    let mut characters = quoted.0.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.extend(characters.next()),
            other => text.push(other),
        }
    }
    text
}

/// A refusal in the words of the server, or of a proxy before it.
fn refusal(code: u16, body: &[u8]) -> kube_client::Error {
    let mut status: Status = serde_json::from_slice(body)
        .unwrap_or_else(|_| Status::failure(&String::from_utf8_lossy(body), ""));
    status.code = code;
    kube_client::Error::Api(status.boxed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClusterSettings;
    use crate::metrics::Metrics;

    #[test]
    fn warnings_lose_their_frame() {
        let header = br#"299 - "would violate PodSecurity \"restricted:latest\": a \\ b""#;
        assert_eq!(
            warning(header),
            r#"would violate PodSecurity "restricted:latest": a \ b"#
        );
        assert_eq!(warning(b"no frame"), "no frame");
    }

    #[test]
    fn minor_versions_of_vendors_are_numbers() {
        assert_eq!(leading_number("34"), 34);
        assert_eq!(leading_number("29+"), 29);
        assert_eq!(leading_number(""), 0);
    }

    #[test]
    fn questions_end_with_their_time() {
        // It takes connections and says nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubeconfig");
        let config = serde_json::json!({
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("http://{}", silent.local_addr().unwrap()),
            }}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        std::fs::write(&file, config.to_string()).unwrap();
        let settings = ClusterSettings {
            namespace: "executor".to_string(),
            config_path: Some(file),
        };
        let cluster = KubeCluster::new(&settings, &Metrics::new(&[]).cluster).unwrap();
        for (limit, expected) in [
            (Duration::from_millis(100), "no answer in"),
            (Duration::ZERO, "the time for all checks was over"),
        ] {
            let error = cluster.inspect(limit).version().unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn refusals_of_proxies_keep_their_text() {
        let error = refusal(502, b"bad gateway");
        let kube_client::Error::Api(status) = error else {
            panic!("it is a refusal");
        };
        assert_eq!((status.code, status.message.as_str()), (502, "bad gateway"));
    }
}
