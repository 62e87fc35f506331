//! What a namespace has and allows, as plain values: the answers of
//! `client/inspect.rs`, for rooms that know no Kubernetes types.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Name of a resource → quantity, as Kubernetes writes them, as in `memory` →
/// `12Gi`.
pub type Amounts = BTreeMap<String, String>;

/// One verb on one kind of objects in the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// API group; empty for the first one.
    pub group: &'static str,
    /// Plural name, with a subresource after a slash.
    pub resource: &'static str,
    /// What is done.
    pub verb: &'static str,
}

/// Version of an API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerVersion {
    /// Its full name, such as `v1.34.4`.
    pub name: String,
    /// The number after `1.`.
    pub minor: u32,
}

/// A ResourceQuota.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Its name.
    pub name: String,
    /// Pods must be in all of them to count; without any, everything counts.
    pub scopes: Vec<Scope>,
    /// Most of each resource.
    pub hard: Amounts,
    /// What is in use.
    pub used: Amounts,
}

/// A kind of pods that a quota counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Its name, such as `Terminating`.
    pub name: String,
    /// How the name is meant: `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
}

/// One item of a LimitRange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitItem {
    /// Name of the LimitRange.
    pub range: String,
    /// What it bounds.
    pub kind: LimitKind,
    /// Least of each resource.
    pub min: Amounts,
    /// Most of each resource.
    pub max: Amounts,
    /// Most that a limit may be of its request.
    pub ratio: Amounts,
    /// LimitItem of a container that names none.
    pub default: Amounts,
    /// Requests of a container that names none.
    pub default_request: Amounts,
}

/// What an item of a LimitRange bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// Each container.
    Container,
    /// A pod, all its containers together.
    Pod,
    /// Each claim of a volume.
    Claim,
    /// Something that jobs do not make.
    Other,
}

/// A node that takes pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What pods may have of it.
    pub allocatable: Amounts,
}

/// Quantities in the plain form.
pub(super) fn amounts(quantities: Option<BTreeMap<String, Quantity>>) -> Amounts {
    let all = quantities.into_iter().flatten();
    all.map(|(name, quantity)| (name, quantity.0)).collect()
}
