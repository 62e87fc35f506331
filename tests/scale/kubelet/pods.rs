//! The pods of the node: a watch of those that are bound to it, and a task for
//! each that plays its containers one after the other.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::pin;
use std::time::{Duration, Instant};

use executor::cluster::names::JOB_ID_LABEL;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1 as core;
use kube_client::api::{
    Api, DeleteParams, Patch, PatchParams, Preconditions, WatchEvent, WatchParams,
};
use kube_client::{Client, Error};
use serde_json::{Value, json};
use tokio::task::AbortHandle;

use super::log::Logs;
use super::{Life, Lives, lock};

/// Lines that each container writes, at equal distances.
const LINES: u32 = 4;
/// A kubelet looks once a second at what its containers do: in one place for
/// their status, in another one for who follows their logs.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const WATCH_SECONDS: u32 = 240;
/// Before a call that failed is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a status is told that nobody hears.
const TRIES: u32 = 30;

/// What pods are played on.
#[derive(Clone)]
pub(super) struct Stage {
    pub(super) client: Client,
    pub(super) node: String,
    pub(super) container_life: Duration,
    pub(super) logs: Logs,
    pub(super) lives: Lives,
}

/// Watches for as long as the runtime lives. A watch from version 0 begins with
/// all that is there, so that one that the server ends is simply begun anew.
pub(super) async fn watch(stage: Stage) {
    let pods: Api<core::Pod> = Api::all(stage.client.clone());
    let params = WatchParams::default()
        .fields(&format!("spec.nodeName={}", stage.node))
        .timeout(WATCH_SECONDS);
    let mut playing = HashMap::new();
    loop {
        match pods.watch(&params, "0").await {
            Ok(events) => {
                let mut events = pin!(events);
                while let Ok(Some(event)) = events.try_next().await {
                    see(&stage, event, &mut playing);
                }
            }
            Err(problem) => {
                eprintln!(
                    "the pods of node {} cannot be watched: {problem}",
                    stage.node
                );
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn see(stage: &Stage, event: WatchEvent<core::Pod>, playing: &mut HashMap<String, AbortHandle>) {
    let (pod, is_gone) = match event {
        WatchEvent::Added(pod) | WatchEvent::Modified(pod) => (pod, false),
        WatchEvent::Deleted(pod) => (pod, true),
        WatchEvent::Bookmark(_) | WatchEvent::Error(_) => return,
    };
    let name = pod.metadata.name.clone().unwrap_or_default();
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    if is_gone || pod.metadata.deletion_timestamp.is_some() {
        if let Some(task) = playing.remove(&uid) {
            task.abort();
        }
        stage.logs.forget(&name);
        if !is_gone {
            tokio::spawn(remove(stage.clone(), pod));
        }
    } else if let Entry::Vacant(place) = playing.entry(uid) {
        let played = Player::new(stage, pod).play();
        let task = tokio::spawn(async move {
            if let Err(problem) = played.await {
                eprintln!("pod {name} is not played to its end: {problem}");
            }
        });
        place.insert(task.abort_handle());
    }
}

/// Says that nothing of the pod runs any more.
async fn remove(stage: Stage, pod: core::Pod) {
    let (name, uid) = (pod.metadata.name.unwrap_or_default(), pod.metadata.uid);
    let namespace = pod.metadata.namespace.unwrap_or_default();
    let pods: Api<core::Pod> = Api::namespaced(stage.client, &namespace);
    let params = DeleteParams::default()
        .grace_period(0)
        .preconditions(Preconditions {
            uid,
            ..Preconditions::default()
        });
    for tries in 1.. {
        match pods.delete(&name, &params).await {
            Err(problem) if tries < TRIES && !is_gone(&problem) => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(problem) if is_gone(&problem) => return,
            Err(problem) => return eprintln!("pod {name} stays: {problem}"),
            Ok(_) => return,
        }
    }
}

/// Whether the pod is not there any more, or another one has its name.
fn is_gone(problem: &Error) -> bool {
    matches!(problem, Error::Api(answer) if matches!(answer.code, 404 | 409))
}

/// What happens is noticed somewhere between two looks.
async fn until_next_look() {
    tokio::time::sleep(LOOK_INTERVAL.mul_f64(fastrand::f64())).await;
}

/// One pod while it is played.
struct Player {
    pods: Api<core::Pod>,
    name: String,
    uid: Option<String>,
    job: Option<i64>,
    /// Names of its containers in their order; the last one is the main one.
    containers: Vec<String>,
    /// States of those that have started.
    states: Vec<Value>,
    stage: Stage,
}

impl Player {
    fn new(stage: &Stage, pod: core::Pod) -> Player {
        let spec = pod.spec.unwrap_or_default();
        let containers = spec.init_containers.into_iter().flatten();
        let containers = containers.chain(spec.containers);
        let job = pod.metadata.labels.unwrap_or_default();
        let job = job.get(JOB_ID_LABEL).and_then(|id| id.parse().ok());
        if let Some(job) = job {
            let came = Instant::now();
            lock(&stage.lives).insert(job, Life { came, ended: None });
        }
        let namespace = pod.metadata.namespace.unwrap_or_default();
        Player {
            pods: Api::namespaced(stage.client.clone(), &namespace),
            name: pod.metadata.name.unwrap_or_default(),
            uid: pod.metadata.uid,
            job,
            containers: containers.map(|container| container.name).collect(),
            states: Vec::new(),
            stage: stage.clone(),
        }
    }

    async fn play(mut self) -> Result<(), Error> {
        let started = jiff::Timestamp::now().to_string();
        for container in self.containers.clone() {
            let log = self.stage.logs.open(&self.name, &container);
            let began = jiff::Timestamp::now().to_string();
            self.states.push(json!({"running": {"startedAt": began}}));
            let is_main = self.states.len() == self.containers.len();
            let phase = if is_main { "Running" } else { "Pending" };
            self.tell(phase, &started).await?;
            for line in 1..=LINES {
                tokio::time::sleep(self.stage.container_life / LINES).await;
                log.write(format!("stdout: line {line} of {LINES} of {container}"));
            }
            let ended = jiff::Timestamp::now().to_string();
            tokio::spawn(async move {
                until_next_look().await;
                log.close();
            });
            until_next_look().await;
            self.states.pop();
            self.states
                .push(json!({"terminated": {"exitCode": 0, "reason": "Completed",
                "startedAt": began, "finishedAt": ended}}));
        }
        self.tell("Succeeded", &started).await?;
        let mut lives = lock(&self.stage.lives);
        if let Some(life) = self.job.and_then(|job| lives.get_mut(&job)) {
            life.ended = Some(Instant::now());
        }
        Ok(())
    }

    /// Tells the cluster how the pod is.
    async fn tell(&self, phase: &str, started: &str) -> Result<(), Error> {
        let last = self.containers.len() - 1;
        let statuses = self.containers.iter().enumerate().map(|(index, name)| {
            let waiting = json!({"waiting": {"reason": "PodInitializing"}});
            let state = self.states.get(index).cloned().unwrap_or(waiting);
            let is_running = state.get("running").is_some();
            json!({"name": name, "image": "simulated", "imageID": "", "restartCount": 0,
                "ready": if index == last { is_running } else { state.get("terminated").is_some() },
                "started": is_running, "state": state})
        });
        let mut statuses: Vec<Value> = statuses.collect();
        let main = statuses.split_off(last);
        let patch = json!({
            "metadata": {"uid": self.uid},
            "status": {"phase": phase, "startTime": started,
                "initContainerStatuses": statuses, "containerStatuses": main},
        });
        let (params, patch) = (PatchParams::default(), Patch::Strategic(patch));
        let mut tries = 1;
        loop {
            match self.pods.patch_status(&self.name, &params, &patch).await {
                // A kubelet goes on until it is heard; the servers are busy here.
                Err(problem) if tries < TRIES && !is_gone(&problem) => {
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                answer => return answer.map(|_| ()),
            }
        }
    }
}
