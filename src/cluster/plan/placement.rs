//! Where a pod may run: the rules of the configuration as Kubernetes wants
//! them. A rule that nobody set is left out, since an empty one means
//! something else or is refused.

use k8s_openapi::api::core::v1 as core;

use crate::cluster::fragments::PodTerms;
use crate::config::Placement;

/// All rules of affinity; none if there are none.
pub(super) fn affinity(placement: &Placement) -> Option<core::Affinity> {
    let affinity = core::Affinity {
        node_affinity: node_affinity(placement),
        pod_affinity: placement
            .pod_affinity
            .to_option()
            .map(|terms| core::PodAffinity {
                required_during_scheduling_ignored_during_execution: Some(terms),
                ..core::PodAffinity::default()
            }),
        pod_anti_affinity: anti_affinity(&placement.pod_anti_affinity),
    };
    (affinity != core::Affinity::default()).then_some(affinity)
}

/// Expressions and fields are one term, so that a node must fulfil them all.
fn node_affinity(placement: &Placement) -> Option<core::NodeAffinity> {
    let term = core::NodeSelectorTerm {
        match_expressions: placement.node_expressions.to_option(),
        match_fields: placement.node_fields.to_option(),
    };
    (term != core::NodeSelectorTerm::default()).then(|| core::NodeAffinity {
        required_during_scheduling_ignored_during_execution: Some(core::NodeSelector {
            node_selector_terms: vec![term],
        }),
        ..core::NodeAffinity::default()
    })
}

fn anti_affinity(terms: &PodTerms) -> Option<core::PodAntiAffinity> {
    terms.to_option().map(|terms| core::PodAntiAffinity {
        required_during_scheduling_ignored_during_execution: Some(terms),
        ..core::PodAntiAffinity::default()
    })
}
