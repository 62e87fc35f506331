//! The run: all jobs in the queue, one executor, and a look at it twice a second
//! until the last job that counts has ended.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::frontend::record::JobRef;
use crate::kubelet::Kubelet;
use crate::process::{Holding, Processor};
use crate::support::daemon::Daemon;
use crate::support::stage::{Stage, tiny};
use crate::support::{MINUTES, eventually};
use crate::table::{ROWS, Report, Row, Times};

const STEPS: usize = 2;
/// Short, so that the servers are what jobs wait for.
const CONTAINER_LIFE: Duration = Duration::from_millis(500);
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// Without an end of any job for that long, the run has failed.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// An answer of the metrics page takes no longer.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// What is asked for.
pub(crate) struct Options {
    /// Jobs that count.
    pub(crate) jobs: usize,
    /// Workers of the executor.
    pub(crate) at_once: usize,
}

/// Runs all jobs. Panics when one does not end well.
pub(crate) fn run(options: &Options) -> Report {
    let is_interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_interrupted);
    // The node must go in any case, so a signal ends the run like a failure.
    ctrlc::set_handler(move || flag.store(true, Ordering::SeqCst)).expect("it is the first one");

    let stage = Stage::new();
    // Pods that are on their way out still take room.
    let kubelet = Kubelet::start(options.at_once * 3, CONTAINER_LIFE);
    // So many more that the executor is still busy when the last one that
    // counts has ended.
    let jobs: Vec<JobRef> = (0..options.jobs + options.at_once)
        .map(|_| {
            let steps = (0..STEPS).map(|step| tiny(&format!("step.{step}"), "true"));
            stage
                .frontend
                .enqueue(steps.fold(stage.job(), |job, step| job.step(step)))
        })
        .collect();
    let state = tempfile::tempdir().expect("a directory can be made");
    let executor = stage
        .executor()
        .env("EXECUTOR_MAXIMUM_NUM_JOBS", &options.at_once.to_string())
        .env(
            "EXECUTOR_STATE_DIR",
            state.path().to_str().expect("the path is plain"),
        )
        .env("EXECUTOR_KUBERNETES_NODE_SELECTOR", &kubelet.selector())
        .env(
            "EXECUTOR_KUBERNETES_NODE_TOLERATIONS",
            &kubelet.tolerations(),
        )
        .env("RUST_LOG", "warn,executor=info")
        .start();

    let mut observer = Observer::new(&stage, &executor, &jobs, options.jobs);
    while observer.rows.len() < ROWS {
        assert!(!is_interrupted.load(Ordering::SeqCst), "interrupted");
        observer.look();
        std::thread::park_timeout(INTERVAL);
    }
    let report = observer.report(&kubelet);
    for job in &jobs {
        let state = stage.frontend.wait_finished(*job, MINUTES).state;
        assert_eq!(
            state.name(),
            "completed",
            "{}",
            stage.frontend.transcript(*job)
        );
    }
    stage.assert_clean();
    executor.stop();
    report
}

/// Looks at the executor while jobs end.
struct Observer<'a> {
    stage: &'a Stage,
    executor: &'a Daemon,
    /// Those that have not ended yet.
    open: Vec<JobRef>,
    ended: usize,
    /// How many of them count.
    wanted: usize,
    rows: Vec<Row>,
    /// What was seen in the second half of the way to the next row.
    seen: Vec<Holding>,
    /// When the last row was made, at how many jobs and requests.
    last_row: (Instant, usize, f64),
    asked_at_begin: BTreeMap<String, f64>,
    last_end: Instant,
    began: Instant,
    at_begin: Processor,
}

impl<'a> Observer<'a> {
    fn new(stage: &'a Stage, executor: &'a Daemon, jobs: &[JobRef], wanted: usize) -> Observer<'a> {
        let now = Instant::now();
        let asked_at_begin = requests(executor);
        Observer {
            stage,
            executor,
            open: jobs.to_vec(),
            ended: 0,
            wanted,
            rows: Vec::new(),
            seen: Vec::new(),
            last_row: (now, 0, asked_at_begin.values().sum()),
            asked_at_begin,
            last_end: now,
            began: now,
            at_begin: Processor::now(executor.pid()),
        }
    }

    /// One look, and a row when its number of jobs has ended.
    fn look(&mut self) {
        let frontend = &self.stage.frontend;
        let before = self.open.len();
        self.open
            .retain(|job| frontend.glance(*job, |view| !view.state.is_final()));
        if self.open.len() < before {
            self.last_end = Instant::now();
        }
        self.ended += before - self.open.len();
        assert!(
            self.last_end.elapsed() < SILENCE_MAX,
            "no job has ended for {SILENCE_MAX:?}\n{}",
            frontend.transcript(self.open[0])
        );
        let goal = self.wanted * (self.rows.len() + 1) / ROWS;
        let half = goal - (self.wanted / ROWS).div_ceil(2);
        if self.ended >= half {
            self.seen.push(Holding::of(self.executor.pid()));
        }
        if self.ended >= goal {
            self.end_row();
        }
    }

    fn end_row(&mut self) {
        let asked = requests(self.executor).values().sum();
        let now = (Instant::now(), self.ended, asked);
        let (since, jobs, asked) = self.last_row;
        let count = (now.1 - jobs) as f64;
        let median = |of: fn(&Holding) -> f64| {
            let mut all: Vec<f64> = self.seen.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let row = Row {
            jobs: self.ended,
            holding: Holding {
                memory: median(|seen| seen.memory),
                threads: median(|seen| seen.threads),
                descriptors: median(|seen| seen.descriptors),
                connections: median(|seen| seen.connections),
            },
            jobs_a_minute: count * 60.0 / now.0.duration_since(since).as_secs_f64(),
            requests_a_job: (now.2 - asked) / count,
        };
        eprintln!("{row}");
        self.rows.push(row);
        self.seen.clear();
        self.last_row = now;
    }

    fn report(self, kubelet: &Kubelet) -> Report {
        let processor = Processor::now(self.executor.pid()).since(&self.at_begin);
        let mut requests = requests(self.executor);
        for (what, count) in &mut requests {
            *count -= self.asked_at_begin.get(what).unwrap_or(&0.0);
        }
        Report {
            window: self.began.elapsed(),
            jobs: self.ended,
            times: self.times(kubelet),
            rows: self.rows,
            processor,
            requests,
            containers: STEPS + 1,
            container_life: CONTAINER_LIFE,
        }
    }

    /// Where the time of a job has gone, over all that have ended.
    fn times(&self, kubelet: &Kubelet) -> Times {
        let views = self.stage.frontend.jobs();
        let parts = views.iter().filter_map(|view| {
            let life = kubelet.life(view.job.id)?;
            let marked = view.accepted_mark()?.at;
            Some([
                life.came.duration_since(view.dequeued_at?),
                life.ended?.duration_since(life.came),
                marked.duration_since(life.ended?),
            ])
        });
        let parts: Vec<[Duration; 3]> = parts.collect();
        let mean = |part: usize| {
            let all: f64 = parts.iter().map(|parts| parts[part].as_secs_f64()).sum();
            all / parts.len() as f64
        };
        Times {
            to_node: mean(0),
            on_node: mean(1),
            to_mark: mean(2),
        }
    }
}

/// Requests of the executor to the API server so far, by its own word: what
/// was asked, and how often.
fn requests(executor: &Daemon) -> BTreeMap<String, f64> {
    let address = executor.metrics_address();
    let page = || {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PAGE_TIMEOUT)).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        Some(page)
    };
    let page = eventually("a page of metrics", MINUTES, page, String::new);
    let count = |line: &str| {
        let line = line.strip_prefix("executor_kubernetes_requests_total{")?;
        let (labels, count) = line.rsplit_once("} ")?;
        // In the order of their names: resource, result, verb.
        let mut values = labels.split('"').skip(1).step_by(2);
        let (resource, result, verb) = (values.next()?, values.next()?, values.next()?);
        Some((format!("{verb} {resource}, {result}"), count.parse().ok()?))
    };
    page.lines().filter_map(count).collect()
}
