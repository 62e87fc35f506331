//! The smallest job, planned as a real one would be.

use std::collections::BTreeMap;

use crate::cluster::client::OwnPod;
use crate::cluster::names::{random_suffix, run_name};
use crate::cluster::plan::Plan;
use crate::config::Config;
use crate::daemon::{Place, planner};
use crate::job::{Job, Registries, Repository, Step};
use crate::logs::redact::Redactions;
use crate::worker::planner::{Access, Tie};

/// Plans a job of one step by the settings that real jobs get. The token is
/// none: nobody needs to see ours for this.
pub(super) fn sample(config: &Config, place: &Place, own_pod: Option<&OwnPod>) -> Plan {
    let queue = config.queue.queues.names().first();
    let queue = queue.map_or("", String::as_str);
    let (namespace, who) = (
        &config.cluster.namespace,
        (place.host.clone(), Tie::Process),
    );
    let planner = planner(config.job.clone(), place, namespace, own_pod.cloned(), who);
    let access = Access {
        url: config.queue.frontend_url.clone(),
        authorization: "Bearer sample".to_string(),
    };
    let redactions = Redactions::new(&BTreeMap::new());
    let run = run_name(queue, 0, &random_suffix());
    planner.plan(
        &job(queue, &planner.workspace_image),
        &access,
        &redactions,
        &run,
    )
}

fn job(queue: &str, image: &str) -> Job {
    Job {
        queue: queue.to_string(),
        id: 0,
        token: None,
        repository: Some(Repository {
            name: "sample".to_string(),
            directory: "repository".to_string(),
            commit: "0".repeat(40),
            fetch_tags: false,
            shallow: true,
            sparse_checkout: Vec::new(),
        }),
        files: Vec::new(),
        steps: vec![Step {
            key: "step.0.run".to_string(),
            image: image.to_string(),
            commands: vec!["true".to_string()],
            dir: String::new(),
            env: Vec::new(),
        }],
        has_cli_steps: false,
        redacted_values: BTreeMap::new(),
        registries: Registries::default(),
    }
}
