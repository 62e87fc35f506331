//! The pages for operators, run as they are written: one namespace, one copy of
//! the manifests, the commands in the order of the pages.

use std::path::Path;
use std::process::Command;

use super::can_render;
use crate::support::MINUTES;
use crate::support::cluster::{kubeconfig, project};
use crate::support::stage::{Stage, TINY_IMAGE, tiny};
use crate::tidy::documents::blocks;

/// The pages whose commands are run, in the order in which a reader may come by.
/// The first one brings up what the others look at.
pub(crate) const PAGES: [&str; 8] = [
    "docs/deploy.md",
    "docs/exec.md",
    "docs/jobs.md",
    "docs/troubleshooting.md",
    "docs/monitoring.md",
    "docs/security.md",
    "docs/scaling.md",
    "docs/upgrade.md",
];

/// What a reader puts in the place of the words in capitals, and of the names
/// that are somebody else's in this cluster.
fn in_our_words(stage: &Stage, text: &str) -> String {
    let name = &stage.namespace.name;
    [
        (
            "--namespace sourcegraph-executor",
            format!("--namespace {name}"),
        ),
        (
            "namespace: sourcegraph-executor",
            format!("namespace: {name}"),
        ),
        (
            "serviceaccount=sourcegraph-executor:",
            format!("serviceaccount={name}:"),
        ),
        (
            "newName: REGISTRY/executor",
            "newName: localhost/executor".to_owned(),
        ),
        ("newTag: 0.1.0", "newTag: dev".to_owned()),
        ("https://sourcegraph.at.my.company", stage.frontend.url()),
        ("token=TOKEN", format!("token={}", stage.frontend.token())),
        ("/run=RUN", "/run=none".to_owned()),
        ("job-id=ID", "job-id=0".to_owned()),
        ("--image REGISTRY/IMAGE", format!("--image {TINY_IMAGE}")),
    ]
    .iter()
    .fold(text.to_owned(), |text, (theirs, ours)| {
        text.replace(theirs, ours)
    })
}

/// Runs a block; its output, if it ends well.
fn run(dir: &Path, block: &str) -> String {
    let output = Command::new("bash")
        .args(["-eu", "-c", block])
        .current_dir(dir)
        .env("KUBECONFIG", kubeconfig())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{block}\n{text}{errors}");
    text
}

#[test]
fn the_pages_work_as_they_are_written() {
    if !can_render() {
        return;
    }
    let stage = Stage::new();
    let dir = tempfile::tempdir().unwrap();
    let manifests = project().join("manifests");
    let copy = format!("cp -r {} .", manifests.display());
    run(dir.path(), &copy);
    let namespace = dir.path().join("manifests/base/namespace.yaml");
    let text = std::fs::read_to_string(&namespace).unwrap();
    let ours = format!("\n  name: {}\n", stage.namespace.name);
    let text = text.replace("\n  name: sourcegraph-executor\n", &ours);
    std::fs::write(&namespace, text).unwrap();
    // As the released executor leaves it; one of the pages removes it.
    let left = "sg-executor-job-batches-1-secrets";
    stage
        .namespace
        .kubectl(&["create", "secret", "generic", left]);
    let mut number = 0;
    for page in PAGES {
        let text = std::fs::read_to_string(project().join(page)).unwrap();
        for (_, block) in blocks(&text).iter().filter(|(words, _)| words == "sh") {
            let output = run(dir.path(), &in_our_words(&stage, block));
            number += 1;
            if block.contains("executor validate") {
                assert!(output.contains("Jobs can run."), "{output}");
            }
            if block.contains("rollout status") && page == PAGES[0] {
                assert!(output.contains("Connected to Sourcegraph at"), "{output}");
            }
        }
    }
    assert!(number >= 10, "{number} blocks");
    let secrets = stage
        .namespace
        .kubectl(&["get", "secrets", "--output=name"]);
    assert!(!secrets.contains(left), "{secrets}");
    let job = stage
        .frontend
        .enqueue(stage.job().step(tiny("only", "echo ran")));
    let view = stage.frontend.wait_finished(job, MINUTES);
    let deployment = "deployment/sourcegraph-executor";
    let log = stage.namespace.kubectl(&["logs", deployment]);
    assert_eq!(view.state.name(), "completed", "{}\n{log}", view.log_text());
    let rules = dir.path().join("executor.rules.yaml");
    let plain: serde_json::Value =
        serde_saphyr::from_str(&std::fs::read_to_string(rules).unwrap()).unwrap();
    let resource = include_str!("../../manifests/monitoring/rules.yaml");
    let resource: serde_json::Value = serde_saphyr::from_str(resource).unwrap();
    assert_eq!(plain, resource["spec"], "the rules file");
    let delete = ["delete", deployment, "--timeout=120s"];
    stage.namespace.kubectl(&delete);
}
