//! How much of everything one job takes, counted as Kubernetes counts it.

use std::collections::BTreeMap;

use crate::cluster::demand::{ContainerDemand, Demand};
use crate::cluster::inventory::{Amounts, LimitItem, LimitKind};
use crate::config::parse::quantity;

/// One of something, in billionths.
pub(super) const ONE: u128 = 1_000_000_000;

/// Name of a resource → amount, in billionths.
pub(super) type Sums = BTreeMap<String, u128>;

/// What a job takes, with the defaults of its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// Number of Secrets.
    pub(super) secrets: usize,
    /// Sizes of the claimed volumes, in billionths of a byte.
    pub(super) claims: Vec<u128>,
    /// Each container of the pod.
    pub(super) containers: Vec<ContainerNeed>,
}

/// What a container takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContainerNeed {
    /// Its name.
    pub(super) name: String,
    is_init: bool,
    /// The most that it may have.
    pub(super) limits: Sums,
    /// What is reserved for it.
    pub(super) requests: Sums,
}

impl Need {
    /// What a demand comes to where these limit ranges are.
    pub(super) fn new(demand: &Demand, items: &[LimitItem]) -> Need {
        let containers = demand.containers.iter();
        let size = |claim: &String| quantity(claim).ok();
        Need {
            secrets: demand.secrets,
            claims: demand.claims.iter().filter_map(size).collect(),
            containers: containers.map(|it| container(it, items)).collect(),
        }
    }

    /// What the pod may have at most.
    pub(super) fn limits(&self) -> Sums {
        self.total(|container| &container.limits)
    }

    /// What is reserved for the pod.
    pub(super) fn requests(&self) -> Sums {
        self.total(|container| &container.requests)
    }

    /// Init containers run one after another and before the others, which run
    /// together.
    fn total(&self, part: impl Fn(&ContainerNeed) -> &Sums) -> Sums {
        let mut together = Sums::new();
        for container in self.containers.iter().filter(|it| !it.is_init) {
            for (name, amount) in part(container) {
                *together.entry(name.clone()).or_default() += amount;
            }
        }
        for container in self.containers.iter().filter(|it| it.is_init) {
            for (name, amount) in part(container) {
                let most = together.entry(name.clone()).or_default();
                *most = (*most).max(*amount);
            }
        }
        together
    }

    /// What a quota would charge, by the names that quotas use.
    pub(super) fn charges(&self) -> Sums {
        let mut charges = Sums::new();
        let mut charge = |name: &str, amount: u128| charges.insert(name.to_string(), amount);
        for name in ["pods", "count/pods", "count/jobs.batch"] {
            charge(name, ONE);
        }
        for name in ["secrets", "count/secrets"] {
            charge(name, self.secrets as u128 * ONE);
        }
        for name in ["persistentvolumeclaims", "count/persistentvolumeclaims"] {
            charge(name, self.claims.len() as u128 * ONE);
        }
        charge("requests.storage", self.claims.iter().sum());
        for (name, amount) in self.requests() {
            charge(&name, amount);
            charge(&format!("requests.{name}"), amount);
        }
        for (name, amount) in self.limits() {
            charge(&format!("limits.{name}"), amount);
        }
        charges
    }
}

fn container(demand: &ContainerDemand, items: &[LimitItem]) -> ContainerNeed {
    let mut limits = sums(&demand.limits);
    let mut requests = sums(&demand.requests);
    // A limit without a request is both.
    add_missing(&mut requests, &limits);
    for item in items.iter().filter(|it| it.kind == LimitKind::Container) {
        add_missing(&mut requests, &sums(&item.default_request));
        add_missing(&mut limits, &sums(&item.default));
    }
    ContainerNeed {
        name: demand.name.clone(),
        is_init: demand.is_init,
        limits,
        requests,
    }
}

fn add_missing(to: &mut Sums, from: &Sums) {
    for (name, amount) in from {
        to.entry(name.clone()).or_insert(*amount);
    }
}

/// Quantities as numbers. What cannot be read is left out: the API server
/// gives none that cannot, and our own were checked at the start.
pub(super) fn sums(amounts: &Amounts) -> Sums {
    let read = |(name, text): (&String, &String)| Some((name.clone(), quantity(text).ok()?));
    amounts.iter().filter_map(read).collect()
}

/// An amount of a resource as people write it.
pub(super) fn shown(resource: &str, amount: u128) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
    let (whole, part) = (amount / ONE, amount % ONE);
    if part > 0 {
        return format!("{}m", amount.div_ceil(ONE / 1000));
    }
    let is_bytes = resource.ends_with("memory") || resource.ends_with("storage");
    let unit = UNITS
        .iter()
        .find(|(shift, _)| is_bytes && whole > 0 && whole.trailing_zeros() >= *shift);
    match unit {
        Some((shift, name)) => format!("{}{name}", whole >> shift),
        None => whole.to_string(),
    }
}

/// The settings that decide how much of a resource a job takes.
pub(super) fn variables(resource: &str) -> &'static str {
    match resource.rsplit('.').next().unwrap_or_default() {
        "memory" if resource.starts_with("limits") => "EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY",
        "memory" => "EXECUTOR_KUBERNETES_RESOURCE_REQUEST_MEMORY",
        "cpu" if resource.starts_with("limits") => "EXECUTOR_KUBERNETES_RESOURCE_LIMIT_CPU",
        "cpu" => "EXECUTOR_KUBERNETES_RESOURCE_REQUEST_CPU",
        "storage" => "KUBERNETES_JOB_VOLUME_SIZE",
        _ => "",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn amounts(pairs: &[(&str, &str)]) -> Amounts {
        let pairs = pairs.iter();
        pairs
            .map(|(name, text)| (name.to_string(), text.to_string()))
            .collect()
    }

    /// A job of a set-up container and a step, each with these resources.
    pub(crate) fn demand(limits: &[(&str, &str)], requests: &[(&str, &str)]) -> Demand {
        let container = |name: &str, is_init| ContainerDemand {
            name: name.to_string(),
            is_init,
            limits: amounts(limits),
            requests: amounts(requests),
        };
        Demand {
            secrets: 1,
            containers: vec![container("setup-workspace", true), container("step", false)],
            claims: Vec::new(),
        }
    }

    pub(crate) fn item(kind: LimitKind) -> LimitItem {
        LimitItem {
            range: "range".to_string(),
            kind,
            min: Amounts::new(),
            max: Amounts::new(),
            ratio: Amounts::new(),
            default: Amounts::new(),
            default_request: Amounts::new(),
        }
    }

    #[test]
    fn a_pod_takes_its_largest_moment() {
        let mut demand = demand(&[], &[("memory", "1Gi"), ("cpu", "100m")]);
        demand.containers[0].requests = amounts(&[("memory", "3Gi")]);
        demand.containers.push(demand.containers[1].clone());
        let requests = Need::new(&demand, &[]).requests();
        assert_eq!(shown("memory", requests["memory"]), "3Gi");
        assert_eq!(shown("cpu", requests["cpu"]), "200m");
    }

    #[test]
    fn limits_stand_in_for_requests() {
        let need = Need::new(&demand(&[("memory", "2Gi")], &[]), &[]);
        assert_eq!(need.requests(), need.limits());
    }

    #[test]
    fn defaults_fill_what_is_missing() {
        let mut item = item(LimitKind::Container);
        item.default = amounts(&[("cpu", "2"), ("memory", "9Gi")]);
        item.default_request = amounts(&[("cpu", "1")]);
        let need = Need::new(&demand(&[("memory", "2Gi")], &[]), &[item]);
        let (limits, requests) = (need.limits(), need.requests());
        assert_eq!(shown("memory", limits["memory"]), "2Gi");
        assert_eq!(shown("cpu", limits["cpu"]), "2");
        assert_eq!(shown("cpu", requests["cpu"]), "1");
    }

    #[test]
    fn a_job_is_charged_for_its_objects() {
        let mut demand = demand(&[("memory", "2Gi")], &[("memory", "1Gi")]);
        demand.claims = vec!["5Gi".to_string()];
        let charges = Need::new(&demand, &[]).charges();
        for (name, amount) in [
            ("pods", "1"),
            ("count/jobs.batch", "1"),
            ("secrets", "1"),
            ("count/secrets", "1"),
            ("persistentvolumeclaims", "1"),
            ("requests.storage", "5Gi"),
            ("memory", "1Gi"),
            ("requests.memory", "1Gi"),
            ("limits.memory", "2Gi"),
        ] {
            assert_eq!(shown(name, charges[name]), amount, "{name}");
        }
        assert!(!charges.contains_key("limits.cpu"));
    }

    #[test]
    fn amounts_read_as_they_were_written() {
        for (resource, text) in [
            ("requests.memory", "12Gi"),
            ("memory", "1536Mi"),
            ("memory", "1000"),
            ("cpu", "1500m"),
            ("pods", "1024"),
            ("pods", "0"),
            ("requests.storage", "2Ti"),
        ] {
            assert_eq!(shown(resource, quantity(text).unwrap()), text);
        }
    }
}
