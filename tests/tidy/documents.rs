//! The documents say what is so: what they name exists, their links lead
//! somewhere, and each of their commands is run by a test or says why not.

use std::fmt::Write;
use std::fs;

use executor::cluster::status::label::LABELS;
use executor::config::table::VARIABLES;
use executor::config::unused::UNUSED;
use executor::metrics::jobs::OWN_CAUSES;

use super::{files, project, rust_files, variables_in};
use crate::packaging::pages::PAGES;

/// Why a block of commands is not run by the test of the pages: the word behind
/// `sh` at its fence.
const NOT_RUN: [(&str, &str); 4] = [
    ("docker", "there is no Docker where the tests run"),
    ("deploy", "the same stands in docs/deploy.md, which is run"),
    (
        "long",
        "it takes minutes, and does what a test does in seconds",
    ),
    ("network", "it needs a network that the tests do not have"),
];

/// What steps find in their environment, and nobody sets.
const OF_STEPS: [&str; 1] = ["EXECUTOR_ADD_SAFE"];

/// All pages: path and text.
fn pages() -> Vec<(String, String)> {
    let mut paths: Vec<String> = ["README.md", "ARCHITECTURE.md", "manifests/README.md"]
        .map(str::to_owned)
        .into();
    paths.extend(files("docs").into_iter().map(|file| file.path));
    let read = |path: String| {
        let text = fs::read_to_string(project().join(&path)).unwrap();
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// What stands between the lines of a fence, with the words behind its marks.
pub(crate) fn blocks(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(words) = line.trim_start().strip_prefix("```") {
            let inside = lines.by_ref().take_while(|line| line.trim() != "```");
            let inside: Vec<&str> = inside.collect();
            found.push((words.to_owned(), inside.join("\n")));
        }
    }
    found
}

#[test]
fn every_cause_of_a_failure_is_explained() {
    let page = fs::read_to_string(project().join("docs/troubleshooting.md")).unwrap();
    let (_, table) = page.split_once("| Cause | What you see |").unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let explained: Vec<&str> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    let causes: Vec<&str> = LABELS.iter().chain(&OWN_CAUSES).copied().collect();
    assert_eq!(explained, causes);
    for row in rows {
        assert_eq!(row.len(), 4, "{row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
}

/// Pages name the tests that hold what they say.
#[test]
fn pages_name_tests_that_exist() {
    let code: String = rust_files(&["src", "tests"])
        .into_iter()
        .map(|file| file.text)
        .collect();
    let is_test = |word: &&str| {
        word.matches('_').count() >= 3 && word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    let (mut missing, mut named) = (String::new(), 0);
    for (path, text) in pages() {
        for name in text.split('`').skip(1).step_by(2).filter(is_test) {
            named += 1;
            // Metrics and fields look the same.
            let is_there =
                code.contains(&format!("fn {name}(")) || code.contains(&format!("\"{name}\""));
            if !is_there {
                let _ = writeln!(missing, "  {path}: {name}");
            }
        }
    }
    assert!(named > 50, "{named} tests are named");
    assert!(missing.is_empty(), "there are no such tests:\n{missing}");
}

#[test]
fn pages_name_variables_that_exist() {
    let known: Vec<&str> = VARIABLES
        .iter()
        .flat_map(|variable| variable.names.iter().copied())
        .chain(UNUSED.iter().map(|unused| unused.name))
        .chain(OF_STEPS)
        .collect();
    let mut unknown = String::new();
    for (path, text) in pages() {
        // Names of the tests' own settings are for developers.
        if path == "docs/development.md" {
            continue;
        }
        for (number, line) in (1..).zip(text.lines()) {
            let names = variables_in(line).into_iter().filter(|name| {
                let is_ours = name.starts_with("EXECUTOR_") || name.starts_with("KUBERNETES_");
                // A star stands for the ends of several.
                is_ours && !name.ends_with('_')
            });
            for name in names.filter(|name| !known.contains(name)) {
                let _ = writeln!(unknown, "  {path}:{number}: {name}");
            }
        }
    }
    assert!(unknown.is_empty(), "no such variables:\n{unknown}");
}

#[test]
fn links_of_the_pages_lead_somewhere() {
    let mut broken = String::new();
    for (path, text) in pages() {
        let dir = project().join(&path);
        let dir = dir.parent().unwrap();
        for rest in text.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            let file = target.split('#').next().unwrap_or_default();
            if !target.contains("://") && !file.is_empty() && !dir.join(file).exists() {
                let _ = writeln!(broken, "  {path}: {target}");
            }
        }
    }
    assert!(broken.is_empty(), "links to nowhere:\n{broken}");
}

#[test]
fn commands_of_the_pages_are_run_or_say_why_not() {
    let mut found = String::new();
    for (path, text) in pages() {
        for (words, block) in blocks(&text) {
            let Some(word) = words.strip_prefix("sh") else {
                continue;
            };
            let word = word.trim();
            let is_run = word.is_empty() && PAGES.contains(&path.as_str());
            let is_excused = NOT_RUN.iter().any(|(known, _)| *known == word);
            // What the project's scripts do, people see them do every day.
            let is_script = block.lines().all(|line| {
                let program = line.split_whitespace().next().unwrap_or_default();
                program.starts_with("scripts/") && project().join(program).is_file()
            });
            if !is_run && !is_excused && !is_script {
                let _ = writeln!(found, "  {path}: {block}");
            }
        }
    }
    assert!(found.is_empty(), "nobody runs these:\n{found}");
}

#[test]
fn the_alerts_are_all_listed() {
    let page = fs::read_to_string(project().join("docs/monitoring.md")).unwrap();
    let rules = fs::read_to_string(project().join("manifests/monitoring/rules.yaml")).unwrap();
    let alerts: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    let listed: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `Executor"))
        .filter_map(|line| line.split('`').next())
        .collect();
    let alerts: Vec<&str> = alerts
        .iter()
        .filter_map(|name| name.strip_prefix("Executor"))
        .collect();
    assert_eq!(listed, alerts);
}
