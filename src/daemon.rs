//! `executor run`: wires the rooms together, starts and stops them in order.
//!
//! Start: frontend and cluster answer, watch, heartbeat, workers, dequeue.
//! Stop: take no more, wait for the workers up to the drain limit, stop what
//! is left, last heartbeat, end.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, select};

use crate::adopt;
use crate::backoff::{self, Backoff};
use crate::cluster::client::watch::PodWatch;
use crate::cluster::client::{KubeCluster, OwnPod};
use crate::cluster::names::label_value;
use crate::config::{Config, JobSettings};
use crate::dequeue::{self, Asking};
use crate::exit::Exit;
use crate::heartbeat::{Heartbeat, Registry, Stop};
use crate::janitor::Janitor;
use crate::logs::pace::Pace;
use crate::metrics::Metrics;
use crate::metrics::pages::Health;
use crate::metrics::server::MetricsServer;
use crate::pool::Pool;
use crate::queue::client::QueueClient;
use crate::shutdown::Shutdown;
use crate::state::StateDir;
use crate::supervisor::Supervisor;
use crate::worker::crowd::Crowd;
use crate::worker::planner::{Planner, Tie};
use crate::worker::{self, Shared, Workplace, go_duration};

/// The image that makes workspaces where our own cannot be found out.
const DEFAULT_WORKSPACE_IMAGE: &str = concat!("sourcegraph/executor:", env!("CARGO_PKG_VERSION"));
/// How long jobs have, once stopped, to clean up and report.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(90);
/// How long a forced end waits for objects to be deleted.
const FORCED_LIMIT: Duration = Duration::from_secs(5);
/// How long a handover waits for workers to put down what they have.
const HANDOVER_LIMIT: Duration = Duration::from_secs(10);
/// No failure to connect keeps us away for longer: jobs of a former process
/// are given away after 25 s without a heartbeat.
const CONNECT_BACKOFF_MAX: Duration = Duration::from_secs(8);

/// What the daemon knows of the place where it runs.
pub struct Place {
    /// Name of the host, which is the name of the Pod in a cluster.
    pub host: String,
    /// Namespace of the own Pod, in a cluster.
    pub namespace: Option<String>,
    /// Directory for large output.
    pub spool_dir: PathBuf,
}

/// Runs until a stop was requested and carried out.
pub fn run(config: Config, place: Place, supervisor: &Supervisor, shutdown: &Shutdown) -> Exit {
    let queues: Vec<&str> = config
        .queue
        .queues
        .names()
        .iter()
        .map(String::as_str)
        .collect();
    let metrics = Metrics::new(&queues);
    let health = Health::new(shutdown);
    // Answers until this function returns.
    let _server = serve_metrics(config.metrics_address.as_deref(), &metrics, &health);
    let cluster = match KubeCluster::new(&config.cluster, &metrics.cluster) {
        Ok(cluster) => cluster,
        Err(error) => {
            log::error!("{error}.");
            return Exit::Failed;
        }
    };
    let objects = format!("{} in {}", cluster.namespace(), cluster.server());
    let former = match adopt::open(&config, &place.host, &objects) {
        Ok(former) => former,
        Err(error) => {
            log::error!("{error}.");
            return Exit::Failed;
        }
    };
    log::info!(
        "This is executor {}, which Sourcegraph shows as {}.",
        env!("CARGO_PKG_VERSION"),
        former.name
    );
    let queue = QueueClient::new(config.queue.clone(), &former.name, &metrics);
    let registry = Registry::default();
    let (state, name) = (former.state.clone(), former.name.clone());
    let (adopted, forgotten) = adopt::read(&queue, &registry, former);
    if !connect_frontend(&queue, &registry, shutdown) {
        return Exit::Clean;
    }
    // Before the cluster answers, since the jobs of a former process must not
    // fall silent.
    let alive = (metrics.pulses.clone(), supervisor.clone());
    let heartbeat = match Heartbeat::start(queue.clone(), registry.clone(), alive) {
        Ok(heartbeat) => heartbeat,
        Err(error) => {
            log::error!("Cannot start threads: {error}.");
            return Exit::Failed;
        }
    };
    let exit = match connect_cluster(&cluster, shutdown) {
        false => Exit::Clean,
        true => {
            health.set_connected();
            cluster.show_pulse(metrics.pulses.clone());
            adopt::forget(&cluster, forgotten);
            let parts = Parts {
                name,
                queue,
                cluster,
                metrics,
                registry,
                state,
            };
            work(&config, place, parts, adopted, (supervisor, shutdown))
        }
    };
    heartbeat.stop();
    log::info!("Stopped.");
    exit
}

/// From the first job to the last.
fn work(
    config: &Config,
    place: Place,
    parts: Parts,
    adopted: Vec<adopt::Read>,
    (supervisor, shutdown): (&Supervisor, &Shutdown),
) -> Exit {
    let mut watch = PodWatch::default();
    let mut adopted = adopt::assign(&watch, adopted);
    let instance = label_value(&parts.name);
    parts.cluster.start_watch(&mut watch, &instance);
    let state = parts.state.clone();
    let shared = Arc::new(share(config, place, parts, watch));
    let pool = match start_workers(&shared, config.workers) {
        Ok(pool) => pool,
        Err(error) => {
            log::error!("Cannot start threads: {error}.");
            return Exit::Failed;
        }
    };
    let ready = format!(
        "Connected to Sourcegraph at {} and to Kubernetes namespace {}; listening on {} with {} \
         {}.",
        shared.queue.url(),
        shared.workplace.cluster.namespace(),
        config.queue.queues,
        config.workers,
        if config.workers == 1 {
            "worker"
        } else {
            "workers"
        }
    );
    log::info!("{ready}");
    supervisor.ready(&ready);
    // With fewer workers than before, some jobs get a thread of their own.
    let surplus = adopted.split_off(config.workers.min(adopted.len()));
    let surplus = start_surplus(&shared, surplus);
    let janitor = start_janitor(&shared, config.cleanup_interval);
    shared.workplace.metrics.jobs.set_ready(true);
    dequeue_until_stopped(config, &shared, state.as_ref(), adopted, &pool, shutdown);
    shared.workplace.metrics.jobs.set_ready(false);
    if let Some(janitor) = janitor {
        janitor.stop();
    }
    let joined = join(pool, surplus);
    supervisor.stopping(&format!("Stopping with {} jobs.", shared.registry.len()));
    if !shutdown.is_draining() {
        // A limit was reached: every job has its own time to end.
        log::info!(
            "Ending when all jobs are done; running now: {}.",
            shared.registry.len()
        );
        select! {
            recv(joined) -> _ => return Exit::Clean,
            recv(shutdown.drain()) -> _ => {}
        }
    }
    match config.hands_over {
        true => hand_over(&shared, &joined, shutdown),
        false => drain(&shared, &joined, config.drain_timeout, shutdown),
    }
}

/// What is there before the first job.
struct Parts {
    name: String,
    queue: QueueClient,
    cluster: KubeCluster,
    metrics: Metrics,
    registry: Registry,
    state: Option<Arc<StateDir>>,
}

/// Shows the metrics, if that is wanted and can be: jobs matter more.
fn serve_metrics(
    address: Option<&str>,
    metrics: &Metrics,
    health: &Health,
) -> Option<MetricsServer> {
    let address = address?;
    match MetricsServer::start(address, metrics.clone(), health.clone()) {
        Ok(server) => {
            log::info!("Metrics are at http://{}/metrics.", server.address());
            Some(server)
        }
        Err(error) => {
            log::warn!(
                "Metrics are not served, everything else works: cannot listen on {address}: \
                 {error}. Set EXECUTOR_METRICS_ADDR to an address that is free, or to off."
            );
            None
        }
    }
}

/// Waits until Sourcegraph answers a heartbeat, which makes the executor known
/// and tells which jobs of a former process are still ours. False if a stop was
/// requested before.
fn connect_frontend(queue: &QueueClient, registry: &Registry, shutdown: &Shutdown) -> bool {
    let heartbeat = || registry.beat(queue).map_err(|error| error.to_string());
    until_it_works("Sourcegraph", heartbeat, shutdown)
}

/// Waits until Kubernetes answers. False if a stop was requested before.
fn connect_cluster(cluster: &KubeCluster, shutdown: &Shutdown) -> bool {
    let check = || cluster.check().map_err(|error| error.to_string());
    until_it_works("Kubernetes", check, shutdown)
}

fn until_it_works(what: &str, check: impl Fn() -> Result<(), String>, shutdown: &Shutdown) -> bool {
    let mut backoff = Backoff::new(Duration::from_secs(1), CONNECT_BACKOFF_MAX);
    loop {
        match check() {
            Ok(()) => return true,
            Err(problem) => {
                let wait = backoff.next(backoff::random());
                log::error!("Not connected to {what}, next try in {wait:.1?}: {problem}.");
                if !shutdown.wait(wait) {
                    return false;
                }
            }
        }
    }
}

fn share(config: &Config, place: Place, parts: Parts, watch: PodWatch) -> Shared {
    let tie = match parts.state {
        Some(_) => Tie::State,
        None => Tie::Process,
    };
    let own_pod = find_own_pod(&parts.cluster, &place);
    let (namespace, who) = (parts.cluster.namespace(), (parts.name, tie));
    let planner = planner(config.job.clone(), &place, namespace, own_pod, who);
    log::debug!("Workspaces are made by image {}.", planner.workspace_image);
    Shared {
        queue: parts.queue,
        registry: parts.registry,
        password: config.queue.password.clone(),
        workplace: Workplace {
            cluster: parts.cluster,
            watch,
            crowd: Crowd::default(),
            doubts: Pace::default(),
            metrics: parts.metrics,
            planner,
            spool_dir: place.spool_dir,
        },
    }
}

/// How a process of this name makes plans at this place.
pub(crate) fn planner(
    settings: JobSettings,
    place: &Place,
    namespace: &str,
    own_pod: Option<OwnPod>,
    (executor_name, tie): (String, Tie),
) -> Planner {
    Planner {
        workspace_image: workspace_image(&settings, own_pod.as_ref()),
        namespace: namespace.to_string(),
        own_pod_is_beside: place.namespace.as_deref() == Some(namespace),
        settings,
        executor_name,
        own_pod,
        tie,
    }
}

/// In a cluster, our own Pod tells which image we are and can own what we
/// make. Without the permission to read it, both are left out.
pub(crate) fn find_own_pod(cluster: &KubeCluster, place: &Place) -> Option<OwnPod> {
    let namespace = place.namespace.as_deref()?;
    match cluster.own_pod(namespace, &place.host) {
        Ok(pod) => Some(pod),
        Err(error) => {
            log::warn!(
                "Without our own Pod, workspaces are made by EXECUTOR_WORKSPACE_IMAGE or \
                 {DEFAULT_WORKSPACE_IMAGE}, and jobs do not go with the Pod: {error}."
            );
            None
        }
    }
}

/// The image that makes workspaces: the configured one, else our own, else
/// the one of a release.
pub(crate) fn workspace_image(settings: &JobSettings, own_pod: Option<&OwnPod>) -> String {
    let own_image = own_pod.map(|pod| pod.image.clone());
    let configured = settings.workspace_image.clone();
    configured
        .or(own_image)
        .unwrap_or_else(|| DEFAULT_WORKSPACE_IMAGE.to_string())
}

/// Starts what removes leftovers, if that is wanted and can be: jobs matter
/// more.
fn start_janitor(shared: &Arc<Shared>, interval: Option<Duration>) -> Option<Janitor> {
    match Janitor::start(shared, interval?) {
        Ok(janitor) => Some(janitor),
        Err(error) => {
            log::warn!("Leftovers are not looked for: cannot start a thread: {error}.");
            None
        }
    }
}

fn start_workers(shared: &Arc<Shared>, size: usize) -> std::io::Result<Pool<worker::Assignment>> {
    shared.workplace.metrics.jobs.set_workers(size);
    let shared = Arc::clone(shared);
    Pool::start(size, move |assignment| worker::run(&shared, assignment))
}

/// The dequeue thread, and this one waiting for it.
fn dequeue_until_stopped(
    config: &Config,
    shared: &Shared,
    state: Option<&Arc<StateDir>>,
    adopted: Vec<worker::Assignment>,
    pool: &Pool<worker::Assignment>,
    shutdown: &Shutdown,
) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("dequeue".to_string())
            .spawn_scoped(scope, || {
                let asking = Asking {
                    queue: &shared.queue,
                    metrics: &shared.workplace.metrics,
                    poll_interval: config.queue.poll_interval,
                    limits: config.limits,
                    state,
                };
                dequeue::resume(adopted, pool, shutdown);
                dequeue::run(&asking, &shared.registry, pool, shutdown);
            });
        if let Err(error) = thread {
            log::error!("Cannot start the dequeue thread: {error}.");
        }
    });
}

/// A thread for each job of a former process that no worker is there for.
fn start_surplus(shared: &Arc<Shared>, jobs: Vec<worker::Assignment>) -> Vec<JoinHandle<()>> {
    let start = |assignment: worker::Assignment| {
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new().name("worker-surplus".to_string());
        let thread = thread.spawn(move || worker::run(&shared, assignment));
        thread
            .inspect_err(|error| log::error!("A job is left to the next process: {error}."))
            .ok()
    };
    jobs.into_iter().filter_map(start).collect()
}

/// Joins the workers on a thread of its own, which may have to be left behind;
/// the channel is closed when they have ended.
fn join(pool: Pool<worker::Assignment>, surplus: Vec<JoinHandle<()>>) -> Receiver<()> {
    let (sender, joined) = bounded::<()>(0);
    std::thread::spawn(move || {
        pool.join();
        for thread in surplus {
            if thread.join().is_err() {
                log::error!("A job made its thread panic.");
            }
        }
        drop(sender);
    });
    joined
}

/// Leaves running jobs as they are to the next process. Those whose end was
/// decided may still report it.
fn hand_over(shared: &Shared, joined: &Receiver<()>, shutdown: &Shutdown) -> Exit {
    let jobs = shared.registry.len();
    log::info!("Stopping; {jobs} jobs are left to the next process.");
    shared.registry.stop_all(Stop::Handover);
    select! {
        recv(joined) -> _ => {}
        recv(shutdown.force()) -> _ => {}
        default(HANDOVER_LIMIT) => {}
    }
    Exit::Clean
}

/// Lets running jobs end, up to the limit, then makes them.
fn drain(shared: &Shared, joined: &Receiver<()>, limit: Duration, shutdown: &Shutdown) -> Exit {
    match shared.registry.len() {
        0 => log::info!("Stopping; no job runs."),
        1 => log::info!(
            "Stopping; 1 job runs and has {} to end.",
            go_duration(limit)
        ),
        jobs => log::info!(
            "Stopping; {jobs} jobs run and have {} to end.",
            go_duration(limit)
        ),
    }
    select! {
        recv(joined) -> _ => return Exit::Clean,
        recv(shutdown.force()) -> _ => {}
        default(limit) => {
            let (jobs, limit) = (shared.registry.len(), go_duration(limit));
            log::warn!("Jobs that still run after {limit} are stopped: {jobs}.");
        }
    }
    shared.registry.stop_all(Stop::DrainLimit);
    select! {
        recv(joined) -> _ => return Exit::Clean,
        recv(shutdown.force()) -> _ => {}
        default(CLEAN_UP_LIMIT) => {}
    }
    // A second signal: what can be deleted in a few seconds is deleted.
    select! {
        recv(joined) -> _ => Exit::Clean,
        default(FORCED_LIMIT) => {
            log::warn!(
                "Ending with jobs left: {}. The cluster removes them later, and the server gives \
                 them to other executors.",
                shared.registry.len()
            );
            Exit::Forced
        }
    }
}
