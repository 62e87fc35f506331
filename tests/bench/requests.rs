//! What jobs cost the API server: requests and watches, counted by the proxy.

use crate::LIMIT;
use crate::frontend::spec::JobSpec;
use crate::support::proxy::Proxy;
use crate::support::proxy::fault::Call;
use crate::support::stage::{Stage, tiny};
use crate::table::Table;

/// Requests of a job beside its log streams.
const REACH: f64 = 4.0;

/// Measures small numbers of jobs; `quiet` has many.
pub(crate) fn measure(table: &mut Table) {
    for count in [1, 10] {
        let stage = Stage::new();
        let proxy = Proxy::before(&stage.namespace);
        let workers = count.to_string();
        let executor = stage
            .executor_through(&proxy)
            .env("EXECUTOR_MAXIMUM_NUM_JOBS", &workers)
            .start();
        let job = || {
            let job = (0..3).fold(JobSpec::new("batches"), |job, step| {
                // Hidden values and registry credentials cost no request more.
                let step = tiny(&format!("step.{step}"), "true").env("TOKEN", "walnut");
                job.step(step)
            });
            job.redact("walnut", "[hidden]")
                .registry("registry.example.org", "someone", "walnut")
        };
        let jobs: Vec<_> = (0..count).map(|_| stage.frontend.enqueue(job())).collect();
        for job in jobs {
            let view = stage.frontend.wait_finished(job, LIMIT);
            assert_eq!(view.state.name(), "completed", "{}", view.log_text());
        }
        executor.stop();
        add_row(table, &proxy, count, 4);
    }
}

/// One row for so many jobs of so many containers each.
pub(crate) fn add_row(table: &mut Table, proxy: &Proxy, jobs: usize, containers: usize) {
    let count = |call| proxy.requests(call).len();
    let kinds = [
        ("create Job", Call::Create("jobs")),
        ("create Secret", Call::Create("secrets")),
        ("delete Job", Call::Delete("jobs")),
        ("delete Secret", Call::Delete("secrets")),
    ];
    let each = |call| count(call) as f64 / jobs as f64;
    let told: Vec<String> = kinds
        .iter()
        .map(|(name, call)| format!("{name} {}", each(*call)))
        .collect();
    let calls: f64 = kinds.iter().map(|(_, call)| each(*call)).sum();
    let (logs, watches) = (each(Call::Log), count(Call::Watch));
    // About pods that are slow to start, where the node has enough to do.
    let is_question = |path: &str| path.ends_with("/events") || path.contains("/jobs/");
    let all = proxy.requests(Call::Any);
    let questions = all
        .iter()
        .filter(|request| request.method == "GET" && is_question(&request.path));
    let questions = questions.count() as f64 / jobs as f64;
    let plural = if jobs == 1 { "" } else { "s" };
    table.add(
        format!("requests to the API server for each job, {jobs} job{plural}"),
        format!(
            "{calls} ({}), log streams {logs} for {containers} containers, questions about slow \
             pods {questions}; watches: {watches}",
            told.join(", ")
        ),
        format!("≤ {REACH}, one log stream a container, 1 watch"),
        calls + questions <= REACH && logs <= containers as f64 && watches == 1,
    );
}
