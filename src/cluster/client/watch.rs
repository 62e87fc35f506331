//! One list-and-watch over the pods of this executor, for all workers.
//!
//! Each worker subscribes to its run and gets the newest view of its pod; a
//! view holds everything, so an older one that was not yet read is replaced.
//! The watch lists anew after every end, break or «too old» answer, and at
//! least every few minutes, so that no missed event can hang a job.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use futures::TryStreamExt;
use kube_client::Client;
use kube_client::api::{ListParams, WatchEvent, WatchParams};
use kube_client::core::Request;
use serde::Deserialize;
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;

use crate::backoff::{self, Backoff};
use crate::cluster::client::{CALL_TIMEOUT, chain, result_of};
use crate::cluster::names::INSTANCE_LABEL;
use crate::cluster::status::{PodView, WatchedPod};
use crate::metrics::calls::ClusterMetrics;

/// The server ends a watch after so many seconds; then everything is listed.
const WATCH_SECONDS: u32 = 240;
/// The server sends bookmarks about once a minute, so a longer silence means
/// that the connection is dead though nobody said so.
const SILENCE_MAX: Duration = Duration::from_secs(130);

/// The running watch; dropping it ends it.
pub struct PodWatch {
    subscribers: Arc<Subscribers>,
    task: AbortHandle,
}

/// A worker's view of its pod; dropping it ends the subscription.
pub struct Subscription {
    run: String,
    views: Receiver<PodView>,
    subscribers: Arc<Subscribers>,
}

impl Subscription {
    /// The newest view of all, read or not; none if no pod was ever seen.
    pub fn last(&self) -> Option<PodView> {
        self.subscribers
            .lock()
            .get(&self.run)
            .and_then(|subscriber| subscriber.last.clone())
    }

    /// The newest view, when there is one that was not read yet.
    pub fn views(&self) -> &Receiver<PodView> {
        &self.views
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.subscribers.lock().remove(&self.run);
    }
}

impl PodWatch {
    pub(super) fn start(
        runtime: &Runtime,
        client: Client,
        namespace: &str,
        instance: &str,
        metrics: ClusterMetrics,
    ) -> PodWatch {
        let subscribers = Arc::new(Subscribers::default());
        let source = Source {
            client,
            requests: Request::new(format!("/api/v1/namespaces/{namespace}/pods")),
            selector: format!("{INSTANCE_LABEL}={instance}"),
            metrics,
        };
        let task = runtime.spawn(keep_watching(source, Arc::clone(&subscribers)));
        PodWatch {
            subscribers,
            task: task.abort_handle(),
        }
    }

    /// Subscribes to the pod of a run. To miss nothing, subscribe before the
    /// Job is created.
    pub fn subscribe(&self, run: &str) -> Subscription {
        let (sender, views) = bounded(1);
        let subscriber = Subscriber {
            sender,
            views: views.clone(),
            last: None,
        };
        self.subscribers.lock().insert(run.to_string(), subscriber);
        Subscription {
            run: run.to_string(),
            views,
            subscribers: Arc::clone(&self.subscribers),
        }
    }

    /// Whether a worker of this process follows this run now. It does so from
    /// before the Job is created until after it is deleted.
    pub fn is_followed(&self, run: &str) -> bool {
        self.subscribers.lock().contains_key(run)
    }
}

impl Drop for PodWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Default)]
struct Subscribers(Mutex<HashMap<String, Subscriber>>);

struct Subscriber {
    sender: Sender<PodView>,
    /// To take out a view that was not read.
    views: Receiver<PodView>,
    last: Option<PodView>,
}

impl Subscribers {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Subscriber>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, pod: &WatchedPod, gone: bool) {
        let Some(run) = pod.run() else { return };
        if let Some(subscriber) = self.lock().get_mut(run) {
            subscriber.publish(PodView::new(pod, gone));
        }
    }

    /// After a list: whoever was seen before and is not there now is gone.
    fn publish_missing(&self, listed: &HashSet<String>) {
        for subscriber in self.lock().values_mut() {
            match subscriber.last.clone() {
                Some(last) if !last.gone && !listed.contains(&last.uid) => {
                    subscriber.publish(PodView { gone: true, ..last });
                }
                _ => {}
            }
        }
    }
}

impl Subscriber {
    fn publish(&mut self, view: PodView) {
        self.last = Some(view.clone());
        // Only this task sends, so after taking the old view there is room.
        let _ = self.views.try_recv();
        let _ = self.sender.try_send(view);
    }
}

/// What is listed and watched.
struct Source {
    client: Client,
    requests: Request,
    selector: String,
    metrics: ClusterMetrics,
}

#[derive(Deserialize)]
struct PodList {
    metadata: ListMetadata,
    #[serde(default)]
    items: Vec<WatchedPod>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
}

async fn keep_watching(source: Source, subscribers: Arc<Subscribers>) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
    loop {
        match list_and_watch(&source, &subscribers).await {
            Ok(()) => backoff.reset(),
            Err(problem) => {
                let wait = backoff.next(backoff::random());
                // One break is everyday life of a cluster; more are an outage.
                let level = if backoff.failures() > 1 {
                    log::Level::Warn
                } else {
                    log::Level::Debug
                };
                log::log!(
                    level,
                    "The watch of pods broke, next try in {wait:.1?}: {problem}."
                );
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Lists everything, then follows changes until the server ends the watch.
async fn list_and_watch(source: &Source, subscribers: &Subscribers) -> Result<(), String> {
    let list = ListParams::default().labels(&source.selector);
    let request = source
        .requests
        .list(&list)
        .map_err(|error| error.to_string())?;
    let answer = tokio::time::timeout(CALL_TIMEOUT, source.client.request(request)).await;
    source.metrics.requested("list", "pods", result_of(&answer));
    let pods: PodList = answer
        .map_err(|_| "no answer to the list".to_string())?
        .map_err(|error| chain(&error))?;
    source.metrics.watched();
    for pod in &pods.items {
        subscribers.publish(pod, false);
    }
    subscribers.publish_missing(
        &pods
            .items
            .iter()
            .map(|pod| pod.metadata.uid.clone())
            .collect(),
    );
    watch(source, subscribers, &pods.metadata.resource_version).await
}

async fn watch(source: &Source, subscribers: &Subscribers, version: &str) -> Result<(), String> {
    let params = WatchParams::default()
        .labels(&source.selector)
        .timeout(WATCH_SECONDS);
    let request = source
        .requests
        .watch(&params, version)
        .map_err(|error| error.to_string())?;
    let opening = source.client.request_events::<WatchedPod>(request);
    let answer = tokio::time::timeout(CALL_TIMEOUT, opening).await;
    source
        .metrics
        .requested("watch", "pods", result_of(&answer));
    let events = answer
        .map_err(|_| "no answer to the watch".to_string())?
        .map_err(|error| chain(&error))?;
    let mut events = pin!(events);
    loop {
        let event = tokio::time::timeout(SILENCE_MAX, events.try_next())
            .await
            .map_err(|_| "the connection was silent for too long".to_string())?
            .map_err(|error| chain(&error))?;
        source.metrics.watched();
        match event {
            Some(WatchEvent::Added(pod) | WatchEvent::Modified(pod)) => {
                subscribers.publish(&pod, false);
            }
            Some(WatchEvent::Deleted(pod)) => subscribers.publish(&pod, true),
            Some(WatchEvent::Bookmark(_)) => {}
            // «Too old» (410) is one of them: the next list starts from now.
            Some(WatchEvent::Error(status)) => return Err(status.message.clone()),
            None => return Ok(()),
        }
    }
}
