//! Blocking calls to Kubernetes, round an asynchronous client.
//!
//! This folder alone holds `async`. The runtime has one thread of its own,
//! which drives connections, the watch (`watch.rs`), log streams
//! (`log_stream.rs`), questions (`inquiry.rs`) and Events (`events.rs`); a call
//! blocks the thread that makes it and has a timeout. Calls are tried once: the
//! worker owns the outcome.

mod busy;
pub mod events;
pub mod inquiry;
pub mod inspect;
pub mod leftovers;
pub mod log_stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod watch;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube_client::api::{Api, DeleteParams, ListParams, LogParams, PostParams};
use kube_client::client::ClientBuilder;
use kube_client::config::{KubeConfigOptions, Kubeconfig};
use kube_client::core::Request;
use kube_client::{Client, Config, Resource};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::time::error::Elapsed;

use crate::cluster::client::events::Reporting;
use crate::cluster::client::inquiry::{Desk, Inquiry, Question, Rights};
use crate::cluster::client::log_stream::LogStream;
use crate::cluster::client::watch::PodWatch;
use crate::cluster::error::{ClusterError, ClusterErrorKind};
use crate::config::ClusterSettings;
use crate::metrics::calls::{ClusterMetrics, RequestResult};
use crate::metrics::pulse::Pulses;

/// Part of the client that logs a line for each request that fails, without saying
/// which. We say it.
pub(crate) const TOLD_ANYWAY: &str = "kube_client::client::builder";
/// A call that is not answered by then has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection that does not stand by then has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the runtime's thread shows that it turns, and when it is late. What
/// runs on it takes milliseconds.
const PULSE_INTERVAL: Duration = Duration::from_secs(10);
const PULSE_LATE: Duration = Duration::from_secs(90);
/// Secrets of one job that are created at the same time. Each may be 1 MiB.
const SECRETS_AT_ONCE: usize = 4;

/// The cluster, as far as an executor uses it. Shared by all workers.
pub struct KubeCluster {
    // Dropped last: the watch and the streams live on it.
    runtime: Arc<Runtime>,
    client: Client,
    server: String,
    namespace: String,
    rights: Arc<Rights>,
    reporting: Arc<Reporting>,
    metrics: ClusterMetrics,
}

/// What the executor's own Pod tells about how to make others.
#[derive(Clone, Debug)]
pub struct OwnPod {
    /// Image of the executor's container.
    pub image: String,
    /// Names of the Secrets that pull it.
    pub pull_secrets: Vec<String>,
    /// Reference that makes an object go when the Pod goes.
    pub owner: OwnerReference,
    /// Whether no other container of the Pod has the same image: then there
    /// is one executor in this Pod at a time.
    pub has_one_executor: bool,
}

impl OwnPod {
    /// What tells it from others of its name.
    pub fn uid(&self) -> &str {
        &self.owner.uid
    }
}

/// What is read of an answer. Whole objects are deep, and would cost each thread
/// that reads one the stack for it.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    metadata: Named,
    details: Option<Named>,
}

/// Who an object is.
#[derive(Default, Deserialize)]
struct Named {
    #[serde(default)]
    uid: String,
}

impl KubeCluster {
    /// Reads the configuration and prepares the client; nothing is sent yet.
    pub fn new(
        settings: &ClusterSettings,
        metrics: &ClusterMetrics,
    ) -> Result<KubeCluster, ClusterError> {
        let fail = |cause: String| ClusterError {
            call: "set up the Kubernetes client".to_string(),
            kind: ClusterErrorKind::Configuration(cause),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(2)
            .thread_name("kube-io")
            .enable_all()
            .build()
            .map_err(|error| fail(error.to_string()))?;
        let (client, server) = runtime.block_on(async {
            let mut config = load_config(settings).await.map_err(fail)?;
            config.connect_timeout = Some(CONNECT_TIMEOUT);
            config.default_retry = false;
            let server = config.cluster_url.to_string();
            let server = server.trim_end_matches('/').to_string();
            let builder = ClientBuilder::try_from(config).map_err(|error| fail(chain(&error)))?;
            let client = builder.with_layer(&busy::layer()).build();
            Ok((client, server))
        })?;
        let namespace = settings.namespace.clone();
        Ok(KubeCluster {
            runtime: Arc::new(runtime),
            client,
            server,
            namespace,
            rights: Arc::default(),
            reporting: Arc::default(),
            metrics: metrics.clone(),
        })
    }

    /// Address of the API server.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Namespace in which everything is made.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether the API server answers and lets us see pods.
    pub fn check(&self) -> Result<(), ClusterError> {
        let pods = self.api::<core::Pod>();
        let call = format!("list pods in namespace {}", self.namespace);
        self.block(("list", "pods"), call, async move {
            pods.list_metadata(&ListParams::default().limit(1)).await
        })
        .map(drop)
    }

    /// Reads the executor's own Pod, which may be in another namespace.
    pub fn own_pod(&self, namespace: &str, name: &str) -> Result<OwnPod, ClusterError> {
        let pods: Api<core::Pod> = Api::namespaced(self.client.clone(), namespace);
        let pod_name = name.to_string();
        let call = format!("read our own Pod {namespace}/{name}");
        let pod = self.block(
            ("get", "pods"),
            call,
            async move { pods.get(&pod_name).await },
        )?;
        Ok(own_pod(pod))
    }

    /// Creates a Job and gives its UID. One that is there already is ours:
    /// names are new for every attempt, so an earlier try must have got
    /// through, whose answer was lost.
    pub fn create_job(&self, job: &batch::Job) -> Result<String, ClusterError> {
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let call = format!("create Job {name}");
        match self.block(("create", "jobs"), call, self.post(job)) {
            Ok(made) => Ok(made.metadata.uid),
            Err(error) if error.is_there_already() => self.job_uid(name),
            Err(error) => Err(error),
        }
    }

    /// UID of a Job. Reading it is not among the released permissions, but
    /// who may delete may also ask what a deletion would delete.
    fn job_uid(&self, name: &str) -> Result<String, ClusterError> {
        let dry_run = DeleteParams {
            dry_run: true,
            ..DeleteParams::background()
        };
        let call = format!("learn the UID of Job {name} by a dry run of its deletion");
        let asking = self.remove::<batch::Job>(name, &dry_run);
        let answer = self.block(("delete", "jobs"), call, asking)?;
        // The API answers with the object or with a status about it.
        Ok(answer.details.unwrap_or(answer.metadata).uid)
    }

    /// Creates Secrets, several at once. One that is there already is ours, as
    /// with Jobs. After an error, some of the others may be there or not.
    pub fn create_secrets(&self, secrets: &[core::Secret]) -> Result<(), ClusterError> {
        let create = |secret| self.create_secret(secret);
        self.runtime.block_on(
            stream::iter(secrets.iter().map(create))
                .buffer_unordered(SECRETS_AT_ONCE)
                .try_collect(),
        )
    }

    async fn create_secret(&self, secret: &core::Secret) -> Result<(), ClusterError> {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        let call = format!("create Secret {name}");
        match self
            .timed(("create", "secrets"), call, self.post(secret))
            .await
        {
            Err(error) if !error.is_there_already() => Err(error),
            _ => Ok(()),
        }
    }

    /// Deletes a Job and, in the background, its pod. One that is gone is fine.
    pub fn delete_job(&self, name: &str) -> Result<(), ClusterError> {
        self.delete::<batch::Job>("Job", name)
    }

    /// Deletes a Secret. One that is gone is fine.
    pub fn delete_secret(&self, name: &str) -> Result<(), ClusterError> {
        self.delete::<core::Secret>("Secret", name)
    }

    /// Says again and again that the runtime's thread turns, for as long as it
    /// does.
    pub fn show_pulse(&self, pulses: Pulses) {
        self.runtime.spawn(async move {
            loop {
                let _pulse = pulses.of_thread("kube-io", PULSE_LATE);
                tokio::time::sleep(PULSE_INTERVAL).await;
            }
        });
    }

    /// Starts the one watch over all pods with this label value.
    pub fn start_watch(&self, watch: &mut PodWatch, instance: &str) {
        watch.start(
            &self.runtime,
            self.client.clone(),
            &self.namespace,
            instance,
            self.metrics.clone(),
        );
    }

    /// Follows the log of a container, from `since` or from the first byte.
    pub fn follow_log(
        &self,
        pod: &str,
        container: &str,
        since: Option<jiff::Timestamp>,
    ) -> LogStream {
        self.stream_log(pod, log_stream::params(container, since, true))
    }

    /// Reads the log of a container as far as it is there.
    pub fn read_log(
        &self,
        pod: &str,
        container: &str,
        since: Option<jiff::Timestamp>,
    ) -> LogStream {
        self.stream_log(pod, log_stream::params(container, since, false))
    }

    fn stream_log(&self, pod: &str, params: LogParams) -> LogStream {
        let pods = self.api::<core::Pod>();
        LogStream::start(&self.runtime, pods, pod, params, self.metrics.clone())
    }

    /// Asks for what a pod's status does not tell; `None` if we may not know.
    pub fn inquire(&self, question: Question) -> Option<Inquiry> {
        let desk = Desk {
            events: self.api(),
            jobs: self.api(),
            rights: Arc::clone(&self.rights),
            metrics: self.metrics.clone(),
        };
        desk.ask(&self.runtime, question)
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn requests<K>(&self) -> Request
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Request::new(K::url_path(&(), Some(&self.namespace)))
    }

    /// Creates an object.
    async fn post<K>(&self, object: &K) -> Result<Answer, kube_client::Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize,
    {
        let body = serde_json::to_vec(object).map_err(kube_client::Error::SerdeError)?;
        let request = self.requests::<K>().create(&PostParams::default(), body);
        let request = request.map_err(kube_client::Error::BuildRequest)?;
        self.client.request(request).await
    }

    /// Deletes an object.
    async fn remove<K>(
        &self,
        name: &str,
        params: &DeleteParams,
    ) -> Result<Answer, kube_client::Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let request = self.requests::<K>().delete(name, params);
        let request = request.map_err(kube_client::Error::BuildRequest)?;
        self.client.request(request).await
    }

    fn delete<K>(&self, kind: &str, name: &str) -> Result<(), ClusterError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let call = format!("delete {kind} {name}");
        let background = DeleteParams::background();
        let removing = self.remove::<K>(name, &background);
        match self.block(("delete", &K::plural(&())), call, removing) {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Makes a call and counts it; the thread waits for the runtime. Verb and
    /// resource are those of a Role.
    fn block<T>(
        &self,
        request: (&str, &str),
        call: String,
        future: impl Future<Output = Result<T, kube_client::Error>>,
    ) -> Result<T, ClusterError> {
        self.runtime.block_on(self.timed(request, call, future))
    }

    /// One request, limited in time and counted.
    async fn timed<T>(
        &self,
        (verb, resource): (&str, &str),
        call: String,
        future: impl Future<Output = Result<T, kube_client::Error>>,
    ) -> Result<T, ClusterError> {
        let answer = tokio::time::timeout(CALL_TIMEOUT, future).await;
        self.metrics.requested(verb, resource, result_of(&answer));
        outcome(call, CALL_TIMEOUT, answer)
    }

    /// The one place where a thread waits for the runtime.
    fn wait<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
        self.runtime
            .block_on(async { tokio::time::timeout(limit, future).await })
    }
}

/// What came of a call with a limit of time.
fn outcome<T>(
    call: String,
    limit: Duration,
    answer: Result<Result<T, kube_client::Error>, Elapsed>,
) -> Result<T, ClusterError> {
    let kind = match answer {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => kind_of(error),
        Err(_) => ClusterErrorKind::Unreachable(format!("no answer in {limit:.0?}")),
    };
    Err(ClusterError { call, kind })
}

/// What the executor's own Pod says of the pods that it makes.
fn own_pod(pod: core::Pod) -> OwnPod {
    let spec = pod.spec.unwrap_or_default();
    let ours = |container: &&core::Container| container.name.contains("executor");
    let container = spec
        .containers
        .iter()
        .find(ours)
        .or(spec.containers.first());
    let image = container.and_then(|container| container.image.clone());
    let same_image = |other: &&core::Container| other.image == image;
    OwnPod {
        has_one_executor: spec.containers.iter().filter(same_image).count() == 1,
        image: image.unwrap_or_default(),
        pull_secrets: spec
            .image_pull_secrets
            .into_iter()
            .flatten()
            .map(|s| s.name)
            .collect(),
        owner: OwnerReference {
            api_version: "v1".to_string(),
            kind: "Pod".to_string(),
            name: pod.metadata.name.unwrap_or_default(),
            uid: pod.metadata.uid.unwrap_or_default(),
            ..OwnerReference::default()
        },
    }
}

/// The configured file; else what kubectl would use; else the service account.
async fn load_config(settings: &ClusterSettings) -> Result<Config, String> {
    let in_cluster = Config::incluster();
    match (&settings.config_path, in_cluster) {
        // The released manifests may name a file that only exists elsewhere.
        (Some(path), Ok(config)) if !path.exists() => Ok(config),
        (Some(path), _) => {
            let file = Kubeconfig::read_from(path).map_err(|error| {
                format!(
                    "EXECUTOR_KUBERNETES_CONFIG_PATH={}: {}",
                    path.display(),
                    chain(&error)
                )
            })?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(|error| format!("{}: {}", path.display(), chain(&error)))
        }
        (None, _) => Config::infer().await.map_err(|error| {
            format!(
                "neither a service account nor a kubeconfig was found; outside a cluster set \
                 EXECUTOR_KUBERNETES_CONFIG_PATH or KUBECONFIG ({})",
                chain(&error)
            )
        }),
    }
}

/// How a request with a limit of time ended, for the metrics.
fn result_of<T>(answer: &Result<Result<T, kube_client::Error>, Elapsed>) -> RequestResult {
    match answer {
        Ok(Ok(_)) => RequestResult::Done,
        Ok(Err(kube_client::Error::Api(status))) => RequestResult::Refused(status.code),
        Ok(Err(error)) => match busy::find(error) {
            Some(busy) => RequestResult::Refused(busy.status),
            None => RequestResult::Unreachable,
        },
        Err(_) => RequestResult::Unreachable,
    }
}

/// Tells apart a refusal and no answer at all.
fn kind_of(error: kube_client::Error) -> ClusterErrorKind {
    match error {
        kube_client::Error::Api(status) => ClusterErrorKind::Refused {
            status: status.code,
            reason: status.reason.clone(),
            message: status.message.clone(),
        },
        other => match busy::find(&other) {
            Some(busy) => ClusterErrorKind::Busy {
                status: busy.status,
                stay_away: busy.stay_away,
            },
            None => ClusterErrorKind::Unreachable(chain(&other)),
        },
    }
}

/// An error with all its causes, since the first one rarely says what happened.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
