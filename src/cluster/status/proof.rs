//! What may never lead to a success, whatever is seen of a pod.

use proptest::prelude::*;
use proptest::test_runner::Config;
use serde_json::{Value, json};

use super::{PodView, Verdict};

/// What one observation tells of three containers.
#[derive(Clone, Debug)]
struct Seen {
    pod: u8,
    phase: &'static str,
    reason: Option<&'static str>,
    is_terminating: bool,
    is_gone: bool,
    containers: [Option<State>; 3],
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Waiting,
    Running,
    Ended(i32),
}

const CONTAINERS: [&str; 3] = ["setup", "step-0", "step-1"];

impl Seen {
    fn view(&self) -> PodView {
        let container = |(name, state): (&str, &Option<State>)| {
            let state = match (*state)? {
                State::Waiting => json!({"waiting": {}}),
                State::Running => json!({"running": {}}),
                State::Ended(code) => json!({"terminated": {"exitCode": code}}),
            };
            Some(
                json!({"name": name, "image": "", "imageID": "", "ready": false,
                "restartCount": 0, "state": state}),
            )
        };
        let all = CONTAINERS.into_iter().zip(&self.containers);
        let all: Vec<Value> = all.filter_map(container).collect();
        let mut pod = json!({"metadata": {"name": "p", "uid": self.pod.to_string()},
            "status": {"phase": self.phase, "containerStatuses": all}});
        if let Some(reason) = self.reason {
            pod["status"]["reason"] = reason.into();
        }
        if self.is_terminating {
            pod["metadata"]["deletionTimestamp"] = "2026-01-31T12:00:00Z".into();
        }
        PodView::new(&serde_json::from_value(pod).unwrap(), self.is_gone)
    }

    /// Whether someone had told the pod to end by then.
    fn is_stopped(&self) -> bool {
        self.is_terminating || self.phase == "Failed" && self.reason.is_some()
    }
}

fn any_seen() -> impl Strategy<Value = Seen> {
    let state = prop_oneof![
        1 => Just(None),
        1 => Just(Some(State::Waiting)),
        1 => Just(Some(State::Running)),
        6 => Just(Some(State::Ended(0))),
        1 => Just(Some(State::Ended(1))),
    ];
    (
        prop_oneof![6 => Just(1u8), 1 => Just(2u8)],
        prop_oneof![4 => Just("Running"), 1 => Just("Pending"), 1 => Just("Succeeded"),
            1 => Just("Failed"), 1 => Just("Unknown")],
        prop_oneof![4 => Just(None), 1 => Just(Some("Evicted"))],
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        [state.clone(), state.clone(), state],
    )
        .prop_map(
            |(pod, phase, reason, is_terminating, is_gone, containers)| Seen {
                pod,
                phase,
                reason,
                is_terminating,
                is_gone,
                containers,
            },
        )
}

fn verdict(sequence: &[Seen]) -> Verdict {
    let expected: Vec<String> = CONTAINERS.map(str::to_string).into();
    let views = sequence.iter().map(Seen::view);
    let known = views.reduce(PodView::followed_by).unwrap();
    known.verdict(&expected)
}

/// What the sequence shows of one container of its first pod, in order, and
/// whether the pod was told to end by then.
fn history(sequence: &[Seen], container: usize) -> Vec<(State, bool)> {
    let mut is_stopped = false;
    let ours = sequence.iter().filter(|seen| seen.pod == sequence[0].pod);
    ours.filter_map(|seen| {
        is_stopped |= seen.is_stopped();
        Some((seen.containers[container]?, is_stopped))
    })
    .collect()
}

const PROOF: (State, bool) = (State::Ended(0), false);

proptest! {
    #![proptest_config(Config { cases: 1024, failure_persistence: None, ..Config::default() })]

    #[test]
    fn no_success_without_every_exit_code(
        sequence in prop::collection::vec(any_seen(), 1..8)
    ) {
        if verdict(&sequence) == Verdict::Succeeded {
            for (index, container) in CONTAINERS.iter().enumerate() {
                let history = history(&sequence, index);
                prop_assert!(history.contains(&PROOF), "{container} was not seen to succeed");
                let is_failure = |(state, _): &(State, bool)| *state == State::Ended(1);
                prop_assert!(!history.iter().any(is_failure), "{container} has failed");
            }
        }
    }

    #[test]
    fn a_proof_that_was_seen_is_not_lost(
        sequence in prop::collection::vec(any_seen(), 1..8)
    ) {
        let is_proven = |index: usize| {
            let history = history(&sequence, index);
            let proof = history.iter().position(|seen| *seen == PROOF);
            let is_contrary = |(state, _): &(State, bool)| {
                matches!(state, State::Running | State::Ended(1))
            };
            let contrary = history.iter().rposition(is_contrary);
            let never_failed = !history.iter().any(|(state, _)| *state == State::Ended(1));
            never_failed && proof.is_some() && contrary < proof
        };
        if (0..CONTAINERS.len()).all(is_proven) {
            prop_assert_eq!(verdict(&sequence), Verdict::Succeeded);
        }
    }
}
