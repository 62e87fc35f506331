//! When to ask for what a pod's status does not tell.
//!
//! A job that goes on as it should is asked nothing about. One that has no pod
//! for a moment, or whose pod does not start its next container for some
//! seconds, is asked about again after growing delays, for as long as that
//! lasts. Where many wait at once, each waits for those before it (`crowd.rs`).

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::backoff::{self, Backoff};
use crate::cluster::client::KubeCluster;
use crate::cluster::client::inquiry::{Inquiry, Question};
use crate::cluster::status::evidence::Evidence;
use crate::worker::crowd::{Crowd, Waiter};

/// When a Job should have a pod.
const POD_EXPECTED: Duration = Duration::from_millis(1500);
/// When a pod should have started its next container.
const START_EXPECTED: Duration = Duration::from_secs(3);
/// The longest time between two questions about one thing.
const DELAY_MAX: Duration = Duration::from_secs(30);
/// How long a job's end waits for the answer to who deleted its pod.
const DELETION_PATIENCE: Duration = Duration::from_secs(2);

/// The questions about one job.
pub(super) struct Questions<'a> {
    cluster: &'a KubeCluster,
    crowd: &'a Crowd,
    topic: Option<Topic<'a>>,
}

/// What is asked about now.
struct Topic<'a> {
    question: Question,
    since: Instant,
    next: Instant,
    /// None if it does not matter what others wait for.
    waiter: Option<Waiter<'a>>,
    delays: Backoff,
    inquiry: Option<Inquiry>,
    evidence: Option<Evidence>,
}

impl<'a> Questions<'a> {
    pub(super) fn new(cluster: &'a KubeCluster, crowd: &'a Crowd) -> Questions<'a> {
        Questions {
            cluster,
            crowd,
            topic: None,
        }
    }

    /// Where the answer to a question that is on its way arrives.
    pub(super) fn answer(&self) -> Option<&Receiver<Evidence>> {
        let inquiry = self.topic.as_ref()?.inquiry.as_ref()?;
        Some(inquiry.answer())
    }

    /// Takes what arrived; `None` if nothing will.
    pub(super) fn take(&mut self, evidence: Option<Evidence>) {
        if let Some(topic) = &mut self.topic {
            topic.inquiry = None;
            let before = topic.evidence.take().unwrap_or_default();
            topic.evidence = Some(evidence.unwrap_or_default().or(before));
        }
    }

    /// What the answers have told so far about what is in question now.
    pub(super) fn evidence(&self) -> Option<&Evidence> {
        self.topic.as_ref()?.evidence.as_ref()
    }

    /// Forgets what was asked: the job goes on.
    pub(super) fn rest(&mut self, now: Instant) {
        let waiter = self.topic.take().and_then(|topic| topic.waiter);
        if let Some(waiter) = waiter {
            waiter.started(now);
        }
    }

    /// What is known about this, and when to look again. Asks when it is time.
    pub(super) fn about(
        &mut self,
        question: Question,
        now: Instant,
    ) -> (Option<&Evidence>, Option<Instant>) {
        let is_new = self
            .topic
            .as_ref()
            .is_none_or(|topic| topic.question != question);
        if is_new {
            self.topic = Some(Topic::new(question, self.crowd, now));
        }
        let Some(topic) = &mut self.topic else {
            return (None, None);
        };
        let next = topic.next();
        if topic.inquiry.is_none() && now >= next {
            topic.inquiry = self.cluster.inquire(topic.question.clone());
            topic.next = now + topic.delays.next(backoff::random());
            // Without the permission to ask there is no answer to wait for.
            if topic.inquiry.is_none() && topic.evidence.is_none() {
                topic.evidence = Some(Evidence::default());
            }
        }
        let wake = topic.inquiry.is_none().then(|| topic.next());
        (topic.evidence.as_ref(), wake)
    }

    /// Who deleted the pod of this Job, as soon as that is known or it is
    /// known that nobody says; else when to look again.
    pub(super) fn deletion(&mut self, job: &str, now: Instant) -> Result<Evidence, Instant> {
        let question = Question::Deletion {
            job: job.to_string(),
        };
        let (evidence, _) = self.about(question, now);
        let evidence = evidence.cloned();
        let since = self.topic.as_ref().map_or(now, |topic| topic.since);
        let give_up = since + DELETION_PATIENCE;
        match evidence {
            Some(evidence) => Ok(evidence),
            None if now >= give_up => Ok(Evidence::default()),
            None => Err(give_up),
        }
    }
}

impl<'a> Topic<'a> {
    fn new(question: Question, crowd: &'a Crowd, now: Instant) -> Topic<'a> {
        let first = match &question {
            Question::NoPod { .. } => POD_EXPECTED,
            Question::NotStarted { .. } => START_EXPECTED,
            Question::Deletion { .. } => Duration::ZERO,
        };
        let is_waiting = !matches!(question, Question::Deletion { .. });
        Topic {
            waiter: is_waiting.then(|| crowd.join()),
            question,
            since: now,
            next: now + first,
            delays: Backoff::new(first.max(Duration::from_secs(1)), DELAY_MAX),
            inquiry: None,
            evidence: None,
        }
    }
    /// When to ask, as far as is known now.
    fn next(&self) -> Instant {
        match &self.waiter {
            Some(waiter) => self.next.max(waiter.patience(self.since)),
            None => self.next,
        }
    }
}
