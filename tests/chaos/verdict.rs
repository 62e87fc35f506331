//! Holds what became of a job against its plan.

use std::fmt;

use super::jobs::{End, JobPlan};
use super::output::Written;
use crate::frontend::record::{JobState, JobView, LogEntry, MarkKind};

const SETUP: &str = "setup.workspace";
const TEARDOWN: &str = "teardown.kubernetes.job";
/// One of these must be in the message of a job whose pod somebody took away.
const TAKEN_AWAY: [&str; 3] = ["deleted", "evicted", "eviction"];
/// How the executor marks lines of its own.
const OWN_LINE: &str = "stderr: ";

/// What happened to a job that its plan does not know of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fate {
    /// Its pod was deleted or evicted while it was not at its end.
    pub(crate) pod_taken_away: bool,
    /// The answer to its first dequeue was lost, or its reader killed.
    pub(crate) dequeue_lost: bool,
    /// The server was away for longer than setting up a workspace waits.
    pub(crate) could_not_fetch: bool,
}

/// How a job ended, for the count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    /// As planned: complete.
    Complete,
    /// As planned: a step failed.
    StepFailed,
    /// As planned: refused.
    Refused,
    /// Errored, since its pod was taken away.
    TakenAway,
    /// Errored, since the server was away while the workspace was made.
    NotFetched,
}

/// How a job ended, or everything that is wrong with it.
pub(crate) fn judge(plan: &JobPlan, view: &JobView, fate: Fate) -> Result<Ending, Vec<String>> {
    let mut wrong = Vec::new();
    let ending = ending(plan, view, fate, &mut wrong);
    judge_marks(view, &mut wrong);
    let attempts_max = if fate.dequeue_lost { 2 } else { 1 };
    if view.attempts > attempts_max {
        wrong.push(format!("it was handed out {} times", view.attempts));
    }
    match ending {
        Some(Ending::TakenAway | Ending::NotFetched) => judge_part(plan, view, &mut wrong),
        Some(_) => judge_whole(plan, view, &mut wrong),
        None => {}
    }
    match (ending, wrong.is_empty()) {
        (Some(ending), true) => Ok(ending),
        _ => Err(wrong),
    }
}

/// What the server has for its end, if that may be.
fn ending(plan: &JobPlan, view: &JobView, fate: Fate, wrong: &mut Vec<String>) -> Option<Ending> {
    let said = view.message();
    let is_taken_away = TAKEN_AWAY.iter().any(|word| said.contains(word));
    match (&view.state, &plan.end) {
        (JobState::Completed, End::Complete) => return Some(Ending::Complete),
        (JobState::Errored { .. }, End::ExitCode(step, code))
            if *said == step_failed(plan, *step, *code) =>
        {
            return Some(Ending::StepFailed);
        }
        (JobState::Failed { .. }, End::Refused(words)) if said.contains(words) => {
            return Some(Ending::Refused);
        }
        (JobState::Errored { .. }, _) if fate.pod_taken_away && is_taken_away => {
            return Some(Ending::TakenAway);
        }
        (JobState::Errored { .. }, _)
            if fate.could_not_fetch && said.contains("workspace could not be set up") =>
        {
            return Some(Ending::NotFetched);
        }
        _ => {}
    }
    let (state, end) = (view.state.name(), &plan.end);
    wrong.push(format!("it is {state} and should be {end:?}: {said}"));
    None
}

fn step_failed(plan: &JobPlan, step: usize, code: i32) -> String {
    let key = &plan.steps[step].key;
    format!("running command \"step.kubernetes.{key}\": exit code {code}")
}

/// One mark was let in, and it is the one that counts.
fn judge_marks(view: &JobView, wrong: &mut Vec<String>) {
    let accepted: Vec<_> = view
        .marks
        .iter()
        .filter(|mark| mark.status == 204)
        .collect();
    let kind = match view.state {
        JobState::Completed => MarkKind::Complete,
        JobState::Errored { .. } => MarkKind::Errored,
        _ => MarkKind::Failed,
    };
    if accepted.len() != 1 || accepted[0].kind != kind {
        wrong.push(format!("its marks are {:?}", view.marks));
    }
}

/// Every entry is there once, in order, with all that was written.
fn judge_whole(plan: &JobPlan, view: &JobView, wrong: &mut Vec<String>) {
    let begun = plan.steps_begun();
    let keys: Vec<String> = match begun {
        0 => Vec::new(),
        _ => std::iter::once(SETUP.to_owned())
            .chain((0..begun).map(|index| log_key(plan, index)))
            .chain([TEARDOWN.to_owned()])
            .collect(),
    };
    let found: Vec<&String> = view.logs.iter().map(|entry| &entry.key).collect();
    if found != keys.iter().collect::<Vec<_>>() {
        wrong.push(format!("its entries are {found:?}"));
        return;
    }
    for (place, entry) in view.logs.iter().enumerate() {
        let step = place.checked_sub(1).filter(|step| *step < begun);
        let code = step.map_or(0, |step| plan.exit_code(step));
        if entry.exit_code != Some(code) {
            let (key, found) = (&entry.key, entry.exit_code);
            wrong.push(format!("{key} has exit code {found:?} and not {code}"));
        }
        if let Some(step) = step {
            judge_output(entry, &plan.written(step), wrong);
        }
    }
}

/// What is there is the beginning of what was to come, in entries that come
/// once and in order.
fn judge_part(plan: &JobPlan, view: &JobView, wrong: &mut Vec<String>) {
    let order = |key: &str| match key {
        SETUP => Some(0),
        TEARDOWN => Some(usize::MAX),
        _ => (0..plan.steps.len())
            .find(|index| log_key(plan, *index) == key)
            .map(|index| index + 1),
    };
    let places: Vec<Option<usize>> = view.logs.iter().map(|entry| order(&entry.key)).collect();
    let rises = places.windows(2).all(|pair| pair[0] < pair[1]);
    if !rises || places.contains(&None) {
        let found: Vec<&String> = view.logs.iter().map(|entry| &entry.key).collect();
        wrong.push(format!("its entries are {found:?}"));
        return;
    }
    for (entry, place) in view.logs.iter().zip(places) {
        let step = place.and_then(|place| place.checked_sub(1));
        let Some(step) = step.filter(|step| *step < plan.steps.len()) else {
            continue;
        };
        judge_beginning(entry, &plan.written(step), wrong);
    }
}

fn log_key(plan: &JobPlan, index: usize) -> String {
    format!("step.kubernetes.{}", plan.steps[index].key)
}

/// The output is what the step wrote, with the order inside of each stream.
fn judge_output(entry: &LogEntry, written: &Written, wrong: &mut Vec<String>) {
    let (out, err) = streams(&entry.out);
    for (name, found, expected) in [
        ("output", out, written.out_text()),
        ("standard error", err, written.err_text()),
    ] {
        if found != expected {
            wrong.push(difference(&entry.key, name, &found, &expected));
        }
    }
}

/// The same for a step that was cut off, at whose end are our own words.
fn judge_beginning(entry: &LogEntry, written: &Written, wrong: &mut Vec<String>) {
    let theirs: String = entry
        .out
        .split_inclusive('\n')
        .take_while(|line| !line.starts_with(OWN_LINE))
        .collect();
    let (out, err) = streams(&theirs);
    for (name, found, expected) in [
        ("output", out, written.out_text()),
        ("standard error", err, written.err_text()),
    ] {
        // The last line may be a part of one.
        let cut = found.strip_suffix('\n').unwrap_or(&found);
        if !expected.starts_with(cut) {
            wrong.push(difference(&entry.key, name, &found, &expected));
        }
    }
}

/// Takes the lines of standard error, which say so, out of the others.
fn streams(text: &str) -> (String, String) {
    text.split_inclusive('\n')
        .partition(|line| !line.starts_with("stdout: err "))
}

/// Where two texts part, with what is round that place.
fn difference(key: &str, name: &str, found: &str, expected: &str) -> String {
    let (found, expected) = (found.as_bytes(), expected.as_bytes());
    let at = found
        .iter()
        .zip(expected)
        .take_while(|(a, b)| a == b)
        .count();
    let excerpt = |bytes: &[u8]| {
        let end = bytes.len().min(at + 80);
        let start = at.saturating_sub(40).min(end);
        format!("{:?}", String::from_utf8_lossy(&bytes[start..end]))
    };
    format!(
        "{key}: the {name} has {} bytes and not {}; from byte {at} it is …{} and not …{}",
        found.len(),
        expected.len(),
        excerpt(found),
        excerpt(expected)
    )
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ending::Complete => "complete",
            Ending::StepFailed => "errored by a step",
            Ending::Refused => "refused",
            Ending::TakenAway => "errored, their pod was taken away",
            Ending::NotFetched => "errored, the frontend was away from their workspace",
        })
    }
}
