//! Whether there is a node that is large enough for the pod of a job.

use crate::cluster::inventory::Node;
use crate::validate::finding::Finding;
use crate::validate::need::{Need, Sums, shown, sums};

const SUBJECT: &str = "nodes";

/// What the nodes mean for a job that takes this much. Where jobs are told to
/// run is not looked at: the scheduler alone knows all its rules.
pub(super) fn judge(nodes: &[Node], need: &Need) -> Finding {
    let requests = need.requests();
    let fits = |node: &&Node| {
        let has = sums(&node.allocatable);
        let enough =
            |(name, amount): (&String, &u128)| has.get(name).is_some_and(|it| it >= amount);
        requests.iter().all(enough)
    };
    let total = nodes.len();
    let asked = format!("a job requests {}", listed(&requests));
    match nodes.iter().filter(fits).count() {
        0 => Finding::warning(
            SUBJECT,
            format!("none of {total} nodes is large enough, even when empty: {asked}"),
            "Lower EXECUTOR_KUBERNETES_RESOURCE_REQUEST_MEMORY or \
             EXECUTOR_KUBERNETES_RESOURCE_REQUEST_CPU, or add a larger node; a job waits for one \
             for 15 minutes",
        ),
        large => Finding::ok(
            SUBJECT,
            format!("{large} of {total} nodes are large enough: {asked}"),
        ),
    }
}

fn listed(requests: &Sums) -> String {
    let parts: Vec<String> = requests
        .iter()
        .map(|(name, amount)| format!("{} {name}", shown(name, *amount)))
        .collect();
    match parts.is_empty() {
        true => "nothing".to_string(),
        false => parts.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::finding::State;
    use crate::validate::need::tests::{amounts, demand};

    #[test]
    fn one_large_node_is_enough() {
        let node = |memory: &str| Node {
            name: memory.to_string(),
            allocatable: amounts(&[("memory", memory), ("cpu", "4")]),
        };
        let need = Need::new(&demand(&[], &[("memory", "12Gi")]), &[]);
        let found = judge(&[node("8Gi"), node("16Gi")], &need);
        assert_eq!(found.state, State::Ok);
        assert!(found.result.contains("1 of 2 nodes"), "{found}");
        let found = judge(&[node("8Gi")], &need);
        assert_eq!(found.state, State::Warning);
        assert!(found.result.contains("requests 12Gi memory"), "{found}");
    }
}
