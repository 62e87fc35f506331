//! Follows a pod to its end: one `select!` over everything that can happen.
//!
//! Containers run one after the other, so one log is followed at a time
//! (`container_log.rs`). The verdict on the pod counts once the logs are
//! complete.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{after, select};
use jiff::Timestamp;

use crate::cluster::client::watch::Subscription;
use crate::cluster::status::{Failure, PodView, Verdict};
use crate::heartbeat::Stop;
use crate::logs::records::Records;
use crate::shutdown::or_never;
use crate::worker::container_log::{Completeness, ContainerLog, note};
use crate::worker::{End, Worker};

/// How long a pull that fails may go on failing: registries have bad moments.
const PULL_GRACE: Duration = Duration::from_secs(60);
/// How long the kubelet may fail to make a container: on a busy node one of
/// its calls to the runtime can take the two minutes that it has.
const START_GRACE: Duration = Duration::from_secs(3 * 60);
/// How long a pod may wait for a node: clusters that scale need minutes.
const NODE_GRACE: Duration = Duration::from_secs(15 * 60);
/// A Job whose pod does not show is worth a warning.
const POD_EXPECTED: Duration = Duration::from_secs(60);

/// How long the end of a pod waits for the server to have its log.
const LAST_LOG_PATIENCE: Duration = Duration::from_millis(400);

pub(super) struct Follow<'a> {
    worker: &'a Worker<'a>,
    subscription: &'a Subscription,
    names: Vec<String>,
    /// Looked at for every piece of a log, so it is shared and not copied.
    view: Option<Arc<PodView>>,
    /// The container whose log is followed, and its place in the plan.
    current: usize,
    log: Option<ContainerLog>,
    /// Whether the log of the last container is all there, or lost.
    settled: bool,
    /// What the pod cannot get past, and since when.
    stuck: Option<(Failure, Instant)>,
    began: Instant,
    warned_of_no_pod: bool,
}

impl<'a> Follow<'a> {
    pub(super) fn new(worker: &'a Worker<'a>, subscription: &'a Subscription) -> Follow<'a> {
        let containers = &worker.plan.containers;
        let (current, settled) = progress(worker);
        Follow {
            worker,
            subscription,
            names: containers
                .iter()
                .map(|planned| planned.name.clone())
                .collect(),
            view: None,
            current,
            log: None,
            settled,
            stuck: None,
            began: Instant::now(),
            warned_of_no_pod: false,
        }
    }

    /// Waits until the job has ended, one way or the other.
    pub(super) fn run(mut self) -> Result<(), End> {
        loop {
            let wake = match self.advance() {
                Ok(wake) => wake,
                Err(end) => return self.ended(end),
            };
            let wake = wake.map_or(self.worker.deadline, |wake| wake.min(self.worker.deadline));
            let timer = after(wake.saturating_duration_since(Instant::now()));
            let log = self.log.as_ref();
            let logs = or_never(log.and_then(ContainerLog::events));
            let probes = or_never(log.and_then(ContainerLog::probe_events));
            let stops = self.worker.stops;
            select! {
                recv(self.subscription.views()) -> view => match view {
                    Ok(view) => self.see(view),
                    Err(_) => return self.ended(Some(End::Failed(Failure::Deleted))),
                },
                recv(logs) -> event => if let Some(log) = &mut self.log {
                    log.read(event.ok(), &self.worker.log);
                },
                recv(probes) -> event => if let Some(log) = &mut self.log {
                    log.read_probe(event.ok());
                },
                recv(stops) -> stop => match stop.unwrap_or(Stop::NotOurs) {
                    // Nothing has ended: everything stays as it is.
                    Stop::Handover => return Err(End::Stopped(Stop::Handover)),
                    stop => return self.ended(Some(End::Stopped(stop))),
                },
                recv(timer) -> _ => {
                    if Instant::now() >= self.worker.deadline {
                        return self.ended(Some(End::TimedOut));
                    }
                }
            }
        }
    }

    /// Takes a new view of the pod. A second pod of the same Job would be
    /// somebody else's doing; only the first one counts.
    fn see(&mut self, view: PodView) {
        match &self.view {
            Some(known) if known.uid != view.uid => {
                log::warn!(
                    "Ignoring pod {}: the job runs in pod {}.",
                    view.name,
                    known.name
                );
            }
            known => {
                if let Some(state) = &self.worker.state
                    && known.is_none()
                {
                    state.saw_pod(&view.name, &view.uid);
                }
                self.view = Some(Arc::new(view));
            }
        }
    }

    /// Does what the newest view asks for. `Ok` with the time of the next
    /// look, or `Err` when the job has ended: well with `None`.
    fn advance(&mut self) -> Result<Option<Instant>, Option<End>> {
        let Some(view) = self.view.clone() else {
            return Ok(self.expect_pod());
        };
        let mut wake = None;
        while !self.settled
            && let Some(name) = self.names.get(self.current).cloned()
        {
            let state = view.container(&name).map(|container| &container.state);
            let Some(state) = state.filter(|state| state.has_started()) else {
                break;
            };
            if self.log.is_none() {
                log::debug!("Container {name} has started.");
                self.open_entry(state.started());
            }
            let Some(log) = &mut self.log else { break };
            match log.advance(self.worker, self.subscription, &view, (&name, state)) {
                Completeness::Open(at) => {
                    wake = at;
                    break;
                }
                Completeness::Complete => {}
                Completeness::Lost(problem) => note(&self.worker.log, log.entry, problem),
            }
            // A container that did not end well is the last one: its entry
            // stays open for the reason, which the verdict brings.
            match state.ended() {
                Some((0, _)) => self.close_entry(),
                _ => self.settled = true,
            }
        }
        match view.verdict(&self.names) {
            Verdict::Running => self.stuck = None,
            Verdict::Stuck(failure) => return self.wait_out(failure, wake).map_err(Some),
            // The pod's word counts when its logs are all there.
            _ if self.log.is_some() && !self.settled => {}
            Verdict::Succeeded => return Err(None),
            Verdict::Failed(failure) => return Err(Some(End::Failed(failure))),
        }
        Ok(wake)
    }

    /// Without a pod there is nothing to do; the person who looks should know.
    fn expect_pod(&mut self) -> Option<Instant> {
        let expected = self.began + POD_EXPECTED;
        if Instant::now() < expected {
            return Some(expected);
        }
        if !self.warned_of_no_pod {
            self.warned_of_no_pod = true;
            let (namespace, run) = (
                self.worker.shared.cluster.namespace(),
                &self.worker.plan.run,
            );
            log::warn!(
                "Job {run} has no pod after {POD_EXPECTED:?}. A quota or an admission rule may \
                 refuse it: kubectl -n {namespace} describe job {run}"
            );
        }
        None
    }

    /// Gives what stands in the way its time to pass.
    fn wait_out(
        &mut self,
        failure: Failure,
        wake: Option<Instant>,
    ) -> Result<Option<Instant>, End> {
        let grace = match failure {
            Failure::Unschedulable { .. } => NODE_GRACE,
            Failure::CannotStart { .. } | Failure::Configuration { .. } => START_GRACE,
            _ => PULL_GRACE,
        };
        let same =
            |known: &Failure| std::mem::discriminant(known) == std::mem::discriminant(&failure);
        let since = match &self.stuck {
            Some((known, since)) if same(known) => *since,
            _ => {
                log::warn!(
                    "Job {} waits, at most {grace:?}: {failure}.",
                    self.worker.plan.run
                );
                Instant::now()
            }
        };
        self.stuck = Some((failure.clone(), since));
        let end = since + grace;
        if Instant::now() >= end {
            return Err(End::Failed(failure));
        }
        Ok(Some(wake.map_or(end, |wake| wake.min(end))))
    }

    /// Begins the log entry of the current container.
    fn open_entry(&mut self, started: Option<Timestamp>) {
        let worker = self.worker;
        let place = self.current.min(worker.plan.containers.len() - 1);
        let planned = &worker.plan.containers[place];
        let redact = |words: &Vec<String>| {
            words
                .iter()
                .map(|word| worker.redactions.redact(word))
                .collect::<Vec<_>>()
        };
        // A former process may have begun it.
        let (entry, records) = match worker.log.begun(&planned.log_key) {
            Some(begun) => (begun.index, Records::at(begun.position)),
            None => {
                let command = planned.command.as_ref().map(redact);
                let started = started.unwrap_or_else(Timestamp::now);
                let entry = worker.log.open(&planned.log_key, command, started);
                (entry, Records::default())
            }
        };
        self.log = Some(ContainerLog::new(entry, records));
    }

    /// Ends the entry of the current container, and goes on to the next one.
    fn close_entry(&mut self) {
        let name = self.names.get(self.current);
        let ended = name
            .zip(self.view.as_ref())
            .and_then(|(name, view)| view.container(name))
            .and_then(|container| container.state.ended());
        if let Some(log) = self.log.take() {
            let (code, time) = ended.unzip();
            self.worker.log.close(log.entry, code, time.flatten());
        }
        self.current += 1;
    }

    /// Leaves a log entry for a reader who asks why, then passes the end on.
    fn ended(mut self, end: Option<End>) -> Result<(), End> {
        let Some(end) = end else { return Ok(()) };
        if matches!(end, End::Stopped(Stop::NotOurs)) {
            self.close_entry();
            return Err(end);
        }
        if let Some(log) = &mut self.log {
            log.read_last_bytes(&self.worker.log);
        }
        if let Some(reason) = end.reason() {
            if self.log.is_none() {
                self.open_entry(None);
            }
            if let Some(log) = &self.log {
                self.worker.log.note(log.entry, &reason);
            }
        }
        let entry = self.log.as_ref().map(|log| log.entry);
        self.close_entry();
        if let Some(entry) = entry {
            // What comes next ends the pod, so the log goes first.
            self.worker.log.wait_until_sent(entry, LAST_LOG_PATIENCE);
        }
        Err(end)
    }
}

/// How far a former process had come: the container whose log is not complete
/// yet, and whether that one is the last of which there is anything to read.
fn progress(worker: &Worker<'_>) -> (usize, bool) {
    for (index, planned) in worker.plan.containers.iter().enumerate() {
        match worker.log.begun(&planned.log_key).and_then(|b| b.closed) {
            Some(Some(0)) => {}
            Some(_) => return (index, true),
            None => return (index, false),
        }
    }
    (worker.plan.containers.len(), false)
}
