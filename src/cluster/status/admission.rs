//! Why the API server does not take a pod, by its own words.

use crate::cluster::status::failure::{Cause, Failure};
use crate::config::quantity;

/// What a refusal means, as the Job controller reports it in an Event.
pub(super) fn refusal(message: &str) -> Failure {
    let words = message.strip_prefix("Error creating: ").unwrap_or(message);
    cause(words).with(words)
}

/// Whether what is refused with these words may be taken later.
pub fn can_pass(message: &str) -> bool {
    cause(message) == Cause::Quota
}

fn cause(words: &str) -> Cause {
    let has = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    if has(&["exceeded quota"]) {
        return match is_beyond_quota(words) {
            true => Cause::QuotaTooSmall,
            false => Cause::Quota,
        };
    } else if has(&["violates PodSecurity"]) {
        return Cause::PodSecurity;
    } else if has(&[
        " usage per Container",
        " usage per Pod",
        "limit to request ratio",
    ]) {
        return Cause::LimitRange;
    }
    // Of the rest only an answer is final: who did not answer may do so later.
    let is_answer = has(&[
        "denied the request",
        "denied request",
        "is forbidden",
        "is invalid",
    ]);
    let is_outage = has(&["failed calling webhook", "error looking up service account"]);
    match is_answer && !is_outage {
        true => Cause::Admission,
        false => Cause::AdmissionDown,
    }
}

/// Whether the pod asks for more than the quota would give to it alone. A quota
/// of nothing is no size but a pause, which somebody will end.
fn is_beyond_quota(words: &str) -> bool {
    let (Some(requested), Some(limited)) =
        (amounts(words, "requested: "), amounts(words, "limited: "))
    else {
        return false;
    };
    requested.iter().any(|(name, wanted)| {
        limited
            .iter()
            .any(|(other, most)| other == name && wanted > most && *most > 0)
    })
}

/// What follows `label`, such as `pods=1,limits.memory=2Gi`, as numbers.
fn amounts<'a>(words: &'a str, label: &str) -> Option<Vec<(&'a str, u128)>> {
    let (_, rest) = words.split_once(label)?;
    let list = rest.split(", ").next()?;
    list.split(',')
        .map(|pair| {
            let (name, amount) = pair.split_once('=')?;
            Some((name, quantity(amount).ok()?))
        })
        .collect()
}
