//! Many jobs that run and say nothing: what they cost the API server and the
//! processor; then how soon one that is cancelled is deleted.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::frontend::record::JobRef;
use crate::support::proxy::fault::Call;
use crate::support::proxy::{Proxy, Request};
use crate::support::stage::Stage;
use crate::table::{Table, quantile};
use crate::{JOBS, LIMIT, process, requests};

/// How long is measured: a round of the janitor, and twice the first silence
/// after which a log stream is doubted.
const WINDOW: Duration = Duration::from_secs(65);
const REQUESTS_MOST: f64 = 0.2;
const PROCESSOR_MOST: f64 = 2.0;
/// Jobs that are cancelled between two heartbeats.
const CANCELLED_AT_ONCE: usize = 10;
const CANCELLED: usize = 50;
const CANCEL_MOST: f64 = 100.0;

/// Measures an executor without jobs beside one with many.
pub(crate) fn measure(table: &mut Table) {
    let idle_stage = Stage::new();
    let idle_proxy = Proxy::before(&idle_stage.namespace);
    let idle = idle_stage.executor_through(&idle_proxy).start();
    let stage = Stage::new();
    let proxy = Proxy::before(&stage.namespace);
    let executor = stage
        .executor_through(&proxy)
        .env("EXECUTOR_MAXIMUM_NUM_JOBS", &JOBS.to_string())
        .env("EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY", "128Mi")
        .env("RUST_LOG", "warn,executor=info")
        .start();
    let crowd = Crowd::gather(&stage, JOBS, "echo \"$line\"");
    let (began, before) = (Instant::now(), process::processor(&executor));
    thread::park_timeout(WINDOW);
    let seconds = began.elapsed().as_secs_f64();
    let busy = process::processor(&executor) - before;
    for (who, proxy) in [("idle".to_owned(), &idle_proxy), (with_jobs(), &proxy)] {
        let all = proxy.requests(Call::Any);
        let since: Vec<_> = all.iter().filter(|it| it.at >= began).collect();
        let rate = since.len() as f64 / seconds;
        table.add(
            format!("requests a second to the API server, {who}, over {seconds:.0} s"),
            format!("{rate:.2} ({})", kinds(&since)),
            format!("< {REQUESTS_MOST}"),
            rate < REQUESTS_MOST,
        );
    }
    let part = 100.0 * busy.as_secs_f64() / seconds;
    table.add(
        format!("processor, {}, over {seconds:.0} s", with_jobs()),
        format!("{part:.2} % of a core"),
        format!("< {PROCESSOR_MOST} %"),
        part < PROCESSOR_MOST,
    );
    idle.stop();
    cancel(table, &stage, &proxy, &crowd.jobs[..CANCELLED]);
    crowd.finish(&stage, &crowd.jobs[CANCELLED..]);
    executor.stop();
    requests::add_row(table, &proxy, JOBS, 2);
}

/// How many there were of each kind.
fn kinds(requests: &[&Request]) -> String {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for request in requests {
        let last = request.path.rsplit('/').next().unwrap_or_default();
        let follows = request.query.contains("follow=true");
        let how = if follows { " followed" } else { "" };
        let kind = format!("{} {last}{how}", request.method);
        *kinds.entry(kind).or_default() += 1;
    }
    let told: Vec<String> = kinds
        .iter()
        .map(|(kind, count)| format!("{kind}: {count}"))
        .collect();
    told.join(", ")
}

fn with_jobs() -> String {
    format!("{JOBS} quiet jobs")
}

/// Cancels jobs, some at each heartbeat.
fn cancel(table: &mut Table, stage: &Stage, proxy: &Proxy, jobs: &[JobRef]) {
    let began = Instant::now();
    for some in jobs.chunks(CANCELLED_AT_ONCE) {
        let asked = Instant::now();
        some.iter().for_each(|job| stage.frontend.cancel(*job));
        stage.frontend.wait_for_requests(1, LIMIT, |request| {
            request.endpoint() == "heartbeat" && request.at > asked
        });
    }
    for job in jobs {
        let view = stage.frontend.wait_finished(*job, LIMIT);
        assert_eq!(view.state.name(), "canceled", "{}", view.log_text());
    }
    let beats: Vec<Instant> = stage
        .frontend
        .requests_to("heartbeat")
        .iter()
        .map(|beat| beat.at)
        .collect();
    // A job's second deletion, if any, is no answer to the server's word.
    let mut deleted = BTreeMap::new();
    for deletion in proxy.requests(Call::Delete("jobs")) {
        deleted.entry(deletion.path).or_insert(deletion.at);
    }
    let times: Vec<f64> = deleted
        .values()
        .filter(|at| **at >= began)
        .filter_map(|at| {
            let word = beats.iter().filter(|beat| *beat <= at).max()?;
            Some(at.duration_since(*word).as_secs_f64() * 1000.0)
        })
        .collect();
    assert_eq!(
        times.len(),
        jobs.len(),
        "each is deleted once\n{}",
        proxy.story()
    );
    let (median, p99) = (quantile(&times, 0.5), quantile(&times, 0.99));
    table.add(
        format!(
            "cancel: heartbeat at the server to the delete call, {CANCELLED} running jobs, \
             {CANCELLED_AT_ONCE} at a time"
        ),
        format!("p99 {p99:.0} ms, median {median:.0} ms"),
        format!("p99 < {CANCEL_MOST} ms"),
        p99 < CANCEL_MOST,
    );
}
