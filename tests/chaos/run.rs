//! One run, on one thread: puts jobs into their queues, lets trouble strike,
//! does what is due, and holds each job that has ended against its plan.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use fastrand::Rng;
use jiff::Timestamp;

use super::diary::Diary;
use super::fleet::{Fleet, REPLICAS};
use super::jobs::JobPlan;
use super::pods;
use super::secrets::Secrets;
use super::summary::Summary;
use super::trouble::{Deck, Threats};
use super::verdict::{Ending, Fate, judge};
use crate::frontend::record::JobRef;
use crate::support::proxy::Proxy;
use crate::support::stage::Stage;

/// So many jobs are in their queues or running.
const JOBS_AT_ONCE: usize = 14;
/// Between two looks at everything.
const TICK: Duration = Duration::from_millis(50);
/// Between two samples of what others may see.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(4);
/// Between two lines that tell how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(15);
/// What a run may take, and for each job more.
const TIME_MAX: Duration = Duration::from_secs(180);
const TIME_MAX_PER_JOB: Duration = Duration::from_secs(6);
/// So much before and after a job belongs to its story.
const AROUND: Duration = Duration::from_secs(2);

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Where everything random comes from.
    pub(crate) seed: u64,
    /// Numbers of the jobs.
    pub(crate) jobs: Range<usize>,
}

/// A job that is in its queue, or running.
pub(super) struct Running {
    plan: JobPlan,
    pub(super) job: JobRef,
    enqueued: Instant,
    /// When it was first handed out.
    first_dequeue: Option<Instant>,
    /// Whether the first attempt brought a log.
    was_heard_of: bool,
    pub(super) fate: Fate,
}

/// What is to be done at some time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    Start(usize),
    KillAgain(usize),
    EndFrontendOutage,
    EndApiOutage,
}

/// A run under way.
pub(super) struct Run {
    pub(super) stage: Stage,
    pub(super) fleet: Fleet,
    pub(super) proxy: Proxy,
    pub(super) diary: Diary,
    pub(super) rng: Rng,
    pub(super) deck: Deck,
    pub(super) agenda: Vec<(Instant, Due)>,
    pub(super) running: Vec<Running>,
    /// Until when the frontend is away.
    pub(super) frontend_away: Option<Instant>,
    /// Whether the API server is away.
    pub(super) api_is_away: bool,
    /// When something struck that can cost the answer to a dequeue.
    pub(super) dequeue_threats: Threats,
    pub(super) summary: Summary,
    seed: u64,
    waiting: Range<usize>,
    ended: Vec<JobRef>,
    secrets: Secrets,
    sampled: Instant,
}

/// Runs jobs through trouble. Panics with the story of all jobs that are left
/// when its time is over.
pub(crate) fn run(options: &Options) -> Summary {
    let mut run = Run::new(options);
    let began = Instant::now();
    let count = u32::try_from(options.jobs.len()).expect("the jobs can be counted");
    let deadline = began + TIME_MAX + TIME_MAX_PER_JOB * count;
    for index in 0..REPLICAS {
        run.fleet.start(index, &mut run.diary);
    }
    let mut next_trouble = Instant::now() + Duration::from_secs(3);
    let mut told = Instant::now();
    while run.put_jobs() || !run.running.is_empty() {
        assert!(Instant::now() < deadline, "{}", run.stories_of_all());
        run.do_what_is_due();
        run.fleet.look(&mut run.diary);
        if Instant::now() >= next_trouble {
            run.strike();
            next_trouble = Instant::now() + Duration::from_millis(run.rng.u64(600..2_400));
        }
        run.see_jobs();
        if run.sampled.elapsed() > SAMPLE_INTERVAL {
            run.sample();
        }
        if told.elapsed() > PROGRESS_INTERVAL {
            told = Instant::now();
            let (ended, running) = (run.ended.len(), run.running.len());
            run.diary
                .tell(&format!("{ended} jobs have ended, {running} wait or run"));
        }
        std::thread::park_timeout(TICK);
    }
    run.end();
    let mut summary = run.summary;
    summary.time = began.elapsed();
    summary
}

impl Run {
    fn new(options: &Options) -> Run {
        let stage = Stage::new();
        let proxy = Proxy::before(&stage.namespace);
        let builder = stage
            .executor_through(&proxy)
            .without("EXECUTOR_QUEUE_NAME")
            .env("EXECUTOR_QUEUE_NAMES", "batches,codeintel")
            .env("EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY", "128Mi");
        let mut secrets = Secrets::default();
        secrets.add(stage.frontend.token());
        let mut diary = Diary::new();
        diary.tell(&format!(
            "{options:?} in namespace {}",
            stage.namespace.name
        ));
        Run {
            fleet: Fleet::new(builder),
            proxy,
            stage,
            diary,
            rng: Rng::with_seed(options.seed),
            deck: Deck::default(),
            agenda: Vec::new(),
            running: Vec::new(),
            frontend_away: None,
            api_is_away: false,
            dequeue_threats: Threats::default(),
            summary: Summary::default(),
            seed: options.seed,
            waiting: options.jobs.clone(),
            ended: Vec::new(),
            secrets,
            sampled: Instant::now(),
        }
    }

    /// Keeps the queues full. False when there are no more jobs.
    fn put_jobs(&mut self) -> bool {
        while self.running.len() < JOBS_AT_ONCE
            && let Some(number) = self.waiting.next()
        {
            let plan = JobPlan::draw(self.seed, number);
            if let Some(secret) = plan.secret_part() {
                self.secrets.add(secret);
            }
            let job = plan.enqueue(&self.stage);
            self.running.push(Running {
                plan,
                job,
                enqueued: Instant::now(),
                first_dequeue: None,
                was_heard_of: false,
                fate: Fate::default(),
            });
        }
        !self.waiting.is_empty()
    }

    fn do_what_is_due(&mut self) {
        let now = Instant::now();
        let (due, later) = self.agenda.drain(..).partition(|(at, _)| *at <= now);
        self.agenda = later;
        let due: Vec<(Instant, Due)> = due;
        for (_, due) in due {
            match due {
                Due::Start(index) => self.fleet.start(index, &mut self.diary),
                Due::KillAgain(index) => self.kill_again(index),
                Due::EndFrontendOutage => self.end_frontend_outage(),
                Due::EndApiOutage => self.end_api_outage(),
            }
        }
    }

    /// Looks how far jobs are, and judges those that have ended.
    fn see_jobs(&mut self) {
        let mut ended = Vec::new();
        for (index, running) in self.running.iter_mut().enumerate() {
            let seen = |view: &crate::frontend::record::JobView| {
                let has_logs = !view.logs.is_empty();
                (
                    view.state.is_final(),
                    view.attempts,
                    view.dequeued_at,
                    has_logs,
                )
            };
            let (is_final, attempts, dequeued, has_logs) =
                self.stage.frontend.glance(running.job, seen);
            if attempts == 1 {
                running.first_dequeue = dequeued;
                running.was_heard_of |= has_logs;
            }
            if is_final {
                ended.push(index);
            }
        }
        for index in ended.into_iter().rev() {
            let running = self.running.swap_remove(index);
            self.judge(running);
        }
    }

    fn judge(&mut self, mut running: Running) {
        let view = self.stage.frontend.job(running.job);
        let is_near = |dequeue| self.dequeue_threats.is_near(dequeue);
        running.fate.dequeue_lost =
            !running.was_heard_of && running.first_dequeue.is_some_and(is_near);
        running.fate.could_not_fetch &= running.plan.fetches;
        for token in self.stage.frontend.tokens() {
            self.secrets.add(&token);
        }
        for entry in &view.logs {
            let which = format!("{} of {}", entry.key, running.job);
            self.secrets.look("log entries", &which, &entry.out);
            self.summary.entries += 1;
            self.summary.bytes += entry.out.len();
        }
        self.secrets
            .look("messages", &running.job.to_string(), view.message());
        self.summary.second_attempts += usize::from(view.attempts > 1);
        let number = running.plan.number;
        match judge(&running.plan, &view, running.fate) {
            Ok(ending) => {
                *self.summary.endings.entry(ending).or_default() += 1;
                if [Ending::TakenAway, Ending::NotFetched].contains(&ending) {
                    let (job, said) = (running.job, view.message());
                    self.diary
                        .tell(&format!("job {number} ({job}) is {ending}: {said}"));
                }
            }
            Err(wrong) => {
                let wrong = wrong.join("\n    ");
                let fault = format!("job {number} ({}): {wrong}", running.job);
                self.diary.tell(&format!("FAULT: {fault}"));
                eprintln!("{}", self.story(&running));
                self.summary.faults.push(fault);
            }
        }
        self.ended.push(running.job);
    }

    /// Everything that is known of a job.
    fn story(&self, running: &Running) -> String {
        let now = Instant::now();
        let from = running.first_dequeue.unwrap_or(running.enqueued);
        let from = from.checked_sub(AROUND).unwrap_or(from);
        let wall = |at: Instant| {
            let ago = jiff::SignedDuration::try_from(now - at).unwrap_or_default();
            format!("{:.3}", Timestamp::now() - ago)
        };
        format!(
            "===== story of job {} =====\n{:#?}\n{}\n{:?}\n----- troubles -----\n{}\n\
             ----- executors -----\n{}=====",
            running.plan.number,
            running.plan,
            self.stage.frontend.transcript(running.job),
            running.fate,
            self.diary.between(from, now),
            self.fleet.log_between(&wall(from), &wall(now)),
        )
    }

    fn stories_of_all(&self) -> String {
        let stories = self.running.iter().map(|running| self.story(running));
        let stories: Vec<String> = stories.collect();
        format!("the time is over\n{}\n{}", stories.join("\n"), self.summary)
    }

    /// Looks at what others may see: objects in the cluster, and metrics.
    fn sample(&mut self) {
        self.sampled = Instant::now();
        for token in self.stage.frontend.tokens() {
            self.secrets.add(&token);
        }
        if let Some(list) = pods::everything(&self.stage.namespace) {
            self.secrets.look("objects", "in the cluster", &list);
        }
        for index in 0..REPLICAS {
            if let Some(page) = self.fleet.metrics(index) {
                self.secrets
                    .look("metrics", &format!("of executor {index}"), &page);
            }
        }
    }

    /// No more trouble: everything must go, and nothing may have been broken.
    fn end(&mut self) {
        self.stage.frontend.clear_faults();
        self.stage.frontend.resume();
        self.proxy.clear();
        self.proxy.come_back();
        self.agenda.clear();
        for index in 0..REPLICAS {
            self.fleet.start(index, &mut self.diary);
        }
        self.fleet.wait_until_forgotten();
        self.sample();
        self.fleet.stop(&mut self.diary);
        self.stage.namespace.wait_until_empty();
        for (name, log) in self.fleet.logs() {
            self.secrets.look("executor logs", &name, &log);
        }
        self.summary.secrecy = self.secrets.extent();
        let faults = &mut self.summary.faults;
        faults.append(&mut self.fleet.faults);
        faults.extend_from_slice(self.secrets.found());
        // Who is killed is silent; that no job was lost by it was looked at.
        let violations = self.stage.frontend.violations().into_iter();
        faults.extend(violations.filter(|violation| !violation.contains("no heartbeat of")));
        let mut marks: BTreeMap<usize, usize> = BTreeMap::new();
        for job in &self.ended {
            let accepted = self.stage.frontend.glance(*job, |view| {
                view.marks.iter().filter(|mark| mark.status == 204).count()
            });
            *marks.entry(accepted).or_default() += 1;
        }
        if marks.keys().any(|accepted| *accepted != 1) {
            faults.push(format!("numbers of marks that were accepted: {marks:?}"));
        }
    }
}
