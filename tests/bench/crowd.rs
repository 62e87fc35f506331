//! Many jobs that run at the same time, each a step on reins.

use crate::LIMIT;
use crate::frontend::record::JobRef;
use crate::frontend::spec::JobSpec;
use crate::reins::{Reins, WORD};
use crate::support::stage::Stage;

/// Jobs that run, or ran.
pub(crate) struct Crowd {
    pub(crate) jobs: Vec<JobRef>,
    pub(crate) reins: Reins,
}

impl Crowd {
    /// Starts so many jobs and waits until all their steps run, and the frontend
    /// has the first word of each: then all logs are followed.
    pub(crate) fn gather(stage: &Stage, count: usize, action: &str) -> Crowd {
        let reins = Reins::new();
        let start = |number: usize| {
            let step = reins.step(&name(number), action);
            stage.frontend.enqueue(JobSpec::new("batches").step(step))
        };
        let jobs: Vec<_> = (0..count).map(start).collect();
        reins.wait_for(count);
        for job in &jobs {
            stage.frontend.wait_for(*job, LIMIT, |view| {
                let log = view.log("step.kubernetes.led");
                log.is_some_and(|log| log.out.contains(WORD))
            });
        }
        Crowd { jobs, reins }
    }

    /// Lets everyone go, and waits until these jobs have ended well.
    pub(crate) fn finish(&self, stage: &Stage, jobs: &[JobRef]) {
        self.reins.release_all();
        for job in jobs {
            let view = stage.frontend.wait_finished(*job, LIMIT);
            assert_eq!(view.state.name(), "completed", "{}", view.log_text());
        }
    }
}

/// What the step of a job is called on its rein.
pub(crate) fn name(number: usize) -> String {
    format!("led-{number}")
}
