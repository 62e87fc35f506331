//! What the executor's account may do: every verb of our Role.

use crate::cluster::error::ClusterError;
use crate::cluster::inventory::Permission;
use crate::validate::finding::Finding;

const SUBJECT: &str = "permissions";

/// The verbs on one kind of objects.
struct Rule {
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
    /// Those without which no job runs.
    needed: &'static [&'static str],
    /// What is lost without the others.
    loss: &'static str,
}

/// What is lost without the optional rules.
const EXPLAINS: &str = "jobs that do not start are explained less well";

/// The rules of `manifests/base/role.yaml`: those of the released executor, and
/// two that are optional.
const RULES: [Rule; 6] = [
    Rule {
        group: "batch",
        resource: "jobs",
        verbs: &["create", "delete"],
        needed: &["create", "delete"],
        loss: "",
    },
    Rule {
        group: "",
        resource: "pods",
        verbs: &["get", "list", "watch"],
        needed: &["list", "watch"],
        loss: "the executor cannot find out its own image, nor leave its objects to its Pod",
    },
    Rule {
        group: "",
        resource: "pods/log",
        verbs: &["get", "list", "watch"],
        needed: &["get"],
        loss: "nothing of this version needs them, other versions may",
    },
    Rule {
        group: "",
        resource: "secrets",
        verbs: &["create", "delete"],
        needed: &["create", "delete"],
        loss: "",
    },
    Rule {
        group: "",
        resource: "events",
        verbs: &["list"],
        needed: &[],
        loss: EXPLAINS,
    },
    Rule {
        group: "batch",
        resource: "jobs",
        verbs: &["get"],
        needed: &[],
        loss: EXPLAINS,
    },
];

/// Everything to ask for.
pub(super) fn permissions() -> Vec<Permission> {
    RULES.iter().flat_map(Rule::permissions).collect()
}

/// What the answers to `permissions` mean, in the same order; and whether the
/// objects of a job may be created, which a dry run needs too.
pub(super) fn judge(allowed: &[bool], namespace: &str) -> (Vec<Finding>, bool) {
    let asked = permissions();
    let may = |resource: &str, verb: &str| {
        let mut answers = asked.iter().zip(allowed);
        answers.any(|(it, allowed)| *allowed && it.resource == resource && it.verb == verb)
    };
    if !allowed.contains(&true) {
        return (vec![nothing(namespace)], false);
    }
    let findings = RULES.iter().map(|rule| rule.judge(&may, namespace));
    let may_create = may("jobs", "create") && may("secrets", "create");
    (findings.collect(), may_create)
}

/// What it means that the question itself was refused.
pub(super) fn not_told(error: &ClusterError, namespace: &str) -> Finding {
    Finding::unknown(
        SUBJECT,
        error.to_string(),
        format!("Look: kubectl --namespace {namespace} auth can-i --list, as this account"),
    )
}

fn nothing(namespace: &str) -> Finding {
    Finding::failed(
        SUBJECT,
        format!("this account may do nothing in namespace {namespace}, which may not even exist"),
        format!(
            "Set EXECUTOR_KUBERNETES_NAMESPACE if that is the wrong one; look whether it exists \
             (kubectl get namespace {namespace}), and whether a RoleBinding in it gives this \
             account the Role of manifests/base/role.yaml (kubectl --namespace {namespace} \
             describe rolebindings)"
        ),
    )
}

impl Rule {
    fn permissions(&self) -> impl Iterator<Item = Permission> {
        self.verbs.iter().map(|verb| Permission {
            group: self.group,
            resource: self.resource,
            verb,
        })
    }

    fn judge(&self, may: &impl Fn(&str, &str) -> bool, namespace: &str) -> Finding {
        let (resource, all) = (self.resource, self.verbs.join(", "));
        let verbs = self.verbs.iter().copied();
        let missing: Vec<&str> = verbs.filter(|verb| !may(resource, verb)).collect();
        if missing.is_empty() {
            return Finding::ok(SUBJECT, format!("{resource}: {all}"));
        }
        let result = format!(
            "{resource}: {} not allowed in namespace {namespace}",
            missing.join(", ")
        );
        let advice = format!(
            "Add to the Role of this account in that namespace: {{apiGroups: [{:?}], resources: \
             [{resource}], verbs: [{all}]}}",
            self.group,
        );
        match missing.iter().any(|verb| self.needed.contains(verb)) {
            true => Finding::failed(SUBJECT, result, advice),
            false => Finding::warning(SUBJECT, format!("{result} ({})", self.loss), advice),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::finding::State;

    /// What is found when everything but these is allowed.
    fn without(refused: &[(&str, &str)]) -> (Vec<Finding>, bool) {
        let permissions = permissions();
        let allowed = permissions
            .iter()
            .map(|it| !refused.contains(&(it.resource, it.verb)));
        judge(&allowed.collect::<Vec<_>>(), "executor")
    }

    #[test]
    fn the_whole_role_leaves_nothing_to_say() {
        let (findings, may_create) = without(&[]);
        assert_eq!(findings.len(), RULES.len());
        assert!(findings.iter().all(|finding| finding.state == State::Ok));
        assert!(may_create);
    }

    #[test]
    fn every_needed_verb_is_missed() {
        for (resource, verb) in [
            ("jobs", "create"),
            ("jobs", "delete"),
            ("pods", "list"),
            ("pods", "watch"),
            ("pods/log", "get"),
            ("secrets", "create"),
            ("secrets", "delete"),
        ] {
            let (findings, may_create) = without(&[(resource, verb)]);
            assert_eq!(may_create, verb != "create", "{resource} {verb}");
            let failed: Vec<_> = findings
                .iter()
                .filter(|finding| finding.state == State::Failed)
                .collect();
            assert_eq!(failed.len(), 1, "{resource} {verb}");
            let expected = format!("{resource}: {verb} not allowed");
            assert!(failed[0].result.contains(&expected), "{}", failed[0]);
            let rule = format!("resources: [{resource}]");
            assert!(failed[0].advice.contains(&rule), "{}", failed[0]);
        }
    }

    #[test]
    fn verbs_that_nothing_needs_are_warned_of() {
        for (resource, verb) in [
            ("pods", "get"),
            ("pods/log", "list"),
            ("pods/log", "watch"),
            ("events", "list"),
            ("jobs", "get"),
        ] {
            let (findings, _) = without(&[(resource, verb)]);
            let states: Vec<_> = findings.iter().map(|finding| finding.state).collect();
            assert!(states.contains(&State::Warning), "{resource} {verb}");
            assert!(!states.contains(&State::Failed), "{resource} {verb}");
        }
    }

    #[test]
    fn nothing_allowed_is_one_finding() {
        let refused = vec![false; permissions().len()];
        let (findings, may_create) = judge(&refused, "elsewhere");
        assert_eq!(findings.len(), 1);
        assert!(findings[0].result.contains("namespace elsewhere"));
        assert!(!may_create);
    }
}
