//! The dashboard and the alerts use what an executor exports: each expression is
//! read by a parser of the query language, and each metric, label and value in
//! it is held against the metrics themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;

use executor::metrics::Metrics;
use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};
use serde_json::Value;

/// What the Prometheus Operator says of where a sample comes from.
const TARGET_LABELS: [&str; 5] = ["instance", "namespace", "pod", "container", "job"];
/// What Grafana puts in before it asks; any value serves to read the expression.
const VARIABLES: [(&str, &str); 2] = [("$__rate_interval", "5m"), ("$instance", ".*")];

/// Names of samples, the labels of each, and the values of each label.
type Exported = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// What an executor of both queues exports.
fn exported() -> Exported {
    let mut found = Exported::new();
    let text = Metrics::new(&["batches", "codeintel"]).text();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let known = found.entry(name.to_owned()).or_default();
        for label in labels.trim_end_matches('}').split(',') {
            if let Some((label, value)) = label.split_once("=\"") {
                let values = known.entry(label.to_owned()).or_default();
                values.insert(value.trim_end_matches('"').to_owned());
            }
        }
    }
    found
}

/// What is wrong with an expression, and the labels that its result has.
struct Reading<'a> {
    exported: &'a Exported,
    problems: Vec<String>,
}

impl Reading<'_> {
    fn labels_of(&mut self, expr: &Expr) -> BTreeSet<String> {
        match expr {
            Expr::VectorSelector(selector) => self.selected(selector),
            Expr::MatrixSelector(range) => self.selected(&range.vs),
            Expr::Paren(inner) => self.labels_of(&inner.expr),
            Expr::Unary(inner) => self.labels_of(&inner.expr),
            Expr::Subquery(inner) => self.labels_of(&inner.expr),
            Expr::Binary(both) => {
                let left = self.labels_of(&both.lhs);
                let right = self.labels_of(&both.rhs);
                // What has no labels is a number.
                let is_number = |expr: &Expr| matches!(expr, Expr::NumberLiteral(_));
                if !is_number(&both.lhs) && !is_number(&both.rhs) && left != right {
                    self.problem(format!("{left:?} never meets {right:?}"));
                }
                if is_number(&both.lhs) { right } else { left }
            }
            Expr::Call(call) => {
                let arguments = call.args.args.iter();
                let labels = arguments.fold(BTreeSet::new(), |mut all, argument| {
                    all.extend(self.labels_of(argument));
                    all
                });
                match call.func.name {
                    "absent" => BTreeSet::new(),
                    "histogram_quantile" if !labels.contains("le") => {
                        self.problem("histogram_quantile has no le".to_owned());
                        labels
                    }
                    "histogram_quantile" => without(labels, &["le".to_owned()]),
                    _ => labels,
                }
            }
            Expr::Aggregate(aggregate) => {
                let inner = self.labels_of(&aggregate.expr);
                let named = match &aggregate.modifier {
                    Some(LabelModifier::Include(named) | LabelModifier::Exclude(named)) => {
                        named.labels.clone()
                    }
                    None => Vec::new(),
                };
                for label in named.iter().filter(|label| !inner.contains(*label)) {
                    self.problem(format!("no label {label} is left to aggregate by"));
                }
                match &aggregate.modifier {
                    Some(LabelModifier::Exclude(_)) => without(inner, &named),
                    _ if aggregate.op.to_string() == "topk" => inner,
                    _ => named.into_iter().collect(),
                }
            }
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => BTreeSet::new(),
        }
    }

    fn selected(&mut self, selector: &VectorSelector) -> BTreeSet<String> {
        let name = selector.name.clone().unwrap_or_default();
        let Some(known) = self.exported.get(&name) else {
            self.problem(format!("there is no metric {name:?}"));
            return BTreeSet::new();
        };
        for matcher in &selector.matchers.matchers {
            self.problems.extend(mismatch(&name, known, matcher));
        }
        let own = known.keys().map(String::as_str);
        own.chain(TARGET_LABELS).map(str::to_owned).collect()
    }

    fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }
}

fn without(mut labels: BTreeSet<String>, others: &[String]) -> BTreeSet<String> {
    labels.retain(|label| !others.contains(label));
    labels
}

/// Values that a matcher names and that the label never has.
fn mismatch(
    metric: &str,
    known: &BTreeMap<String, BTreeSet<String>>,
    matcher: &Matcher,
) -> Option<String> {
    if TARGET_LABELS.contains(&matcher.name.as_str()) {
        return None;
    }
    let Some(values) = known.get(&matcher.name) else {
        return Some(format!("{metric} has no label {}", matcher.name));
    };
    let named: Vec<&str> = match matcher.op {
        MatchOp::Equal | MatchOp::NotEqual => vec![&matcher.value],
        MatchOp::Re(_) | MatchOp::NotRe(_) => matcher.value.split('|').collect(),
    };
    let strange: Vec<_> = named
        .into_iter()
        .filter(|value| !values.contains(*value))
        .collect();
    (!strange.is_empty()).then(|| format!("{} of {metric} is never {strange:?}", matcher.name))
}

/// What is wrong with an expression and with a text that shows its result.
fn problems(expression: &str, texts: &[&str]) -> Vec<String> {
    let exported = exported();
    let plain = VARIABLES
        .iter()
        .fold(expression.to_owned(), |text, (name, value)| {
            text.replace(name, value)
        });
    let parsed = match parser::parse(&plain) {
        Ok(parsed) => parsed,
        Err(error) => return vec![format!("it cannot be read: {error}")],
    };
    let mut reading = Reading {
        exported: &exported,
        problems: Vec::new(),
    };
    let labels = reading.labels_of(&parsed);
    for label in texts.iter().flat_map(|text| shown_labels(text)) {
        if !labels.contains(&label) {
            reading.problem(format!("the result has no label {label} to show"));
        }
    }
    reading.problems
}

/// The labels in `{{label}}` of Grafana and in `{{ $labels.label }}` of Prometheus.
fn shown_labels(text: &str) -> Vec<String> {
    let inside = text
        .split("{{")
        .skip(1)
        .filter_map(|it| it.split_once("}}"));
    inside
        .map(|(label, _)| label.trim().trim_start_matches("$labels.").to_owned())
        .collect()
}

fn manifest(name: &str) -> String {
    fs::read_to_string(super::project().join("manifests/monitoring").join(name)).unwrap()
}

fn rules() -> Vec<Value> {
    let manifest: Value = serde_saphyr::from_str(&manifest("rules.yaml")).unwrap();
    let groups = manifest["spec"]["groups"].as_array().unwrap();
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    rules.cloned().collect()
}

/// All panels with their expressions and legends.
fn queries() -> Vec<(String, String, String)> {
    let dashboard: Value = serde_json::from_str(&manifest("dashboard.json")).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            queries.push((
                text(&panel["title"]),
                text(&target["expr"]),
                text(&target["legendFormat"]),
            ));
        }
    }
    queries
}

#[test]
fn alerts_use_metrics_that_exist() {
    let mut found = String::new();
    let rules = rules();
    assert!(rules.len() > 5, "{rules:?}");
    for rule in rules {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (summary, description) = (
            text(&rule["annotations"]["summary"]),
            text(&rule["annotations"]["description"]),
        );
        let mut wrong = problems(&text(&rule["expr"]), &[&summary, &description]);
        for sentence in [&summary, &description] {
            if !sentence.ends_with('.') {
                wrong.push(format!("{sentence:?} is not a sentence"));
            }
        }
        let severity = text(&rule["labels"]["severity"]);
        if !["critical", "warning", "info"].contains(&severity.as_str()) {
            wrong.push(format!("its severity is {severity:?}"));
        }
        for problem in wrong {
            let _ = writeln!(found, "  {}: {problem}", rule["alert"]);
        }
    }
    assert!(
        found.is_empty(),
        "manifests/monitoring/rules.yaml:\n{found}"
    );
}

#[test]
fn panels_use_metrics_that_exist() {
    let mut found = String::new();
    let queries = queries();
    assert!(queries.len() > 10, "{queries:?}");
    for (title, expression, legend) in queries {
        for problem in problems(&expression, &[&legend]) {
            let _ = writeln!(found, "  {title}: {problem}");
        }
    }
    assert!(
        found.is_empty(),
        "manifests/monitoring/dashboard.json:\n{found}"
    );
}

/// What nobody looks at need not be counted.
#[test]
fn every_metric_is_on_the_dashboard() {
    let shown: String = queries().into_iter().map(|(_, query, _)| query).collect();
    let is_shown = |name: &&String| {
        // Sums and counts of histograms, and successes beside their times, add
        // nothing to what is there.
        let is_part = ["_sum", "_count"].iter().any(|end| name.ends_with(end));
        is_part || name.starts_with("src_") || shown.contains(name.as_str())
    };
    let exported = exported();
    let hidden: Vec<_> = exported.keys().filter(|name| !is_shown(name)).collect();
    assert!(hidden.is_empty(), "on no panel: {hidden:#?}");
}

#[test]
fn mistakes_in_expressions_are_found() {
    for (expression, legend, problem) in [
        ("sum(executor_ready", "", "cannot be read"),
        ("executor_redy == 0", "", "no metric \"executor_redy\""),
        (
            "executor_ready{colour=\"red\"}",
            "",
            "executor_ready has no label colour",
        ),
        (
            "executor_jobs_total{result=~\"errored|broken\"}",
            "",
            "never [\"broken\"]",
        ),
        (
            "sum by (phase) (executor_jobs_total)",
            "",
            "no label phase is left",
        ),
        (
            "sum by (queue) (executor_jobs_total)",
            "{{result}}",
            "no label result to show",
        ),
        (
            "executor_ready and sum(executor_workers)",
            "",
            "never meets",
        ),
        (
            "histogram_quantile(0.5, sum(executor_job_phase_seconds_bucket))",
            "",
            "has no le",
        ),
    ] {
        let found = problems(expression, &[legend]).join("\n");
        assert!(found.contains(problem), "{expression}: {found:?}");
    }
}
