//! A worker that panics: its log is sent before its mark.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use executor::config::Config;
use executor::job::Outcome;
use executor::logs::entry::Place;
use executor::logs::redact::Redactions;
use executor::logs::upload::{JobLog, Sink};
use executor::metrics::Metrics;
use executor::queue::client::QueueClient;
use jiff::Timestamp;

use crate::frontend::Frontend;
use crate::frontend::spec::JobSpec;
use crate::support::stage::tiny;

/// A client as an executor has it.
fn client(frontend: &Frontend) -> QueueClient {
    let url = frontend.url();
    let config = Config::from_lookup(|name| match name {
        "EXECUTOR_QUEUE_NAME" => Some("batches".to_owned()),
        "EXECUTOR_FRONTEND_URL" => Some(url.clone()),
        "EXECUTOR_FRONTEND_PASSWORD" => Some(frontend.token().to_owned()),
        _ => None,
    });
    QueueClient::new(
        config.unwrap().queue,
        "panicking",
        &Metrics::new(&["batches"]),
    )
}

#[test]
fn a_panic_sends_the_log_before_the_mark() {
    let frontend = Frontend::start();
    let job = frontend.enqueue(JobSpec::new("batches").step(tiny("s", "true")));
    let client = client(&frontend);
    let ticket = client.dequeue().unwrap().unwrap().dequeued.ticket();
    let dir = tempfile::tempdir().unwrap();
    let log = JobLog::start(
        Sink::Server(client.clone(), ticket.clone()),
        Arc::new(Redactions::new(&Default::default())),
        Place::Passing(dir.path().to_owned()),
        false,
    );
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let entry = log.open("setup.workspace", None, Timestamp::now());
        log.note(entry, "the last words");
        panic!("as this test wants");
    }));
    assert!(panicked.is_err());
    let outcome = Outcome::Errored("the worker panicked".to_owned());
    client.mark(&ticket, &outcome).unwrap();
    let view = frontend.job(job);
    let log = view.log_text();
    assert!(log.contains("the last words"), "{log}");
    let violations = frontend.violations();
    assert!(violations.is_empty(), "{violations:#?}");
}
