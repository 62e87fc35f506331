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
}

impl Exit {
    /// The number: 0, 1 or 2.
    pub fn code(self) -> u8 {
        match self {
            Exit::Clean => 0,
            Exit::Failed => 1,
            Exit::Forced => 2,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
