//! Rules of the project that a program can check: who may use what, how long
//! things may be, and that the documents say what the code does.

mod dependencies;
pub(crate) mod documents;
mod monitoring;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use executor::config::table::VARIABLES;
use executor::config::unused::UNUSED;
use executor::config::variables::{Fallback, Variable};
use executor::metrics::Metrics;

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Between these lines docs/configuration.md holds the table of variables.
const TABLE_BEGIN: &str = "<!-- configuration -->\n";
const TABLE_END: &str = "<!-- /configuration -->";
/// And between these the one of variables that change nothing.
const UNUSED_BEGIN: &str = "<!-- unused -->\n";
const UNUSED_END: &str = "<!-- /unused -->";

/// Between these docs/monitoring.md holds the table of metrics.
const METRICS_BEGIN: &str = "<!-- metrics -->\n";
const METRICS_END: &str = "<!-- /metrics -->";

/// Variables of libraries, which manifests may set too.
const LIBRARY_VARIABLES: [&str; 1] = ["TMPDIR"];

/// Registries and package servers, written so that this file holds none.
const REGISTRIES: [&str; 9] = [
    concat!("docker", ".io"),
    concat!("ghcr", ".io"),
    concat!("quay", ".io"),
    concat!("gcr", ".io"),
    concat!("registry.", "k8s.io"),
    concat!("mcr.", "microsoft.com"),
    concat!("public.", "ecr.aws"),
    concat!("index.", "crates.io"),
    concat!("proxy.", "golang.org"),
];

/// Directories that exist on somebody's machine only.
const PRIVATE_DIRECTORIES: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ho", "me/")];

/// A text file and its path relative to the top of the project.
struct SourceFile {
    path: String,
    text: String,
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All text files below a directory of the project, without what is built.
fn files(dir: &str) -> Vec<SourceFile> {
    let mut found = Vec::new();
    let mut open = vec![project().join(dir)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_symlink() || [".git", "target"].contains(&name.as_str()) {
                continue;
            } else if path.is_dir() {
                open.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(project()).unwrap();
                let path = path.to_string_lossy().into_owned();
                found.push(SourceFile { path, text });
            }
        }
    }
    assert!(!found.is_empty(), "there is nothing in {dir}");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn rust_files(dirs: &[&str]) -> Vec<SourceFile> {
    let all = dirs.iter().flat_map(|dir| files(dir));
    all.filter(|file| file.path.ends_with(".rs")).collect()
}

/// Whether a line has the word, with no letter of a longer one around it.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        let (before, after) = (&line[..start], &line[start + word.len()..]);
        let opens = word.starts_with(|c| !is_part(c)) || !before.ends_with(is_part);
        opens && !after.starts_with(is_part)
    })
}

/// The lines without comments, with their numbers.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate();
    lines
        .map(|(index, line)| (index + 1, line.split(" // ").next().unwrap_or_default()))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Fails if the words occur in code of these directories outside of the
/// allowed places, each of which is a file or, ending in a slash, a directory.
fn assert_only_in(dirs: &[&str], words: &[&str], allowed: &[&str], reason: &str) {
    let mut found = String::new();
    for file in rust_files(dirs) {
        let is_allowed = allowed.iter().any(|place| file.path.starts_with(place));
        // This file has all the words, to look for them.
        if is_allowed || file.path == "tests/tidy.rs" {
            continue;
        }
        for (number, line) in code(&file.text) {
            for word in words.iter().filter(|word| has_word(line, word)) {
                let _ = writeln!(found, "  {}:{number}: {word}", file.path);
            }
        }
    }
    assert!(found.is_empty(), "{reason}:\n{found}");
}

#[test]
fn only_the_cluster_client_is_asynchronous() {
    assert_only_in(
        &["src"],
        &["async", ".await", "tokio", "futures"],
        &["src/cluster/client/"],
        "everything else blocks",
    );
}

#[test]
fn kubernetes_types_stay_in_the_cluster_room() {
    assert_only_in(
        &["src"],
        &["kube_client", "k8s_openapi"],
        &["src/cluster/"],
        "other rooms use the types of src/cluster",
    );
}

#[test]
fn http_calls_stay_in_their_rooms() {
    assert_only_in(
        &["src"],
        &["ureq"],
        &["src/http.rs", "src/queue/client.rs", "src/workspace/"],
        "the queue client and the workspace alone speak HTTP",
    );
}

#[test]
fn only_main_reads_the_environment() {
    assert_only_in(
        &["src"],
        &["env::var", "env::var_os", "env::vars", "env::vars_os"],
        &["src/main.rs"],
        "main reads the environment, others get settings",
    );
}

#[test]
fn nothing_ends_the_process_from_inside() {
    assert_only_in(
        &["src", "tests"],
        &["process::exit", "process::abort"],
        &[],
        "ends are values of type Exit, so that everything is dropped in order",
    );
}

/// `setup-workspace` is a process of its own that a signal may end at any
/// time. The daemon must hear of a stop in every wait, which a sleep does not.
#[test]
fn only_the_workspace_command_may_sleep() {
    assert_only_in(
        &["src", "tests"],
        &["thread::sleep"],
        &["src/workspace/"],
        "wait on a channel that a stop closes, or by `eventually` in tests",
    );
}

#[test]
fn every_file_opens_with_its_purpose() {
    let silent: Vec<_> = rust_files(&["src", "tests"])
        .into_iter()
        .filter(|file| !file.text.starts_with("//! "))
        .map(|file| file.path)
        .collect();
    assert!(silent.is_empty(), "no `//!` at the start: {silent:#?}");
}

#[test]
fn no_file_is_longer_than_allowed() {
    let long: Vec<_> = rust_files(&["src", "tests"])
        .into_iter()
        .map(|file| (file.text.lines().count(), file.path))
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .collect();
    assert!(
        long.is_empty(),
        "more than {FILE_LINES_MAX} lines: {long:#?}"
    );
}

#[test]
fn no_function_is_longer_than_allowed() {
    let mut long = String::new();
    for file in rust_files(&["src", "tests"]) {
        for (line, length, head) in functions(&file.text) {
            // A test that is one table of expectations may be as long as the
            // table.
            let is_table = file.path == "src/cluster/plan/tests.rs" && head.contains("every_field");
            if length > FUNCTION_LINES_MAX && !is_table {
                let _ = writeln!(long, "  {}:{line}: {length} lines: {head}", file.path);
            }
        }
    }
    assert!(
        long.is_empty(),
        "more than {FUNCTION_LINES_MAX} lines:\n{long}"
    );
}

/// All functions with a body: number of the first line, number of lines, and
/// the first line. rustfmt puts the last brace below the first letter.
fn functions(text: &str) -> Vec<(usize, usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, head) in code(text) {
        let is_head = has_word(head, "fn") && head.contains('(') && !head.contains('"');
        if !is_head || head.ends_with([';', '}']) || head.trim_start().starts_with("type ") {
            continue;
        }
        let indent = &head[..head.len() - head.trim_start().len()];
        let (last, declared) = (format!("{indent}}}"), format!("{indent})"));
        for (offset, line) in lines[start..].iter().enumerate() {
            if line.starts_with(&declared) && line.ends_with(';') {
                break;
            } else if *line == last {
                found.push((start, offset + 2, head.trim()));
                break;
            }
        }
    }
    found
}

#[test]
fn functions_are_measured_to_their_brace() {
    let text = [
        "impl A {",
        "    fn a(&self) {",
        "        if b {",
        "        }",
        "    }",
        "}",
        "trait B {",
        "    fn c(",
        "        x: u8,",
        "    ) -> u8;",
        "    fn d();",
        "}",
        "pub(crate) const fn e(",
        "    x: u8,",
        ") -> u8 {",
        "    x",
        "}",
    ]
    .join("\n");
    let lengths: Vec<_> = functions(&text)
        .into_iter()
        .map(|(line, length, _)| (line, length))
        .collect();
    assert_eq!(lengths, [(2, 4), (13, 5)]);
}

#[test]
fn the_documents_list_every_variable() {
    let page = "docs/configuration.md";
    assert_in_page(page, TABLE_BEGIN, &rendered_table(), TABLE_END);
    assert_in_page(page, UNUSED_BEGIN, &rendered_unused(), UNUSED_END);
}

#[test]
fn the_documents_list_every_metric() {
    let page = "docs/monitoring.md";
    assert_in_page(page, METRICS_BEGIN, &rendered_metrics(), METRICS_END);
}

/// Fails if anything else than the rendered table stands between these lines.
fn assert_in_page(page: &str, begin: &str, rendered: &str, end: &str) {
    let text = fs::read_to_string(project().join(page)).unwrap();
    let table = text
        .split_once(begin)
        .and_then(|(_, rest)| rest.split_once(end))
        .map(|(table, _)| table.trim());
    assert!(
        table == Some(rendered.trim()),
        "the table between {} and {end} in {page} must be:\n\n{rendered}",
        begin.trim()
    );
}

/// Name, labels, kind and help of each metric, as an executor shows them.
fn rendered_metrics() -> String {
    let mut table = "| Metric | Kind | Meaning |\n|---|---|---|\n".to_owned();
    let text = Metrics::new(&["batches"]).text();
    for family in text.split("# HELP ").skip(1) {
        let mut lines = family.lines();
        let (name, help) = lines.next().unwrap().split_once(' ').unwrap();
        let kind = lines.next().unwrap().rsplit(' ').next().unwrap();
        let series = lines.next().unwrap();
        let labels: Vec<&str> = series
            .split(['{', ','])
            .filter_map(|part| Some(part.split_once("=\"")?.0))
            .filter(|label| *label != "le")
            .collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(table, "| `{name}{labels}` | {kind} | {help} |");
    }
    table
}

fn rendered_table() -> String {
    let mut table = "| Variable | Must be | Default | Meaning |\n|---|---|---|---|\n".to_owned();
    for variable in VARIABLES {
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} |",
            rendered_names(variable),
            variable.kind.allowed(),
            rendered_default(variable.default),
            variable.meaning
        );
    }
    table
}

fn rendered_unused() -> String {
    let mut table = "| Variable | Accepted and not used |\n|---|---|\n".to_owned();
    for unused in UNUSED {
        let _ = writeln!(table, "| `{}` | {} |", unused.name, unused.instead);
    }
    table
}

fn rendered_names(variable: &Variable) -> String {
    let names: Vec<_> = variable
        .names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect();
    names.join(" or ")
}

fn rendered_default(default: Fallback) -> String {
    match default {
        Fallback::Required => "required".to_owned(),
        Fallback::Unset => "unset".to_owned(),
        Fallback::Value(value) => format!("`{value}`"),
    }
}

#[test]
fn manifests_set_only_variables_that_exist() {
    let known: Vec<&str> = VARIABLES
        .iter()
        .flat_map(|variable| variable.names.iter().copied())
        .chain(LIBRARY_VARIABLES)
        .collect();
    let (mut unknown, mut mentioned) = (String::new(), 0);
    for file in files("manifests") {
        for (number, line) in (1..).zip(file.text.lines()) {
            for name in variables_in(line) {
                mentioned += 1;
                if !known.contains(&name) {
                    let _ = writeln!(unknown, "  {}:{number}: {name}", file.path);
                }
            }
        }
    }
    assert!(mentioned > 0, "the manifests set no variables at all");
    assert!(unknown.is_empty(), "no such variables:\n{unknown}");
}

/// What looks like a variable of ours, comments included, and everything that
/// is set: by `NAME=` as in a ConfigMap, or by `- name: NAME` as in a Pod.
fn variables_in(line: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let is_name = |word: &&str| word.len() > 1 && word.chars().all(is_part);
    let ours = line.split(|c| !is_part(c)).filter(|word| {
        word.starts_with("EXECUTOR_") || word.starts_with("KUBERNETES_") && word.len() > 11
    });
    let item = line.trim_start().trim_start_matches(['-', '#', ' ']);
    let set = match item.strip_prefix("name: ") {
        Some(name) => Some(name.trim()),
        None => item.split_once('=').map(|(name, _)| name),
    };
    let mut names: Vec<_> = ours.chain(set.filter(is_name)).collect();
    names.dedup();
    names
}

#[test]
fn variables_are_found_however_they_are_set() {
    for (line, names) in [
        (
            "      - EXECUTOR_QUEUE_NAME=batches",
            vec!["EXECUTOR_QUEUE_NAME"],
        ),
        ("            - name: HTTP_PROXY", vec!["HTTP_PROXY"]),
        ("#RUST_LOG=debug", vec!["RUST_LOG"]),
        (
            "# unless KUBERNETES_RUN_AS_USER is set",
            vec!["KUBERNETES_RUN_AS_USER"],
        ),
        ("  - name: executor", vec![]),
        ("KillSignal=SIGTERM", vec![]),
    ] {
        let mut found = variables_in(line);
        found.dedup();
        assert_eq!(found, names, "{line}");
    }
}

#[test]
fn nothing_depends_on_one_machine() {
    let mut found = String::new();
    for file in files("") {
        for (number, line) in (1..).zip(file.text.lines()) {
            let words = PRIVATE_DIRECTORIES.iter().chain(&REGISTRIES);
            for word in words.filter(|word| line.contains(**word)) {
                let _ = writeln!(found, "  {}:{number}: {word}", file.path);
            }
        }
    }
    assert!(
        found.is_empty(),
        "these exist on one machine or in one network only:\n{found}"
    );
}
