//! Pieces of a pod's specification that people write themselves, as JSON in a
//! variable: where pods may run, and what is mounted into them.
//!
//! Read into the types of Kubernetes and checked as far as the API server's
//! answer would come too late: at the first job instead of at the start. An
//! error names the path of the field, and a field that Kubernetes does not
//! know is one, since it would be dropped without a word.

use std::collections::{BTreeMap, HashSet};

use k8s_openapi::api::core::v1 as core;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cluster::names::{SPEC_VOLUME, WORKSPACE, WORKSPACE_VOLUME, is_dns_label};
use crate::workspace::SPEC_DIR;

/// A list of one kind of piece; only this side of the project looks inside.
#[derive(Clone, Debug, PartialEq)]
pub struct List<T>(Vec<T>);

/// Terms of a node affinity: match expressions or match fields.
pub type NodeRequirements = List<core::NodeSelectorRequirement>;
/// Terms of a pod affinity or anti-affinity.
pub type PodTerms = List<core::PodAffinityTerm>;
/// Taints that pods tolerate.
pub type Tolerations = List<core::Toleration>;
/// Volumes beside our own.
pub type Volumes = List<core::Volume>;
/// Mounts of such volumes, in every container.
pub type Mounts = List<core::VolumeMount>;

impl<T> Default for List<T> {
    fn default() -> List<T> {
        List(Vec::new())
    }
}

impl<T> List<T> {
    /// Whether there are no pieces.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pieces, for the plan.
    pub(super) fn items(&self) -> &[T] {
        &self.0
    }
}

impl<T: Clone> List<T> {
    /// The pieces, or none where an empty list would mean something else.
    pub(super) fn to_option(&self) -> Option<Vec<T>> {
        (!self.is_empty()).then(|| self.0.clone())
    }
}

impl Volumes {
    /// Name of the first volume that is a directory of the node, which no Pod
    /// Security level but `privileged` allows.
    pub fn host_path(&self) -> Option<&str> {
        let volume = self.0.iter().find(|volume| volume.host_path.is_some());
        volume.map(|volume| volume.name.as_str())
    }
}

impl Mounts {
    /// Name of the first volume that is mounted though nobody defines it.
    pub fn without_volume(&self, volumes: &Volumes) -> Option<&str> {
        let is_defined =
            |mount: &&core::VolumeMount| volumes.0.iter().any(|volume| volume.name == mount.name);
        let missing = self.0.iter().find(|mount| !is_defined(mount));
        missing.map(|mount| mount.name.as_str())
    }
}

/// Reads match expressions or match fields of a node affinity.
pub fn node_requirements(text: &str) -> Result<NodeRequirements, String> {
    read(text, |requirement: &core::NodeSelectorRequirement| {
        must_be_set("key", &requirement.key)?;
        let operators = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];
        must_be_one_of("operator", &requirement.operator, &operators)
    })
}

/// Reads terms of a pod affinity or anti-affinity.
pub fn pod_terms(text: &str) -> Result<PodTerms, String> {
    read(text, |term: &core::PodAffinityTerm| {
        if term.topology_key.is_empty() {
            return Err(("topologyKey", "must contain a topologyKey".to_owned()));
        }
        Ok(())
    })
}

/// Reads tolerations.
pub fn tolerations(text: &str) -> Result<Tolerations, String> {
    read(text, |toleration: &core::Toleration| {
        if let Some(operator) = &toleration.operator {
            must_be_one_of("operator", operator, &["Exists", "Equal"])?;
        }
        if let Some(effect) = &toleration.effect {
            let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
            must_be_one_of("effect", effect, &effects)?;
        }
        Ok(())
    })
}

/// Reads volumes. Their names must not meet each other or ours.
pub fn volumes(text: &str) -> Result<Volumes, String> {
    let volumes = read(text, |volume: &core::Volume| {
        if !is_dns_label(&volume.name) {
            let problem = "must be up to 63 of a-z, 0-9 and -, with no - at either end";
            return Err(("name", problem.to_owned()));
        }
        if [WORKSPACE_VOLUME, SPEC_VOLUME].contains(&volume.name.as_str()) {
            let problem = format!("must not be {}, which is the executor's own", volume.name);
            return Err(("name", problem));
        }
        Ok(())
    })?;
    let mut names = HashSet::new();
    let repeated = volumes
        .0
        .iter()
        .position(|volume| !names.insert(&volume.name));
    match repeated {
        Some(index) => Err(at(&format!("[{index}].name"), "stands for two volumes")),
        None => Ok(volumes),
    }
}

/// Reads mounts. None may hide what a job works on.
pub fn mounts(text: &str) -> Result<Mounts, String> {
    let mounts = read(text, |mount: &core::VolumeMount| {
        must_be_set("name", &mount.name)?;
        let path = mount.mount_path.trim_end_matches('/');
        if !mount.mount_path.starts_with('/') || path.is_empty() {
            return Err(("mountPath", "must be an absolute path below /".to_owned()));
        }
        let hides = |own: &str| path == own || own.starts_with(&format!("{path}/"));
        if hides(WORKSPACE) || hides(SPEC_DIR) {
            let problem = format!("must not hide {WORKSPACE} or {SPEC_DIR}");
            return Err(("mountPath", problem));
        }
        Ok(())
    })?;
    let mut paths = HashSet::new();
    let repeated = mounts
        .0
        .iter()
        .position(|mount| !paths.insert(mount.mount_path.trim_end_matches('/')));
    match repeated {
        Some(index) => Err(at(&format!("[{index}].mountPath"), "stands for two mounts")),
        None => Ok(mounts),
    }
}

/// Reads annotations: a JSON object of texts.
pub fn annotations(text: &str) -> Result<BTreeMap<String, String>, String> {
    let value = json(text)?;
    let annotations: BTreeMap<String, String> =
        serde_path_to_error::deserialize(value).map_err(|error| wrong(&error))?;
    match annotations.keys().find(|key| !is_qualified_name(key)) {
        Some(key) => Err(at(
            &format!("{key:?}"),
            "is no annotation: its name is up to 63 letters, digits, -, _ and ., after an \
             optional prefix that is a DNS name and a slash",
        )),
        None => Ok(annotations),
    }
}

fn is_qualified_name(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let is_dns_name = |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(is_dns_label);
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    prefix.is_none_or(is_dns_name)
        && (1..=63).contains(&name.len())
        && name.chars().all(allowed)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
}

/// Reads a list and checks each piece; a check gives field and problem.
fn read<T>(
    text: &str,
    check: impl Fn(&T) -> Result<(), (&'static str, String)>,
) -> Result<List<T>, String>
where
    T: DeserializeOwned + Serialize,
{
    let value = json(text)?;
    let items: Vec<T> = serde_path_to_error::deserialize(&value).map_err(|error| wrong(&error))?;
    let understood = serde_json::to_value(&items).map_err(|error| error.to_string())?;
    if let Some(path) = lost_field(&value, &understood, "") {
        return Err(at(&path, "is a field that Kubernetes does not know"));
    }
    for (index, item) in items.iter().enumerate() {
        check(item).map_err(|(field, problem)| at(&format!("[{index}].{field}"), &problem))?;
    }
    Ok(List(items))
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))
}

fn wrong(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let path = match error.path().to_string().as_str() {
        "." => "the top".to_owned(),
        path => format!("`{path}`"),
    };
    format!("is wrong at {path}: {}", error.inner())
}

fn at(path: &str, problem: &str) -> String {
    format!("is wrong at `{path}`: {problem}")
}

fn must_be_set(field: &'static str, value: &str) -> Result<(), (&'static str, String)> {
    match value.is_empty() {
        true => Err((field, "must be set".to_owned())),
        false => Ok(()),
    }
}

fn must_be_one_of(
    field: &'static str,
    value: &str,
    allowed: &[&str],
) -> Result<(), (&'static str, String)> {
    match allowed.contains(&value) {
        true => Ok(()),
        false => Err((field, format!("must be one of '{}'", allowed.join(", ")))),
    }
}

/// Path of the first field that was written and not understood.
fn lost_field(written: &Value, understood: &Value, path: &str) -> Option<String> {
    match (written, understood) {
        (Value::Object(written), Value::Object(understood)) => {
            written.iter().find_map(|(name, value)| {
                let path = match path {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                match understood.get(name) {
                    Some(known) => lost_field(value, known, &path),
                    // A field without a value is left out on the way.
                    None => (!value.is_null()).then_some(path),
                }
            })
        }
        (Value::Array(written), Value::Array(understood)) => written
            .iter()
            .zip(understood)
            .enumerate()
            .find_map(|(index, (value, known))| {
                lost_field(value, known, &format!("{path}[{index}]"))
            }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus;

    #[test]
    fn the_path_of_a_wrong_field_is_named() {
        let cases: [(Result<(), String>, &str); 15] = [
            (node_requirements("[").map(drop), "is not JSON"),
            (node_requirements("{}").map(drop), "at the top"),
            (
                node_requirements(r#"[{"key":"a","operator":"In","values":"b"}]"#).map(drop),
                "`[0].values`",
            ),
            (
                node_requirements(r#"[{"key":"a","operator":"is"}]"#).map(drop),
                "`[0].operator`: must be one of 'In, NotIn",
            ),
            (
                node_requirements(r#"[{"operator":"Exists"}]"#).map(drop),
                "`[0].key`: must be set",
            ),
            (
                pod_terms(r#"[{"topologyKey":"a"},{"labelSelector":{}}]"#).map(drop),
                "`[1].topologyKey`: must contain a topologyKey",
            ),
            (
                pod_terms(r#"[{"topologyKey":"a","labelSelector":{"matchLabel":{}}}]"#).map(drop),
                "`[0].labelSelector.matchLabel`: is a field that Kubernetes does not know",
            ),
            (
                tolerations(r#"[{"key":"a","effect":"Never"}]"#).map(drop),
                "`[0].effect`: must be one of",
            ),
            (
                tolerations(r#"[{"tolerationSeconds":"x"}]"#).map(drop),
                "`[0].tolerationSeconds`",
            ),
            (
                volumes(r#"[{"name":"job-data","emptyDir":{}}]"#).map(drop),
                "the executor's own",
            ),
            (
                volumes(r#"[{"name":"A","emptyDir":{}}]"#).map(drop),
                "`[0].name`",
            ),
            (
                volumes(r#"[{"name":"a","emptyDir":{}},{"name":"a","emptyDir":{}}]"#).map(drop),
                "`[1].name`: stands for two volumes",
            ),
            (
                mounts(r#"[{"name":"a","mountPath":"/job/"}]"#).map(drop),
                "must not hide /job",
            ),
            (
                mounts(r#"[{"name":"a","mountPath":"certs"}]"#).map(drop),
                "`[0].mountPath`: must be an absolute path",
            ),
            (annotations(r#"{"a":1}"#).map(drop), "`a`"),
        ];
        for (result, expected) in cases {
            let problem = result.expect_err(expected);
            assert!(problem.contains(expected), "{problem} lacks {expected}");
        }
    }

    #[test]
    fn everything_that_kubernetes_knows_is_taken() {
        let term = r#"[{"labelSelector":{"matchExpressions":[{"key":"app","operator":"In",
            "values":["executor"]}]},"namespaces":["a"],"topologyKey":"kubernetes.io/hostname"}]"#;
        assert_eq!(pod_terms(term).unwrap().items().len(), 1);
        let volume = r#"[{"name":"ca","configMap":{"name":"ca","items":[{"key":"a","path":"b"}],
            "optional":null}},{"name":"c","persistentVolumeClaim":{"claimName":"c"}}]"#;
        assert_eq!(volumes(volume).unwrap().items().len(), 2);
        let toleration = r#"[{"key":"a","operator":"Equal","value":"b","effect":"NoExecute",
            "tolerationSeconds":5},{"operator":"Exists"}]"#;
        assert_eq!(tolerations(toleration).unwrap().items().len(), 2);
        let keys = annotations(r#"{"a":"b","sidecar.istio.io/inject":"false"}"#).unwrap();
        assert_eq!(keys.len(), 2);
        assert!(annotations(r#"{"/x":"b"}"#).is_err());
    }

    #[test]
    fn mounts_without_a_volume_are_found() {
        let known = volumes(r#"[{"name":"a","emptyDir":{}}]"#).unwrap();
        let text = r#"[{"name":"a","mountPath":"/a"},{"name":"b","mountPath":"/b"}]"#;
        assert_eq!(mounts(text).unwrap().without_volume(&known), Some("b"));
    }

    #[test]
    fn whatever_json_is_set_is_read_or_refused() {
        corpus::feed("fragments", |bytes| {
            let text = &*String::from_utf8_lossy(bytes);
            let _ = (node_requirements(text), pod_terms(text), tolerations(text));
            let _ = (volumes(text), annotations(text));
            for mount in mounts(text).unwrap_or_default().items() {
                let path = format!("{}/", mount.mount_path.trim_end_matches('/'));
                let hides = format!("{WORKSPACE}/").starts_with(&path);
                assert!(!hides, "{text} hides the workspace");
            }
        });
    }
}
