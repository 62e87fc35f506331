//! `executor run`: wires the rooms together, starts and stops them in order.
//!
//! Start: frontend and cluster answer, watch, heartbeat, workers, dequeue.
//! Stop: take no more, wait for the workers up to the drain limit, stop what
//! is left, last heartbeat, end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{bounded, select};

use crate::backoff::{self, Backoff};
use crate::cluster::client::{KubeCluster, OwnPod};
use crate::cluster::names::{executor_name, label_value};
use crate::config::Config;
use crate::dequeue::{self, Asking};
use crate::exit::Exit;
use crate::heartbeat::{Heartbeat, Registry};
use crate::janitor::Janitor;
use crate::metrics::Metrics;
use crate::metrics::pages::Health;
use crate::metrics::server::MetricsServer;
use crate::pool::Pool;
use crate::queue::client::QueueClient;
use crate::shutdown::Shutdown;
use crate::worker::{self, Shared};

/// The image that makes workspaces where our own cannot be found out.
const DEFAULT_WORKSPACE_IMAGE: &str = concat!("sourcegraph/executor:", env!("CARGO_PKG_VERSION"));
/// How long jobs have, once stopped, to clean up and report.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(90);
/// How long a forced end waits for objects to be deleted.
const FORCED_LIMIT: Duration = Duration::from_secs(5);

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
pub fn run(config: Config, place: Place, shutdown: &Shutdown) -> Exit {
    let name = executor_name(&place.host);
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
    let queue = QueueClient::new(config.queue.clone(), &name, &metrics);
    let cluster = match KubeCluster::new(&config.cluster, &metrics.cluster) {
        Ok(cluster) => cluster,
        Err(error) => {
            log::error!("{error}.");
            return Exit::Failed;
        }
    };
    if !connect(&queue, &cluster, shutdown) {
        return Exit::Clean;
    }
    health.set_connected();
    let shared = Arc::new(share(&config, place, name, queue, cluster, metrics));
    let (heartbeat, pool, janitor) = match start_threads(&config, &shared) {
        Ok(started) => started,
        Err(error) => {
            log::error!("Cannot start threads: {error}.");
            return Exit::Failed;
        }
    };
    log::info!(
        "Connected to Sourcegraph at {} and to Kubernetes namespace {}; listening on {} with {} \
         {}.",
        shared.queue.url(),
        shared.cluster.namespace(),
        config.queue.queues,
        config.workers,
        if config.workers == 1 {
            "worker"
        } else {
            "workers"
        }
    );
    dequeue_until_stopped(&config, &shared, &pool, shutdown);
    if let Some(janitor) = janitor {
        janitor.stop();
    }
    let exit = drain(&shared, pool, config.drain_timeout, shutdown);
    heartbeat.stop();
    exit
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

/// Waits until both sides answer. False if a stop was requested before.
fn connect(queue: &QueueClient, cluster: &KubeCluster, shutdown: &Shutdown) -> bool {
    // A heartbeat without jobs is what makes the executor known.
    let frontend = || {
        queue
            .heartbeat(&[])
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let kubernetes = || cluster.check().map_err(|error| error.to_string());
    until_it_works("Sourcegraph", frontend, shutdown)
        && until_it_works("Kubernetes", kubernetes, shutdown)
}

fn until_it_works(what: &str, check: impl Fn() -> Result<(), String>, shutdown: &Shutdown) -> bool {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
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

fn share(
    config: &Config,
    place: Place,
    executor_name: String,
    queue: QueueClient,
    cluster: KubeCluster,
    metrics: Metrics,
) -> Shared {
    let own_pod = find_own_pod(&cluster, &place);
    let own_image = own_pod.as_ref().map(|pod| pod.image.clone());
    let workspace_image = config
        .job
        .workspace_image
        .clone()
        .or(own_image)
        .unwrap_or_else(|| DEFAULT_WORKSPACE_IMAGE.to_string());
    log::debug!("This is executor {executor_name}; workspaces by image {workspace_image}.");
    Shared {
        watch: cluster.watch_pods(&label_value(&executor_name)),
        own_pod_owns: place.namespace.as_deref() == Some(cluster.namespace()),
        registry: Registry::default(),
        metrics,
        settings: config.job.clone(),
        password: config.queue.password.clone(),
        spool_dir: place.spool_dir,
        queue,
        cluster,
        executor_name,
        workspace_image,
        own_pod,
    }
}

/// In a cluster, our own Pod tells which image we are and can own what we
/// make. Without the permission to read it, both are left out.
fn find_own_pod(cluster: &KubeCluster, place: &Place) -> Option<OwnPod> {
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

/// Everything that runs beside the dequeue thread.
fn start_threads(
    config: &Config,
    shared: &Arc<Shared>,
) -> std::io::Result<(Heartbeat, Pool<worker::Assignment>, Option<Janitor>)> {
    let heartbeat = Heartbeat::start(shared.queue.clone(), shared.registry.clone())?;
    let pool = start_workers(shared, config.workers)?;
    let start_janitor = |interval| Janitor::start(shared, interval);
    let janitor = config.cleanup_interval.map(start_janitor).transpose()?;
    Ok((heartbeat, pool, janitor))
}

fn start_workers(shared: &Arc<Shared>, size: usize) -> std::io::Result<Pool<worker::Assignment>> {
    shared.metrics.jobs.set_workers(size);
    let shared = Arc::clone(shared);
    Pool::start(size, move |assignment| worker::run(&shared, assignment))
}

/// The dequeue thread, and this one waiting for it.
fn dequeue_until_stopped(
    config: &Config,
    shared: &Shared,
    pool: &Pool<worker::Assignment>,
    shutdown: &Shutdown,
) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("dequeue".to_string())
            .spawn_scoped(scope, || {
                let asking = Asking {
                    queue: &shared.queue,
                    metrics: &shared.metrics.queue,
                    poll_interval: config.queue.poll_interval,
                    limits: config.limits,
                };
                dequeue::run(&asking, &shared.registry, pool, shutdown);
            });
        if let Err(error) = thread {
            log::error!("Cannot start the dequeue thread: {error}.");
        }
    });
}

/// Lets running jobs end, up to the limit, then makes them.
fn drain(
    shared: &Arc<Shared>,
    pool: Pool<worker::Assignment>,
    limit: Duration,
    shutdown: &Shutdown,
) -> Exit {
    let (sender, joined) = bounded::<()>(0);
    // Whoever joins the workers may have to be left behind.
    std::thread::spawn(move || {
        pool.join();
        drop(sender);
    });
    if !shutdown.is_draining() {
        // A limit was reached: every job has its own time to end.
        log::info!("Ending after {} more jobs.", shared.registry.len());
        select! {
            recv(joined) -> _ => return Exit::Clean,
            recv(shutdown.drain()) -> _ => {}
        }
    }
    match shared.registry.len() {
        0 => log::info!("Stopping; no job runs."),
        jobs => log::info!("Stopping; {jobs} jobs run and have {limit:?} to end."),
    }
    select! {
        recv(joined) -> _ => return Exit::Clean,
        recv(shutdown.force()) -> _ => {}
        default(limit) => {
            log::warn!("{} jobs still run after {limit:?}; stopping them.", shared.registry.len());
        }
    }
    shared.registry.stop_all();
    select! {
        recv(joined) -> _ => return Exit::Clean,
        recv(shutdown.force()) -> _ => {}
        default(CLEAN_UP_LIMIT) => {}
    }
    // A second signal: what can be deleted in a few seconds is deleted.
    select! {
        recv(joined) -> _ => Exit::Clean,
        default(FORCED_LIMIT) => {
            log::warn!("Ending with {} jobs left.", shared.registry.len());
            Exit::Forced
        }
    }
}
