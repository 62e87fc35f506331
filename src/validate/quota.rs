//! How many jobs the quotas of the namespace leave room for.

use crate::cluster::error::ClusterError;
use crate::cluster::inventory::{Quota, Scope};
use crate::validate::finding::{Finding, no_answer};
use crate::validate::need::{ContainerNeed, Need, Sums, shown, sums, variables};

const SUBJECT: &str = "quota";

/// What every container must say of itself where a quota counts it.
const COMPUTE: [&str; 6] = [
    "cpu",
    "memory",
    "requests.cpu",
    "requests.memory",
    "limits.cpu",
    "limits.memory",
];

/// The jobs of this executor, as far as quotas are concerned.
pub(super) struct Jobs<'a> {
    /// What each takes.
    pub(super) need: &'a Need,
    /// Whether `need` has the defaults of the namespace in it, too.
    pub(super) knows_defaults: bool,
    /// How many run at once.
    pub(super) count: usize,
}

/// What the quotas mean for jobs.
pub(super) fn judge(
    quotas: &Result<Vec<Quota>, ClusterError>,
    jobs: &Jobs<'_>,
    namespace: &str,
) -> Vec<Finding> {
    let quotas = match quotas {
        Ok(quotas) => quotas,
        Err(error) => {
            return vec![Finding::unknown(
                SUBJECT,
                no_answer("list resourcequotas", error),
                format!("Look: kubectl --namespace {namespace} describe resourcequotas"),
            )];
        }
    };
    let counting = quotas.iter().filter(|quota| counts(quota, jobs.need));
    let findings: Vec<Finding> = counting.map(|quota| judge_one(quota, jobs)).collect();
    match findings.is_empty() {
        true => vec![Finding::ok(SUBJECT, "none counts the pods of jobs")],
        false => findings,
    }
}

/// Whether one more Job or Secret is refused by these quotas as the namespace
/// is now, though not if it were empty.
pub(super) fn is_full_of_objects(quotas: &[Quota], need: &Need) -> bool {
    const OBJECTS: [&str; 3] = ["count/jobs.batch", "count/secrets", "secrets"];
    let charges = need.charges();
    let is_full = |quota: &Quota| {
        let (hard, used) = (sums(&quota.hard), sums(&quota.used));
        OBJECTS.iter().any(|name| {
            let (used, each) = (used.get(*name), charges[*name]);
            let left = |hard: &u128| hard.saturating_sub(used.copied().unwrap_or(0));
            hard.get(*name)
                .is_some_and(|hard| *hard >= each && left(hard) < each)
        })
    };
    quotas.iter().any(is_full)
}

fn counts(quota: &Quota, need: &Need) -> bool {
    quota.scopes.iter().all(|scope| is_in(scope, need))
}

/// Whether the pods of jobs are in a scope. They have a deadline, which makes
/// them `Terminating`, and no priority class.
fn is_in(scope: &Scope, need: &Need) -> bool {
    let has_compute = |container: &ContainerNeed| {
        let names = ["cpu", "memory"];
        let has = |sums: &Sums| {
            names
                .iter()
                .any(|name| sums.get(*name).is_some_and(|it| *it > 0))
        };
        has(&container.limits) || has(&container.requests)
    };
    let is_best_effort = || !need.containers.iter().any(has_compute);
    match scope.name.as_str() {
        "Terminating" => true,
        "BestEffort" => is_best_effort(),
        "NotBestEffort" => !is_best_effort(),
        "PriorityClass" => matches!(scope.operator.as_str(), "NotIn" | "DoesNotExist"),
        _ => false,
    }
}

fn judge_one(quota: &Quota, jobs: &Jobs<'_>) -> Finding {
    let name = &quota.name;
    if let Some(missing) = missing(quota, jobs.need) {
        return unsaid(quota, &missing, jobs.knows_defaults);
    }
    let Some(room) = Room::of(quota, jobs.need) else {
        return Finding::ok(SUBJECT, format!("{name} bounds nothing that jobs take"));
    };
    let wanted = jobs.count as u128;
    let resource = &room.resource;
    let bound = format!("{resource} is {}", shown(resource, room.hard));
    let each = format!("a job takes {}", shown(resource, room.each));
    let used = format!("{} in use", shown(resource, room.used));
    let more = format!("raise {resource} in ResourceQuota {name}");
    if room.ever == 0 {
        let advice = match variables(resource) {
            "" => format!("To make room, {more}"),
            variable => format!("Lower {variable}, or {more}"),
        };
        let result = format!("{name} has no room for a job, even when empty: {bound}, {each}");
        return Finding::failed(SUBJECT, result, advice);
    }
    if room.now == 0 {
        return Finding::warning(
            SUBJECT,
            format!("{name} has no room for a job now: {bound} with {used}, {each}"),
            format!("Wait until others end, or {more}"),
        );
    }
    if room.now < wanted {
        return Finding::warning(
            SUBJECT,
            format!(
                "{name} has room for {} of {wanted} jobs at once: {bound} with {used}, {each}",
                room.now
            ),
            format!("Lower EXECUTOR_MAX_NUM_JOBS, or {more}"),
        );
    }
    Finding::ok(
        SUBJECT,
        format!("{name} has room for all jobs at once: {bound} with {used}, {each}"),
    )
}

/// The first resource that a container must name here and does not.
fn missing(quota: &Quota, need: &Need) -> Option<String> {
    let named = |container: &ContainerNeed, resource: &str| match resource.split_once('.') {
        Some(("limits", name)) => container.limits.contains_key(name),
        Some((_, name)) => container.requests.contains_key(name),
        None => container.requests.contains_key(resource),
    };
    let by_all = |resource: &str| need.containers.iter().all(|it| named(it, resource));
    let mut asked = quota.hard.keys();
    asked
        .find(|name| COMPUTE.contains(&name.as_str()) && !by_all(name))
        .cloned()
}

fn unsaid(quota: &Quota, resource: &str, knows_defaults: bool) -> Finding {
    let name = &quota.name;
    let advice = format!(
        "Set {}, or a default in a LimitRange of the namespace",
        variables(resource)
    );
    match knows_defaults {
        true => Finding::failed(
            SUBJECT,
            format!("{name} refuses pods that do not set {resource}, and jobs do not"),
            advice,
        ),
        false => Finding::unknown(
            SUBJECT,
            format!(
                "{name} refuses pods that do not set {resource}, jobs do not, and whether a \
                 LimitRange does it for them cannot be seen"
            ),
            advice,
        ),
    }
}

/// How many jobs fit, and the resource that there is least of.
struct Room {
    resource: String,
    hard: u128,
    used: u128,
    each: u128,
    /// Jobs that fit beside what is there.
    now: u128,
    /// Jobs that would fit if nothing were there.
    ever: u128,
}

impl Room {
    fn of(quota: &Quota, need: &Need) -> Option<Room> {
        let (hard, used) = (sums(&quota.hard), sums(&quota.used));
        let charges = need.charges().into_iter().filter(|(_, each)| *each > 0);
        let rooms = charges.filter_map(|(resource, each)| {
            let hard = *hard.get(&resource)?;
            let used = used.get(&resource).copied().unwrap_or(0);
            Some(Room {
                resource,
                hard,
                used,
                each,
                now: hard.saturating_sub(used) / each,
                ever: hard / each,
            })
        });
        // What can never be had counts before what is in use.
        rooms.min_by_key(|room| (room.ever.min(1), room.now, room.ever))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::finding::State;
    use crate::validate::need::tests::{amounts, demand};

    fn need() -> Need {
        let resources = [("memory", "2Gi")];
        Need::new(&demand(&resources, &resources), &[])
    }

    fn quota(hard: &[(&str, &str)], used: &[(&str, &str)]) -> Quota {
        Quota {
            name: "team".to_string(),
            hard: amounts(hard),
            used: amounts(used),
            ..Quota::default()
        }
    }

    fn finding(quota: Quota) -> Finding {
        let need = need();
        let jobs = Jobs {
            need: &need,
            knows_defaults: true,
            count: 4,
        };
        judge(&Ok(vec![quota]), &jobs, "executor").remove(0)
    }

    #[test]
    fn room_is_counted_by_the_scarcest_resource() {
        let all = [("pods", "10"), ("requests.memory", "9Gi")];
        let found = finding(quota(&all, &[("pods", "2"), ("requests.memory", "1Gi")]));
        assert_eq!(found.state, State::Ok, "{found}");
        assert!(
            found
                .result
                .contains("requests.memory is 9Gi with 1Gi in use")
        );
        let found = finding(quota(&all, &[("pods", "7"), ("requests.memory", "1Gi")]));
        assert_eq!(found.state, State::Warning, "{found}");
        assert!(
            found
                .result
                .contains("room for 3 of 4 jobs at once: pods is 10")
        );
    }

    #[test]
    fn a_full_quota_is_not_a_small_one() {
        let full = quota(&[("count/jobs.batch", "1")], &[("count/jobs.batch", "1")]);
        assert!(is_full_of_objects(std::slice::from_ref(&full), &need()));
        let found = finding(full);
        assert_eq!(found.state, State::Warning, "{found}");
        assert!(found.result.contains("no room for a job now"), "{found}");
        let small = quota(&[("limits.memory", "1Gi")], &[]);
        assert!(!is_full_of_objects(std::slice::from_ref(&small), &need()));
        let found = finding(small);
        assert_eq!(found.state, State::Failed, "{found}");
        let variable = "EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY";
        assert!(found.advice.contains(variable), "{found}");
    }

    #[test]
    fn what_never_fits_is_told_first() {
        let hard = [("pods", "1"), ("requests.memory", "1Gi")];
        let found = finding(quota(&hard, &[("pods", "1")]));
        assert_eq!(found.state, State::Failed, "{found}");
    }

    #[test]
    fn a_quota_may_ask_for_what_jobs_leave_out() {
        let strict = quota(&[("limits.cpu", "8")], &[]);
        let found = finding(strict.clone());
        assert_eq!(found.state, State::Failed, "{found}");
        let variable = "EXECUTOR_KUBERNETES_RESOURCE_LIMIT_CPU";
        assert!(found.advice.contains(variable), "{found}");
        let need = need();
        let jobs = Jobs {
            need: &need,
            knows_defaults: false,
            count: 4,
        };
        let found = judge(&Ok(vec![strict]), &jobs, "executor").remove(0);
        assert_eq!(found.state, State::Unknown, "{found}");
    }

    #[test]
    fn scopes_choose_the_pods_that_count() {
        for (name, operator, is_counted) in [
            ("Terminating", "Exists", true),
            ("NotTerminating", "Exists", false),
            ("BestEffort", "Exists", false),
            ("NotBestEffort", "Exists", true),
            ("PriorityClass", "In", false),
            ("PriorityClass", "DoesNotExist", true),
        ] {
            let mut quota = quota(&[("pods", "0")], &[]);
            quota.scopes = vec![Scope {
                name: name.to_string(),
                operator: operator.to_string(),
            }];
            let expected = match is_counted {
                true => State::Failed,
                false => State::Ok,
            };
            assert_eq!(finding(quota).state, expected, "{name}");
        }
    }
}
