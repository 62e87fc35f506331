//! Asks for what a pod's status does not tell: Events, and the Job itself.
//!
//! Both need permissions that an executor can do without. Where one is
//! missing, that is found out by the first question, said once in the log,
//! and not asked again by this process.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, bounded};
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::core::v1 as core;
use kube_client::api::{Api, ListParams};
use kube_client::core::Request;
use serde::Deserialize;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::cluster::client::{CALL_TIMEOUT, chain, result_of};
use crate::cluster::status::evidence::{EventView, Evidence, FoundEvent, JobView};
use crate::metrics::calls::ClusterMetrics;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Why a Job has no pod.
    NoPod {
        /// Name of the Job.
        job: String,
    },
    /// Why a pod does not start its next container.
    NotStarted {
        /// Identity of the pod.
        pod: String,
    },
    /// What became of a Job whose pod was deleted.
    Deletion {
        /// Name of the Job.
        job: String,
    },
}

/// A question on its way. Dropping it gives it up.
pub struct Inquiry {
    answer: Receiver<Evidence>,
    task: AbortHandle,
}

impl Inquiry {
    /// Brings one answer, which may be empty.
    pub fn answer(&self) -> &Receiver<Evidence> {
        &self.answer
    }
}

impl Drop for Inquiry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Questions that are on their way at one moment: many jobs that wait mean a
/// cluster that has enough to do.
const AT_ONCE: usize = 2;

/// What this process may ask, as far as it has found out, and its turns.
pub(super) struct Rights {
    no_events: AtomicBool,
    no_jobs: AtomicBool,
    turns: Semaphore,
}

impl Default for Rights {
    fn default() -> Rights {
        Rights {
            no_events: AtomicBool::new(false),
            no_jobs: AtomicBool::new(false),
            turns: Semaphore::new(AT_ONCE),
        }
    }
}

/// Where questions go.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) events: Api<core::Event>,
    pub(super) jobs: Api<batch::Job>,
    pub(super) rights: Arc<Rights>,
    pub(super) metrics: ClusterMetrics,
}

/// Events, as far as they are read.
#[derive(Deserialize)]
struct EventList {
    #[serde(default)]
    items: Vec<FoundEvent>,
}

impl Desk {
    /// Starts to ask; `None` if nothing of it may be asked.
    pub(super) fn ask(self, runtime: &Runtime, question: Question) -> Option<Inquiry> {
        let may = |no: &AtomicBool| !no.load(Ordering::Relaxed);
        let job = match &question {
            Question::NoPod { job } | Question::Deletion { job } => Some(job.clone()),
            Question::NotStarted { .. } => None,
        };
        let job = job.filter(|_| may(&self.rights.no_jobs));
        let selector = event_selector(&question).filter(|_| may(&self.rights.no_events));
        if job.is_none() && selector.is_none() {
            return None;
        }
        let (sender, answer) = bounded(1);
        let task = runtime.spawn(async move {
            // Held until the answer is there; nobody closes the semaphore.
            let _turn = self.rights.turns.acquire().await;
            let events = match selector {
                Some(selector) => self.events(&selector).await,
                None => None,
            };
            let job = match job {
                Some(job) => self.job(&job).await,
                None => None,
            };
            // Whoever asked may not be interested any more.
            let _ = sender.try_send(Evidence::new(events, job));
        });
        Some(Inquiry {
            answer,
            task: task.abort_handle(),
        })
    }

    async fn events(&self, selector: &str) -> Option<Vec<EventView>> {
        let list = ListParams::default().fields(selector);
        let missing = &self.rights.no_events;
        let request = Request::new(self.events.resource_url()).list(&list);
        let client = self.events.clone().into_client();
        let listing = async {
            let request = request.map_err(kube_client::Error::BuildRequest)?;
            client.request::<EventList>(request).await
        };
        let answer = self.call(("list", "events"), missing, "list events", listing);
        let events = answer.await?.items;
        Some(events.into_iter().map(EventView::new).collect())
    }

    async fn job(&self, name: &str) -> Option<JobView> {
        let missing = &self.rights.no_jobs;
        let job = self.jobs.get_opt(name);
        let job = self
            .call(("get", "jobs"), missing, "read Jobs", job)
            .await?;
        Some(job.map_or(JobView::Deleted, JobView::new))
    }

    /// Makes one call. What it does not bring is not known, and not an error.
    async fn call<T>(
        &self,
        (verb, resource): (&str, &str),
        missing: &AtomicBool,
        what: &str,
        call: impl Future<Output = Result<T, kube_client::Error>>,
    ) -> Option<T> {
        let answer = tokio::time::timeout(CALL_TIMEOUT, call).await;
        self.metrics.requested(verb, resource, result_of(&answer));
        match answer {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(kube_client::Error::Api(status))) if status.code == 403 => {
                if !missing.swap(true, Ordering::Relaxed) {
                    log::warn!(
                        "Without the permission to {what}, jobs that do not start are explained \
                         less well: {}.",
                        status.message
                    );
                }
            }
            Ok(Err(error)) => log::debug!("Cannot {what}: {}.", chain(&error)),
            Err(_) => log::debug!("Cannot {what}: no answer in {CALL_TIMEOUT:?}."),
        }
        None
    }
}

/// Selects the Events of one object, if the question is about Events.
fn event_selector(question: &Question) -> Option<String> {
    match question {
        Question::NoPod { job } => {
            Some(format!("involvedObject.kind=Job,involvedObject.name={job}"))
        }
        Question::NotStarted { pod } => Some(format!("involvedObject.uid={pod}")),
        Question::Deletion { .. } => None,
    }
}
