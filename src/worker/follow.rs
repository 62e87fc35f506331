//! Follows a pod to its end: one `select!` over everything that can happen.
//!
//! Containers run one after the other, so one log is followed at a time. A
//! log is complete when its stream has ended and the container was seen to
//! end at about that time; a stream that ends before is opened again where it
//! stopped. The verdict on the pod counts once the logs are complete.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{after, select};
use jiff::Timestamp;

use crate::cluster::client::log_stream::{LogEvent, LogStream};
use crate::cluster::client::watch::Subscription;
use crate::cluster::error::ClusterError;
use crate::cluster::status::{ContainerState, Failure, Phase, PodView, Verdict};
use crate::heartbeat::Stop;
use crate::logs::records::Records;
use crate::shutdown::or_never;
use crate::worker::{End, Worker};

/// How far apart a container's end and its log's end may be seen. The kubelet
/// notices both by itself, within about a second.
const ENDS_APART: Duration = Duration::from_millis(2500);
/// Before a broken stream is opened again.
const REOPEN_DELAY: Duration = Duration::from_millis(500);
/// How often the log of a container that has ended is asked for again.
const REOPENS_AFTER_END: u32 = 10;
/// How long a stream may stay silent after its container has ended.
const STREAM_END_PATIENCE: Duration = Duration::from_secs(15);
/// How long a pull that fails may go on failing: registries have bad moments.
const PULL_GRACE: Duration = Duration::from_secs(60);
/// How long the kubelet may fail to make a container: on a busy node one of
/// its calls to the runtime can take the two minutes that it has.
const START_GRACE: Duration = Duration::from_secs(3 * 60);
/// How long a pod may wait for a node: clusters that scale need minutes.
const NODE_GRACE: Duration = Duration::from_secs(15 * 60);
/// A Job whose pod does not show is worth a warning.
const POD_EXPECTED: Duration = Duration::from_secs(60);

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

/// The log of the container that is followed.
struct ContainerLog {
    entry: usize,
    stream: Option<LogStream>,
    records: Records,
    /// When the stream was opened or brought something.
    last_event: Instant,
    /// Whether the stream brought anything new since it was opened.
    brought_something: bool,
    /// When the container or the pod was first seen to have ended.
    over_since: Option<Instant>,
    /// When the stream ended without an error.
    ended: Option<Instant>,
    /// When to open the stream again.
    reopen: Option<Instant>,
    /// How often it was opened since the container has ended.
    opened_after_end: u32,
}

/// Whether the log of a container is all there.
enum Completeness {
    Complete,
    /// More may come, or the stream must be opened again at that time.
    Open(Option<Instant>),
    /// The rest cannot be had, for this reason.
    Lost(String),
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
            let stream = self.log.as_ref().and_then(|log| log.stream.as_ref());
            let logs = or_never(stream.map(LogStream::events));
            let stops = self.worker.stops;
            select! {
                recv(self.subscription.views()) -> view => match view {
                    Ok(view) => self.see(view),
                    Err(_) => return self.ended(Some(End::Failed(Failure::Deleted))),
                },
                recv(logs) -> event => self.read(event.ok()),
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
            match self.follow_log(&view, &name, state) {
                Completeness::Open(at) => {
                    wake = at;
                    break;
                }
                Completeness::Complete => {}
                Completeness::Lost(problem) => self.note(problem),
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

    /// Opens what must be open, and tells whether the log is complete.
    fn follow_log(&mut self, view: &PodView, name: &str, state: &ContainerState) -> Completeness {
        if self.log.is_none() {
            log::debug!("Container {name} has started.");
            self.open_entry(state.started());
        }
        let Some(log) = self.log.as_mut() else {
            return Completeness::Complete;
        };
        let has_ended = state.ended().is_some();
        if log.stream.is_some() {
            let is_over = has_ended || view.gone || view.phase != Phase::Open;
            return log.wait_for_end(is_over);
        }
        if has_ended && log.ended.is_some_and(|ended| ended.elapsed() < ENDS_APART) {
            return Completeness::Complete;
        }
        if has_ended && (view.gone || log.opened_after_end >= REOPENS_AFTER_END) {
            return Completeness::Lost("the end of the log could not be read".to_string());
        }
        if view.gone {
            return Completeness::Lost("the pod was deleted while the step ran".to_string());
        }
        let quiet_until = log.ended.map(|ended| ended + ENDS_APART);
        let at = log.reopen.or(quiet_until).unwrap_or_else(Instant::now);
        // A container that ends is soon seen to end: then nothing is missing.
        if Instant::now() < at {
            return Completeness::Open(Some(at));
        }
        log.reopen(self.worker, view, name, has_ended);
        Completeness::Open(None)
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
        self.log = Some(ContainerLog {
            entry,
            stream: None,
            records,
            last_event: Instant::now(),
            brought_something: false,
            over_since: None,
            ended: None,
            reopen: None,
            opened_after_end: 0,
        });
    }

    /// Takes what a stream brought; `None` if its task is gone.
    fn read(&mut self, event: Option<LogEvent>) {
        let Some(log) = self.log.as_mut() else { return };
        match event {
            Some(LogEvent::Chunk(chunk)) => {
                log.last_event = Instant::now();
                let mut content = Vec::with_capacity(chunk.bytes.len());
                log.records.read(&chunk.bytes, &mut content);
                log.brought_something |= !content.is_empty();
                if let Some(gap) = log.records.take_gap() {
                    self.worker.log.note(log.entry, &gap.to_string());
                }
                let position = log.records.position();
                self.worker.log.write(log.entry, &content, position);
            }
            Some(LogEvent::End(Ok(()))) => {
                log.stream = None;
                // A proxy that loses the kubelet ends the stream as if all
                // were said. Inside of a record that shows; if a second look
                // brings nothing new, the output just has no last newline.
                if log.brought_something && log.records.is_inside_record() {
                    log::debug!("A log stream was cut and is opened again.");
                    log.reopen = Some(Instant::now() + REOPEN_DELAY);
                } else {
                    log.ended = Some(Instant::now());
                }
            }
            Some(LogEvent::End(Err(error))) => log.broke(&error),
            None => {
                log.stream = None;
                log.reopen = Some(Instant::now() + REOPEN_DELAY);
            }
        }
    }

    /// Says in the log what is wrong with it.
    fn note(&self, problem: String) {
        log::warn!("The log of a container is not complete: {problem}.");
        if let Some(log) = &self.log {
            self.worker.log.note(log.entry, &problem);
        }
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
        let reason = match &end {
            End::Stopped(Stop::Cancelled) => Some("The job was cancelled.".to_string()),
            End::Stopped(Stop::DrainLimit) => Some("The executor was stopped.".to_string()),
            End::TimedOut => Some("The job took longer than it may.".to_string()),
            End::Failed(Failure::ExitCode { .. })
            | End::Stopped(Stop::NotOurs | Stop::Handover) => None,
            End::Failed(failure) => Some(failure.to_string()),
            End::NotCreated(error) => Some(error.to_string()),
        };
        if let Some(reason) = reason {
            if self.log.is_none() {
                self.open_entry(None);
            }
            if let Some(log) = &self.log {
                self.worker.log.note(log.entry, &reason);
            }
        }
        self.close_entry();
        Err(end)
    }
}

impl ContainerLog {
    /// A stream should end with its container; one that hangs is given up.
    fn wait_for_end(&mut self, is_over: bool) -> Completeness {
        if !is_over {
            return Completeness::Open(None);
        }
        let over_since = *self.over_since.get_or_insert_with(Instant::now);
        let give_up = over_since.max(self.last_event) + STREAM_END_PATIENCE;
        if Instant::now() < give_up {
            return Completeness::Open(Some(give_up));
        }
        self.stream = None;
        Completeness::Lost("the log stream did not end with its container".to_string())
    }

    fn reopen(&mut self, worker: &Worker<'_>, view: &PodView, name: &str, has_ended: bool) {
        // When it is opened for the first time, it has not ended yet.
        if self.ended.is_some() || self.reopen.is_some() {
            worker.shared.metrics.cluster.stream_reopened();
        }
        let since = self.records.since();
        self.records.reopen();
        self.stream = Some(worker.shared.cluster.follow_log(&view.name, name, since));
        self.last_event = Instant::now();
        self.brought_something = false;
        self.ended = None;
        self.reopen = None;
        self.opened_after_end += u32::from(has_ended);
    }

    fn broke(&mut self, error: &ClusterError) {
        log::debug!("A log stream broke and is opened again: {error}.");
        self.stream = None;
        self.ended = None;
        self.reopen = Some(Instant::now() + REOPEN_DELAY);
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
