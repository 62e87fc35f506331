//! Many random jobs through executors that are killed, servers that go away,
//! answers that are lost and pods that are taken: in the end every job must
//! have one verdict, the right one, and a log with just what was written.
//!
//! What is random comes from one seed, but for when things happen. The plan of
//! a job (`jobs.rs`) comes from the seed and its number alone, so that it can
//! be looked at by itself.

mod diary;
mod fleet;
mod jobs;
mod output;
mod pods;
mod run;
mod secrets;
mod strike;
mod summary;
mod trouble;
mod verdict;

pub(crate) use run::{Options, run};

#[cfg(test)]
mod tests {
    use super::{Options, run, trouble};

    #[test]
    fn every_job_of_a_chaos_ends_right() {
        let options = Options {
            seed: 1,
            jobs: 0..200,
        };
        let summary = run(&options);
        assert!(summary.faults.is_empty(), "{summary}");
        // A run without trouble would prove nothing.
        for kind in trouble::all() {
            let struck = summary.troubles.get(&kind).copied().unwrap_or_default();
            assert!(struck >= 2, "{kind}: {struck} times\n{summary}");
        }
    }
}
