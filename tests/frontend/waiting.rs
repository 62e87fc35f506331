//! Waiting for what clients do, and what is told when they do not.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::Frontend;
use super::journal::Request;
use super::record::{JobRef, JobView};
use super::store::Store;

/// So many of the last requests are told.
const REQUESTS_TOLD: usize = 40;

/// So much of the end of each log entry is told.
const LOG_BYTES_TOLD: usize = 4 << 10;

impl Frontend {
    /// Waits until the job fulfils the condition, which is asked at every
    /// change and must not call the frontend. Panics with all that is known of
    /// the job when the time is over.
    pub(crate) fn wait_for(
        &self,
        job: JobRef,
        within: Duration,
        condition: impl Fn(&JobView) -> bool,
    ) -> JobView {
        let found = self.hub.wait(within, |store| {
            store.jobs.get(&job).filter(|view| condition(view)).cloned()
        });
        found.unwrap_or_else(|| {
            panic!(
                "job {job} did not get there in {within:?}\n{}",
                self.transcript(job)
            )
        })
    }

    /// Waits until the job has ended, in whatever way.
    pub(crate) fn wait_finished(&self, job: JobRef, within: Duration) -> JobView {
        self.wait_for(job, within, |view| view.state.is_final())
    }

    /// Waits until an executor has the job.
    pub(crate) fn wait_processing(&self, job: JobRef, within: Duration) -> JobView {
        self.wait_for(job, within, |view| view.holder().is_some())
    }

    /// Waits until so many requests that fulfil the condition have come in,
    /// whether or not they have been answered, and gives all of them.
    pub(crate) fn wait_for_requests(
        &self,
        count: usize,
        within: Duration,
        condition: impl Fn(&Request) -> bool,
    ) -> Vec<Request> {
        let found = self.hub.wait(within, |store| {
            let matching = store
                .journal
                .requests()
                .filter(|request| condition(request));
            let matching: Vec<Request> = matching.cloned().collect();
            (matching.len() >= count).then_some(matching)
        });
        found.unwrap_or_else(|| {
            let mut text = String::new();
            tell_requests(&mut text, &self.hub.lock());
            panic!("{count} such requests did not come in {within:?}\n{text}")
        })
    }

    /// Waits until anything has changed, for that long at most.
    pub(crate) fn wait_for_change(&self, within: Duration) {
        let mut is_first_look = true;
        let _ = self.hub.wait(within, |_| {
            let has_changed = !std::mem::take(&mut is_first_look);
            has_changed.then_some(())
        });
    }

    /// All that is known of a job, and the last requests of all clients.
    pub(crate) fn transcript(&self, job: JobRef) -> String {
        let store = self.hub.lock();
        let mut text = format!("----- job {job} -----\n");
        match store.jobs.get(&job) {
            None => text.push_str("never enqueued\n"),
            Some(view) => tell_job(&mut text, view),
        }
        for violation in &store.violations {
            tell(&mut text, format_args!("violation: {violation}"));
        }
        for fault in &store.faults {
            tell(&mut text, format_args!("fault not used up: {fault:?}"));
        }
        tell_requests(&mut text, &store);
        text
    }
}

fn tell_job(text: &mut String, view: &JobView) {
    let (state, attempts, resets) = (&view.state, view.attempts, view.resets);
    tell(
        text,
        format_args!("state: {state:?}, attempts: {attempts}, resets: {resets}"),
    );
    if view.cancel_requested || view.forgotten {
        let (cancel, forgotten) = (view.cancel_requested, view.forgotten);
        tell(
            text,
            format_args!("cancel requested: {cancel}, forgotten: {forgotten}"),
        );
    }
    for mark in &view.marks {
        let (call, status, executor) = (mark.kind.endpoint(), mark.status, &mark.executor);
        let message = mark.message.as_deref().unwrap_or("no message");
        tell(
            text,
            format_args!("{call} of {executor}: {status}, {message}"),
        );
    }
    for entry in &view.logs {
        let (key, exit_code, updates) = (&entry.key, entry.exit_code, entry.updates);
        let length = entry.out.len();
        tell(
            text,
            format_args!("log {key}: exit {exit_code:?}, {updates} updates, {length} bytes"),
        );
        let told = entry.out.as_bytes();
        let told = &told[told.len().saturating_sub(LOG_BYTES_TOLD)..];
        tell(
            text,
            format_args!("{}", String::from_utf8_lossy(told).trim_end()),
        );
    }
}

fn tell_requests(text: &mut String, store: &Store) {
    text.push_str("----- last requests -----\n");
    let now = Instant::now();
    let mut last: Vec<&Request> = store.journal.requests().rev().take(REQUESTS_TOLD).collect();
    last.reverse();
    for request in last {
        let age = now.duration_since(request.at).as_secs_f64();
        let status = request
            .status
            .map_or("-".to_owned(), |status| status.to_string());
        let (method, path, length) = (&request.method, &request.path, request.body_length);
        tell(
            text,
            format_args!("{age:8.3} s ago {status:>3} {method} {path} ({length} bytes)"),
        );
    }
}

fn tell(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes every line");
}
