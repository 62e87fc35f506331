//! What is known of a job → what to do now: the pod's own word, what Events
//! and the Job tell beside it, and for how long to wait.
//!
//! The watch can be blind for a while, and the cluster go on meanwhile. So
//! before something that was not seen ends a job, all pods are listed anew.

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::cluster::client::KubeCluster;
use crate::cluster::client::inquiry::Question;
use crate::cluster::client::watch::Subscription;
use crate::cluster::status::evidence::{self, Evidence};
use crate::cluster::status::{Cause, Failure, PodView, Verdict};
use crate::config::Graces;
use crate::worker::Workplace;
use crate::worker::patience::Patience;
use crate::worker::questions::Questions;

/// Between two looks whether the new list is there.
const LIST_INTERVAL: Duration = Duration::from_millis(500);

/// Judges the state of one job, again and again.
pub(super) struct Waiting<'a> {
    cluster: &'a KubeCluster,
    subscription: &'a Subscription,
    run: &'a str,
    questions: Questions<'a>,
    patience: Patience,
    /// Since when the job would end for something that was not seen.
    doubt: Option<Instant>,
}

/// What to do now.
pub(super) struct Judgement {
    /// `Running` and `Stuck` mean to wait.
    pub(super) verdict: Verdict,
    /// What a reader of the job's log should know.
    pub(super) lines: Vec<String>,
    /// When to judge again, if nothing happens before.
    pub(super) wake: Option<Instant>,
}

impl Judgement {
    /// To wait, and to look again at that time.
    fn wait(wake: Option<Instant>) -> Judgement {
        Judgement {
            verdict: Verdict::Running,
            lines: Vec::new(),
            wake,
        }
    }
}

impl<'a> Waiting<'a> {
    pub(super) fn new(
        workplace: &'a Workplace,
        subscription: &'a Subscription,
        run: &'a str,
        graces: Graces,
    ) -> Waiting<'a> {
        let cluster = &workplace.cluster;
        Waiting {
            cluster,
            subscription,
            run,
            questions: Questions::new(cluster, &workplace.crowd),
            patience: Patience::new(graces),
            doubt: None,
        }
    }

    /// Where the answer to a question arrives, while there is one.
    pub(super) fn answer(&self) -> Option<&Receiver<Evidence>> {
        self.questions.answer()
    }

    /// Takes what arrived there; `None` if nothing will.
    pub(super) fn take(&mut self, evidence: Option<Evidence>) {
        self.questions.take(evidence);
    }

    /// What is known beside the pod's own word, while it does not go on.
    pub(super) fn evidence(&self) -> Option<&Evidence> {
        self.questions.evidence()
    }

    /// Judges what is known of the pod, which has these containers.
    pub(super) fn judge(
        &mut self,
        view: Option<&PodView>,
        containers: &[String],
        now: Instant,
    ) -> Judgement {
        let (verdict, ask_at) = match view {
            None => self.without_pod(now),
            Some(view) => self.with_pod(view, containers, now),
        };
        let verdict = self.with_advice(verdict, view);
        let obstacle = match &verdict {
            Verdict::Running => None,
            Verdict::Stuck(failure) => Some(failure),
            Verdict::Failed(failure) if view.is_none() && !failure.cause.is_without_pod() => {
                let end = Some(failure.clone());
                return self.unless_in_doubt(end, Judgement::wait(ask_at), view, now);
            }
            Verdict::Succeeded | Verdict::Failed(_) => {
                return Judgement {
                    verdict,
                    lines: Vec::new(),
                    wake: ask_at,
                };
            }
        };
        // No pod at all is the first point on its way.
        let progress = view.map_or(0, |view| 1 + view.progress());
        let ruling = self.patience.look(progress, obstacle, now);
        let judgement = Judgement {
            verdict,
            lines: ruling.lines,
            wake: earliest(ask_at, ruling.wake),
        };
        self.unless_in_doubt(ruling.end, judgement, view, now)
    }

    /// Ends the job for something that was not seen, if it is not there in a
    /// list that is newer than this wish.
    fn unless_in_doubt(
        &mut self,
        end: Option<Failure>,
        judgement: Judgement,
        view: Option<&PodView>,
        now: Instant,
    ) -> Judgement {
        let Some(failure) = end else {
            self.doubt = None;
            return judgement;
        };
        let since = *self.doubt.get_or_insert_with(|| {
            self.subscription.look_again();
            now
        });
        // What the list brought may be on its way still.
        let is_newest = || self.subscription.last().as_ref() == view;
        if self.subscription.was_listed_since(since) && is_newest() {
            return Judgement {
                verdict: Verdict::Failed(failure),
                ..judgement
            };
        }
        Judgement {
            wake: earliest(judgement.wake, Some(now + LIST_INTERVAL)),
            ..judgement
        }
    }

    fn without_pod(&mut self, now: Instant) -> (Verdict, Option<Instant>) {
        let job = self.run.to_string();
        let (evidence, ask_at) = self.questions.about(Question::NoPod { job }, now);
        let verdict =
            evidence.map_or_else(|| Evidence::default().without_pod(), Evidence::without_pod);
        (verdict, ask_at)
    }

    fn with_pod(
        &mut self,
        view: &PodView,
        containers: &[String],
        now: Instant,
    ) -> (Verdict, Option<Instant>) {
        let verdict = view.verdict(containers);
        if evidence::is_open(view, containers, &verdict) {
            let question = Question::NotStarted {
                pod: view.uid.clone(),
            };
            let (evidence, ask_at) = self.questions.about(question, now);
            let verdict = match evidence {
                Some(evidence) => evidence.before_start(view, containers, verdict),
                None => verdict,
            };
            return (verdict, ask_at);
        }
        match verdict {
            Verdict::Failed(failure) if is_unexplained(&failure) => {
                match self.questions.deletion(self.run, now) {
                    Ok(evidence) => (Verdict::Failed(evidence.deletion()), None),
                    Err(ask_at) => (Verdict::Running, Some(ask_at)),
                }
            }
            verdict => {
                self.questions.rest(now);
                (verdict, None)
            }
        }
    }

    /// Where Kubernetes has no words for us, it may have some for a person.
    fn with_advice(&self, verdict: Verdict, view: Option<&PodView>) -> Verdict {
        let name = match (&verdict, view) {
            (Verdict::Stuck(failure), _) if !failure.message.is_empty() => return verdict,
            (Verdict::Stuck(failure), None) if failure.cause == Cause::NoPod => self.run,
            (Verdict::Stuck(failure), Some(view)) if failure.cause == Cause::NotStarted => {
                &view.name
            }
            _ => return verdict,
        };
        let advice = format!(
            "see kubectl --namespace {} get events --field-selector involvedObject.name={name}",
            self.cluster.namespace()
        );
        match verdict {
            Verdict::Stuck(failure) => Verdict::Stuck(failure.cause.with(advice)),
            verdict => verdict,
        }
    }
}

/// Whether a pod went without a word, so that its Job may have some.
fn is_unexplained(failure: &Failure) -> bool {
    failure.cause == Cause::Deleted && failure.message.is_empty()
}

/// The earlier of two times, where there are any.
pub(super) fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    [a, b].into_iter().flatten().min()
}
