//! How each trouble strikes. None may last so long that the server takes a
//! job back: what keeps heartbeats away waits until all jobs were heard of.

use std::time::{Duration, Instant};

use super::fleet::REPLICAS;
use super::pods;
use super::run::{Due, Run};
use super::trouble::Trouble;
use crate::frontend::fault::Fault as FrontendFault;
use crate::support::proxy::fault::{Call, Fault, Place};

/// A job may be silent for 25 s. So much of it may be planned for: what is
/// left is for a new process to connect, on a busy machine.
const SILENCE_MAX: Duration = Duration::from_secs(13);
/// Log streams end early as if all were said after so many bytes at least.
const CLEAN_BYTES_MIN: u64 = 20_000;
/// How much further the next of several answers gets.
const FURTHER: u64 = 1_500;
/// Cards that are tried before a turn is left out.
const TRIES: usize = 5;

impl Run {
    /// Deals cards until one can be played.
    pub(super) fn strike(&mut self) {
        for _ in 0..TRIES {
            let card = self.deck.deal(&mut self.rng);
            if self.play(card) {
                *self.summary.troubles.entry(card).or_default() += 1;
                return;
            }
            self.deck.put_back(card);
        }
    }

    /// False if it cannot strike now.
    fn play(&mut self, card: Trouble) -> bool {
        match card {
            Trouble::Kill => self.kill(None),
            Trouble::KillTwice => {
                let after = Duration::from_millis(self.rng.u64(..800));
                self.kill(Some(after))
            }
            Trouble::Handover => self.hand_over(),
            Trouble::FrontendOutage => self.begin_frontend_outage(),
            Trouble::LostAnswer => self.lose_answer(),
            Trouble::LostDequeue => self.lose_dequeue(),
            Trouble::FrontendError => self.refuse_calls(),
            Trouble::ApiRestart => self.begin_api_outage(),
            Trouble::ApiCut => {
                self.diary.tell("connections to the API server are cut");
                self.proxy.end_connections();
                true
            }
            Trouble::CutLog => self.cut_answers(Call::Log, "log streams"),
            Trouble::CutWatch => self.cut_answers(Call::Watch, "watches"),
            Trouble::ApiError => self.refuse_api_calls(),
            Trouble::LostApiAnswer => self.lose_api_answer(),
            Trouble::DeletedPod | Trouble::EvictedPod => self.take_pod(card),
        }
    }

    /// Whether heartbeats may stay away for so long from now on.
    fn may_be_silent(&self, time: Duration) -> bool {
        let now = Instant::now();
        let away = self
            .frontend_away
            .map(|until| until.saturating_duration_since(now));
        // After an outage it takes some tries to connect.
        let away = away.map_or(Duration::ZERO, |left| left + Duration::from_secs(4));
        self.stage.frontend.longest_silence() + time.max(away) < SILENCE_MAX
    }

    fn kill(&mut self, again: Option<Duration>) -> bool {
        let index = self.rng.usize(..REPLICAS);
        let down = Duration::from_millis(self.rng.u64(..3_000));
        if !self.fleet.is_running(index) || !self.may_be_silent(down) {
            return false;
        }
        self.fleet.kill(index, &mut self.diary);
        let now = Instant::now();
        self.dequeue_threats.add(now);
        self.agenda.push((now + down, Due::Start(index)));
        if let Some(after) = again {
            self.agenda
                .push((now + down + after, Due::KillAgain(index)));
        }
        true
    }

    /// The second kill, while the new process starts.
    pub(super) fn kill_again(&mut self, index: usize) {
        if self.fleet.is_running(index) && self.may_be_silent(Duration::from_secs(1)) {
            self.fleet.kill(index, &mut self.diary);
            let now = Instant::now();
            self.dequeue_threats.add(now);
            self.agenda
                .push((now + Duration::from_millis(200), Due::Start(index)));
        }
    }

    fn hand_over(&mut self) -> bool {
        let index = self.rng.usize(..REPLICAS);
        if !self.fleet.is_running(index) || !self.may_be_silent(Duration::from_secs(5)) {
            return false;
        }
        self.fleet.hand_over(index, &mut self.diary);
        self.dequeue_threats.add(Instant::now());
        true
    }

    fn begin_frontend_outage(&mut self) -> bool {
        let time = Duration::from_millis(self.rng.u64(1_000..8_000));
        if self.frontend_away.is_some() || !self.may_be_silent(time) {
            return false;
        }
        self.diary
            .tell(&format!("the frontend goes away for {time:.1?}"));
        self.stage.frontend.stop_answering();
        let now = Instant::now();
        self.dequeue_threats.add(now);
        self.frontend_away = Some(now + time);
        self.agenda.push((now + time, Due::EndFrontendOutage));
        for running in &mut self.running {
            running.fate.could_not_fetch = true;
        }
        true
    }

    pub(super) fn end_frontend_outage(&mut self) {
        self.stage.frontend.resume();
        self.frontend_away = None;
        self.diary.tell("the frontend is back");
    }

    fn lose_answer(&mut self) -> bool {
        let calls = [
            "addExecutionLogEntry",
            "updateExecutionLogEntry",
            "mark",
            "heartbeat",
        ];
        let call = calls[self.rng.usize(..calls.len())];
        let times = self.rng.u32(1..3);
        self.diary
            .tell(&format!("answers to {call} are lost, {times} times"));
        let fault = FrontendFault::on(call).times(times).cut_after();
        self.stage.frontend.inject(fault);
        true
    }

    fn lose_dequeue(&mut self) -> bool {
        if self.frontend_away.is_some() {
            return false;
        }
        self.diary.tell("the answer to a dequeue is lost");
        // It strikes only when a worker is free for a job.
        let threats = self.dequeue_threats.clone();
        let fault = FrontendFault::on("dequeue").when(move |_| {
            threats.add(Instant::now());
            true
        });
        self.stage.frontend.inject(fault.cut_after());
        true
    }

    fn refuse_calls(&mut self) -> bool {
        let calls = [
            "addExecutionLogEntry",
            "updateExecutionLogEntry",
            "mark",
            "heartbeat",
            "dequeue",
        ];
        let call = calls[self.rng.usize(..calls.len())];
        let fault = FrontendFault::on(call).times(self.rng.u32(1..4));
        let (fault, how) = match [0, 429, 500, 502, 503][self.rng.usize(..5)] {
            0 => (fault.cut_before(), "cut".to_owned()),
            status => (fault.status(status), format!("refused with {status}")),
        };
        self.diary.tell(&format!("calls of {call} are {how}"));
        self.stage.frontend.inject(fault);
        true
    }

    fn begin_api_outage(&mut self) -> bool {
        if self.api_is_away {
            return false;
        }
        let time = Duration::from_millis(self.rng.u64(1_000..5_000));
        let text = format!("the API server goes away for {time:.1?}");
        self.diary.tell(&text);
        self.proxy.go_away();
        self.api_is_away = true;
        self.agenda.push((Instant::now() + time, Due::EndApiOutage));
        true
    }

    pub(super) fn end_api_outage(&mut self) {
        self.proxy.come_back();
        self.api_is_away = false;
        self.diary.tell("the API server is back");
    }

    /// The next answers of this kind end somewhere, each further on than the
    /// one before: with a reset, or as if all were said. The latter happens to
    /// logs inside of much output alone, since little is sent in one piece.
    fn cut_answers(&mut self, call: Call, what: &str) -> bool {
        let mut after = self.rng.u64(..30_000) >> self.rng.u32(..10);
        let is_clean = self.rng.bool();
        if is_clean && call == Call::Log {
            after += CLEAN_BYTES_MIN;
        }
        let places = [Place::Here, Place::AtBorder, Place::InStamp];
        let place = places[self.rng.usize(..places.len())];
        let times = self.rng.u32(1..5);
        let fault = Fault::on(call).times(times).further(FURTHER).perhaps();
        let (fault, how) = match is_clean {
            true => (fault.end_early(after, place), "ended early"),
            false => (fault.cut(after, place), "cut"),
        };
        self.diary.tell(&format!(
            "{times} {what} are {how} after {after} bytes, {place:?}"
        ));
        self.proxy.inject(fault);
        true
    }

    fn refuse_api_calls(&mut self) -> bool {
        let calls = [
            Call::List,
            Call::Watch,
            Call::Log,
            Call::Create("jobs"),
            Call::Create("secrets"),
            Call::Delete("jobs"),
            Call::Delete("secrets"),
        ];
        let call = calls[self.rng.usize(..calls.len())];
        let fault = Fault::on(call).times(self.rng.u32(1..4)).perhaps();
        let status = [429, 500, 503][self.rng.usize(..3)];
        let fault = match status {
            429 => fault.answer_retry_after(status, 1),
            _ => fault.answer(status),
        };
        self.diary
            .tell(&format!("{call:?} is refused with {status}"));
        self.proxy.inject(fault);
        true
    }

    fn lose_api_answer(&mut self) -> bool {
        let calls = [
            Call::Create("jobs"),
            Call::Create("secrets"),
            Call::Delete("jobs"),
            Call::Delete("secrets"),
        ];
        let call = calls[self.rng.usize(..calls.len())];
        self.diary.tell(&format!("an answer to {call:?} is lost"));
        let fault = Fault::on(call).perhaps().reset_after();
        self.proxy.inject(fault);
        true
    }

    fn take_pod(&mut self, card: Trouble) -> bool {
        let namespace = &self.stage.namespace;
        let Some(list) = pods::everything(namespace) else {
            return false;
        };
        let open = pods::open(&list);
        let Some(pod) = self.rng.choice(open) else {
            return false;
        };
        let Some(running) = self
            .running
            .iter_mut()
            .find(|running| running.job == pod.job)
        else {
            return false;
        };
        let took = match card {
            Trouble::EvictedPod => pods::evict(namespace, &pod.name),
            _ => pods::delete(namespace, &pod.name),
        };
        if took {
            running.fate.pod_taken_away = true;
            self.diary.tell(&format!("{card}: {}", pod.name));
        }
        took
    }
}
