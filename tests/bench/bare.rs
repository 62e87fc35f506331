//! The very pods of the executor's plan, created bare and watched to their end:
//! what any executor must wait for.

use std::collections::HashSet;
use std::pin::pin;
use std::time::Instant;

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

use crate::LIMIT;
use crate::pods::STEPS;
use crate::support;
use crate::support::stage::{EXECUTOR_IMAGE, Stage, TINY_IMAGE};

/// The same pods without an executor.
pub(crate) struct Bare<'a> {
    stage: &'a Stage,
    runtime: Runtime,
    pods: Api<core::Pod>,
    pod: core::Pod,
    rounds: usize,
}

impl<'a> Bare<'a> {
    /// Prepares pods with the steps of the benchmark's job.
    pub(crate) fn new(stage: &'a Stage) -> Bare<'a> {
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
    pub(crate) fn run(&mut self, count: usize) -> f64 {
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
