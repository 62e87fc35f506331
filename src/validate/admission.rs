//! What the API server says to the objects of a job: a dry run of its Secrets
//! and its Job, and the Pod Security level of the namespace.
//!
//! Pod Security refuses pods, and a dry run makes none. But it warns of a Job
//! whose pod it would refuse: at the level of the namespace's `warn` label,
//! and from Kubernetes 1.26 on at that of its `enforce` label where there is
//! no other. Which of both it was only the labels tell.

use std::collections::BTreeMap;

use crate::cluster::demand::SecurityLevel;
use crate::cluster::error::ClusterError;
use crate::validate::finding::Finding;

const DRY_RUN: &str = "dry run";
const SECURITY: &str = "pod security";

/// Labels of a namespace by which it asks for a level.
const LABELS: &str = "pod-security.kubernetes.io/";
/// The first version with Pod Security admission.
const FIRST_WITH_LEVELS: u32 = 23;
/// The first version that warns by the `enforce` label.
const FIRST_WITH_WARNINGS: u32 = 26;

/// What the API server said to one kind of object: its warnings, or a refusal.
pub(super) type Answer = Result<Vec<String>, ClusterError>;

/// What the answers to the objects of a job mean.
pub(super) fn judge(answers: &[Answer], is_full: bool) -> Vec<Finding> {
    let refusals = answers.iter().filter_map(|answer| answer.as_ref().err());
    let mut findings: Vec<Finding> = refusals.map(|error| refused(error, is_full)).collect();
    let warnings = answers.iter().flatten().flatten();
    let others = warnings.filter(|warning| level_in(warning).is_none());
    let mut others: Vec<&String> = others.collect();
    others.dedup();
    findings.extend(others.into_iter().map(|warning| {
        Finding::warning(
            DRY_RUN,
            format!("the API server warns: {warning}"),
            "Jobs run all the same; look whether it means a setting of yours",
        )
    }));
    if findings.is_empty() {
        let result = "the API server takes the Secret and the Job of a job";
        findings.push(Finding::ok(DRY_RUN, result));
    }
    findings
}

fn refused(error: &ClusterError, is_full: bool) -> Finding {
    if is_full {
        return Finding::warning(
            DRY_RUN,
            error.to_string(),
            "The quota is full now: wait until others end, or raise it",
        );
    }
    let advice = if error.is_not_found() {
        "Create the namespace, or set EXECUTOR_KUBERNETES_NAMESPACE"
    } else if error.is_retryable() {
        "Look at the API server and at the admission webhooks of the cluster: this call reaches them"
    } else {
        "Change the setting that the message speaks of, or the rule of the cluster that refuses it"
    };
    Finding::failed(DRY_RUN, error.to_string(), advice)
}

/// What is known of the Pod Security level of a namespace.
pub(super) struct Security<'a> {
    /// Name of the namespace.
    pub(super) namespace: &'a str,
    /// Its labels, if they may be read.
    pub(super) labels: Option<&'a BTreeMap<String, String>>,
    /// What the API server warned of; none if it was not asked.
    pub(super) warnings: Option<&'a [String]>,
    /// Level that the pods of jobs fulfil.
    pub(super) fulfilled: SecurityLevel,
    /// The API server is Kubernetes 1.x.
    pub(super) minor: u32,
}

impl Security<'_> {
    /// Whether pods of jobs would be let in.
    pub(super) fn judge(&self) -> Finding {
        let warnings = self.warnings.into_iter().flatten();
        let mut levels = warnings.filter_map(|text| Some((level_in(text)?, text.as_str())));
        let warned = levels.next();
        let enforced = self.label("enforce");
        let known = enforced.and_then(|name| Some((SecurityLevel::named(name)?, name)));
        match (known, warned) {
            _ if self.minor < FIRST_WITH_LEVELS => self.not_seen(
                "this version has no Pod Security levels",
                "kubectl get podsecuritypolicies",
            ),
            (Some((level, name)), warned) => self.enforced(level, name, warned),
            (None, Some((_, text))) => self.warned(text),
            (None, None) if self.labels.is_some() => Finding::ok(
                SECURITY,
                format!("namespace {} enforces no level", self.namespace),
            ),
            (None, None) if self.warnings.is_some() && self.minor >= FIRST_WITH_WARNINGS => {
                Finding::ok(SECURITY, "the API server warns of nothing")
            }
            (None, None) => self.not_seen(
                "the labels of the namespace cannot be read, and there was no answer to a Job to \
                 judge by",
                &self.look(),
            ),
        }
    }

    fn enforced(&self, level: SecurityLevel, name: &str, warned: Option<(&str, &str)>) -> Finding {
        let namespace = self.namespace;
        let says_so = warned.filter(|(warned, _)| *warned == name);
        if self.fulfilled >= level && says_so.is_none() {
            let result = format!("namespace {namespace} enforces {name}, which jobs fulfil");
            return Finding::ok(SECURITY, result);
        }
        let words = match says_so {
            Some((_, text)) => format!(" (the API server's words: {text})"),
            None => String::new(),
        };
        let lower = format!("{LABELS}enforce of namespace {namespace} to a lower level");
        let advice = match level {
            SecurityLevel::Restricted => {
                format!("Set EXECUTOR_POD_SECURITY=restricted, or the label {lower}")
            }
            _ => format!(
                "Remove host networks and host paths from the settings of jobs, or set the label \
                 {lower}"
            ),
        };
        Finding::failed(
            SECURITY,
            format!(
                "namespace {namespace} enforces {name} and will refuse the pods of jobs: its \
                 labels are {}{words}",
                self.shown_labels()
            ),
            advice,
        )
    }

    /// A warning, and nothing to tell whether a refusal will follow.
    fn warned(&self, text: &str) -> Finding {
        let why = match self.labels {
            None => "the labels of the namespace cannot be read",
            Some(_) => "the namespace has no enforce label, and the default cannot be seen",
        };
        Finding::unknown(
            SECURITY,
            format!("{why}, and the API server warns of the Job: {text}"),
            format!(
                "Look: {}; if {LABELS}enforce is that level, pods are refused: set \
                 EXECUTOR_POD_SECURITY=restricted; if only {LABELS}warn is, all is well",
                self.look()
            ),
        )
    }

    fn not_seen(&self, why: &str, look: &str) -> Finding {
        Finding::unknown(SECURITY, why, format!("Look: {look}"))
    }

    fn look(&self) -> String {
        format!("kubectl get namespace {} --show-labels", self.namespace)
    }

    fn label(&self, mode: &str) -> Option<&str> {
        let label = format!("{LABELS}{mode}");
        self.labels?.get(&label).map(String::as_str)
    }

    fn shown_labels(&self) -> String {
        let ours = self.labels.into_iter().flatten();
        let ours = ours.filter(|(name, _)| name.starts_with(LABELS));
        let ours: Vec<String> = ours
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        ours.join(", ")
    }
}

/// The level in a warning of Pod Security admission, which reads `would
/// violate PodSecurity "restricted:latest": …`. Other warnings have none.
fn level_in(warning: &str) -> Option<&str> {
    let (_, rest) = warning.split_once("would violate PodSecurity \"")?;
    rest.split([':', '"']).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::error::ClusterErrorKind;
    use crate::validate::finding::State;

    const RESTRICTED: &str =
        "would violate PodSecurity \"restricted:latest\": runAsNonRoot != true (pod)";

    fn security(labels: Option<&[(&str, &str)]>, warnings: Option<&[&str]>, minor: u32) -> Finding {
        let labels = labels.map(|labels| {
            let labels = labels.iter();
            let full = labels.map(|(mode, level)| (format!("{LABELS}{mode}"), level.to_string()));
            full.collect::<BTreeMap<_, _>>()
        });
        let warnings: Option<Vec<String>> =
            warnings.map(|all| all.iter().map(|text| text.to_string()).collect());
        let security = Security {
            namespace: "executor",
            labels: labels.as_ref(),
            warnings: warnings.as_deref(),
            fulfilled: SecurityLevel::Baseline,
            minor,
        };
        security.judge()
    }

    #[test]
    fn labels_decide_where_they_can_be_read() {
        let restricted = ("enforce", "restricted");
        for (labels, warnings, state) in [
            (&[restricted][..], &[RESTRICTED][..], State::Failed),
            // An explicit lower label silences the warning.
            (&[restricted, ("warn", "privileged")], &[], State::Failed),
            (
                &[("enforce", "baseline"), ("warn", "restricted")],
                &[RESTRICTED],
                State::Ok,
            ),
            (&[("enforce", "baseline")], &[], State::Ok),
            (&[], &[], State::Ok),
            (&[("warn", "restricted")], &[RESTRICTED], State::Unknown),
        ] {
            let found = security(Some(labels), Some(warnings), 34);
            assert_eq!(found.state, state, "{labels:?}: {found}");
        }
        let found = security(Some(&[restricted]), Some(&[RESTRICTED]), 34);
        let advice = "EXECUTOR_POD_SECURITY=restricted";
        assert!(found.advice.contains(advice), "{found}");
        assert!(found.result.contains("enforce=restricted"), "{found}");
    }

    #[test]
    fn without_labels_a_warning_is_a_question() {
        let found = security(None, Some(&[RESTRICTED]), 34);
        assert_eq!(found.state, State::Unknown, "{found}");
        assert!(found.result.contains("runAsNonRoot"), "{found}");
        assert!(found.advice.contains("kubectl get namespace executor"));
        assert_eq!(security(None, Some(&[]), 34).state, State::Ok);
        assert_eq!(security(None, None, 34).state, State::Unknown);
        // These versions keep silent of what they enforce.
        assert_eq!(security(None, Some(&[]), 25).state, State::Unknown);
        assert_eq!(security(Some(&[]), Some(&[]), 20).state, State::Unknown);
    }

    fn refusal(status: u16) -> Answer {
        Err(ClusterError {
            call: "create a Job as a dry run".to_string(),
            kind: ClusterErrorKind::Refused {
                status,
                reason: "Forbidden".to_string(),
                message: "exceeded quota: team".to_string(),
            },
        })
    }

    #[test]
    fn a_refusal_fails_unless_the_quota_is_full() {
        let found = judge(&[Ok(Vec::new()), refusal(403)], false);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].state, State::Failed);
        assert!(found[0].result.contains("exceeded quota: team"));
        let found = judge(&[refusal(403)], true);
        assert_eq!(found[0].state, State::Warning);
        let found = judge(&[refusal(404)], false);
        assert!(found[0].advice.contains("Create the namespace"));
    }

    #[test]
    fn warnings_of_others_are_passed_on() {
        let warnings = vec![RESTRICTED.to_string(), "unknown field \"x\"".to_string()];
        let found = judge(&[Ok(Vec::new()), Ok(warnings)], false);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].state, State::Warning);
        assert!(found[0].result.contains("unknown field"), "{}", found[0]);
        let found = judge(&[Ok(vec![RESTRICTED.to_string()])], false);
        assert_eq!(found[0].state, State::Ok);
    }
}
