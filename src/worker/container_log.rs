//! The log of one container on its way into its entry: opens the stream, opens
//! it again where it stopped, and knows when all is there (`logs/progress.rs`).

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use jiff::Timestamp;

use crate::cluster::client::log_stream::{LogEvent, LogStream};
use crate::cluster::client::watch::Subscription;
use crate::cluster::error::ClusterError;
use crate::cluster::status::{ContainerState, Phase, PodView};
use crate::logs::pace::Pace;
use crate::logs::progress::{Known, Next, Progress};
use crate::logs::records::Records;
use crate::logs::resume::Position;
use crate::logs::upload::JobLog;
use crate::worker::Worker;

/// After a stop, what the container wrote before it has this long to arrive.
const LAST_BYTES_PATIENCE: Duration = Duration::from_millis(300);
/// A stream that is silent for so long then has brought it.
const LAST_BYTES_SILENCE: Duration = Duration::from_millis(30);

/// The log of the container that is followed.
pub(super) struct ContainerLog {
    /// The entry that it goes to.
    pub(super) entry: usize,
    stream: Option<LogStream>,
    records: Records,
    progress: Progress,
    was_opened: bool,
    probe: Option<Probe>,
}

/// A second look at what is there, beside a stream that is silent.
struct Probe {
    stream: LogStream,
    records: Records,
    began: Instant,
}

/// Whether the log of a container is all there.
pub(super) enum Completeness {
    Complete,
    /// More may come; look again when something happens, or at that time.
    Open(Option<Instant>),
    /// The rest cannot be had, for this reason.
    Lost(&'static str),
}

impl ContainerLog {
    /// A log of which nothing, or what the records say, was read so far.
    pub(super) fn new(entry: usize, records: Records) -> ContainerLog {
        ContainerLog {
            entry,
            stream: None,
            records,
            progress: Progress::new(Instant::now()),
            was_opened: false,
            probe: None,
        }
    }

    /// What the stream brings.
    pub(super) fn events(&self) -> Option<&Receiver<LogEvent>> {
        self.stream.as_ref().map(LogStream::events)
    }

    /// What the second look brings, while there is one.
    pub(super) fn probe_events(&self) -> Option<&Receiver<LogEvent>> {
        self.probe.as_ref().map(|probe| probe.stream.events())
    }

    /// Does what is due, and tells whether the log is complete.
    pub(super) fn advance(
        &mut self,
        worker: &Worker<'_>,
        subscription: &Subscription,
        view: &PodView,
        (name, state): (&str, &ContainerState),
    ) -> Completeness {
        let known = known(view, state);
        loop {
            let now = Instant::now();
            match self.progress.next(now, &known) {
                Next::Wait(until) => return Completeness::Open(until),
                Next::Open => {
                    if self.progress.has_ended_alone() && !known.is_over {
                        // It has probably ended, and the watch does not say so.
                        log::debug!("The log of {name} has ended, and the pod runs on.");
                        subscription.refresh();
                    }
                    self.open(worker, view, name);
                }
                Next::Probe => match worker.workplace.doubts.take(now) {
                    Ok(()) => self.start_probe(worker, view, name),
                    Err(until) => self.progress.put_off_probe(until),
                },
                Next::Complete => {
                    self.note_open_gap(&worker.log);
                    return Completeness::Complete;
                }
                Next::Lost(reason) => {
                    self.note_open_gap(&worker.log);
                    return Completeness::Lost(reason);
                }
            }
        }
    }

    /// Takes what the stream brought; `None` if its task is gone.
    pub(super) fn read(&mut self, event: Option<LogEvent>, log: &JobLog) {
        let now = Instant::now();
        match event {
            Some(LogEvent::Chunk(chunk)) => {
                let mut content = Vec::with_capacity(chunk.bytes.len());
                self.records.read(&chunk.bytes, &mut content);
                if let Some(gap) = self.records.take_gap()
                    && !gap
                        .duration()
                        .is_some_and(|it| self.progress.is_next_file(it))
                {
                    note(log, self.entry, &gap.to_string());
                }
                let has_news = !content.is_empty();
                self.progress.brought(now, chunk.bytes.len(), has_news);
                if let Some(last) = self.records.last() {
                    self.progress.compare_clocks(last, Timestamp::now());
                }
                log.write(self.entry, &content, self.records.position());
            }
            Some(LogEvent::End(Ok(()))) => match self.records.remark() {
                Some(remark) => {
                    log::debug!("A log stream is opened again, as the kubelet said: {remark}");
                    self.broke(now, None);
                }
                // Cut in the middle of what was had already.
                None if self.records.is_behind() && self.progress.has_bytes() => {
                    self.broke(now, None);
                }
                None => {
                    self.stream = None;
                    let is_inside = self.records.is_inside_record();
                    self.progress.ended(now, Timestamp::now(), is_inside);
                }
            },
            Some(LogEvent::End(Err(error))) => {
                log::debug!("A log stream broke and is opened again: {error}.");
                self.broke(now, Some(&error));
            }
            None => self.broke(now, None),
        }
    }

    /// Takes what the second look brought. If that is more than the stream did,
    /// the stream is dead though nobody said so.
    pub(super) fn read_probe(&mut self, event: Option<LogEvent>, doubts: &Pace) {
        let Some(probe) = &mut self.probe else { return };
        let Some(LogEvent::Chunk(chunk)) = event else {
            self.probe = None;
            return;
        };
        let mut content = Vec::new();
        probe.records.read(&chunk.bytes, &mut content);
        if content.is_empty() {
            return;
        }
        let began = probe.began;
        self.probe = None;
        if self.progress.is_silent_since(began) {
            log::info!("A log stream was dead and is opened again where it stopped.");
            doubts.found_dead(Instant::now());
            self.broke(Instant::now(), None);
        }
    }

    /// After a stop: reads what was written before it, for a moment.
    pub(super) fn read_last_bytes(&mut self, log: &JobLog) {
        let give_up = Instant::now() + LAST_BYTES_PATIENCE;
        while let Some(stream) = &self.stream {
            let silence = Instant::now() + LAST_BYTES_SILENCE;
            match stream.events().recv_deadline(silence.min(give_up)) {
                Ok(event @ LogEvent::Chunk(_)) => self.read(Some(event), log),
                Ok(LogEvent::End(_)) | Err(_) => return,
            }
        }
    }

    fn open(&mut self, worker: &Worker<'_>, view: &PodView, name: &str) {
        if self.was_opened {
            worker.workplace.metrics.cluster.stream_reopened();
        }
        self.was_opened = true;
        self.probe = None;
        let since = self.records.since();
        let is_from_start = *self.records.position() == Position::default();
        self.records.reopen();
        let cluster = &worker.workplace.cluster;
        self.stream = Some(cluster.follow_log(&view.name, name, since));
        self.progress.opened(Instant::now(), is_from_start);
    }

    fn start_probe(&mut self, worker: &Worker<'_>, view: &PodView, name: &str) {
        let mut records = Records::at(self.records.position().clone());
        let since = records.since();
        records.reopen();
        let cluster = &worker.workplace.cluster;
        let began = Instant::now();
        self.progress.probed(began);
        self.probe = Some(Probe {
            stream: cluster.read_log(&view.name, name, since),
            records,
            began,
        });
    }

    fn broke(&mut self, now: Instant, error: Option<&ClusterError>) {
        self.stream = None;
        let stay_away = error.map(ClusterError::stay_away).unwrap_or_default();
        let is_refused = error.is_some_and(|error| !error.is_retryable());
        self.progress.broke(now, stay_away, is_refused);
    }

    /// Nothing came after a stream was opened again, not even what was had. If
    /// that was more than a second look, something may be missing.
    fn note_open_gap(&self, log: &JobLog) {
        if let Some(gap) = self.records.open_gap()
            && !self.progress.is_double_check()
        {
            note(log, self.entry, &gap.to_string());
        }
    }
}

fn known(view: &PodView, state: &ContainerState) -> Known {
    let finished = match state {
        ContainerState::Ended { finished, .. } => *finished,
        _ => None,
    };
    Known {
        is_over: state.ended().is_some() || view.gone || view.phase != Phase::Open,
        finished,
        is_gone: view.gone,
    }
}

/// Says in the entry and in the log what is wrong with it.
pub(super) fn note(log: &JobLog, entry: usize, problem: &str) {
    log::warn!(
        "The log of {} is not complete, as its page says too: {problem}.",
        log.key(entry)
    );
    log.note(entry, problem);
}
