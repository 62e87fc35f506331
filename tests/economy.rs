//! What jobs cost both servers, as far as it can be counted: requests, watches,
//! bytes. Figures that depend on the machine are in the bench.

use crate::frontend::spec::{JobSpec, StepSpec};
use crate::support::MINUTES;
use crate::support::proxy::Proxy;
use crate::support::proxy::fault::Call;
use crate::support::stage::{Stage, TINY_IMAGE, tiny};

/// Steps of each job.
const STEPS: usize = 2;
/// What is sent for any log, however small.
const FREE_BYTES: u64 = 64 << 10;

/// A job with everything that is hidden: a variable, and registry credentials.
fn job() -> JobSpec {
    let job = (0..STEPS).fold(JobSpec::new("batches"), |job, number| {
        job.step(tiny(&format!("step.{number}"), "true").env("TOKEN", "walnut"))
    });
    job.redact("walnut", "[hidden]")
        .registry("registry.example.org", "someone", "walnut")
}

fn assert_requests(jobs: usize) {
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    let executor = stage
        .executor_through(&proxy)
        .env("EXECUTOR_MAXIMUM_NUM_JOBS", &jobs.to_string())
        .start();
    let refs: Vec<_> = (0..jobs).map(|_| stage.frontend.enqueue(job())).collect();
    for job in refs {
        let view = stage.frontend.wait_finished(job, MINUTES);
        assert_eq!(view.state.name(), "completed", "{}", view.log_text());
    }
    executor.stop();
    for call in [
        Call::Create("jobs"),
        Call::Create("secrets"),
        Call::Delete("jobs"),
        Call::Delete("secrets"),
    ] {
        let count = proxy.requests(call).len();
        assert_eq!(count, jobs, "{call:?}\n{}", proxy.story());
    }
    assert_eq!(proxy.requests(Call::Watch).len(), 1, "{}", proxy.story());
    // A stream whose end the status did not confirm in time is looked at again.
    let containers = jobs * (STEPS + 1);
    let logs = proxy.requests(Call::Log).len();
    assert!(
        (containers..=2 * containers).contains(&logs),
        "{logs} log streams"
    );
    stage.assert_clean();
}

#[test]
fn a_job_costs_four_requests_and_its_logs() {
    assert_requests(1);
}

#[test]
fn many_jobs_share_one_watch() {
    assert_requests(10);
}

/// Each update of a log carries the whole log, and yet all of them together
/// are no more than three times the log.
#[test]
fn a_log_is_sent_three_times_at_most() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    for (pieces, lines) in [(1, 10), (8, 1_000), (8, 20_000)] {
        // Pieces that come slower than updates may be sent.
        let write = format!("yes {} | head -n {lines}", "x".repeat(99));
        let step = StepSpec::new("only", TINY_IMAGE)
            .command("{ set +x; } 2>/dev/null")
            .command(format!(
                "for i in $(seq {pieces}); do {write}; sleep 1.1; done"
            ));
        let before = sent(&stage);
        let job = stage.complete(JobSpec::new("batches").step(step));
        let written = pieces * lines * 100;
        let log = job.log("step.kubernetes.only").expect("the step has a log");
        assert_eq!(log.out.lines().count() as u64, pieces * lines);
        let sent = sent(&stage) - before;
        assert!(
            (written..=3 * written + FREE_BYTES).contains(&sent),
            "{sent} bytes were sent for {written}, by {} updates",
            log.updates
        );
        assert!(pieces == 1 || log.updates > 0, "it was sent while it grew");
    }
    executor.stop();
    stage.assert_clean();
}

/// Bytes of all calls about logs so far.
fn sent(stage: &Stage) -> u64 {
    let traffic = stage.frontend.traffic();
    let calls = ["addExecutionLogEntry", "updateExecutionLogEntry"];
    let bytes = calls.iter().filter_map(|call| traffic.get(*call));
    bytes.map(|traffic| traffic.body_bytes).sum()
}
