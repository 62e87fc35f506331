//! What jobs draw on beside room: Secrets that pull their images, and a class
//! that their volumes come from.

use crate::cluster::error::ClusterError;
use crate::validate::finding::{Finding, no_answer};

/// Types of Secrets that the kubelet takes credentials from.
const PULL_TYPES: [&str; 2] = ["kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg"];

/// Whether a Secret of `KUBERNETES_IMAGE_PULL_SECRETS` is one that can pull,
/// by its type.
pub(super) fn pull_secret(
    name: &str,
    found: &Result<String, ClusterError>,
    namespace: &str,
) -> Finding {
    const SUBJECT: &str = "pull secret";
    let look = format!("kubectl --namespace {namespace} get secret {name}");
    let create = format!(
        "kubectl --namespace {namespace} create secret docker-registry {name}, or correct \
         KUBERNETES_IMAGE_PULL_SECRETS"
    );
    match found {
        Ok(kind) if PULL_TYPES.contains(&kind.as_str()) => {
            Finding::ok(SUBJECT, format!("{name} is there, of type {kind}"))
        }
        Ok(kind) => Finding::failed(
            SUBJECT,
            format!(
                "{name} is of type {kind}, which pulls nothing; it must be {}",
                PULL_TYPES[0]
            ),
            format!("Replace it: {create}"),
        ),
        Err(error) if error.is_not_found() => Finding::failed(
            SUBJECT,
            format!("there is no Secret {name} in namespace {namespace}"),
            format!("Create it: {create}"),
        ),
        Err(error) => Finding::unknown(
            SUBJECT,
            no_answer(&format!("get Secret {name}"), error),
            format!("Look: {look}; its type must be {}", PULL_TYPES[0]),
        ),
    }
}

/// Whether volumes that name no storage class will get one.
pub(super) fn storage_class(found: &Result<Option<String>, ClusterError>) -> Finding {
    const SUBJECT: &str = "storage class";
    match found {
        Ok(Some(name)) => Finding::ok(SUBJECT, format!("{name} is the default")),
        Ok(None) => Finding::failed(
            SUBJECT,
            "no StorageClass is the default, and the volumes of jobs name none",
            "Mark one: kubectl annotate storageclass NAME \
             storageclass.kubernetes.io/is-default-class=true; or set \
             KUBERNETES_JOB_VOLUME_TYPE=emptyDir",
        ),
        Err(error) => Finding::unknown(
            SUBJECT,
            no_answer("list storageclasses", error),
            "Look: kubectl get storageclasses; one must be the default",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::error::ClusterErrorKind;
    use crate::validate::finding::State;

    fn refused(status: u16) -> ClusterError {
        ClusterError {
            call: "read Secret".to_string(),
            kind: ClusterErrorKind::Refused {
                status,
                reason: String::new(),
                message: "no".to_string(),
            },
        }
    }

    #[test]
    fn a_pull_secret_must_be_of_its_type() {
        for (found, state) in [
            (Ok("kubernetes.io/dockerconfigjson".to_string()), State::Ok),
            (Ok("Opaque".to_string()), State::Failed),
            (Err(refused(404)), State::Failed),
            (Err(refused(403)), State::Unknown),
        ] {
            let finding = pull_secret("pull", &found, "executor");
            assert_eq!(finding.state, state, "{finding}");
            let command = "kubectl --namespace executor ";
            let has_command = finding.advice.contains(command);
            assert!(has_command || state == State::Ok, "{finding}");
        }
    }

    #[test]
    fn claims_need_a_default_class() {
        for (found, state) in [
            (Ok(Some("standard".to_string())), State::Ok),
            (Ok(None), State::Failed),
            (Err(refused(403)), State::Unknown),
        ] {
            assert_eq!(storage_class(&found).state, state);
        }
    }
}
