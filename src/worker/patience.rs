//! How long to wait for what, and what to say of it. Pure: the clock comes in.
//!
//! Each kind of waiting has a limit. What counts is the time that such a cause
//! was in the way, through all changes of its words, until the pod comes one
//! step further: then all waiting so far has paid off and is forgotten.

use std::time::{Duration, Instant};

use crate::cluster::status::{Cause, Failure, Grace};
use crate::config::Graces;
use crate::worker::go_duration;

/// A wait that is over sooner is not worth a line.
const QUIET: Duration = Duration::from_secs(2);
/// The same where no reason is known: a busy node needs a moment for each pod.
const QUIET_WITHOUT_REASON: Duration = Duration::from_secs(10);
/// Causes can change their words without an end.
const LINES_MAX: usize = 20;

/// The waiting of one job.
pub(super) struct Patience {
    graces: Graces,
    /// How far the pod has come.
    progress: usize,
    /// How long there was waiting of each kind at this point.
    spent: Vec<(Grace, Duration)>,
    /// What is waited for since the last look.
    waiting: Option<(Grace, Instant)>,
    /// What was said last at this point.
    told: Option<Told>,
    lines: usize,
}

struct Told {
    substance: String,
    since: Instant,
}

/// What to do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ruling {
    /// What a reader of the job's log should know.
    pub(super) lines: Vec<String>,
    /// When to look again.
    pub(super) wake: Option<Instant>,
    /// Why not to wait any longer.
    pub(super) end: Option<Failure>,
}

impl Patience {
    pub(super) fn new(graces: Graces) -> Patience {
        Patience {
            graces,
            progress: 0,
            spent: Vec::new(),
            waiting: None,
            told: None,
            lines: 0,
        }
    }

    /// Judges what is in the way, if anything is. `progress` tells how far the
    /// pod has come, and grows.
    pub(super) fn look(
        &mut self,
        progress: usize,
        obstacle: Option<&Failure>,
        now: Instant,
    ) -> Ruling {
        let mut ruling = Ruling::default();
        self.count(now);
        if progress > self.progress {
            self.progress = progress;
            self.spent.clear();
            if let Some(told) = self.told.take() {
                let time = go_duration(now.saturating_duration_since(told.since));
                ruling.lines.push(format!("It goes on after {time}."));
            }
        }
        let Some(failure) = obstacle else {
            return ruling;
        };
        let Some(grace) = failure.cause.grace() else {
            ruling.end = Some(failure.clone());
            return ruling;
        };
        self.waiting = Some((grace, now));
        let (limit, spent) = (self.limit(grace), self.spent(grace));
        if spent >= limit {
            ruling.end = Some(failure.clone());
            return ruling;
        }
        let quiet = quiet(failure).min(limit / 2);
        let next = if self.is_told(failure) || self.lines >= LINES_MAX {
            limit
        } else if spent < quiet {
            quiet
        } else {
            ruling.lines.push(self.tell(failure, limit, now - spent));
            limit
        };
        ruling.wake = Some(now + (next - spent));
        ruling
    }

    /// Counts the time since the last look.
    fn count(&mut self, now: Instant) {
        let Some((grace, since)) = self.waiting.take() else {
            return;
        };
        let time = now.saturating_duration_since(since);
        match self.spent.iter_mut().find(|(kind, _)| *kind == grace) {
            Some((_, spent)) => *spent += time,
            None => self.spent.push((grace, time)),
        }
    }

    fn spent(&self, grace: Grace) -> Duration {
        let known = self.spent.iter().find(|(kind, _)| *kind == grace);
        known.map_or(Duration::ZERO, |(_, spent)| *spent)
    }

    fn tell(&mut self, failure: &Failure, limit: Duration, since: Instant) -> String {
        self.lines += 1;
        self.told = Some(Told {
            substance: failure.substance(),
            since: self.told.take().map_or(since, |told| told.since),
        });
        let failure = failure.to_string();
        let (limit, words) = (go_duration(limit), failure.trim_end_matches('.'));
        format!("Waiting, for {limit} at most: {words}.")
    }

    fn limit(&self, grace: Grace) -> Duration {
        match grace {
            Grace::ImagePull => self.graces.image_pull,
            Grace::Scheduling => self.graces.scheduling,
            Grace::PodStart => self.graces.pod_start,
        }
    }

    /// Whether the last line says this already.
    fn is_told(&self, failure: &Failure) -> bool {
        let is_same = |told: &Told| told.substance == failure.substance();
        self.told.as_ref().is_some_and(is_same)
    }
}

/// How long something is in the way before that is worth a line.
fn quiet(failure: &Failure) -> Duration {
    match failure.cause {
        Cause::NoPod | Cause::NotStarted => QUIET_WITHOUT_REASON,
        _ => QUIET,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACES: Graces = Graces {
        image_pull: Duration::from_secs(60),
        scheduling: Duration::from_secs(900),
        pod_start: Duration::from_secs(300),
    };

    /// A fake clock, and what was said so far.
    struct Wait {
        patience: Patience,
        start: Instant,
        lines: Vec<String>,
    }

    impl Wait {
        fn new() -> Wait {
            Wait {
                patience: Patience::new(GRACES),
                start: Instant::now(),
                lines: Vec::new(),
            }
        }

        /// Looks at a second after the start; tells the next look's second, or
        /// why the waiting ends.
        fn look(
            &mut self,
            second: u64,
            progress: usize,
            obstacle: Option<&Failure>,
        ) -> Result<Option<u64>, Failure> {
            let now = self.start + Duration::from_secs(second);
            let ruling = self.patience.look(progress, obstacle, now);
            self.lines.extend(ruling.lines);
            match ruling.end {
                Some(failure) => Err(failure),
                None => Ok(ruling.wake.map(|wake| (wake - self.start).as_secs())),
            }
        }
    }

    fn pull(message: &str) -> Failure {
        let image = "a".to_string();
        Cause::ImagePull { image }.with(message)
    }

    #[test]
    fn permanent_causes_end_at_once() {
        let failure = Cause::LimitRange.with("too much");
        let mut wait = Wait::new();
        assert_eq!(wait.look(0, 0, Some(&failure)), Err(failure.clone()));
        assert!(wait.lines.is_empty(), "{:?}", wait.lines);
    }

    #[test]
    fn passing_causes_are_told_once_and_end() {
        let failure = pull("dial tcp: timeout");
        let mut wait = Wait::new();
        assert_eq!(wait.look(10, 3, Some(&failure)), Ok(Some(12)));
        assert!(wait.lines.is_empty(), "{:?}", wait.lines);
        assert_eq!(wait.look(12, 3, Some(&failure)), Ok(Some(70)));
        assert_eq!(wait.look(40, 3, Some(&failure)), Ok(Some(70)));
        // The status can flicker while nothing has changed.
        assert_eq!(wait.look(50, 3, None), Ok(None));
        assert_eq!(wait.look(51, 3, Some(&failure)), Ok(Some(71)));
        assert_eq!(wait.look(70, 3, Some(&failure)), Ok(Some(71)));
        assert_eq!(wait.look(71, 3, Some(&failure)), Err(failure));
        let line = "Waiting, for 1m0s at most: image a cannot be pulled; check its name, and the \
                    credentials in KUBERNETES_IMAGE_PULL_SECRETS: dial tcp: timeout.";
        assert_eq!(wait.lines, [line]);
    }

    #[test]
    fn new_words_are_told_and_new_numbers_are_not() {
        let mut wait = Wait::new();
        let node = |words: &str| Cause::Unschedulable.with(words);
        for (second, words) in [
            (0, "0/1 nodes are available: 1 Insufficient cpu."),
            (5, "0/1 nodes are available: 1 Insufficient cpu."),
            (6, "0/7 nodes are available: 7 Insufficient cpu."),
            (7, "0/7 nodes are available: 7 Insufficient memory."),
        ] {
            assert!(wait.look(second, 1, Some(&node(words))).is_ok());
        }
        assert_eq!(wait.lines.len(), 2, "{:#?}", wait.lines);
        assert!(wait.lines[1].contains("Insufficient memory"));
        assert!(wait.look(899, 1, Some(&node("x"))).is_ok());
        assert!(wait.look(900, 1, Some(&node("x"))).is_err());
    }

    #[test]
    fn progress_gives_new_time_and_is_told() {
        let quota = Cause::Quota.with("exceeded quota");
        let sandbox = Cause::Sandbox.with("no network");
        let mut wait = Wait::new();
        assert!(wait.look(0, 0, Some(&quota)).is_ok());
        assert!(wait.look(299, 0, Some(&quota)).is_ok());
        assert_eq!(wait.look(299, 2, Some(&sandbox)), Ok(Some(301)));
        assert_eq!(wait.lines[1], "It goes on after 4m59s.");
        assert!(wait.look(598, 2, Some(&sandbox)).is_ok());
        assert_eq!(wait.look(599, 2, Some(&sandbox)), Err(sandbox));
    }

    #[test]
    fn waits_that_pass_soon_are_not_told() {
        let quota = Cause::Quota.with("exceeded quota");
        let mut wait = Wait::new();
        assert_eq!(wait.look(0, 0, Some(&quota)), Ok(Some(2)));
        assert_eq!(wait.look(1, 1, None), Ok(None));
        assert!(wait.lines.is_empty(), "{:?}", wait.lines);
    }

    #[test]
    fn each_kind_of_waiting_has_its_own_clock() {
        let suspended = Cause::Suspended.with("");
        let quota = Cause::Quota.with("exceeded quota");
        let mut wait = Wait::new();
        assert!(wait.look(0, 0, Some(&quota)).is_ok());
        assert!(wait.look(100, 0, Some(&suspended)).is_ok());
        assert_eq!(wait.look(800, 0, Some(&quota)), Ok(Some(1000)));
        assert!(wait.look(999, 0, Some(&suspended)).is_ok());
        assert_eq!(wait.look(1100, 0, Some(&quota)), Ok(Some(1101)));
        assert_eq!(wait.look(1101, 0, Some(&quota)), Err(quota));
    }

    #[test]
    fn words_without_an_end_are_not_all_told() {
        let mut wait = Wait::new();
        for number in 0..200_u64 {
            let word: String = ('a'..='z').cycle().skip(number as usize).take(26).collect();
            let failure =
                Cause::Unschedulable.with(format!("{word}{}", "x".repeat(number as usize)));
            assert!(wait.look(3 + number, 1, Some(&failure)).is_ok());
        }
        assert_eq!(wait.lines.len(), LINES_MAX);
    }
}
