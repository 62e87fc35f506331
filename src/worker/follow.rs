//! Follows a pod to its end: one `select!` over everything that can happen.
//!
//! Containers run one after the other, so one log is followed at a time
//! (`container_log.rs`). The verdict on the pod (`waiting.rs`) counts once the
//! logs are complete.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{after, select};
use jiff::Timestamp;

use crate::cluster::client::watch::Subscription;
use crate::cluster::status::{Cause, ContainerView, PodView, Verdict};
use crate::heartbeat::Stop;
use crate::logs::records::Records;
use crate::logs::resume::Position;
use crate::logs::upload::Begun;
use crate::metrics::jobs::Phase;
use crate::shutdown::or_never;
use crate::worker::container_log::{Completeness, ContainerLog, note};
use crate::worker::end::End;
use crate::worker::waiting::{Waiting, earliest};
use crate::worker::{Worker, stage};

/// How long the log of a container is followed whose pod has to go. The kubelet
/// ends it within some seconds; on a node that is lost nothing ever ends.
const LAST_LOG_PATIENCE: Duration = Duration::from_secs(30);
/// How long the end of a pod waits for the server to have its log.
const LAST_SEND_PATIENCE: Duration = Duration::from_millis(400);

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
    waiting: Waiting<'a>,
    /// What somebody who looks on was told last.
    stage: String,
    /// Since when it is known that the job fails.
    failed_since: Option<Instant>,
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
            waiting: Waiting::new(
                worker.workplace,
                subscription,
                &worker.plan.run,
                worker.workplace.planner.settings.graces,
            ),
            stage: String::new(),
            failed_since: None,
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
            let answers = or_never(self.waiting.answer());
            let stops = self.worker.stops;
            select! {
                recv(self.subscription.views()) -> view => match view {
                    Ok(view) => self.see(view),
                    Err(_) => {
                        let unknown = Cause::NoProof.with("the watch of pods has ended");
                        return self.ended(Some(End::Failed(unknown)));
                    }
                },
                recv(logs) -> event => if let Some(log) = &mut self.log {
                    log.read(event.ok(), &self.worker.log);
                },
                recv(probes) -> event => if let Some(log) = &mut self.log {
                    log.read_probe(event.ok(), &self.worker.workplace.doubts);
                },
                recv(answers) -> answer => self.waiting.take(answer.ok()),
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

    /// Takes a new view of the pod, which the next process may want to know.
    fn see(&mut self, view: PodView) {
        if let Some(state) = &self.worker.state
            && self.view.is_none()
        {
            state.saw_pod(&view.name, &view.uid);
        }
        self.view = Some(Arc::new(view));
    }

    /// Does what the newest view asks for. `Ok` with the time of the next
    /// look, or `Err` when the job has ended: well with `None`.
    fn advance(&mut self) -> Result<Option<Instant>, Option<End>> {
        let (view, now) = (self.view.clone(), Instant::now());
        let judgement = self.waiting.judge(view.as_deref(), &self.names, now);
        for line in judgement.lines {
            self.tell(&line);
        }
        let mut wake = judgement.wake;
        if let Some(view) = &view {
            wake = earliest(wake, self.follow_logs(view));
        }
        if matches!(judgement.verdict, Verdict::Running | Verdict::Stuck(_)) {
            self.show_stage();
        }
        let is_reading = self.log.is_some() && !self.settled;
        match judgement.verdict {
            Verdict::Running | Verdict::Stuck(_) => Ok(wake),
            // The pod's word counts when its logs are all there.
            Verdict::Succeeded if is_reading => Ok(wake),
            Verdict::Succeeded => Err(None),
            Verdict::Failed(failure) => {
                let give_up = *self.failed_since.get_or_insert(now) + LAST_LOG_PATIENCE;
                let may_wait = now < give_up || self.has_current_ended();
                match is_reading && may_wait {
                    true => Ok(earliest(wake, Some(give_up).filter(|at| now < *at))),
                    false => Err(Some(End::Failed(failure))),
                }
            }
        }
    }

    /// Follows the log of the container that runs, and of all that have ended
    /// up to it. Returns when to look again.
    fn follow_logs(&mut self, view: &PodView) -> Option<Instant> {
        while !self.settled
            && let Some(name) = self.names.get(self.current).cloned()
        {
            let container = view.container(&name).filter(|it| it.state.has_started())?;
            let state = &container.state;
            if self.log.is_none() {
                log::debug!("Container {name} has started.");
                self.begin_phase();
                self.open_log(state.started());
                self.show(stage::running(&self.worker.plan.containers[self.current]));
            }
            let Some(log) = &mut self.log else { break };
            match log.advance(self.worker, self.subscription, view, (&name, state)) {
                Completeness::Open(at) => return at,
                Completeness::Complete => {}
                Completeness::Lost(problem) => note(&self.worker.log, log.entry, problem),
            }
            // A container that did not end well is the last one: its entry
            // stays open for the reason, which the verdict brings.
            if !container.ended_well(self.current + 1 == self.names.len()) {
                self.settled = true;
                break;
            }
            if let Some(warning) = container.warning() {
                self.tell(&warning);
            }
            self.close_entry();
        }
        None
    }

    /// The first container that starts makes the workspace, all others are steps.
    fn begin_phase(&self) {
        let phases = &self.worker.phases;
        match self.current {
            0 => phases.begin(Phase::Setup),
            1 => phases.begin(Phase::Steps),
            _ => {}
        }
    }

    /// Whether the container whose log is followed was seen to end.
    fn has_current_ended(&self) -> bool {
        self.current_container()
            .is_some_and(|container| container.state.ended().is_some())
    }

    fn current_container(&self) -> Option<&ContainerView> {
        let name = self.names.get(self.current)?;
        self.view.as_ref()?.container(name)
    }

    /// Says something to whoever reads the job's log, or our own.
    fn tell(&self, line: &str) {
        log::warn!("{line}");
        let (entry, _) = self.open_entry(None);
        self.worker.log.note(entry, line);
    }

    /// Shows to whoever looks on what the next container waits for.
    fn show_stage(&mut self) {
        let worker = self.worker;
        if worker.log.is_watched()
            && self.log.is_none()
            && !self.settled
            && let Some(next) = worker.plan.containers.get(self.current)
        {
            let (view, evidence) = (self.view.as_deref(), self.waiting.evidence());
            self.show(stage::before(next, view, evidence));
        }
    }

    /// Shows something new to whoever looks on, if anybody does.
    fn show(&mut self, stage: String) {
        if self.worker.log.is_watched() && self.stage != stage {
            let (entry, _) = self.open_entry(None);
            self.worker.log.note(entry, &stage);
            self.stage = stage;
        }
    }

    /// The log entry of the current container, and how far its log was read. It
    /// is begun if there is none yet; a former process may have begun it, or
    /// something that had to be told before the container started.
    fn open_entry(&self, started: Option<Timestamp>) -> (usize, Position) {
        let worker = self.worker;
        let place = self.current.min(worker.plan.containers.len() - 1);
        let planned = &worker.plan.containers[place];
        if let Some(begun) = worker.log.begun(&planned.log_key) {
            if let Some(started) = started {
                worker.log.began(begun.index, started);
            }
            return (begun.index, begun.position);
        }
        let redact = |words: &Vec<String>| {
            words
                .iter()
                .map(|word| worker.redactions.redact(word))
                .collect::<Vec<_>>()
        };
        let command = planned.command.as_ref().map(redact);
        let started = started.unwrap_or_else(Timestamp::now);
        let entry = worker.log.open(&planned.log_key, command, started);
        (entry, Position::default())
    }

    /// Begins to follow the log of the current container.
    fn open_log(&mut self, started: Option<Timestamp>) {
        let (entry, position) = self.open_entry(started);
        self.log = Some(ContainerLog::new(entry, Records::at(position)));
    }

    /// The log entry of the current container, if there is one.
    fn begun_entry(&self) -> Option<Begun> {
        let planned = self.worker.plan.containers.get(self.current)?;
        self.worker.log.begun(&planned.log_key)
    }

    /// Ends the entry of the current container, if there is one, and goes on to
    /// the next one.
    fn close_entry(&mut self) {
        self.log = None;
        if let Some(begun) = self.begun_entry() {
            let ended = self.current_container().and_then(|it| it.state.ended());
            let (code, time) = ended.unzip();
            self.worker.log.close(begun.index, code, time.flatten());
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
            let (entry, _) = self.open_entry(None);
            self.worker.log.note(entry, &reason);
        }
        let entry = self.begun_entry();
        self.close_entry();
        if let Some(entry) = entry {
            // What comes next ends the pod, so the log goes first.
            self.worker
                .log
                .wait_until_sent(entry.index, LAST_SEND_PATIENCE);
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
