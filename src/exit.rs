//! How the process ends, as a number for whoever started it.

use std::process::ExitCode;

/// Every way to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done, or a stop was carried out in order.
    Clean,
    /// The command failed: the configuration is wrong, or what the command
    /// was to do did not succeed, or jobs cannot run. Its output says what.
    Failed,
    /// The process ended with jobs left, after a second signal or because
    /// stopping them took too long.
    Forced,
    /// The step of `exec` ended with this code, which is not 0.
    Step(u8),
    /// The step of `exec` did not run, or nobody saw how it ended.
    NotRun,
    /// `exec` was stopped by a signal.
    Interrupted,
}

impl Exit {
    /// The number: 0, 1 or 2; for `exec` those that are usual with programs
    /// that run others.
    pub fn code(self) -> u8 {
        match self {
            Exit::Clean => 0,
            Exit::Failed => 1,
            Exit::Forced => 2,
            Exit::Step(code) => code,
            Exit::NotRun => 125,
            Exit::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
