//! `scripts/bench`: what the executor costs beside the pods that it runs.
//!
//! Every time is a ratio within one run on one cluster: jobs through the
//! executor against the very same pods created bare and watched to their end,
//! in turns, so that a machine whose speed drifts does not matter.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "showing is what it is for"
)]

#[path = "frontend/mod.rs"]
mod frontend;
#[path = "support/mod.rs"]
mod support;

use std::collections::HashSet;
use std::pin::pin;
use std::time::{Duration, Instant};

use executor::cluster::plan::{Plan, Setting, plan};
use executor::config::{Config, JobSettings};
use executor::job::{Job, Step};
use executor::logs::redact::Redactions;
use futures::{Stream, TryStreamExt, future};
use k8s_openapi::api::core::v1 as core;
use kube_client::api::{Api, PostParams, WatchEvent, WatchParams};
use kube_client::config::{KubeConfigOptions, Kubeconfig};
use kube_client::{Client, Config as KubeConfig};
use tokio::runtime::Runtime;

use frontend::spec::JobSpec;
use support::daemon::Daemon;
use support::stage::{EXECUTOR_IMAGE, Stage, TINY_IMAGE, tiny};

/// Jobs of one after the other, and of all at once.
const ROUNDS_ALONE: usize = 9;
const JOBS_AT_ONCE: usize = 50;
const ROUNDS_AT_ONCE: usize = 3;
const STEPS: usize = 3;
const LIMIT: Duration = Duration::from_secs(600);

fn main() {
    let stage = Stage::new();
    let workers = JOBS_AT_ONCE.to_string();
    let spawned = Instant::now();
    let executor = stage
        .executor()
        .env("EXECUTOR_MAXIMUM_NUM_JOBS", &workers)
        .env("EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY", "128Mi")
        .env("RUST_LOG", "warn,executor=info")
        .start();
    let first = stage
        .frontend
        .wait_for_requests(1, LIMIT, |request| request.endpoint() == "dequeue");
    let started = first[0].at.duration_since(spawned);
    let idle = memory(&executor, "VmRSS");
    let mut bare = Bare::new(&stage);

    // The first pod of each kind pays for what the node does only once.
    bare.run(1);
    jobs(&stage, 1);
    let alone: Vec<(f64, f64)> = (0..ROUNDS_ALONE)
        .map(|_| (jobs(&stage, 1), bare.run(1)))
        .collect();
    let at_once: Vec<(f64, f64)> = (0..ROUNDS_AT_ONCE)
        .map(|_| (jobs(&stage, JOBS_AT_ONCE), bare.run(JOBS_AT_ONCE)))
        .collect();
    let busy = memory(&executor, "VmHWM");

    println!("| measure | figure |");
    println!("|---|---|");
    println!(
        "| dequeue to mark, 1 job of {STEPS} no-op steps, against its pod bare, median of {ROUNDS_ALONE} | {} |",
        ratios(&alone)
    );
    println!(
        "| the same, {JOBS_AT_ONCE} jobs at once, makespans, median of {ROUNDS_AT_ONCE} | {} |",
        ratios(&at_once)
    );
    println!("| resident memory, idle with {JOBS_AT_ONCE} workers | {idle:.1} MiB |");
    println!("| resident memory, highest with {JOBS_AT_ONCE} jobs running | {busy:.1} MiB |");
    println!(
        "| start of the process to first dequeue | {} ms |",
        started.as_millis()
    );
    executor.stop();
}

/// Runs jobs through the executor; seconds from the first dequeue to the last
/// mark, as the frontend saw them.
fn jobs(stage: &Stage, count: usize) -> f64 {
    let jobs: Vec<_> = (0..count)
        .map(|_| {
            let job = (0..STEPS).fold(JobSpec::new("batches"), |job, step| {
                job.step(tiny(&format!("step.{step}"), "true"))
            });
            stage.frontend.enqueue(job)
        })
        .collect();
    let views: Vec<_> = jobs
        .into_iter()
        .map(|job| stage.frontend.wait_finished(job, LIMIT))
        .collect();
    for view in &views {
        assert_eq!(view.state.name(), "completed", "{}", view.log_text());
    }
    let dequeued = views.iter().filter_map(|view| view.dequeued_at).min();
    let marked = views
        .iter()
        .flat_map(|view| &view.marks)
        .map(|mark| mark.at)
        .max();
    let time = marked
        .zip(dequeued)
        .map(|(marked, dequeued)| marked.duration_since(dequeued));
    time.expect("every job was dequeued and marked")
        .as_secs_f64()
}

/// The same pods without an executor.
struct Bare<'a> {
    stage: &'a Stage,
    runtime: Runtime,
    pods: Api<core::Pod>,
    pod: core::Pod,
    rounds: usize,
}

impl<'a> Bare<'a> {
    fn new(stage: &'a Stage) -> Bare<'a> {
        let runtime = Runtime::new().expect("a runtime can be built");
        let client = runtime.block_on(async {
            let file = Kubeconfig::read_from(support::cluster::kubeconfig());
            let file = file.expect("the kubeconfig can be read");
            let options = KubeConfigOptions::default();
            let config = KubeConfig::from_custom_kubeconfig(file, &options).await;
            let config = config.expect("the kubeconfig is right");
            Client::try_from(config).expect("the kubeconfig is right")
        });
        let pods = Api::namespaced(client.clone(), &stage.namespace.name);
        let planned = planned(stage);
        let secrets: Api<core::Secret> = Api::namespaced(client, &stage.namespace.name);
        for secret in &planned.secrets {
            let created = runtime.block_on(secrets.create(&PostParams::default(), secret));
            created.expect("the Secret can be created");
        }
        let template = planned
            .job
            .spec
            .expect("a Job has a specification")
            .template;
        let pod = core::Pod {
            spec: template.spec,
            ..core::Pod::default()
        };
        Bare {
            stage,
            runtime,
            pods,
            pod,
            rounds: 0,
        }
    }

    /// Creates the pods all at once; seconds until the last one has succeeded.
    fn run(&mut self, count: usize) -> f64 {
        self.rounds += 1;
        let round = format!("bare-{}", self.rounds);
        let selector = format!("bench={round}");
        let began = Instant::now();
        self.runtime.block_on(async {
            let creating = (0..count).map(|number| {
                let mut pod = self.pod.clone();
                pod.metadata.name = Some(format!("{round}-{number}"));
                pod.metadata.labels = Some([("bench".to_owned(), round.clone())].into());
                let pods = self.pods.clone();
                async move { pods.create(&PostParams::default(), &pod).await }
            });
            future::try_join_all(creating)
                .await
                .expect("pods can be created");
            let mut ended = HashSet::new();
            // A watch from version 0 begins with all that is there, so that
            // one that the server ends is simply begun anew.
            while ended.len() < count {
                assert!(
                    began.elapsed() < LIMIT,
                    "{} of {count} pods ended",
                    ended.len()
                );
                let watch = WatchParams::default().labels(&selector).timeout(60);
                let events = self
                    .pods
                    .watch(&watch, "0")
                    .await
                    .expect("pods can be watched");
                see_ends(events, &mut ended, count).await;
            }
        });
        let time = began.elapsed().as_secs_f64();
        let delete = [
            "delete",
            "pods",
            "-l",
            &selector,
            "--grace-period=0",
            "--force",
        ];
        self.stage.namespace.kubectl(&delete);
        time
    }
}

/// Follows a watch until so many pods have ended, or the watch has.
async fn see_ends(
    events: impl Stream<Item = Result<WatchEvent<core::Pod>, kube_client::Error>>,
    ended: &mut HashSet<Option<String>>,
    count: usize,
) {
    let mut events = pin!(events);
    while ended.len() < count {
        let Ok(Some(event)) = events.try_next().await else {
            return;
        };
        if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = event {
            let phase = pod.status.and_then(|status| status.phase);
            assert_ne!(phase.as_deref(), Some("Failed"), "a bare pod failed");
            if phase.as_deref() == Some("Succeeded") {
                ended.insert(pod.metadata.name);
            }
        }
    }
}

/// The plan of the benchmark's job, as the executor makes it.
fn planned(stage: &Stage) -> Plan {
    let step = |number| Step {
        key: format!("step.{number}"),
        image: TINY_IMAGE.to_owned(),
        commands: vec!["true".to_owned()],
        dir: String::new(),
        env: Vec::new(),
    };
    let job = Job {
        queue: "batches".to_owned(),
        id: 0,
        token: None,
        repository: None,
        files: Vec::new(),
        steps: (0..STEPS).map(step).collect(),
        has_cli_steps: false,
        redacted_values: Default::default(),
        registries: Default::default(),
    };
    plan(
        &job,
        &Setting {
            job: &settings(),
            namespace: &stage.namespace.name,
            frontend_url: "http://127.0.0.1",
            authorization: String::new(),
            executor_name: "bench",
            workspace_image: EXECUTOR_IMAGE,
            workspace_pull_secrets: &[],
            executor_pod: None,
            is_adoptable: false,
            owner: None,
            redactions: &Redactions::new(&Default::default()),
            run: "bench".to_owned(),
        },
    )
}

/// The settings that the executor has in this benchmark.
fn settings() -> JobSettings {
    let lookup = |name: &str| {
        let value = match name {
            "EXECUTOR_QUEUE_NAME" => "batches",
            "EXECUTOR_FRONTEND_URL" => "http://127.0.0.1",
            "EXECUTOR_FRONTEND_PASSWORD" => "none",
            "EXECUTOR_KUBERNETES_RESOURCE_REQUEST_MEMORY" => "16Mi",
            "EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY" => "128Mi",
            _ => return None,
        };
        Some(value.to_owned())
    };
    Config::from_lookup(lookup)
        .expect("the settings are right")
        .job
}

/// A figure of the process from /proc, in MiB.
fn memory(executor: &Daemon, field: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", executor.pid()));
    let status = status.expect("the executor runs");
    let line = status.lines().find(|line| line.starts_with(field));
    let kilobytes: Option<f64> = line
        .and_then(|line| line.split_whitespace().nth(1))
        .and_then(|text| text.parse().ok());
    kilobytes.expect("the kernel tells the memory of a process") / 1024.0
}

/// The median of the ratios, with the median seconds of both sides.
fn ratios(pairs: &[(f64, f64)]) -> String {
    let median = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let ratio = median(pairs.iter().map(|(ours, bare)| ours / bare).collect());
    let ours = median(pairs.iter().map(|(ours, _)| *ours).collect());
    let bare = median(pairs.iter().map(|(_, bare)| *bare).collect());
    format!("{ratio:.2} ({ours:.2} s against {bare:.2} s)")
}
