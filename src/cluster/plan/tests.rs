//! Every field of every object of a plan.

mod hostile;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

use crate::cluster::fragments::{Mounts, Volumes};
use crate::cluster::names::KEPT_ANNOTATION;
use crate::cluster::plan::{Plan, Setting, plan};
use crate::config::{Graces, JobSettings, Placement, Resources, VolumeSettings};
use crate::job::{FileSource, Job, Registries, Repository, Secret, Step, WorkspaceFile};
use crate::logs::redact::Redactions;
use crate::workspace::spec::WorkspaceSpec;

const RUN: &str = "sg-executor-job-batches-17-0a1b2c3d";

fn settings() -> JobSettings {
    JobSettings {
        max_runtime: Duration::from_secs(1800),
        deadline: Duration::from_secs(1200),
        graces: Graces {
            image_pull: Duration::from_secs(60),
            scheduling: Duration::from_secs(900),
            pod_start: Duration::from_secs(300),
        },
        resources: Resources {
            limit_cpu: None,
            limit_memory: Some("12Gi".to_string()),
            request_cpu: Some("500m".to_string()),
            request_memory: Some("1Gi".to_string()),
        },
        placement: Placement::default(),
        volumes: VolumeSettings {
            is_claim: false,
            size: "5Gi".to_string(),
            additional: Volumes::default(),
            mounts: Mounts::default(),
        },
        job_annotations: BTreeMap::new(),
        pod_annotations: BTreeMap::new(),
        host_network: false,
        workspace_image: None,
        pull_secrets: vec!["registry-b".to_string(), "registry-a".to_string()],
        pull_policy: "IfNotPresent".to_string(),
        registries: Registries::default(),
        git_ca_certificate: None,
        is_restricted: false,
        run_as_user: None,
        run_as_group: None,
        fs_group: None,
        keep_jobs: false,
    }
}

fn step(key: &str, image: &str, dir: &str, env: &[(&str, &str)]) -> Step {
    Step {
        key: key.to_string(),
        image: image.to_string(),
        commands: vec!["true".to_string()],
        dir: dir.to_string(),
        env: env
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
    }
}

fn job() -> Job {
    Job {
        queue: "batches".to_string(),
        id: 17,
        token: Some(Secret::new("job-token")),
        repository: Some(Repository {
            name: "git.example.org/shop/cart".to_string(),
            directory: "repository".to_string(),
            commit: "9c1e5a7d".to_string(),
            fetch_tags: false,
            shallow: true,
            sparse_checkout: Vec::new(),
        }),
        files: vec![WorkspaceFile {
            path: "input.json".to_string(),
            source: FileSource::Inline(b"{}".to_vec()),
            modified_at: None,
        }],
        steps: vec![
            step(
                "step.0.run",
                "node:20",
                "repository",
                &[
                    ("TOKEN", "a walnut b"),
                    ("PRICE", "$(HOME) $5"),
                    ("TWICE", "first"),
                    ("TWICE", "second"),
                ],
            ),
            step("step.0.post", "helper:5", "", &[]),
        ],
        has_cli_steps: false,
        redacted_values: [("walnut".to_string(), "hidden".to_string())].into(),
        registries: Registries::default(),
    }
}

fn registries(auths: Value) -> Registries {
    Registries::new(auths.as_object().unwrap().clone())
}

fn owner() -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_string(),
        kind: "Pod".to_string(),
        name: "executor-0".to_string(),
        uid: "u-1".to_string(),
        ..OwnerReference::default()
    }
}

fn planned(job: &Job, settings: &JobSettings) -> Plan {
    plan(
        job,
        &Setting {
            job: settings,
            namespace: "jobs",
            frontend_url: "https://sourcegraph.example.org",
            authorization: "Bearer job-token".to_string(),
            executor_name: "executor-0-5b0c",
            workspace_image: "sourcegraph/executor:1",
            workspace_pull_secrets: &["own".to_string(), "registry-a".to_string()],
            executor_pod: Some(&owner()),
            is_adoptable: false,
            owner: Some(&owner()),
            redactions: &Redactions::new(&job.redacted_values),
            run: RUN.to_string(),
        },
    )
}

fn labels() -> Value {
    json!({
        "app.kubernetes.io/managed-by": "sourcegraph-executor",
        "app.kubernetes.io/name": "sourcegraph-executor-job",
        "executor.sourcegraph.com/commit": "9c1e5a7d",
        "executor.sourcegraph.com/instance": "executor-0-5b0c",
        "executor.sourcegraph.com/job-id": "17",
        "executor.sourcegraph.com/queue": "batches",
        "executor.sourcegraph.com/repository": "git.example.org-shop-cart",
        "executor.sourcegraph.com/run": RUN,
    })
}

fn annotations() -> Value {
    json!({
        "executor.sourcegraph.com/commit": "9c1e5a7d",
        "executor.sourcegraph.com/executor": "executor-0-5b0c",
        "executor.sourcegraph.com/executor-pod": "executor-0",
        "executor.sourcegraph.com/executor-pod-uid": "u-1",
        "executor.sourcegraph.com/repository": "git.example.org/shop/cart",
    })
}

fn metadata(name: &str) -> Value {
    json!({
        "name": name,
        "namespace": "jobs",
        "labels": labels(),
        "annotations": annotations(),
    })
}

/// The same with an owner.
fn owned_metadata(name: &str, owner: Value) -> Value {
    let mut metadata = metadata(name);
    metadata["ownerReferences"] = json!([owner]);
    metadata
}

fn resources() -> Value {
    json!({"limits": {"memory": "12Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}})
}

fn script_path(index: usize) -> String {
    format!("/job/.sourcegraph-executor/17.{index}_git.example.org_shop_cart@9c1e5a7d.sh")
}

fn own_variables() -> Vec<Value> {
    vec![
        json!({"name": "EXECUTOR_ADD_SAFE", "value": "false"}),
        json!({"name": "GIT_CONFIG_COUNT", "value": "1"}),
        json!({"name": "GIT_CONFIG_KEY_0", "value": "safe.directory"}),
        json!({"name": "GIT_CONFIG_VALUE_0", "value": "*"}),
    ]
}

#[test]
fn every_field_of_the_job_is_planned() {
    let plan = planned(&job(), &settings());
    let mut environment = vec![
        json!({"name": "TOKEN", "valueFrom": {"secretKeyRef": {
            "name": format!("{RUN}-secrets-0"), "key": "step-0.0"}}}),
        json!({"name": "PRICE", "value": "$$(HOME) $$5"}),
        json!({"name": "TWICE", "value": "second"}),
    ];
    environment.extend(own_variables());
    let workspace = json!({"name": "job-data", "mountPath": "/job"});
    let expected = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": owned_metadata(
            RUN,
            json!({"apiVersion": "v1", "kind": "Pod", "name": "executor-0", "uid": "u-1"}),
        ),
        "spec": {
            "activeDeadlineSeconds": 2400,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": 1800,
            "template": {
                "metadata": {"labels": labels(), "annotations": annotations()},
                "spec": {
                    "activeDeadlineSeconds": 1200,
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 2,
                    "imagePullSecrets": [
                        {"name": "own"}, {"name": "registry-a"}, {"name": "registry-b"}],
                    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                    "initContainers": [
                        {
                            "name": "setup-workspace",
                            "image": "sourcegraph/executor:1",
                            "imagePullPolicy": "IfNotPresent",
                            "command": ["/usr/local/bin/executor", "setup-workspace"],
                            "workingDir": "/job",
                            "resources": resources(),
                            "securityContext": {
                                "allowPrivilegeEscalation": false,
                                "runAsUser": 0,
                                "runAsGroup": 0,
                            },
                            "volumeMounts": [workspace, {
                                "name": "job-spec",
                                "mountPath": "/run/executor/job",
                                "readOnly": true,
                            }],
                        },
                        {
                            "name": "step-kubernetes-step-0-run",
                            "image": "node:20",
                            "imagePullPolicy": "IfNotPresent",
                            "command": ["/bin/sh", script_path(0)],
                            "workingDir": "/job/repository",
                            "env": environment,
                            "resources": resources(),
                            "securityContext": {"allowPrivilegeEscalation": false},
                            "volumeMounts": [workspace],
                        },
                    ],
                    "containers": [{
                        "name": "step-kubernetes-step-0-post",
                        "image": "helper:5",
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["/bin/sh", script_path(1)],
                        "workingDir": "/job",
                        "env": own_variables(),
                        "resources": resources(),
                        "securityContext": {"allowPrivilegeEscalation": false},
                        "volumeMounts": [workspace],
                    }],
                    "volumes": [
                        {"name": "job-data", "emptyDir": {"sizeLimit": "5Gi"}},
                        {"name": "job-spec", "projected": {
                            "defaultMode": 0o444,
                            "sources": [{"secret": {
                                "name": format!("{RUN}-secrets-0"),
                                "items": [{"key": "workspace.0000", "path": "workspace.0000"}],
                            }}],
                        }},
                    ],
                },
            },
        },
    });
    assert_eq!(serde_json::to_value(&plan.job).unwrap(), expected);
}

#[test]
fn only_a_person_removes_kept_jobs() {
    let settings = JobSettings {
        keep_jobs: true,
        ..settings()
    };
    let plan = planned(&job(), &settings);
    let metadata = plan.job.metadata;
    assert_eq!(metadata.owner_references, None);
    assert_eq!(metadata.annotations.unwrap()[KEPT_ANNOTATION], "true");
    let spec = plan.job.spec.unwrap();
    assert_eq!(spec.ttl_seconds_after_finished, None);
    assert!(
        spec.active_deadline_seconds.is_some(),
        "it ends all the same"
    );
}

#[test]
fn every_field_of_the_secrets_is_planned() {
    let job = Job {
        registries: registries(json!({"a.example.org": {"auth": "eA=="}})),
        ..job()
    };
    let mut plan = planned(&job, &settings());
    plan.own_secrets("u-2");
    let mut secrets: Vec<Value> = plan
        .secrets
        .iter()
        .map(|secret| serde_json::to_value(secret).unwrap())
        .collect();
    let packed = secrets[0]["data"]
        .as_object_mut()
        .unwrap()
        .remove("workspace.0000");
    assert!(packed.is_some(), "the Secret carries the specification");
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "name": RUN, "uid": "u-2"});
    // {"auths":{"a.example.org":{"auth":"eA=="}}}
    let config = "eyJhdXRocyI6eyJhLmV4YW1wbGUub3JnIjp7ImF1dGgiOiJlQT09In19fQ==";
    assert_eq!(
        Value::from(secrets),
        json!([
            {"apiVersion": "v1", "kind": "Secret", "immutable": true,
             "type": "kubernetes.io/dockerconfigjson",
             "data": {"step-0.0": "YSB3YWxudXQgYg==", ".dockerconfigjson": config},
             "metadata": owned_metadata(&format!("{RUN}-secrets-0"), job)},
        ])
    );
    let pod = plan.job.spec.unwrap().template.spec.unwrap();
    let names: Vec<String> = pod
        .image_pull_secrets
        .unwrap()
        .into_iter()
        .map(|secret| secret.name)
        .collect();
    assert!(names.contains(&format!("{RUN}-secrets-0")), "{names:?}");
}

fn unpacked(plan: &Plan) -> WorkspaceSpec {
    let dir = tempfile::tempdir().unwrap();
    for secret in &plan.secrets {
        for (key, value) in secret.data.iter().flatten() {
            assert!(value.0.len() < 1024 * 1024, "a Secret takes 1 MiB at most");
            std::fs::write(dir.path().join(key), &value.0).unwrap();
        }
    }
    WorkspaceSpec::unpack(dir.path()).unwrap()
}

#[test]
fn the_workspace_specification_holds_everything() {
    let spec = serde_json::to_value(unpacked(&planned(&job(), &settings()))).unwrap();
    let mut files = spec["files"].as_array().unwrap().clone();
    for script in &mut files[1..] {
        let text = script["source"]
            .as_object_mut()
            .unwrap()
            .remove("inline")
            .unwrap();
        assert!(text.as_str().unwrap().len() > 100, "the script is there");
    }
    assert_eq!(
        Value::from(files),
        json!([
            {"path": "input.json", "source": {"inline": "e30="}, "modified_at": null},
            {"path": &script_path(0)[5..], "source": {}, "modified_at": null},
            {"path": &script_path(1)[5..], "source": {}, "modified_at": null},
        ])
    );
    assert_eq!(spec["frontend_url"], "https://sourcegraph.example.org");
    assert_eq!(spec["authorization"], "Bearer job-token");
    assert_eq!(spec["executor_name"], "executor-0-5b0c");
    assert_eq!(spec["job_id"], 17);
    assert_eq!(
        spec["repository"],
        json!({"name": "git.example.org/shop/cart", "directory": "repository",
               "commit": "9c1e5a7d", "fetch_tags": false, "shallow": true,
               "sparse_checkout": [], "ca_certificate": null})
    );
}

#[test]
fn large_jobs_are_split_over_secrets() {
    let mut content = vec![0u8; 3 * 1024 * 1024];
    getrandom::fill(&mut content).unwrap();
    let file = WorkspaceFile {
        path: "state.diff".to_string(),
        source: FileSource::Inline(content.clone()),
        modified_at: None,
    };
    let plan = planned(
        &Job {
            files: vec![file],
            ..job()
        },
        &settings(),
    );
    assert!(plan.secrets.len() > 4, "{} Secrets", plan.secrets.len());
    let [first, others] = plan.secret_batches();
    let keys: Vec<_> = first[0].data.as_ref().unwrap().keys().collect();
    assert_eq!(keys, ["step-0.0"], "hidden values are there first");
    assert_eq!(others.len() + 1, plan.secrets.len());
    match &unpacked(&plan).files[0].source {
        crate::workspace::spec::FileSourceSpec::Inline(bytes) => assert!(*bytes == content),
        other => panic!("the contents became {other:?}"),
    }
}

#[test]
fn no_secret_is_in_the_job() {
    let plan = planned(&job(), &settings());
    let text = serde_json::to_string(&plan.job).unwrap();
    for secret in ["walnut", "job-token"] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
}

#[test]
fn a_value_is_hidden_once_for_all_steps() {
    let steps = vec![
        step("step.0.pre", "i", "", &[("A", "walnut"), ("B", "a walnut")]),
        step("step.0.post", "i", "", &[("B", "walnut")]),
    ];
    let plan = planned(&Job { steps, ..job() }, &settings());
    let secret = plan.secrets.first().unwrap();
    let keys: Vec<&String> = secret.data.as_ref().unwrap().keys().collect();
    assert_eq!(keys, ["step-0.0", "step-0.1", "workspace.0000"]);
    let pod = plan.job.spec.unwrap().template.spec.unwrap();
    let last = serde_json::to_value(&pod.containers[0].env.as_ref().unwrap()[0]).unwrap();
    assert_eq!(last["valueFrom"]["secretKeyRef"]["key"], "step-0.0");
}

#[test]
fn configured_users_run_every_container() {
    let settings = JobSettings {
        run_as_user: Some(1000),
        run_as_group: Some(2000),
        fs_group: Some(3000),
        git_ca_certificate: Some("/certs/ca.pem".to_string()),
        ..settings()
    };
    let plan = planned(&job(), &settings);
    let pod = serde_json::to_value(plan.job.spec.unwrap().template.spec.unwrap()).unwrap();
    assert_eq!(pod["securityContext"]["runAsUser"], 1000);
    assert_eq!(pod["securityContext"]["runAsGroup"], 2000);
    assert_eq!(pod["securityContext"]["fsGroup"], 3000);
    let setup = &pod["initContainers"][0];
    assert_eq!(setup["securityContext"]["runAsUser"], 1000);
    assert_eq!(setup["securityContext"]["runAsGroup"], 2000);
    assert_eq!(
        setup["env"],
        json!([{"name": "SSL_CERT_FILE", "value": "/certs/ca.pem"}])
    );
}

#[test]
fn containers_with_one_name_are_numbered() {
    let steps = vec![step("a.b", "i", "", &[]), step("a-b", "i", "", &[])];
    let plan = planned(&Job { steps, ..job() }, &settings());
    let names: Vec<&str> = plan.containers.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["setup-workspace", "step-kubernetes-a-b", "step-1"]);
    let keys: Vec<&str> = plan.containers.iter().map(|c| c.log_key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "setup.workspace",
            "step.kubernetes.a.b",
            "step.kubernetes.a-b"
        ]
    );
}
