//! Makes the objects of a job, and removes them.

use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded, select};
use jiff::Timestamp;

use crate::backoff::{self, Backoff};
use crate::cluster::client::KubeCluster;
use crate::cluster::client::watch::Subscription;
use crate::cluster::error::ClusterError;
use crate::cluster::status::Phase;
use crate::heartbeat::Stop;
use crate::worker::end::{End, Rest};
use crate::worker::unwinding::OnPanic;
use crate::worker::{Worker, go_duration};

/// How long an API server that does not answer is asked again to create.
const CREATE_PATIENCE: Duration = Duration::from_secs(600);
/// Tries that fail before the job's log says so.
const TRIES_QUIET: u32 = 3;
/// How long it is asked again to delete; then the cluster's own nets remain.
const DELETE_PATIENCE: Duration = Duration::from_secs(60);
/// The same after a panic, when nothing is reported before.
const RESCUE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a pod that was still running may take to go.
const POD_GONE_PATIENCE: Duration = Duration::from_secs(60);
/// How long a pod that was never seen may take to show itself.
const POD_SEEN_PATIENCE: Duration = Duration::from_secs(2);
const TEARDOWN_KEY: &str = "teardown.kubernetes.job";

impl<'a> Worker<'a> {
    /// Creates the Job, then the Secrets, which it owns from their first moment
    /// on. The pod waits for them meanwhile, and starts nothing.
    pub(super) fn create(&mut self) -> Result<(), End> {
        let cluster = &self.workplace.cluster;
        let uid = self.patiently(|| cluster.create_job(&self.plan.job))?;
        let created = format!("Created Job {}/{}.", cluster.namespace(), self.plan.run);
        log::info!("{created}");
        if self.log.is_watched() {
            self.log.note(self.setup_entry(), &created);
        }
        self.plan.own_secrets(&uid);
        self.job_uid = uid;
        for batch in self.plan.secret_batches() {
            self.patiently(|| cluster.create_secrets(batch))?;
        }
        Ok(())
    }

    /// Tries again while the API server cannot be reached or a quota is full,
    /// unless the job is stopped meanwhile.
    fn patiently<T: Send>(
        &self,
        call: impl Fn() -> Result<T, ClusterError> + Sync,
    ) -> Result<T, End> {
        let give_up = self.deadline.min(Instant::now() + CREATE_PATIENCE);
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
        loop {
            let error = match self.unless_stopped(&call)? {
                Ok(made) => return Ok(made),
                Err(error) if !error.is_retryable() => return Err(End::NotCreated(error)),
                Err(error) => error,
            };
            if Instant::now() >= give_up {
                return Err(End::NotCreated(error));
            }
            let wait = backoff.next(backoff::random()).max(error.stay_away());
            log::warn!("Next try in {wait:.1?}: {error}.");
            if backoff.failures() == TRIES_QUIET {
                let limit = go_duration(CREATE_PATIENCE);
                let line = format!("Waiting, for {limit} at most: {error}.");
                self.log.note(self.setup_entry(), &line);
            }
            match self.stops.recv_timeout(wait) {
                Ok(stop) => return Err(End::Stopped(stop)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::park_timeout(wait),
            }
        }
    }

    /// Makes a call that may take long. If the job is stopped meanwhile, what
    /// the call may have made is deleted at once. The call may have its effect
    /// after that, so it is waited for before the clean-up deletes once more.
    fn unless_stopped<T: Send>(&self, call: &(impl Fn() -> T + Sync)) -> Result<T, End> {
        std::thread::scope(|scope| {
            let (sender, answer) = bounded(1);
            let thread = std::thread::Builder::new()
                .name("create".to_string())
                .spawn_scoped(scope, move || sender.send(call()).is_ok());
            if let Err(error) = thread {
                log::warn!(
                    "A stop is not heard during the next call: cannot start a thread: {error}."
                );
                return Ok(call());
            }
            select! {
                // A panic of that thread goes on in this one, after the scope.
                recv(answer) -> answer => answer.map_err(|_| End::Stopped(Stop::NotOurs)),
                recv(self.stops) -> stop => {
                    let stop = stop.unwrap_or(Stop::NotOurs);
                    if stop != Stop::Handover {
                        // Tried again, and told of, by the clean-up.
                        let _ = self.workplace.cluster.delete_job(&self.plan.run);
                    }
                    Err(End::Stopped(stop))
                }
            }
        })
    }

    /// Deletes everything, and waits for a pod that was still running to end,
    /// so that the next job finds its place free.
    pub(super) fn clean_up(&self, rest: &Rest, subscription: &Subscription) {
        if self.workplace.planner.settings.keep_jobs && rest.may_stay {
            log::info!("Its Job is kept until somebody deletes it, as KUBERNETES_KEEP_JOBS asks.");
            return;
        }
        let began = Instant::now();
        let started = Timestamp::now();
        let names = self.secret_names();
        let problems = delete_all(
            &self.workplace.cluster,
            &self.plan.run,
            &names,
            DELETE_PATIENCE,
        );
        // A former process may have come as far as this.
        if self.log.begun(TEARDOWN_KEY).is_none() {
            let entry = self.log.open(TEARDOWN_KEY, None, started);
            self.log
                .note(entry, &format!("Deleting Job {}.", self.plan.run));
            for problem in &problems {
                self.log.note(entry, problem);
            }
            let code = i32::from(!problems.is_empty());
            self.log.close(entry, Some(code), Some(began.elapsed()));
        }
        let unseen = match rest.may_have_pod {
            true => POD_SEEN_PATIENCE,
            // Most likely there is no pod.
            false => Duration::ZERO,
        };
        wait_until_ended(subscription, unseen);
    }

    /// Deletes everything if this worker panics, even what may not be there.
    pub(super) fn rescue(&self) -> OnPanic<impl FnMut() + use<'a>> {
        let workplace = self.workplace;
        let (run, names) = (self.plan.run.clone(), self.secret_names());
        OnPanic::new(move || {
            if !workplace.planner.settings.keep_jobs {
                delete_all(&workplace.cluster, &run, &names, RESCUE_PATIENCE);
            }
        })
    }

    fn secret_names(&self) -> Vec<String> {
        let secrets = self.plan.secrets.iter();
        secrets
            .filter_map(|secret| secret.metadata.name.clone())
            .collect()
    }
}

/// Deletes the objects of a job; returns what went wrong.
fn delete_all(
    cluster: &KubeCluster,
    run: &str,
    secrets: &[String],
    patience: Duration,
) -> Vec<String> {
    let give_up = Instant::now() + patience;
    let mut problems = Vec::new();
    problems.extend(delete(give_up, || cluster.delete_job(run)));
    for name in secrets {
        problems.extend(delete(give_up, || cluster.delete_secret(name)));
    }
    for problem in &problems {
        log::error!("Left behind, until the cluster removes it: {problem}.");
    }
    problems
}

/// Deletes with patience; returns what went wrong in the end.
fn delete(give_up: Instant, call: impl Fn() -> Result<(), ClusterError>) -> Option<String> {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
    loop {
        let error = match call() {
            Ok(()) => return None,
            Err(error) => error,
        };
        if !error.is_retryable() || Instant::now() >= give_up {
            return Some(error.to_string());
        }
        let wait = backoff.next(backoff::random()).max(error.stay_away());
        std::thread::park_timeout(wait);
    }
}

/// Waits for a pod that still runs. One that was never seen gets a moment to
/// show itself: it may have been created just before the deletion.
fn wait_until_ended(subscription: &Subscription, unseen: Duration) {
    let give_up = Instant::now() + POD_GONE_PATIENCE;
    let unseen_until = Instant::now() + unseen;
    loop {
        let deadline = match subscription.last() {
            Some(view) if view.gone || view.phase != Phase::Open => return,
            Some(_) => give_up,
            None => unseen_until,
        };
        if Instant::now() >= deadline {
            break;
        }
        let _ = subscription.views().recv_deadline(deadline);
    }
    if subscription.last().is_some() {
        log::warn!(
            "Its pod still runs {POD_GONE_PATIENCE:?} after its deletion; the next job does not \
             wait for it."
        );
    }
}
