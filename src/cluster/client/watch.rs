//! One list-and-watch over the pods of this executor, for all workers.
//!
//! Each worker subscribes to its run and gets the newest view of its pod; a
//! view holds everything that was ever seen of it, so an older one that was
//! not yet read is replaced.
//! The watch lists anew after every end, break or «too old» answer, and at
//! least every few minutes, so that no missed event can hang a job.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use futures::TryStreamExt;
use futures::future::{self, Either};
use kube_client::Client;
use kube_client::api::{ListParams, WatchEvent, WatchParams};
use kube_client::core::Request;
use serde::Deserialize;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::error::Elapsed;

use crate::backoff::{self, Backoff};
use crate::cluster::client::{CALL_TIMEOUT, kind_of, result_of};
use crate::cluster::error::{ClusterError, ClusterErrorKind};
use crate::cluster::names::INSTANCE_LABEL;
use crate::cluster::status::{PodView, WatchedPod};
use crate::metrics::calls::ClusterMetrics;

/// The server ends a watch after so many seconds; then everything is listed.
const WATCH_SECONDS: u32 = 240;
/// The server sends bookmarks about once a minute, so a longer silence means
/// that the connection is dead though nobody said so.
const SILENCE_MAX: Duration = Duration::from_secs(130);

/// A watch that ends sooner did not work.
const WATCH_AT_LEAST: Duration = Duration::from_secs(5);
/// Between two lists that somebody asks for. A watch that brought something
/// within that time is alive, and what it does not say has not happened yet.
const LISTS_APART: Duration = Duration::from_secs(3);
const WATCH: &str = "watch the pods";

/// The watch, once it is started; dropping it ends it.
#[derive(Default)]
pub struct PodWatch {
    subscribers: Arc<Subscribers>,
    task: Option<AbortHandle>,
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

    /// Asks for a new list, as the watch seems to have missed something. It is
    /// made once the watch has brought nothing for some seconds.
    pub fn refresh(&self) {
        self.subscribers.refresh.notify_one();
    }

    /// Asks for a new list whatever the watch brings, as a job would end for
    /// something that was not seen. It is made some seconds after the last one
    /// at the soonest.
    pub fn look_again(&self) {
        self.subscribers.doubted.notify_one();
    }

    /// Whether all pods were listed since then, so that what is not in the
    /// newest view was not there at that time.
    pub fn was_listed_since(&self, time: Instant) -> bool {
        let began = *self.subscribers.lock_list();
        began.is_some_and(|began| began >= time)
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
        &mut self,
        runtime: &Runtime,
        client: Client,
        namespace: &str,
        instance: &str,
        metrics: ClusterMetrics,
    ) {
        let source = Source {
            client,
            requests: Request::new(format!("/api/v1/namespaces/{namespace}/pods")),
            selector: format!("{INSTANCE_LABEL}={instance}"),
            metrics,
        };
        let task = runtime.spawn(keep_watching(source, Arc::clone(&self.subscribers)));
        self.task = Some(task.abort_handle());
    }

    /// Subscribes to the pod of a run. To miss nothing, subscribe before the
    /// Job is created.
    pub fn subscribe(&self, run: &str) -> Subscription {
        self.subscribe_with(run, None)
    }

    /// Subscribes to a pod that was seen by a former process, before the watch
    /// is started: if the first list does not have it, it is gone.
    pub fn subscribe_again(&self, run: &str, name: &str, uid: &str) -> Subscription {
        self.subscribe_with(run, Some(PodView::unseen(name, uid)))
    }

    fn subscribe_with(&self, run: &str, last: Option<PodView>) -> Subscription {
        let (sender, views) = bounded(1);
        let subscriber = Subscriber {
            sender,
            views: views.clone(),
            last,
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
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

#[derive(Default)]
struct Subscribers {
    by_run: Mutex<HashMap<String, Subscriber>>,
    /// Asks for a new list, if the watch is silent.
    refresh: Notify,
    /// Asks for a new list.
    doubted: Notify,
    /// When the last list that arrived was asked for.
    list_began: Mutex<Option<Instant>>,
}

struct Subscriber {
    sender: Sender<PodView>,
    /// To take out a view that was not read.
    views: Receiver<PodView>,
    last: Option<PodView>,
}

impl Subscribers {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Subscriber>> {
        self.by_run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_list(&self) -> MutexGuard<'_, Option<Instant>> {
        let list = self.list_began.lock();
        list.unwrap_or_else(PoisonError::into_inner)
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
    /// A second pod of the same Job would be somebody else's doing; it must not
    /// hide what becomes of the first one.
    fn publish(&mut self, view: PodView) {
        if self.last.as_ref().is_some_and(|last| last.uid != view.uid) {
            log::warn!("Ignoring pod {}: its job runs in another one.", view.name);
            return;
        }
        let view = match self.last.take() {
            Some(known) => known.followed_by(view),
            None => view,
        };
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
        match list_and_watch(&source, &subscribers, &mut backoff).await {
            Ok(()) => {}
            Err(error) => {
                let wait = backoff.next(backoff::random()).max(error.stay_away());
                // One break is everyday life of a cluster; more are an outage.
                let level = if backoff.failures() > 1 {
                    log::Level::Warn
                } else {
                    log::Level::Debug
                };
                log::log!(
                    level,
                    "The watch of pods broke, next try in {wait:.1?}: {error}."
                );
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Lists everything, then follows changes until the server ends the watch.
async fn list_and_watch(
    source: &Source,
    subscribers: &Subscribers,
    backoff: &mut Backoff,
) -> Result<(), ClusterError> {
    let list = ListParams::default().labels(&source.selector);
    let request = source.requests.list(&list).map_err(not_a_request)?;
    let began = Instant::now();
    let answer = tokio::time::timeout(CALL_TIMEOUT, source.client.request(request)).await;
    source.metrics.requested("list", "pods", result_of(&answer));
    let pods: PodList = answered("list the pods", answer)?;
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
    *subscribers.lock_list() = Some(began);
    watch(
        source,
        subscribers,
        &pods.metadata.resource_version,
        backoff,
    )
    .await
}

async fn watch(
    source: &Source,
    subscribers: &Subscribers,
    version: &str,
    backoff: &mut Backoff,
) -> Result<(), ClusterError> {
    let params = WatchParams::default()
        .labels(&source.selector)
        .timeout(WATCH_SECONDS);
    let request = source
        .requests
        .watch(&params, version)
        .map_err(not_a_request)?;
    let opening = source.client.request_events::<WatchedPod>(request);
    let answer = tokio::time::timeout(CALL_TIMEOUT, opening).await;
    source
        .metrics
        .requested("watch", "pods", result_of(&answer));
    let mut events = pin!(answered(WATCH, answer)?);
    let began = Instant::now();
    let mut last = began;
    let mut doubted = pin!(asked_since(&subscribers.doubted, began));
    loop {
        let next = pin!(tokio::time::timeout(SILENCE_MAX, events.try_next()));
        let silent = pin!(asked_since(&subscribers.refresh, last));
        let asked = future::select(silent, doubted.as_mut());
        let event = match future::select(next, asked).await {
            Either::Left((event, _)) => answered(WATCH, event)?,
            Either::Right(_) => return Ok(()),
        };
        last = Instant::now();
        match event {
            Some(WatchEvent::Added(pod) | WatchEvent::Modified(pod)) => {
                subscribers.publish(&pod, false);
            }
            Some(WatchEvent::Deleted(pod)) => subscribers.publish(&pod, true),
            Some(WatchEvent::Bookmark(_)) => {}
            // «Too old» (410) is one of them: the next list starts from now.
            Some(WatchEvent::Error(status)) => {
                let error = kube_client::Error::Api(status);
                return Err(failed(WATCH, kind_of(error)));
            }
            None if began.elapsed() < WATCH_AT_LEAST => {
                let cause = "it ended at once".to_string();
                return Err(failed(WATCH, ClusterErrorKind::Unreachable(cause)));
            }
            None => return Ok(()),
        }
        source.metrics.watched();
        // Only now is it certain that watching works again.
        backoff.reset();
    }
}

/// Waits until nothing was brought for a while since then and somebody asks for
/// a list, or has asked meanwhile.
async fn asked_since(asking: &Notify, last: Instant) {
    tokio::time::sleep_until((last + LISTS_APART).into()).await;
    asking.notified().await;
}

/// What a call, or a part of its answer, brought in time.
fn answered<T>(
    call: &str,
    answer: Result<Result<T, kube_client::Error>, Elapsed>,
) -> Result<T, ClusterError> {
    match answer {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failed(call, kind_of(error))),
        Err(_) => {
            let silence = "the connection was silent for too long".to_string();
            Err(failed(call, ClusterErrorKind::Unreachable(silence)))
        }
    }
}

fn not_a_request(error: kube_client::core::request::Error) -> ClusterError {
    failed(WATCH, ClusterErrorKind::Configuration(error.to_string()))
}

fn failed(call: &str, kind: ClusterErrorKind) -> ClusterError {
    ClusterError {
        call: call.to_string(),
        kind,
    }
}
