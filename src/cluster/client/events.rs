//! Leaves an Event at a Job that did not succeed, for whoever asks the cluster
//! and not Sourcegraph.
//!
//! An Event is a courtesy: it is tried once, nobody waits for it, and of too
//! many at a time some are left out. Whether we may is found out by the first
//! one; if not, that is said once, and no other is tried by this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube_client::api::PostParams;
use tokio::sync::Semaphore;

use crate::cluster::client::{KubeCluster, chain, result_of};
use crate::cluster::names::random_suffix;

/// Events that are on their way at one moment; more are left out.
const AT_ONCE: usize = 4;
/// An Event that is not taken by then is given up.
const LIMIT: Duration = Duration::from_secs(10);
/// The API server takes no longer message.
const MESSAGE_BYTES_MAX: usize = 1024;
/// Who such Events come from, as `kubectl get events --output wide` shows it.
const COMPONENT: &str = "sourcegraph-executor";

/// Whether Events may be made, as far as it has been found out, and their turns.
pub(super) struct Reporting {
    is_forbidden: AtomicBool,
    turns: Arc<Semaphore>,
}

impl Default for Reporting {
    fn default() -> Reporting {
        Reporting {
            is_forbidden: AtomicBool::new(false),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

/// What is to be told of a Job.
pub struct JobEvent<'a> {
    /// Name of the Job.
    pub job: &'a str,
    /// Its UID, by which `kubectl describe` finds its Events; may be empty.
    pub uid: &'a str,
    /// The cause of its failure, a word with underscores.
    pub cause: &'a str,
    /// The same in a sentence.
    pub message: &'a str,
    /// Name of this process.
    pub executor_name: &'a str,
}

impl KubeCluster {
    /// Has an Event made, if that is allowed and there are not too many. Does
    /// not wait, and does not tell what came of it.
    pub fn tell(&self, event: &JobEvent<'_>) {
        let reporting = Arc::clone(&self.reporting);
        if reporting.is_forbidden.load(Ordering::Relaxed) {
            return;
        }
        let Ok(turn) = Arc::clone(&reporting.turns).try_acquire_owned() else {
            log::debug!("An Event of Job {} is left out.", event.job);
            return;
        };
        let (events, metrics) = (self.api::<core::Event>(), self.metrics.clone());
        let event = object(event, &self.namespace, Timestamp::now());
        self.runtime.spawn(async move {
            let create = PostParams::default();
            let create = events.create(&create, &event);
            let answer = tokio::time::timeout(LIMIT, create).await;
            metrics.requested("create", "events", result_of(&answer));
            drop(turn);
            match answer {
                Ok(Ok(_)) => {}
                Ok(Err(kube_client::Error::Api(status))) if status.code == 403 => {
                    if !reporting.is_forbidden.swap(true, Ordering::Relaxed) {
                        log::info!(
                            "Failures of jobs leave no Events, as this account may not create \
                             any; all else works. The component manifests/events allows it."
                        );
                    }
                }
                Ok(Err(error)) => log::debug!("No Event was made: {}.", chain(&error)),
                Err(_) => log::debug!("No Event was made: no answer in {LIMIT:?}."),
            }
        });
    }
}

fn object(event: &JobEvent<'_>, namespace: &str, now: Timestamp) -> core::Event {
    let message = event.message;
    let ends = (0..=MESSAGE_BYTES_MAX.min(message.len())).rev();
    let end = ends.into_iter().find(|end| message.is_char_boundary(*end));
    core::Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{}", event.job, random_suffix())),
            namespace: Some(namespace.to_string()),
            ..ObjectMeta::default()
        },
        involved_object: core::ObjectReference {
            api_version: Some("batch/v1".to_string()),
            kind: Some("Job".to_string()),
            name: Some(event.job.to_string()),
            namespace: Some(namespace.to_string()),
            uid: Some(event.uid.to_string()).filter(|uid| !uid.is_empty()),
            ..core::ObjectReference::default()
        },
        type_: Some("Warning".to_string()),
        reason: Some(reason(event.cause)),
        message: Some(message[..end.unwrap_or(0)].to_string()),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(core::EventSource {
            component: Some(COMPONENT.to_string()),
            host: None,
        }),
        reporting_component: Some(COMPONENT.to_string()),
        reporting_instance: Some(event.executor_name.to_string()),
        ..core::Event::default()
    }
}

/// The word of a cause as reasons are written: `ImagePull` for `image_pull`.
fn reason(cause: &str) -> String {
    let capital = |part: &str| {
        let mut letters = part.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    cause.split('_').map(capital).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::cluster::client::testing::{Answer, ApiServer};

    fn event(message: &str) -> JobEvent<'_> {
        JobEvent {
            job: "sg-executor-job-batches-7-a1b2",
            uid: "",
            cause: "image_pull",
            message,
            executor_name: "executor-0",
        }
    }

    /// Tells until the server was asked so often, or for too long.
    fn tell_until_asked(server: &ApiServer, times: usize) {
        let give_up = Instant::now() + Duration::from_secs(10);
        while server.requests().len() < times {
            assert!(Instant::now() < give_up, "{:?}", server.requests());
            server.cluster.tell(&event("no"));
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let long = "€".repeat(1000);
        let made = object(&event(&long), "executor", Timestamp::UNIX_EPOCH);
        assert_eq!(made.message, Some("€".repeat(341)));
        assert_eq!(made.reason.as_deref(), Some("ImagePull"));
        assert_eq!(made.involved_object.uid, None);
    }

    #[test]
    fn a_refusal_ends_all_further_tries() {
        let server = ApiServer::start(|_| Answer::refusal(403, "Forbidden"));
        tell_until_asked(&server, 1);
        let give_up = Instant::now() + Duration::from_secs(10);
        while !server
            .cluster
            .reporting
            .is_forbidden
            .load(Ordering::Relaxed)
        {
            assert!(Instant::now() < give_up, "the refusal is not noticed");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let asked = server.requests().len();
        server.cluster.tell(&event("no"));
        let turns = &server.cluster.reporting.turns;
        assert_eq!(turns.available_permits(), AT_ONCE, "a further one is tried");
        assert_eq!(server.requests().len(), asked);
    }

    /// Whoever tells of a failure goes on at once.
    #[test]
    fn a_server_that_is_silent_keeps_nobody() {
        let (release, held) = crossbeam_channel::bounded::<()>(0);
        let server = ApiServer::start(move |_| {
            let _ = held.recv();
            Answer::Nothing
        });
        for _ in 0..100 {
            server.cluster.tell(&event("no"));
        }
        assert_eq!(server.cluster.reporting.turns.available_permits(), 0);
        assert!(server.requests().len() <= AT_ONCE);
        drop(release);
    }
}
