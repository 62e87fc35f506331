//! Where jobs run and on what: the cluster takes every configuration as it is
//! planned, and each setting does what it says.

use serde_json::Value;

use crate::frontend::record::JobView;
use crate::frontend::spec::StepSpec;
use crate::golden::{MATRIX, planned};
use crate::support::MINUTES;
use crate::support::cluster::kubectl;
use crate::support::stage::{STEP_IMAGE, Stage, tiny};

/// Path of the first field that was sent and did not come back as it was.
fn changed(sent: &Value, back: &Value, path: &str) -> Option<String> {
    match (sent, back) {
        (Value::Object(sent), Value::Object(back)) => sent.iter().find_map(|(name, value)| {
            let path = format!("{path}.{name}");
            match back.get(name) {
                Some(back) => changed(value, back, &path),
                None => Some(path),
            }
        }),
        (Value::Array(sent), Value::Array(back)) if sent.len() == back.len() => sent
            .iter()
            .zip(back)
            .enumerate()
            .find_map(|(index, (value, back))| changed(value, back, &format!("{path}[{index}]"))),
        (sent, back) => (sent != back).then(|| format!("{path}: {sent} became {back}")),
    }
}

#[test]
fn the_server_takes_every_planned_job() {
    let stage = Stage::new();
    for (case, environment) in MATRIX {
        let mut job = planned(environment);
        job["metadata"]["namespace"] = stage.namespace.name.clone().into();
        let create = [
            "create",
            "--dry-run=server",
            "--validate=strict",
            "--output=json",
            "--filename=-",
        ];
        let answer = kubectl(&create, Some(&job.to_string()));
        let answer: Value = serde_json::from_str(&answer).unwrap();
        if let Some(change) = changed(&job, &answer, "job") {
            panic!("{case}: {change}\n{answer:#}");
        }
    }
}

fn assert_complete(job: &JobView) {
    let name = job.state.name();
    assert_eq!(name, "completed", "{:?}\n{}", job.state, job.log_text());
}

/// Runs a job of one step that shows what it sees, while a second look is
/// taken at the objects in the cluster.
fn run(stage: &Stage, environment: &[(&str, &str)], step: StepSpec) -> (JobView, Value, Value) {
    let builder = environment
        .iter()
        .fold(stage.executor(), |builder, (name, value)| {
            builder.env(name, value)
        });
    let executor = builder.start();
    let job = stage.frontend.enqueue(stage.job().step(step));
    let first = |kind: &str| {
        crate::support::eventually(
            kind,
            MINUTES,
            || stage.namespace.list(kind).first().cloned(),
            || executor.log(),
        )
    };
    let objects = (first("jobs"), first("pods"));
    let view = stage.frontend.wait_finished(job, MINUTES);
    assert_complete(&view);
    executor.stop();
    (view, objects.0, objects.1)
}

#[test]
fn rules_of_placement_reach_the_pod() {
    let stage = Stage::new();
    let nodes = kubectl(&["get", "nodes", "-o", "json"], None);
    let nodes: Value = serde_json::from_str(&nodes).unwrap();
    let node = &nodes["items"][0]["metadata"];
    let label = node["labels"]["kubernetes.io/hostname"].as_str().unwrap();
    let field = format!(
        r#"[{{"key":"metadata.name","operator":"In","values":["{}"]}}]"#,
        node["name"].as_str().unwrap()
    );
    let environment = [
        (
            "EXECUTOR_KUBERNETES_NODE_SELECTOR",
            &*format!("kubernetes.io/hostname={label}"),
        ),
        (
            "EXECUTOR_KUBERNETES_NODE_REQUIRED_AFFINITY_MATCH_EXPRESSIONS",
            r#"[{"key":"kubernetes.io/os","operator":"In","values":["linux"]}]"#,
        ),
        (
            "EXECUTOR_KUBERNETES_NODE_REQUIRED_AFFINITY_MATCH_FIELDS",
            &*field,
        ),
        (
            "EXECUTOR_KUBERNETES_POD_ANTI_AFFINITY",
            r#"[{"labelSelector":{"matchLabels":{"app":"nowhere"}},"topologyKey":"kubernetes.io/hostname"}]"#,
        ),
        (
            "EXECUTOR_KUBERNETES_NODE_TOLERATIONS",
            r#"[{"key":"jobs","operator":"Exists"}]"#,
        ),
        ("KUBERNETES_JOB_ANNOTATIONS", r#"{"example.org/of":"job"}"#),
        (
            "KUBERNETES_JOB_POD_ANNOTATIONS",
            r#"{"example.org/of":"pod"}"#,
        ),
    ];
    let (_, job, pod) = run(&stage, &environment, tiny("only", "sleep 2"));
    assert_eq!(job["metadata"]["annotations"]["example.org/of"], "job");
    assert_eq!(pod["metadata"]["annotations"]["example.org/of"], "pod");
    let spec = &pod["spec"];
    assert_eq!(spec["nodeSelector"]["kubernetes.io/hostname"], label);
    let affinity = &spec["affinity"];
    assert!(affinity["podAffinity"].is_null(), "{affinity:#}");
    let terms = &affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    assert_eq!(terms.as_array().map(Vec::len), Some(1), "{affinity:#}");
    let tolerations = spec["tolerations"].as_array().unwrap();
    let is_ours = |toleration: &&Value| toleration["key"] == "jobs";
    assert!(tolerations.iter().any(|t| is_ours(&t)), "{tolerations:#?}");
    stage.assert_clean();
}

#[test]
fn a_claimed_workspace_goes_with_its_pod() {
    let stage = Stage::new();
    let environment = [
        ("KUBERNETES_JOB_VOLUME_TYPE", "pvc"),
        ("KUBERNETES_JOB_VOLUME_SIZE", "64Mi"),
    ];
    let step = StepSpec::new("only", STEP_IMAGE)
        .dir("repository")
        .command("git log --oneline && echo more >> README.md && git diff --stat");
    let (view, _, pod) = run(&stage, &environment, step);
    let claim = &pod["spec"]["volumes"][0]["ephemeral"]["volumeClaimTemplate"]["spec"];
    assert_eq!(claim["resources"]["requests"]["storage"], "64Mi");
    assert!(
        view.log_text().contains("1 file changed"),
        "{}",
        view.log_text()
    );
    // This looks for claims too.
    stage.assert_clean();
}

#[test]
fn additional_volumes_are_in_every_container() {
    let stage = Stage::new();
    let literal = "--from-literal=word=walnut";
    stage
        .namespace
        .kubectl(&["create", "configmap", "words", literal]);
    let environment = [
        (
            "KUBERNETES_ADDITIONAL_JOB_VOLUMES",
            r#"[{"name":"words","configMap":{"name":"words"}}]"#,
        ),
        (
            "KUBERNETES_ADDITIONAL_JOB_VOLUME_MOUNTS",
            r#"[{"name":"words","mountPath":"/words"}]"#,
        ),
    ];
    let (view, _, pod) = run(&stage, &environment, tiny("only", "cat /words/word; echo"));
    assert!(
        view.log_text().contains("stdout: walnut\n"),
        "{}",
        view.log_text()
    );
    let mounts = pod["spec"]["initContainers"][0]["volumeMounts"].to_string();
    assert!(mounts.contains("/words"), "{mounts}");
    stage.assert_clean();
}

#[test]
fn the_network_of_the_node_can_be_used() {
    let stage = Stage::new();
    let environment = [("KUBERNETES_JOB_HOST_NETWORK", "true")];
    let step = tiny("only", "set +x; cat /proc/net/dev");
    let (view, _, pod) = run(&stage, &environment, step);
    assert_eq!(pod["spec"]["hostNetwork"], true);
    assert_eq!(pod["spec"]["dnsPolicy"], "ClusterFirstWithHostNet");
    let interfaces = std::fs::read_to_string("/proc/net/dev").unwrap();
    let bridge = interfaces
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim())
        .find(|name| name.starts_with("executor"));
    // On another machine's cluster there is nothing to compare with.
    if let Some(bridge) = bridge {
        assert!(view.log_text().contains(bridge), "{}", view.log_text());
    }
    stage.assert_clean();
}

#[test]
fn a_restricted_namespace_takes_restricted_jobs() {
    let stage = Stage::new();
    let enforce = "pod-security.kubernetes.io/enforce=restricted";
    kubectl(
        &["label", "namespace", &stage.namespace.name, enforce],
        None,
    );
    let environment = [("EXECUTOR_POD_SECURITY", "restricted")];
    let step = StepSpec::new("only", STEP_IMAGE)
        .dir("repository")
        .command("set +x; echo user $(id -u) group $(id -g)")
        .command(
            "echo more >> README.md && touch ../new && git add --all && git diff --cached --stat",
        )
        .command("grep CapEff /proc/self/status");
    let (view, _, pod) = run(&stage, &environment, step);
    let text = view.log_text();
    assert!(text.contains("stdout: user 1000 group 1000\n"), "{text}");
    assert!(text.contains("1 file changed"), "{text}");
    assert!(text.contains("CapEff:\t0000000000000000"), "{text}");
    assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], true);
    stage.assert_clean();
}

#[test]
fn nothing_of_the_cluster_is_in_a_pod() {
    let stage = Stage::new();
    let step = tiny(
        "only",
        "set +x; ls /var/run/secrets /run/secrets /run/executor; env | sort",
    );
    let (view, _, pod) = run(&stage, &[], step);
    let text = view.log_text();
    // The address of the API server is in every pod, by the kubelet.
    for word in ["serviceaccount", "token", "workspace.0"] {
        assert!(!text.contains(word), "{word} is in\n{text}");
    }
    assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
    assert_eq!(pod["spec"]["enableServiceLinks"], false);
    let seccomp = &pod["spec"]["securityContext"]["seccompProfile"]["type"];
    assert_eq!(seccomp, "RuntimeDefault");
    stage.assert_clean();
}
