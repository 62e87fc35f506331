//! The Job of one small job for a matrix of configurations, each held against
//! a file in `tests/golden`. After a change that is meant, run the tests with
//! `UPDATE_GOLDEN=1`, and read the difference before it is committed.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use executor::cluster::plan::{Setting, plan};
use executor::config::Config;
use executor::job::{Job, Repository, Secret, Step};
use executor::logs::redact::Redactions;
use serde_json::Value;

/// Variables and their values.
type Environment = &'static [(&'static str, &'static str)];

/// Each case: its name, and what is set beside the least.
pub(crate) const MATRIX: &[(&str, Environment)] = &[
    ("least", &[]),
    (
        "resources",
        &[
            ("EXECUTOR_KUBERNETES_RESOURCE_LIMIT_CPU", "2"),
            ("EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY", "0"),
            ("EXECUTOR_KUBERNETES_RESOURCE_REQUEST_CPU", "500m"),
            ("EXECUTOR_KUBERNETES_RESOURCE_REQUEST_MEMORY", "1Gi"),
            ("KUBERNETES_JOB_DEADLINE", "3600"),
            ("KUBERNETES_JOB_VOLUME_SIZE", "500Mi"),
        ],
    ),
    (
        "node-affinity-alone",
        &[(
            "EXECUTOR_KUBERNETES_NODE_REQUIRED_AFFINITY_MATCH_EXPRESSIONS",
            r#"[{"key":"pool","operator":"In","values":["jobs"]}]"#,
        )],
    ),
    (
        "placement",
        &[
            ("EXECUTOR_KUBERNETES_NODE_NAME", "node1"),
            ("EXECUTOR_KUBERNETES_NODE_SELECTOR", "pool=jobs,disk=ssd"),
            (
                "EXECUTOR_KUBERNETES_NODE_REQUIRED_AFFINITY_MATCH_FIELDS",
                r#"[{"key":"metadata.name","operator":"In","values":["node1"]}]"#,
            ),
            (
                "EXECUTOR_KUBERNETES_POD_AFFINITY",
                r#"[{"labelSelector":{"matchExpressions":[{"key":"app","operator":"In","values":["executor"]}]},"topologyKey":"kubernetes.io/hostname"}]"#,
            ),
            (
                "EXECUTOR_KUBERNETES_POD_ANTI_AFFINITY",
                r#"[{"labelSelector":{"matchLabels":{"app":"db"}},"topologyKey":"zone"}]"#,
            ),
            (
                "EXECUTOR_KUBERNETES_NODE_TOLERATIONS",
                r#"[{"key":"jobs","operator":"Equal","value":"only","effect":"NoSchedule"},{"key":"slow","operator":"Exists","effect":"NoExecute","tolerationSeconds":60}]"#,
            ),
        ],
    ),
    ("claim", &[("KUBERNETES_JOB_VOLUME_TYPE", "pvc")]),
    (
        "volumes",
        &[
            (
                "KUBERNETES_ADDITIONAL_JOB_VOLUMES",
                r#"[{"name":"ca","configMap":{"name":"ca"}},{"name":"cache","persistentVolumeClaim":{"claimName":"cache"}}]"#,
            ),
            (
                "KUBERNETES_ADDITIONAL_JOB_VOLUME_MOUNTS",
                r#"[{"name":"ca","mountPath":"/certs","readOnly":true},{"name":"cache","mountPath":"/cache","subPath":"jobs"}]"#,
            ),
            ("KUBERNETES_GIT_CA_CERT", "/certs/ca.pem"),
        ],
    ),
    (
        "restricted",
        &[
            ("EXECUTOR_POD_SECURITY", "restricted"),
            ("KUBERNETES_RUN_AS_GROUP", "2000"),
            ("KUBERNETES_FS_GROUP", "3000"),
        ],
    ),
    (
        "users-and-images",
        &[
            ("KUBERNETES_RUN_AS_USER", "0"),
            ("KUBERNETES_FS_GROUP", "-1"),
            ("EXECUTOR_IMAGE_PULL_POLICY", "Always"),
            ("KUBERNETES_IMAGE_PULL_SECRETS", "b,a"),
            (
                "EXECUTOR_DOCKER_AUTH_CONFIG",
                r#"{"auths":{"registry.example.org":{"auth":"dTpw"}}}"#,
            ),
        ],
    ),
    (
        "annotations-and-host-network",
        &[
            ("KUBERNETES_JOB_ANNOTATIONS", r#"{"example.org/team":"a"}"#),
            (
                "KUBERNETES_JOB_POD_ANNOTATIONS",
                r#"{"sidecar.istio.io/inject":"false"}"#,
            ),
            ("KUBERNETES_JOB_HOST_NETWORK", "true"),
        ],
    ),
];

/// The Job as JSON that is planned in this environment.
pub(crate) fn planned(environment: Environment) -> Value {
    let least = [
        ("EXECUTOR_QUEUE_NAME", "batches"),
        ("EXECUTOR_FRONTEND_URL", "https://sourcegraph.example.org"),
        ("EXECUTOR_FRONTEND_PASSWORD", "open-sesame"),
    ];
    let variables: BTreeMap<_, _> = least.iter().chain(environment).copied().collect();
    let config = Config::from_lookup(|name| variables.get(name).map(|value| value.to_string()));
    let config = config.unwrap_or_else(|errors| panic!("{environment:?}: {errors}"));
    let plan = plan(
        &job(),
        &Setting {
            job: &config.job,
            namespace: &config.cluster.namespace,
            frontend_url: &config.queue.frontend_url,
            authorization: "Bearer job-token".to_owned(),
            executor_name: "executor-0",
            workspace_image: "sourcegraph/executor:1",
            workspace_pull_secrets: &[],
            executor_pod: None,
            is_adoptable: false,
            owner: None,
            redactions: &Redactions::new(&BTreeMap::new()),
            run: "sg-executor-job-batches-17-0a1b2c3d".to_owned(),
        },
    );
    serde_json::to_value(&plan.job).unwrap()
}

fn job() -> Job {
    Job {
        queue: "batches".to_owned(),
        id: 17,
        token: Some(Secret::new("job-token")),
        repository: Some(Repository {
            name: "git.example.org/shop/cart".to_owned(),
            directory: "repository".to_owned(),
            commit: "9c1e5a7d".to_owned(),
            fetch_tags: false,
            shallow: true,
            sparse_checkout: Vec::new(),
        }),
        files: Vec::new(),
        steps: vec![Step {
            key: "step.0.run".to_owned(),
            image: "node:20".to_owned(),
            commands: vec!["npm ci".to_owned()],
            dir: "repository".to_owned(),
            env: vec![("CI".to_owned(), "true".to_owned())],
        }],
        has_cli_steps: false,
        redacted_values: BTreeMap::new(),
        registries: Default::default(),
    }
}

fn file(case: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    dir.join(format!("{case}.json"))
}

#[test]
fn the_job_follows_its_configuration() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut story = String::new();
    for (case, environment) in MATRIX {
        let planned = serde_json::to_string_pretty(&planned(environment)).unwrap() + "\n";
        if update {
            fs::create_dir_all(file(case).parent().unwrap()).unwrap();
            fs::write(file(case), &planned).unwrap();
        }
        let expected = fs::read_to_string(file(case)).unwrap_or_default();
        let differing = planned
            .lines()
            .zip(expected.lines().chain(std::iter::repeat("(nothing)")))
            .find(|(planned, expected)| planned != expected);
        match differing {
            Some((planned, expected)) => {
                story += &format!("{case}: {planned:?} is not {expected:?}\n");
            }
            None if planned != expected => story += &format!("{case}: something is missing\n"),
            None => {}
        }
    }
    assert!(story.is_empty(), "not as in tests/golden:\n{story}");
}

#[test]
fn every_golden_file_has_its_case() {
    let dir = file("least").parent().unwrap().to_owned();
    let mut files: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let mut cases: Vec<String> = MATRIX
        .iter()
        .map(|(case, _)| format!("{case}.json"))
        .collect();
    cases.sort();
    assert_eq!(files, cases);
}
