//! `executor validate`: whether jobs can run here, said before the first one
//! fails.
//!
//! Each check asks a question of one side and gives findings; what an answer
//! means is decided by pure functions, one file for each subject. Nothing is
//! changed on either side. A check goes on after others failed, unless it
//! needs what they looked for: a frontend that is down hides no dead cluster.

mod access;
mod admission;
mod finding;
mod frontend;
mod limits;
mod need;
mod nodes;
mod quota;
mod sample;
mod supplies;

use std::io::Write;
use std::time::Duration;

use crate::cluster::client::inspect::Inspector;
use crate::cluster::client::{KubeCluster, OwnPod};
use crate::cluster::demand::{Demand, demand, security_level};
use crate::cluster::error::{ClusterError, ClusterErrorKind};
use crate::cluster::inventory::ServerVersion;
use crate::cluster::plan::Plan;
use crate::config::{Config, ConfigErrors, JobSettings, QueueSettings};
use crate::daemon::{Place, workspace_image};
use crate::metrics::Metrics;
use crate::queue::client::QueueClient;
use crate::state;
use crate::validate::admission::{Answer, Security};
use crate::validate::finding::{Finding, Report, State};
use crate::validate::need::Need;
use crate::validate::quota::Jobs;

/// All questions to the cluster together. With the one to the frontend, a
/// minute is over before both sides have hung.
const CLUSTER_LIMIT: Duration = Duration::from_secs(45);
/// The oldest version that the tests run on.
const OLDEST_MINOR: u32 = 20;

/// Checks everything and writes a line for each finding. True if jobs can run.
pub fn run(config: &Config, place: &Place, out: &mut dyn Write) -> bool {
    let mut report = Report::new(out);
    report.add(configuration(config));
    for warning in &config.warnings {
        let advice = "Everything else of the configuration counts";
        report.add(Finding::warning("configuration", warning, advice));
    }
    report.add_all(state(config));
    // Nobody will ask for the numbers of these few calls.
    let metrics = Metrics::new(&[]);
    let queue = QueueClient::new(config.queue.clone(), &place.host, &metrics);
    report.add(frontend::judge(&queue.check_token(), &config.queue));
    check_cluster(config, place, &metrics, &mut report);
    report.finish()
}

/// Why nothing can be got from Sourcegraph, and what to do about it; none if it
/// takes our credentials, or is too old to be asked.
pub(crate) fn frontend_problem(queue: &QueueClient, settings: &QueueSettings) -> Option<String> {
    let finding = frontend::judge(&queue.check_token(), settings);
    let is_failed = finding.state == State::Failed;
    is_failed.then(|| format!("{}. {}", finding.result, finding.advice))
}

/// Reports the faults of a configuration, without which nothing can be
/// checked. False, as jobs cannot run.
pub fn refuse(errors: &ConfigErrors, out: &mut dyn Write) -> bool {
    let mut report = Report::new(out);
    for error in &errors.0 {
        let advice = "Correct this first: without it nothing else can be checked";
        report.add(Finding::failed("configuration", error.to_string(), advice));
    }
    report.finish()
}

fn configuration(config: &Config) -> Finding {
    let jobs = match config.workers {
        1 => "1 job".to_string(),
        count => format!("{count} jobs"),
    };
    Finding::ok(
        "configuration",
        format!(
            "{}, {jobs} at once, in namespace {}",
            config.queue.queues, config.cluster.namespace
        ),
    )
}

/// Whether running jobs outlive the executor, where that is asked for.
fn state(config: &Config) -> Option<Finding> {
    const SUBJECT: &str = "state";
    match state::base(&config.state, config.hands_over) {
        Ok(None) => None,
        Ok(Some(path)) => {
            let found = format!("{} keeps running jobs over a crash", path.display());
            Some(Finding::ok(SUBJECT, found))
        }
        Err(error) => {
            let advice = "Give the executor's user the right to write there, by an fsGroup perhaps";
            Some(Finding::failed(SUBJECT, error.to_string(), advice))
        }
    }
}

fn check_cluster(config: &Config, place: &Place, metrics: &Metrics, report: &mut Report<'_>) {
    let unreached = |report: &mut Report<'_>, finding: Finding| {
        report.add(finding);
        report.add(left_out(
            "everything in the cluster",
            "it cannot be reached",
        ));
    };
    let cluster = match KubeCluster::new(&config.cluster, &metrics.cluster) {
        Ok(cluster) => cluster,
        Err(error) => return unreached(report, unreachable(&error, "")),
    };
    let inspector = cluster.inspect(CLUSTER_LIMIT);
    match inspector.version() {
        Ok(version) => {
            report.add(reached(&version, cluster.server()));
            let checks = ClusterChecks {
                config,
                place,
                inspector,
                version,
            };
            checks.run(report);
        }
        Err(error) => unreached(report, unreachable(&error, cluster.server())),
    }
}

fn reached(version: &ServerVersion, server: &str) -> Finding {
    let found = format!("Kubernetes {} at {server}", version.name);
    match version.minor < OLDEST_MINOR {
        true => Finding::warning(
            "cluster",
            format!("{found}, older than all versions that this program is tested with"),
            format!("Use Kubernetes 1.{OLDEST_MINOR} or later"),
        ),
        false => Finding::ok("cluster", found),
    }
}

fn unreachable(error: &ClusterError, server: &str) -> Finding {
    let (result, advice) = match &error.kind {
        ClusterErrorKind::Configuration(_) => (
            error.to_string(),
            "Correct the kubeconfig; inside of a cluster, let the Pod mount the token \
             of a service account (automountServiceAccountToken)",
        ),
        ClusterErrorKind::Unreachable(cause) => (
            format!("no answer from the Kubernetes API at {server}: {cause}"),
            "Check the server and the certificate in the kubeconfig, or, inside of a cluster, \
             that no NetworkPolicy keeps the executor from the Kubernetes API",
        ),
        ClusterErrorKind::Busy { .. } => (format!("{server}: {error}"), "Check again later"),
        ClusterErrorKind::Refused { .. } => (
            format!("{server}: {error}"),
            "Check that this is the address of a Kubernetes API, and the credentials",
        ),
    };
    Finding::failed("cluster", result, advice)
}

/// What is not checked is said to be.
fn left_out(subject: &'static str, reason: &str) -> Finding {
    let advice = "Correct that and check again";
    Finding::unknown(subject, format!("not checked, as {reason}"), advice)
}

/// The checks of a cluster that answers.
struct ClusterChecks<'a> {
    config: &'a Config,
    place: &'a Place,
    inspector: Inspector<'a>,
    version: ServerVersion,
}

impl ClusterChecks<'_> {
    fn run(&self, report: &mut Report<'_>) {
        let namespace = self.namespace();
        let labels = self.inspector.namespace_labels();
        if let Err(error) = &labels
            && error.is_not_found()
        {
            report.add(Finding::failed(
                "namespace",
                format!("there is no namespace {namespace}"),
                format!(
                    "Create it: kubectl create namespace {namespace}; or set \
                     EXECUTOR_KUBERNETES_NAMESPACE"
                ),
            ));
            report.add(left_out("everything in the namespace", "it does not exist"));
            return;
        }
        let may_create = self.permissions(report);
        let own_pod = self.own_pod();
        report.add(image(&self.config.job, own_pod.as_ref()));
        let plan = sample::sample(self.config, self.place, own_pod.as_ref());
        let demand = demand(&plan);
        let is_full = self.room(&demand, report);
        let answers = match may_create {
            true => self.dry_run(&plan),
            false => Vec::new(),
        };
        match may_create {
            true => report.add_all(admission::judge(&answers, is_full)),
            false => report.add(left_out("dry run", "creating is not allowed")),
        }
        // The Job is the last, and Pod Security speaks of no other object.
        let job = answers.last().and_then(|answer| answer.as_ref().ok());
        let security = Security {
            namespace,
            labels: labels.as_ref().ok(),
            warnings: job.map(Vec::as_slice),
            fulfilled: security_level(&plan),
            minor: self.version.minor,
        };
        report.add(security.judge());
        self.supplies(&demand, report);
    }

    fn namespace(&self) -> &str {
        &self.config.cluster.namespace
    }

    /// True if nothing speaks against a dry run.
    fn permissions(&self, report: &mut Report<'_>) -> bool {
        let permissions = access::permissions();
        match self.inspector.allowed(&permissions) {
            Ok(allowed) => {
                let (findings, may_create) = access::judge(&allowed, self.namespace());
                report.add_all(findings);
                may_create
            }
            Err(error) => {
                report.add(access::not_told(&error, self.namespace()));
                true
            }
        }
    }

    fn own_pod(&self) -> Option<OwnPod> {
        let namespace = self.place.namespace.as_deref()?;
        self.inspector.own_pod(namespace, &self.place.host).ok()
    }

    /// Room by quotas, limit ranges and nodes. True if a quota of objects has
    /// no room now, which a dry run meets too.
    fn room(&self, demand: &Demand, report: &mut Report<'_>) -> bool {
        let namespace = self.namespace();
        let (limits, quotas) = (self.inspector.limits(), self.inspector.quotas());
        let need = Need::new(demand, limits.as_deref().unwrap_or_default());
        report.add(limits::judge(&limits, &need, namespace));
        let jobs = Jobs {
            need: &need,
            knows_defaults: limits.is_ok(),
            count: self.config.workers,
        };
        report.add_all(quota::judge(&quotas, &jobs, namespace));
        // Hardly any executor may list nodes, and none has to.
        if let Ok(nodes) = self.inspector.nodes() {
            report.add(nodes::judge(&nodes, &need));
        }
        quotas.is_ok_and(|quotas| quota::is_full_of_objects(&quotas, &need))
    }

    /// What the API server says to the objects of a job, in the order in which
    /// they are created.
    fn dry_run(&self, plan: &Plan) -> Vec<Answer> {
        let secrets = plan.secrets.iter();
        let secrets = secrets.map(|secret| self.inspector.dry_run_secret(secret));
        let job = std::iter::once_with(|| self.inspector.dry_run_job(&plan.job));
        secrets.chain(job).collect()
    }

    fn supplies(&self, demand: &Demand, report: &mut Report<'_>) {
        for name in &self.config.job.pull_secrets {
            let found = self.inspector.secret_type(name);
            report.add(supplies::pull_secret(name, &found, self.namespace()));
        }
        if !demand.claims.is_empty() {
            let found = self.inspector.default_storage_class();
            report.add(supplies::storage_class(&found));
        }
    }
}

/// Which image makes workspaces, and how we know.
fn image(settings: &JobSettings, own_pod: Option<&OwnPod>) -> Finding {
    const SUBJECT: &str = "workspace image";
    let image = workspace_image(settings, own_pod);
    if settings.workspace_image.is_some() {
        return Finding::ok(SUBJECT, format!("{image}, by EXECUTOR_WORKSPACE_IMAGE"));
    }
    match own_pod {
        Some(_) => Finding::ok(SUBJECT, format!("{image}, the one of this Pod")),
        None => Finding::warning(
            SUBJECT,
            format!("{image}, as there is no Pod of our own to read another one from"),
            "Set EXECUTOR_WORKSPACE_IMAGE to this executor's image, by a name that nodes can pull",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_warned_of() {
        for (minor, state) in [(19, State::Warning), (20, State::Ok), (34, State::Ok)] {
            let version = ServerVersion {
                name: format!("v1.{minor}.1"),
                minor,
            };
            let found = reached(&version, "https://10.96.0.1");
            assert_eq!(found.state, state, "{found}");
            assert!(found.result.contains(&version.name), "{found}");
        }
    }

    #[test]
    fn the_workspace_image_comes_from_somewhere() {
        let settings = |image: &str| {
            let config = Config::from_lookup(|name| {
                let value = match name {
                    "EXECUTOR_QUEUE_NAME" => "batches",
                    "EXECUTOR_FRONTEND_URL" => "http://sourcegraph.example.org",
                    "EXECUTOR_FRONTEND_PASSWORD" => "hunter2",
                    "EXECUTOR_WORKSPACE_IMAGE" => image,
                    _ => return None,
                };
                Some(value.to_string())
            });
            config.unwrap().job
        };
        let pod = OwnPod {
            image: "registry.example.org/executor:1".to_string(),
            has_one_executor: true,
            pull_secrets: Vec::new(),
            owner: Default::default(),
        };
        for (configured, pod, state, expected) in [
            ("mine", Some(&pod), State::Ok, "mine, by"),
            ("", Some(&pod), State::Ok, "executor:1, the one of this Pod"),
            ("", None, State::Warning, "sourcegraph/executor:"),
        ] {
            let found = image(&settings(configured), pod);
            assert_eq!(found.state, state, "{found}");
            assert!(found.result.contains(expected), "{found}");
        }
    }
}
