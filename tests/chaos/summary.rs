//! The figures of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::trouble::{self, Trouble};
use super::verdict::Ending;

/// What a run came to.
#[derive(Default)]
pub(crate) struct Summary {
    /// From the first job to the last check.
    pub(crate) time: Duration,
    /// How many jobs ended in which way.
    pub(crate) endings: BTreeMap<Ending, usize>,
    /// How often each trouble struck.
    pub(crate) troubles: BTreeMap<Trouble, usize>,
    /// Jobs that the server had to hand out again.
    pub(crate) second_attempts: usize,
    /// Log entries that were checked, and their bytes.
    pub(crate) entries: usize,
    /// Bytes of these entries.
    pub(crate) bytes: usize,
    /// What was looked through for secrets.
    pub(crate) secrecy: String,
    /// Everything that was wrong, in a line each.
    pub(crate) faults: Vec<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jobs: usize = self.endings.values().sum();
        writeln!(f, "{jobs} jobs ended right in {:.0?}:", self.time)?;
        for (ending, count) in &self.endings {
            writeln!(f, "  {count:5} {ending}")?;
        }
        writeln!(f, "through:")?;
        for trouble in trouble::all() {
            let count = self.troubles.get(&trouble).copied().unwrap_or_default();
            writeln!(f, "  {count:5} {trouble}")?;
        }
        let (entries, bytes) = (self.entries, self.bytes / 1024);
        writeln!(
            f,
            "{entries} log entries of {bytes} KiB held against their plans"
        )?;
        writeln!(f, "{}", self.secrecy)?;
        let second = self.second_attempts;
        writeln!(
            f,
            "{second} jobs handed out twice, since nobody heard of the first time"
        )?;
        match self.faults.len() {
            0 => write!(f, "nothing is wrong"),
            count => write!(f, "{count} faults:\n{}", self.faults.join("\n")),
        }
    }
}
