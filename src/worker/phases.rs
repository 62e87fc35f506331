//! Where the time of a job goes.

use std::cell::Cell;
use std::time::Instant;

use crate::metrics::jobs::{JobMetrics, Phase};

/// The phase that a job is in. Dropping it ends the last one.
pub(super) struct Phases {
    metrics: JobMetrics,
    /// None while it is not known since when the job is in its phase, as with
    /// one that a former process began.
    current: Cell<Option<(Phase, Instant)>>,
}

impl Phases {
    pub(super) fn new(metrics: &JobMetrics) -> Phases {
        Phases {
            metrics: metrics.clone(),
            current: Cell::new(None),
        }
    }

    /// The next phase begins.
    pub(super) fn begin(&self, phase: Phase) {
        self.end();
        self.current.set(Some((phase, Instant::now())));
    }

    fn end(&self) {
        if let Some((phase, since)) = self.current.take() {
            self.metrics.spent(phase, since.elapsed());
        }
    }
}

impl Drop for Phases {
    fn drop(&mut self) {
        self.end();
    }
}
