//! Whether the limit ranges of the namespace take the containers of jobs.

use crate::cluster::error::ClusterError;
use crate::cluster::inventory::{Amounts, LimitItem, LimitKind};
use crate::validate::finding::{Finding, no_answer};
use crate::validate::need::{ContainerNeed, Need, ONE, Sums, shown, sums, variables};

const SUBJECT: &str = "limit range";

/// What the limit ranges mean for a job that takes this much.
pub(super) fn judge(
    items: &Result<Vec<LimitItem>, ClusterError>,
    need: &Need,
    namespace: &str,
) -> Finding {
    let items = match items {
        Ok(items) => items,
        Err(error) => {
            return Finding::unknown(
                SUBJECT,
                no_answer("list limitranges", error),
                format!("Look: kubectl --namespace {namespace} describe limitranges"),
            );
        }
    };
    let broken = items.iter().find_map(|item| broken_by(item, need));
    match (broken.or_else(|| upside_down(need)), items.is_empty()) {
        (Some(finding), _) => finding,
        (None, true) => Finding::ok(SUBJECT, "there is none"),
        (None, false) => Finding::ok(SUBJECT, "takes the containers of jobs"),
    }
}

fn broken_by(item: &LimitItem, need: &Need) -> Option<Finding> {
    let range = &item.range;
    match item.kind {
        LimitKind::Container => need.containers.iter().find_map(|container| {
            let broken = first_broken(item, &container.limits, &container.requests)?;
            Some(broken.finding(range, &format!("container {}", container.name)))
        }),
        LimitKind::Pod => {
            let broken = first_broken(item, &need.limits(), &need.requests())?;
            Some(broken.finding(range, "the pod"))
        }
        LimitKind::Claim => need.claims.iter().find_map(|size| {
            let size = Sums::from([("storage".to_string(), *size)]);
            Some(first_broken(item, &size, &size)?.finding(range, "the volume"))
        }),
        LimitKind::Other => None,
    }
}

/// A default limit below a request of ours makes a pod that no server takes.
fn upside_down(need: &Need) -> Option<Finding> {
    let above = |container: &ContainerNeed| {
        let limits = container.limits.iter();
        let mut above = limits.filter(|(name, limit)| {
            let request = container.requests.get(*name);
            request.is_some_and(|request| request > limit)
        });
        above
            .next()
            .map(|(name, limit)| (name.clone(), shown(name, *limit)))
    };
    let (name, limit) = need.containers.iter().find_map(above)?;
    Some(Finding::failed(
        SUBJECT,
        format!("gives containers a limit of {limit} {name}, which is less than they request"),
        format!("Set {}", variables(&format!("limits.{name}"))),
    ))
}

/// A bound that is not kept.
struct Broken {
    resource: String,
    breach: Breach,
}

/// How a bound is not kept.
struct Breach {
    /// What is wrong, after the name of the container.
    problem: String,
    /// What to do with the value: `Set`, `Lower` or `Raise`.
    remedy: &'static str,
    /// Where the value belongs: `limits` or `requests`.
    part: &'static str,
}

impl Breach {
    fn new(part: &'static str, remedy: &'static str, problem: String) -> Option<Breach> {
        Some(Breach {
            problem,
            remedy,
            part,
        })
    }
}

impl Broken {
    fn finding(&self, range: &str, subject: &str) -> Finding {
        let Breach {
            problem,
            remedy,
            part,
        } = &self.breach;
        let advice = match variables(&format!("{part}.{}", self.resource)) {
            "" => format!("Change LimitRange {range}"),
            variable => format!("{remedy} {variable}, or change LimitRange {range}"),
        };
        Finding::failed(
            SUBJECT,
            format!("{range} refuses jobs: {subject} {problem}"),
            advice,
        )
    }
}

/// What a container or a pod has of one resource.
#[derive(Clone, Copy)]
struct Share {
    limit: Option<u128>,
    request: Option<u128>,
}

/// The first bound of an item that these values do not keep.
fn first_broken(item: &LimitItem, limits: &Sums, requests: &Sums) -> Option<Broken> {
    type Check = fn(&str, u128, Share) -> Option<Breach>;
    let checks: [(&Amounts, Check); 3] = [
        (&item.max, above_max),
        (&item.min, below_min),
        (&item.ratio, above_ratio),
    ];
    checks.into_iter().find_map(|(bounds, check)| {
        sums(bounds).into_iter().find_map(|(resource, bound)| {
            let share = Share {
                limit: limits.get(&resource).copied(),
                request: requests.get(&resource).copied(),
            };
            let breach = check(&resource, bound, share)?;
            Some(Broken { resource, breach })
        })
    })
}

fn above_max(resource: &str, max: u128, share: Share) -> Option<Breach> {
    let most = shown(resource, max);
    match (share.limit, share.request) {
        (None, _) => {
            let problem = format!("needs a {resource} limit, {most} at most");
            Breach::new("limits", "Set", problem)
        }
        (Some(limit), _) if limit > max => {
            let limit = shown(resource, limit);
            let problem = format!("has a {resource} limit of {limit}, above the maximum of {most}");
            Breach::new("limits", "Lower", problem)
        }
        (_, Some(request)) if request > max => {
            let request = shown(resource, request);
            let problem = format!("requests {request} {resource}, above the maximum of {most}");
            Breach::new("requests", "Lower", problem)
        }
        _ => None,
    }
}

fn below_min(resource: &str, min: u128, share: Share) -> Option<Breach> {
    let least = shown(resource, min);
    match (share.limit, share.request) {
        (_, None) => {
            let problem = format!("needs a {resource} request, {least} at least");
            Breach::new("requests", "Set", problem)
        }
        (_, Some(request)) if request < min => {
            let request = shown(resource, request);
            let problem = format!("requests {request} {resource}, below the minimum of {least}");
            Breach::new("requests", "Raise", problem)
        }
        (Some(limit), _) if limit < min => {
            let limit = shown(resource, limit);
            let problem =
                format!("has a {resource} limit of {limit}, below the minimum of {least}");
            Breach::new("limits", "Raise", problem)
        }
        _ => None,
    }
}

fn above_ratio(resource: &str, ratio: u128, share: Share) -> Option<Breach> {
    let most = shown("", ratio);
    let is_zero = |amount: Option<u128>| amount.unwrap_or(0) == 0;
    if is_zero(share.limit) || is_zero(share.request) {
        let problem = format!(
            "needs a {resource} request, and a limit of {most} times that at most, neither of \
             them zero"
        );
        return Breach::new("requests", "Set", problem);
    }
    // The ratio is in billionths, too.
    let allowed = ratio.saturating_mul(share.request?);
    if share.limit?.saturating_mul(ONE) <= allowed {
        return None;
    }
    let problem = format!("has a {resource} limit of more than {most} times its request");
    Breach::new("requests", "Raise", problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::finding::State;
    use crate::validate::need::tests::{amounts, demand, item};

    /// What an item of a limit range says to a job with these containers.
    fn judged(
        change: impl Fn(&mut LimitItem),
        limits: &[(&str, &str)],
        requests: &[(&str, &str)],
    ) -> Finding {
        let mut item = item(LimitKind::Container);
        change(&mut item);
        let need = Need::new(&demand(limits, requests), std::slice::from_ref(&item));
        judge(&Ok(vec![item]), &need, "executor")
    }

    #[test]
    fn bounds_of_containers_are_kept() {
        let (limits, requests) = ([("memory", "8Gi")], [("memory", "2Gi")]);
        for (name, bound, problem) in [
            ("max", "8Gi", ""),
            ("max", "7Gi", "limit of 8Gi, above the maximum of 7Gi"),
            ("min", "2Gi", ""),
            (
                "min",
                "3Gi",
                "requests 2Gi memory, below the minimum of 3Gi",
            ),
            ("ratio", "4", ""),
            ("ratio", "3900m", "limit of more than 3900m times"),
        ] {
            let change = |item: &mut LimitItem| {
                let bounds = match name {
                    "max" => &mut item.max,
                    "min" => &mut item.min,
                    _ => &mut item.ratio,
                };
                *bounds = amounts(&[("memory", bound)]);
            };
            let found = judged(change, &limits, &requests);
            assert!(found.result.contains(problem), "{name} {bound}: {found}");
            let expected = match problem {
                "" => State::Ok,
                _ => State::Failed,
            };
            assert_eq!(found.state, expected, "{name} {bound}: {found}");
        }
    }

    #[test]
    fn a_bound_asks_for_a_value() {
        let max = |item: &mut LimitItem| item.max = amounts(&[("cpu", "2")]);
        let found = judged(max, &[], &[]);
        assert!(found.result.contains("needs a cpu limit"), "{found}");
        let variable = "EXECUTOR_KUBERNETES_RESOURCE_LIMIT_CPU";
        assert!(found.advice.contains(variable), "{found}");
        let with_default = |item: &mut LimitItem| {
            max(item);
            item.default = amounts(&[("cpu", "1")]);
        };
        assert_eq!(judged(with_default, &[], &[]).state, State::Ok);
    }

    #[test]
    fn default_limits_must_not_undercut_requests() {
        let default = |item: &mut LimitItem| item.default = amounts(&[("memory", "1Gi")]);
        let found = judged(default, &[], &[("memory", "2Gi")]);
        assert_eq!(found.state, State::Failed, "{found}");
        assert!(found.result.contains("limit of 1Gi memory"), "{found}");
    }

    #[test]
    fn claims_have_bounds_of_their_own() {
        let mut item = item(LimitKind::Claim);
        item.max = amounts(&[("storage", "4Gi")]);
        let mut demand = demand(&[], &[]);
        demand.claims = vec!["5Gi".to_string()];
        let found = judge(&Ok(vec![item]), &Need::new(&demand, &[]), "executor");
        assert!(found.result.contains("above the maximum of 4Gi"), "{found}");
        assert!(
            found.advice.contains("KUBERNETES_JOB_VOLUME_SIZE"),
            "{found}"
        );
    }

    #[test]
    fn pods_have_bounds_of_their_own() {
        let mut item = item(LimitKind::Pod);
        item.max = amounts(&[("memory", "3Gi")]);
        let mut demand = demand(&[("memory", "2Gi")], &[]);
        let need = Need::new(&demand, &[]);
        let items = Ok(vec![item]);
        assert_eq!(judge(&items, &need, "executor").state, State::Ok);
        demand.containers.push(demand.containers[1].clone());
        let found = judge(&items, &Need::new(&demand, &[]), "executor");
        assert!(
            found.result.contains("the pod has a memory limit of 4Gi"),
            "{found}"
        );
    }
}
