//! The questions of the dashboard and of the alerts, asked of a real Prometheus
//! that scrapes a real executor.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use ureq::Agent;

use crate::support::cluster::project;
use crate::support::daemon::Daemon;
use crate::support::stage::{Stage, tiny};
use crate::support::{MINUTES, SOON, eventually};

/// Panels of what may well not have happened: no errors, no failures.
const MAY_BE_EMPTY: [&str; 1] = ["Errors of both servers"];

/// A Prometheus; it ends with its test.
struct Prometheus {
    child: Child,
    url: String,
    agent: Agent,
    dir: tempfile::TempDir,
}

impl Prometheus {
    /// Scrapes this executor once a second, with the labels that an operator
    /// would give it, and watches the alerts of the manifests.
    fn start(executor: &Daemon) -> Prometheus {
        let program = project().join("target/prometheus/prometheus");
        assert!(program.is_file(), "scripts/prometheus makes {program:?}");
        let dir = tempfile::tempdir().unwrap();
        let rules = include_str!("../../manifests/monitoring/rules.yaml");
        let rules: Value = serde_saphyr::from_str(rules).unwrap();
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{
                "job_name": "executor",
                "static_configs": [{
                    "targets": [executor.metrics_address().to_string()],
                    "labels": {"namespace": "n", "pod": "p", "container": "executor"},
                }],
            }],
        });
        // JSON is YAML too.
        write(dir.path(), "rules.yaml", &rules["spec"]);
        let config = write(dir.path(), "config.yaml", &config);
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let config = Agent::config_builder().http_status_as_error(false);
        Prometheus {
            child,
            url: format!("http://{address}/api/v1"),
            agent: config.timeout_global(Some(SOON)).build().into(),
            dir,
        }
    }

    fn get(&self, path: &str, query: &str) -> Option<Value> {
        let request = self.agent.get(format!("{}/{path}", self.url));
        let mut answer = request.query("query", query).call().ok()?;
        let text = answer.body_mut().read_to_string().ok()?;
        serde_json::from_str(&text).ok()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Waits until a query has a result that is not empty.
    fn wait_for(&self, query: &str) {
        eventually(
            query,
            MINUTES,
            || {
                let answer = self.get("query", query)?;
                let results = answer["data"]["result"].as_array()?;
                (!results.is_empty()).then_some(())
            },
            || self.log(),
        );
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(dir: &Path, name: &str, content: &Value) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content.to_string()).unwrap();
    path
}

#[test]
fn the_dashboard_has_an_answer_on_every_panel() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let prometheus = Prometheus::start(&executor);
    prometheus.wait_for("executor_ready == 1");
    for command in ["true", "exit 3"] {
        let job = stage.job().step(tiny("only", command));
        let job = stage.frontend.enqueue(job);
        stage.frontend.wait_finished(job, MINUTES);
    }
    // Rates need what was there before and what is there now.
    prometheus.wait_for("increase(executor_job_failures_total{cause=\"step\"}[1h]) > 0");
    let dashboard = include_str!("../../manifests/monitoring/dashboard.json");
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    let mut wrong = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let query = query
                .replace("$__rate_interval", "1m")
                .replace("$instance", ".*");
            let answer = prometheus.get("query", &query).unwrap();
            let results = answer["data"]["result"].as_array();
            let is_good = results.is_some_and(|it| !it.is_empty() || MAY_BE_EMPTY.contains(&title));
            if !is_good {
                wrong.push(format!("{title}: {query}: {answer}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\n{}",
        wrong.join("\n"),
        prometheus.log()
    );
    let rules = prometheus.get("rules", "").unwrap();
    let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() > 5, "{rules:?}");
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule:#}");
        assert_ne!(rule["state"], "firing", "{rule:#}");
    }
    executor.stop();
    stage.assert_clean();
}
