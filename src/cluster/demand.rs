//! What the objects of a job ask of their namespace, as plain values. Pure.

use k8s_openapi::api::core::v1 as core;

use crate::cluster::inventory::{Amounts, amounts};
use crate::cluster::plan::Plan;

/// What one job asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Number of Secrets.
    pub secrets: usize,
    /// The containers of its pod.
    pub containers: Vec<ContainerDemand>,
    /// Sizes of the volumes that are claimed, each from the default storage class.
    pub claims: Vec<String>,
}

/// What one container asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerDemand {
    /// Its name.
    pub name: String,
    /// Whether it runs alone, before the others.
    pub is_init: bool,
    /// The most that it may have.
    pub limits: Amounts,
    /// What is reserved for it.
    pub requests: Amounts,
}

/// Levels of the Pod Security standards, the strictest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecurityLevel {
    /// Everything is allowed.
    Privileged,
    /// What gives a pod power over its node is not.
    Baseline,
    /// What is good practice is asked for.
    Restricted,
}

impl SecurityLevel {
    /// The level of this name.
    pub fn named(name: &str) -> Option<SecurityLevel> {
        match name {
            "privileged" => Some(SecurityLevel::Privileged),
            "baseline" => Some(SecurityLevel::Baseline),
            "restricted" => Some(SecurityLevel::Restricted),
            _ => None,
        }
    }
}

/// What a plan asks for.
pub fn demand(plan: &Plan) -> Demand {
    let spec = pod(plan);
    let init = spec.init_containers.iter().flatten();
    let init = init.map(|container| container_demand(container, true));
    let main = spec.containers.iter();
    let main = main.map(|container| container_demand(container, false));
    Demand {
        secrets: plan.secrets.len(),
        containers: init.chain(main).collect(),
        claims: spec.volumes.iter().flatten().filter_map(claim).collect(),
    }
}

/// The strictest level that the pod of a plan fulfils.
pub fn security_level(plan: &Plan) -> SecurityLevel {
    let spec = pod(plan);
    let volumes = || spec.volumes.iter().flatten();
    if spec.host_network == Some(true) || volumes().any(|volume| volume.host_path.is_some()) {
        return SecurityLevel::Privileged;
    }
    let init = spec.init_containers.iter().flatten();
    let all_are = init
        .chain(&spec.containers)
        .all(|container| is_restricted(container, spec));
    match all_are && volumes().all(is_restricted_volume) {
        true => SecurityLevel::Restricted,
        false => SecurityLevel::Baseline,
    }
}

/// Whether a container fulfils what `restricted` asks for beside `baseline`,
/// as far as plans differ in it.
fn is_restricted(container: &core::Container, pod: &core::PodSpec) -> bool {
    let own = container.security_context.as_ref();
    let shared = pod.security_context.as_ref();
    let drops = own
        .and_then(|own| own.capabilities.as_ref())
        .and_then(|capabilities| capabilities.drop.as_ref());
    let drops_all = drops.is_some_and(|drops| drops.iter().any(|name| name == "ALL"));
    let non_root = own
        .and_then(|own| own.run_as_non_root)
        .or(shared.and_then(|shared| shared.run_as_non_root));
    let user = own
        .and_then(|own| own.run_as_user)
        .or(shared.and_then(|shared| shared.run_as_user));
    drops_all && non_root == Some(true) && user != Some(0)
}

fn is_restricted_volume(volume: &core::Volume) -> bool {
    volume.empty_dir.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some()
        || volume.config_map.is_some()
        || volume.downward_api.is_some()
        || volume.csi.is_some()
        || volume.ephemeral.is_some()
        || volume.persistent_volume_claim.is_some()
}

fn pod(plan: &Plan) -> &core::PodSpec {
    let spec = plan.job.spec.as_ref();
    spec.and_then(|spec| spec.template.spec.as_ref())
        .expect("every planned Job has a pod")
}

fn container_demand(container: &core::Container, is_init: bool) -> ContainerDemand {
    let resources = container.resources.clone().unwrap_or_default();
    ContainerDemand {
        name: container.name.clone(),
        is_init,
        limits: amounts(resources.limits),
        requests: amounts(resources.requests),
    }
}

fn claim(volume: &core::Volume) -> Option<String> {
    let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
    let requests = template.spec.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage").map(|size| size.0.clone())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::batch::v1 as batch;
    use serde_json::{Value, json};

    use super::*;

    /// A plan with one Secret and this pod.
    fn plan(spec: Value) -> Plan {
        let job = json!({"spec": {"template": {"spec": spec}}});
        let job: batch::Job = serde_json::from_value(job).unwrap();
        Plan {
            run: "run".to_string(),
            secrets: vec![core::Secret::default()],
            job,
            containers: Vec::new(),
        }
    }

    #[test]
    fn a_demand_has_everything_that_is_counted() {
        let plan = plan(json!({
            "initContainers": [{"name": "setup", "resources": {"limits": {"memory": "1Gi"}}}],
            "containers": [{"name": "step", "resources": {"requests": {"cpu": "2"}}}],
            "volumes": [
                {"name": "data", "ephemeral": {"volumeClaimTemplate": {"spec": {
                    "resources": {"requests": {"storage": "5Gi"}},
                }}}},
                {"name": "spec", "emptyDir": {}},
            ],
        }));
        let container = |name: &str, is_init| ContainerDemand {
            name: name.to_string(),
            is_init,
            ..ContainerDemand::default()
        };
        let mut setup = container("setup", true);
        setup.limits = [("memory".to_string(), "1Gi".to_string())].into();
        let mut step = container("step", false);
        step.requests = [("cpu".to_string(), "2".to_string())].into();
        let expected = Demand {
            secrets: 1,
            containers: vec![setup, step],
            claims: vec!["5Gi".to_string()],
        };
        assert_eq!(demand(&plan), expected);
    }

    #[test]
    fn the_weakest_part_of_a_pod_decides() {
        let good = json!({
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1000},
            "containers": [{
                "name": "step", "securityContext": {"capabilities": {"drop": ["ALL"]}},
            }],
            "volumes": [{"name": "data", "emptyDir": {}}],
        });
        let with = |pointer: &str, value: Value| {
            let mut spec = good.clone();
            *spec.pointer_mut(pointer).unwrap() = value;
            security_level(&plan(spec))
        };
        let restricted = SecurityLevel::Restricted;
        assert_eq!(with("/volumes/0/name", json!("other")), restricted);
        for (pointer, value, level) in [
            ("/securityContext", json!({}), SecurityLevel::Baseline),
            (
                "/securityContext/runAsUser",
                json!(0),
                SecurityLevel::Baseline,
            ),
            (
                "/containers/0/securityContext",
                json!({}),
                SecurityLevel::Baseline,
            ),
            (
                "/containers/0/securityContext",
                json!({"capabilities": {"drop": ["ALL"]}, "runAsUser": 0}),
                SecurityLevel::Baseline,
            ),
            (
                "/volumes/0",
                json!({"name": "x", "nfs": {"server": "s", "path": "/"}}),
                SecurityLevel::Baseline,
            ),
            (
                "/volumes/0",
                json!({"name": "x", "hostPath": {"path": "/"}}),
                SecurityLevel::Privileged,
            ),
        ] {
            assert_eq!(with(pointer, value.clone()), level, "{pointer}: {value}");
        }
    }

    #[test]
    fn levels_have_their_order() {
        let levels = ["privileged", "baseline", "restricted"].map(SecurityLevel::named);
        assert!(levels.is_sorted() && levels.iter().all(Option::is_some));
        assert_eq!(SecurityLevel::named("other"), None);
    }
}
