//! Follows a pod to its end: one `select!` over everything that can happen.
//!
//! Containers run one after the other, so one log is followed at a time. A
//! log is complete when its stream has ended and the container was seen to
//! end at about that time; a stream that ends before is opened again where it
//! stopped. The verdict on the pod (`waiting.rs`) counts once the logs are
//! complete.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{after, select};
use jiff::Timestamp;

use crate::cluster::client::log_stream::{LogEvent, LogStream};
use crate::cluster::client::watch::Subscription;
use crate::cluster::error::ClusterError;
use crate::cluster::status::{Cause, ContainerView, Failure, PodView, Verdict};
use crate::heartbeat::Stop;
use crate::logs::output::Output;
use crate::logs::records::Records;
use crate::shutdown::or_never;
use crate::worker::waiting::{Waiting, earliest};
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

pub(super) struct Follow<'a> {
    worker: &'a Worker<'a>,
    subscription: &'a Subscription,
    names: Vec<String>,
    /// Looked at for every piece of a log, so it is shared and not copied.
    view: Option<Arc<PodView>>,
    /// The container whose log is followed, and its place in the plan.
    current: usize,
    /// Its entry, which is opened before its log if there is something to say.
    entry: Option<usize>,
    log: Option<ContainerLog>,
    /// Whether the log of the last container is all there, or lost.
    settled: bool,
    waiting: Waiting<'a>,
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
    /// How often it was opened since the container or the pod has ended.
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
        Follow {
            worker,
            subscription,
            names: worker
                .plan
                .containers
                .iter()
                .map(|planned| planned.name.clone())
                .collect(),
            view: None,
            current: 0,
            entry: None,
            log: None,
            settled: false,
            waiting: Waiting::new(
                &worker.shared.cluster,
                &worker.plan.run,
                worker.shared.settings.graces,
            ),
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
            let answers = or_never(self.waiting.answer());
            let stops = self.worker.stops;
            select! {
                recv(self.subscription.views()) -> view => match view {
                    Ok(view) => self.view = Some(Arc::new(view)),
                    Err(_) => {
                        let unknown = Cause::NoProof.with("the watch of pods has ended");
                        return self.ended(Some(End::Failed(unknown)));
                    }
                },
                recv(logs) -> event => self.read(event.ok()),
                recv(answers) -> answer => self.waiting.take(answer.ok()),
                recv(stops) -> stop => {
                    return self.ended(Some(End::Stopped(stop.unwrap_or(Stop::NotOurs))));
                }
                recv(timer) -> _ => {
                    if Instant::now() >= self.worker.deadline {
                        return self.ended(Some(End::TimedOut));
                    }
                }
            }
        }
    }

    /// Does what the newest view asks for. `Ok` with the time of the next
    /// look, or `Err` when the job has ended: well with `None`.
    fn advance(&mut self) -> Result<Option<Instant>, Option<End>> {
        let view = self.view.clone();
        let judgement = self
            .waiting
            .judge(view.as_deref(), &self.names, Instant::now());
        for line in judgement.lines {
            self.tell(&line);
        }
        let mut wake = judgement.wake;
        if let Some(view) = view {
            wake = earliest(wake, self.follow_logs(&view));
        }
        match judgement.verdict {
            Verdict::Running | Verdict::Stuck(_) => Ok(wake),
            // The pod's word counts when its logs are all there.
            _ if self.log.is_some() && !self.settled => Ok(wake),
            Verdict::Succeeded => Err(None),
            Verdict::Failed(failure) => Err(Some(End::Failed(failure))),
        }
    }

    /// Follows the log of the container that runs, and of all that have ended
    /// up to it. Returns when to look again.
    fn follow_logs(&mut self, view: &PodView) -> Option<Instant> {
        while !self.settled
            && let Some(name) = self.names.get(self.current)
        {
            let container = view.container(name);
            let container = container.filter(|container| container.state.has_started())?;
            match self.follow_log(view, container) {
                Completeness::Open(at) => return at,
                Completeness::Complete => {}
                Completeness::Lost(problem) => self.note(problem),
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

    /// Says something to whoever reads the job's log, or our own.
    fn tell(&mut self, line: &str) {
        log::warn!("Job {}: {line}", self.worker.plan.run);
        let entry = self.open_entry(None);
        self.worker.log.note(entry, line);
    }

    /// Opens what must be open, and tells whether the log is complete.
    fn follow_log(&mut self, view: &PodView, container: &ContainerView) -> Completeness {
        let (name, state) = (&container.name, &container.state);
        let entry = self.open_entry(state.started());
        let log = self.log.get_or_insert_with(|| {
            log::debug!("Container {name} has started.");
            ContainerLog::new(entry)
        });
        let has_ended = state.ended().is_some();
        let is_over = has_ended || view.is_over();
        if log.stream.is_some() {
            return log.wait_for_end(is_over);
        }
        if has_ended && log.ended.is_some_and(|ended| ended.elapsed() < ENDS_APART) {
            return Completeness::Complete;
        }
        if is_over && (has_ended && view.gone || log.opened_after_end >= REOPENS_AFTER_END) {
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
        log.reopen(self.worker, view, name, is_over);
        Completeness::Open(None)
    }

    /// The log entry of the current container, which is begun if it is not.
    /// It began when its container did, if that is known now.
    fn open_entry(&mut self, started: Option<Timestamp>) -> usize {
        let worker = self.worker;
        if let Some(entry) = self.entry {
            if let Some(started) = started.filter(|_| self.log.is_none()) {
                worker.log.began(entry, started);
            }
            return entry;
        }
        let place = self.current.min(worker.plan.containers.len() - 1);
        let planned = &worker.plan.containers[place];
        let redact = |words: &Vec<String>| {
            words
                .iter()
                .map(|word| worker.redactions.redact(word))
                .collect::<Vec<_>>()
        };
        let entry = worker.log.open(
            &planned.log_key,
            planned.command.as_ref().map(redact),
            started.unwrap_or_else(Timestamp::now),
            Output::new(worker.redactions.clone(), &worker.shared.spool_dir),
        );
        self.entry = Some(entry);
        entry
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
                self.worker.log.write(log.entry, &content);
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
        let container = name
            .zip(self.view.as_ref())
            .and_then(|(name, view)| view.container(name));
        if let Some(entry) = self.entry.take() {
            let (code, time) = container.and_then(|it| it.state.ended()).unzip();
            self.worker.log.close(entry, code, time.flatten());
        }
        self.log = None;
        self.current += 1;
    }

    /// Leaves a log entry for a reader who asks why, then passes the end on.
    fn ended(mut self, end: Option<End>) -> Result<(), End> {
        let Some(end) = end else { return Ok(()) };
        let reason = match &end {
            End::Stopped(Stop::Cancelled) => Some("The job was cancelled.".to_string()),
            End::Stopped(Stop::DrainLimit) => Some("The executor was stopped.".to_string()),
            End::TimedOut => Some("The job took longer than it may.".to_string()),
            End::Stopped(Stop::NotOurs) => None,
            End::Failed(Failure {
                cause: Cause::ExitCode { .. },
                ..
            }) => None,
            End::Failed(failure) => Some(failure.to_string()),
            End::NotCreated(error) => Some(error.to_string()),
        };
        if let Some(reason) = reason {
            let entry = self.open_entry(None);
            self.worker.log.note(entry, &reason);
        }
        self.close_entry();
        Err(end)
    }
}

impl ContainerLog {
    fn new(entry: usize) -> ContainerLog {
        ContainerLog {
            entry,
            stream: None,
            records: Records::default(),
            last_event: Instant::now(),
            brought_something: false,
            over_since: None,
            ended: None,
            reopen: None,
            opened_after_end: 0,
        }
    }

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

    fn reopen(&mut self, worker: &Worker<'_>, view: &PodView, name: &str, is_over: bool) {
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
        self.opened_after_end += u32::from(is_over);
    }

    fn broke(&mut self, error: &ClusterError) {
        log::debug!("A log stream broke and is opened again: {error}.");
        self.stream = None;
        self.ended = None;
        self.reopen = Some(Instant::now() + REOPEN_DELAY);
    }
}
