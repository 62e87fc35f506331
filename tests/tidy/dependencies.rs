//! What other people's code is in here: under which licences, from where, and
//! nothing twice without a reason. Advisories are not looked up, since that
//! takes a database from the network: docs/development.md tells how.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Licences that ask for no more than to be named.
const LICENCES: [&str; 9] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that the program has in two versions, and why.
const TWICE: [(&str, &str); 3] = [
    ("base64", "most crates are a version behind kube-client"),
    ("getrandom", "ring stays with the old interface"),
    (
        "syn",
        "macros change to the new one by and by; none is in the program",
    ),
];

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn metadata() -> Value {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version=1"])
        .args(["--filter-platform", &target])
        .current_dir(super::project())
        .output()
        .unwrap();
    let problem = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{problem}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whether an expression of licences leaves one that is allowed.
fn is_allowed(expression: &str) -> bool {
    // An old way to say OR, which binds as AND does not.
    let expression = expression.replace(" / ", " OR ").replace('/', " OR ");
    match inside_of_and(&expression) {
        Some(parts) => parts.iter().all(|part| is_allowed(part)),
        None => expression
            .split(" OR ")
            .any(|one| LICENCES.contains(&one.trim())),
    }
}

/// The parts of an expression that must all be kept, brackets taken off.
fn inside_of_and(expression: &str) -> Option<Vec<String>> {
    let parts: Vec<&str> = expression.split(" AND ").collect();
    let plain = |part: &&str| part.trim().trim_matches(['(', ')']).to_owned();
    (parts.len() > 1).then(|| parts.iter().map(plain).collect())
}

#[test]
fn licences_of_all_crates_are_allowed() {
    let metadata = metadata();
    let refused: Vec<String> = list(&metadata["packages"])
        .iter()
        .filter(|package| package["source"] != Value::Null)
        .filter(|package| !is_allowed(text(&package["license"])))
        .map(|package| format!("{}: {}", package["name"], package["license"]))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
    for (expression, allowed) in [
        ("MIT/Apache-2.0", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("GPL-3.0-only OR MIT", true),
        ("MIT AND GPL-3.0-only", false),
        ("(MIT OR Apache-2.0) AND GPL-2.0", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression), allowed, "{expression:?}");
    }
}

#[test]
fn crates_come_from_one_registry() {
    let metadata = metadata();
    let strange: Vec<String> = list(&metadata["packages"])
        .iter()
        .filter(|package| package["source"] != Value::Null && package["source"] != REGISTRY)
        .map(|package| format!("{}: {}", package["name"], package["source"]))
        .collect();
    assert!(strange.is_empty(), "{strange:#?}");
}

#[test]
fn no_crate_is_there_twice_without_a_reason() {
    let metadata = metadata();
    let needed: BTreeMap<&str, Vec<&str>> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| {
            let is_normal =
                |it: &&Value| list(&it["dep_kinds"]).iter().any(|k| k["kind"].is_null());
            let needed = list(&node["deps"]).iter().filter(is_normal);
            (
                text(&node["id"]),
                needed.map(|it| text(&it["pkg"])).collect(),
            )
        })
        .collect();
    let mut found = BTreeSet::new();
    let mut open = vec![text(&metadata["resolve"]["root"])];
    while let Some(id) = open.pop() {
        if found.insert(id) {
            open.extend(&needed[id]);
        }
    }
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in list(&metadata["packages"]) {
        if found.contains(text(&package["id"])) {
            let of_name = versions.entry(text(&package["name"])).or_default();
            of_name.push(text(&package["version"]));
        }
    }
    assert!(versions.len() > 50, "{versions:?}");
    versions.retain(|_, versions| versions.len() > 1);
    let twice: Vec<&str> = versions.keys().copied().collect();
    let known = TWICE.map(|(name, _)| name);
    assert_eq!(twice, known, "crates in several versions: {versions:#?}");
}
