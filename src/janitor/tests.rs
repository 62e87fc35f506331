//! Rounds against an API server by script: what goes, when, and what never.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::cluster::client::testing::{Answer, ApiServer, Request};
use crate::metrics::Metrics;

const OUR_NAME: &str = "executor-0-5b0c";
const OUR_POD: &str = "u-own";
const MINUTE: Duration = Duration::from_secs(60);

/// What is in the cluster of a test.
#[derive(Default)]
struct World {
    /// Metadata of Jobs.
    jobs: Vec<Value>,
    /// Metadata of Secrets.
    secrets: Vec<Value>,
    /// UID and phase of executors' Pods.
    pods: BTreeMap<String, (String, String)>,
    /// Whether only what the released permissions allow is allowed.
    is_released: bool,
    /// A path, and the code with which all requests to it are refused.
    refused: Option<(String, u16)>,
    /// Jobs in one answer to a list.
    page: usize,
}

/// A cluster, and the rounds of our executor in it.
struct Scene {
    world: Arc<Mutex<World>>,
    server: ApiServer,
    metrics: Metrics,
    /// Whether our own Jobs are in use.
    ours_live: Cell<bool>,
    began: Instant,
}

impl Scene {
    fn new(world: World) -> Scene {
        let world = Arc::new(Mutex::new(world));
        let scripted = Arc::clone(&world);
        Scene {
            world,
            server: ApiServer::start(move |request| scripted.lock().unwrap().answer(request)),
            metrics: Metrics::new(&["batches"]),
            ours_live: Cell::new(true),
            began: Instant::now(),
        }
    }

    /// Runs rounds at these times after the start, and gives what is left.
    fn rounds(&self, times: &[Duration]) -> Vec<String> {
        self.rounds_with(times, |_| {})
    }

    /// The same, with something that happens before each round.
    fn rounds_with(&self, times: &[Duration], before: impl Fn(usize)) -> Vec<String> {
        let is_alive = |_: &FoundJob| self.ours_live.get();
        let mut rounds = Rounds {
            cluster: &self.server.cluster,
            executor_name: OUR_NAME,
            own_pod: Some(OUR_POD),
            is_alive: &is_alive,
            is_stopping: &|| false,
            metrics: &self.metrics.janitor,
            suspects: HashMap::new(),
            lists_jobs: true,
            lists_secrets: true,
            has_told_of_strangers: false,
        };
        for (number, time) in times.iter().enumerate() {
            before(number);
            // A round may fail, which is a part of some tests.
            let _ = rounds.round(self.began + *time, "2026-01-31T12:00:00Z".parse().unwrap());
        }
        self.left()
    }

    /// Names of the objects that are there.
    fn left(&self) -> Vec<String> {
        let world = self.world.lock().unwrap();
        let all = world.jobs.iter().chain(&world.secrets);
        all.map(|object| object["name"].as_str().unwrap().to_string())
            .collect()
    }

    /// From now on, requests to this path are refused with this code.
    fn refuse(&self, path: &str, code: u16) {
        self.world.lock().unwrap().refused = Some((path.to_string(), code));
    }

    /// Requests whose first line begins with this.
    fn requests(&self, start: &str) -> usize {
        let requests = self.server.requests();
        let begins = |request: &&Request| request.line.starts_with(start);
        requests.iter().filter(begins).count()
    }
}

impl World {
    fn of_jobs(jobs: Vec<Value>) -> World {
        World {
            jobs,
            page: 500,
            ..World::default()
        }
    }

    fn with_pod(mut self, name: &str, uid: &str, phase: &str) -> World {
        self.pods
            .insert(name.to_string(), (uid.to_string(), phase.to_string()));
        self
    }

    fn answer(&mut self, request: &Request) -> Answer {
        let (method, path) = request.line.split_once(' ').unwrap();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        if let Some((refused, code)) = &self.refused
            && refused == path
        {
            return Answer::refusal(*code, "Refused");
        }
        let place = "namespaces/jobs/";
        let (_, place) = path.split_once(place).unwrap();
        match (method, place.split('/').collect::<Vec<_>>().as_slice()) {
            ("GET", ["jobs" | "secrets"]) if self.is_released => Answer::refusal(403, "Forbidden"),
            ("GET", ["jobs"]) => page(&self.jobs, self.page, query),
            ("GET", ["pods"]) => page(
                &self.jobs.iter().map(pod_of).collect::<Vec<_>>(),
                500,
                query,
            ),
            ("GET", ["secrets"]) => page(&self.secrets, 500, query),
            ("GET", ["pods", name]) => self.pod(name),
            ("DELETE", ["jobs", name]) => delete(&mut self.jobs, name, &request.body),
            ("DELETE", ["secrets", name]) => delete(&mut self.secrets, name, &request.body),
            _ => panic!("nobody should ask for {}", request.line),
        }
    }

    fn pod(&self, name: &str) -> Answer {
        match self.pods.get(name) {
            None => Answer::refusal(404, "NotFound"),
            Some((uid, phase)) => Answer::Object(
                200,
                json!({"metadata": {"name": name, "uid": uid}, "status": {"phase": phase}}),
            ),
        }
    }
}

/// Part of a list; the token of the next one is where that begins.
fn page(all: &[Value], size: usize, query: &str) -> Answer {
    let begin = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("continue="));
    let begin: usize = begin.map_or(0, |token| token.parse().unwrap());
    let end = all.len().min(begin + size);
    let item = |metadata: &Value| json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata});
    let next = if end < all.len() {
        end.to_string()
    } else {
        String::new()
    };
    Answer::Object(
        200,
        json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
            "metadata": {"continue": next},
            "items": all[begin..end].iter().map(item).collect::<Vec<_>>(),
        }),
    )
}

/// Deletes as the API does: a dry run changes nothing, and another object of
/// the same name is not meant.
fn delete(all: &mut Vec<Value>, name: &str, options: &Value) -> Answer {
    let Some(place) = all.iter().position(|object| object["name"] == name) else {
        return Answer::refusal(404, "NotFound");
    };
    let uid = all[place]["uid"].clone();
    if options["dryRun"].is_null() {
        if options["preconditions"]["uid"] != uid {
            return Answer::refusal(409, "Conflict");
        }
        all.remove(place);
    }
    Answer::Object(
        200,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": name, "uid": uid}}),
    )
}

/// A Job that this executor made in this Pod.
fn job(id: u32, executor: &str, pod: Option<(&str, &str)>) -> Value {
    let run = format!("sg-executor-job-batches-{id}-0a1b2c3d");
    let mut job = json!({
        "name": run,
        "uid": format!("u-{id}"),
        "labels": {
            "app.kubernetes.io/managed-by": "sourcegraph-executor",
            "app.kubernetes.io/name": "sourcegraph-executor-job",
            "executor.sourcegraph.com/run": run,
            "executor.sourcegraph.com/queue": "batches",
            "executor.sourcegraph.com/job-id": id.to_string(),
        },
        "annotations": {"executor.sourcegraph.com/executor": executor},
    });
    if let Some((name, uid)) = pod {
        job["annotations"]["executor.sourcegraph.com/executor-pod"] = json!(name);
        job["annotations"]["executor.sourcegraph.com/executor-pod-uid"] = json!(uid);
    }
    job
}

/// A Job of another executor, in the Pod `executor-1`.
fn others(id: u32) -> Value {
    job(id, "executor-1-77aa", Some(("executor-1", "u-77aa")))
}

/// The pod of a Job.
fn pod_of(job: &Value) -> Value {
    let mut pod = job.clone();
    pod["name"] = json!(format!("{}-x7x7x", job["name"].as_str().unwrap()));
    pod["uid"] = json!(format!("pod-of-{}", job["uid"].as_str().unwrap()));
    pod["ownerReferences"] = json!([{"apiVersion": "batch/v1", "kind": "Job",
        "name": job["name"], "uid": job["uid"], "controller": true}]);
    pod
}

fn mark(mut job: Value, mark: &str) -> Value {
    job["annotations"][format!("executor.sourcegraph.com/{mark}")] = json!("true");
    job
}

fn nothing() -> Vec<String> {
    Vec::new()
}

#[test]
fn jobs_of_a_dead_executor_go_after_a_minute() {
    let scene = Scene::new(World::of_jobs(vec![others(1), others(2)]));
    let almost = MINUTE - Duration::from_millis(1);
    assert_eq!(scene.rounds(&[Duration::ZERO, almost]).len(), 2);
    assert_eq!(scene.rounds(&[Duration::ZERO, almost, MINUTE]), nothing());
    let text = scene.metrics.text();
    let counted = "executor_janitor_removed_total{resource=\"jobs\"} 2";
    assert!(text.contains(counted), "{text}");
}

#[test]
fn jobs_of_a_live_executor_stay() {
    for phase in ["Running", "Pending", "Unknown"] {
        let world = World::of_jobs(vec![others(1), others(2)]);
        let scene = Scene::new(world.with_pod("executor-1", "u-77aa", phase));
        assert_eq!(scene.rounds(&[Duration::ZERO, MINUTE, 2 * MINUTE]).len(), 2);
        let asked = scene.requests("GET /api/v1/namespaces/jobs/pods/executor-1");
        assert_eq!(asked, 3, "once in a round");
    }
}

#[test]
fn a_pod_that_is_another_or_has_ended_is_dead() {
    for (uid, phase) in [
        ("u-new", "Running"),
        ("u-77aa", "Failed"),
        ("u-77aa", "Succeeded"),
    ] {
        let world = World::of_jobs(vec![others(1)]);
        let scene = Scene::new(world.with_pod("executor-1", uid, phase));
        assert_eq!(
            scene.rounds(&[Duration::ZERO, MINUTE]),
            nothing(),
            "{uid} {phase}"
        );
    }
}

#[test]
fn a_former_process_of_our_pod_is_dead() {
    let former = job(1, "executor-0-0000", Some(("executor-0", OUR_POD)));
    let world = World::of_jobs(vec![former]);
    let scene = Scene::new(world.with_pod("executor-0", OUR_POD, "Running"));
    assert_eq!(scene.rounds(&[Duration::ZERO, MINUTE]), nothing());
}

#[test]
fn our_own_jobs_go_when_nobody_follows_them() {
    let scene = Scene::new(World::of_jobs(vec![job(
        1,
        OUR_NAME,
        Some(("executor-0", OUR_POD)),
    )]));
    assert_eq!(scene.rounds(&[Duration::ZERO, MINUTE]).len(), 1);
    scene.ours_live.set(false);
    assert_eq!(scene.rounds(&[Duration::ZERO, MINUTE]), nothing());
}

#[test]
fn what_lives_again_is_no_suspect() {
    let scene = Scene::new(World::of_jobs(vec![job(1, OUR_NAME, None)]));
    let half = MINUTE / 2;
    let times = [Duration::ZERO, half, MINUTE, MINUTE + half];
    let left = scene.rounds_with(&times, |round| scene.ours_live.set(round == 1));
    assert_eq!(left.len(), 1, "a minute must pass anew");
}

#[test]
fn nobody_else_removes_what_may_live() {
    let scene = Scene::new(World::of_jobs(vec![
        job(1, "host-5b0c", None),
        mark(others(2), "adoptable"),
        mark(others(3), "kept"),
        mark(job(4, OUR_NAME, None), "kept"),
    ]));
    scene.ours_live.set(false);
    assert_eq!(scene.rounds(&[Duration::ZERO, MINUTE, 2 * MINUTE]).len(), 4);
}

#[test]
fn released_permissions_are_enough() {
    let scene = Scene::new(World {
        is_released: true,
        ..World::of_jobs(vec![others(1)])
    });
    assert_eq!(scene.rounds(&[Duration::ZERO, MINUTE]), nothing());
    for resource in [
        "/apis/batch/v1/namespaces/jobs/jobs?",
        "/api/v1/namespaces/jobs/secrets?",
    ] {
        let asked = scene.requests(&format!("GET {resource}"));
        assert_eq!(asked, 1, "{resource}: what is forbidden is tried once");
    }
}

#[test]
fn long_lists_come_in_pages() {
    let scene = Scene::new(World {
        page: 2,
        ..World::of_jobs((1..=5).map(others).collect())
    });
    assert_eq!(scene.rounds(&[Duration::ZERO, MINUTE]), nothing());
}

#[test]
fn another_object_of_the_same_name_stays() {
    let scene = Scene::new(World::of_jobs(vec![others(1)]));
    let older = Identity {
        name: scene.left().remove(0),
        uid: "u-older".to_string(),
    };
    assert!(!scene.server.cluster.delete_found_job(&older).unwrap());
    assert_eq!(scene.left(), [older.name]);
}

#[test]
fn an_outage_proves_nothing() {
    let world = World::of_jobs(vec![others(1)]).with_pod("executor-1", "u-77aa", "Running");
    let scene = Scene::new(world);
    scene.refuse("/api/v1/namespaces/jobs/pods/executor-1", 500);
    assert_eq!(scene.rounds(&[Duration::ZERO, MINUTE]).len(), 1);
}

#[test]
fn one_refused_removal_does_not_keep_the_others() {
    let scene = Scene::new(World::of_jobs(vec![others(1), others(2), others(3)]));
    let protected = scene.left().remove(1);
    let path = format!("/apis/batch/v1/namespaces/jobs/jobs/{protected}");
    scene.refuse(&path, 403);
    assert_eq!(scene.rounds(&[Duration::ZERO, MINUTE]), [protected]);
    let text = scene.metrics.text();
    let counted = "executor_janitor_failures_total{resource=\"jobs\"} 1";
    assert!(text.contains(counted), "{text}");
}

#[test]
fn old_secrets_without_a_job_go() {
    let secret = |id: u32, created: &str| {
        json!({"name": format!("sg-executor-job-batches-{id}-secrets"), "uid": format!("s-{id}"),
            "creationTimestamp": created})
    };
    let released_job = json!({"name": "sg-executor-job-batches-3", "uid": "u-3"});
    let scene = Scene::new(World {
        secrets: vec![
            secret(1, "2026-01-31T10:59:00Z"),
            secret(2, "2026-01-31T11:01:00Z"),
            secret(3, "2026-01-31T10:00:00Z"),
            json!({"name": "registry", "uid": "s-4", "creationTimestamp": "2020-01-31T10:00:00Z"}),
        ],
        ..World::of_jobs(vec![released_job])
    });
    assert_eq!(
        scene.rounds(&[Duration::ZERO, MINUTE]),
        [
            "sg-executor-job-batches-3",
            "sg-executor-job-batches-2-secrets",
            "sg-executor-job-batches-3-secrets",
            "registry",
        ],
        "one is too young, one has its Job, one is not of a job"
    );
}
