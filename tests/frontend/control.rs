//! What tests do to a frontend, and what they may ask it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Frontend;
use super::fault::Fault;
use super::journal::{ExecutorView, Request, Traffic};
use super::record::{JobRef, JobState, JobView, Payload, Queue};
use super::spec::JobSpec;

impl Frontend {
    /// Puts a job into its queue.
    pub(crate) fn enqueue(&self, spec: JobSpec) -> JobRef {
        self.put(spec.queue, Payload::Spec(spec))
    }

    /// Puts a value into a queue that is handed out as it is, in whatever
    /// encoding it was made. An object without `id` or `token` (or `queue`,
    /// where the server sends one) gets them; with null, it goes without.
    pub(crate) fn enqueue_raw(&self, queue: &str, payload: Value) -> JobRef {
        self.put(named(queue), Payload::Raw(payload))
    }

    /// Puts a text into a queue that is the answer's body, JSON or not.
    pub(crate) fn enqueue_raw_text(&self, queue: &str, text: &str) -> JobRef {
        self.put(named(queue), Payload::Text(text.to_owned()))
    }

    fn put(&self, queue: Queue, payload: Payload) -> JobRef {
        self.hub.change(|store| store.enqueue(queue, payload))
    }

    /// Makes a repository known; the path is that of its git directory, or of
    /// a working tree with one.
    pub(crate) fn add_repository(&self, name: &str, path: &Path) {
        let path = path.canonicalize().expect("the repository exists");
        self.hub
            .change(|store| store.repositories.insert(name.to_owned(), path));
    }

    /// Puts a file into the store of batch changes, under `<spec>/<file>`.
    pub(crate) fn put_file(&self, key: &str, content: impl Into<Vec<u8>>) {
        let content = Arc::new(content.into());
        self.hub
            .change(|store| store.files.insert(key.to_owned(), content));
    }

    /// A job as it stands.
    pub(crate) fn job(&self, job: JobRef) -> JobView {
        let store = self.hub.lock();
        store
            .jobs
            .get(&job)
            .expect("the job was enqueued here")
            .clone()
    }

    /// Looks at a job where it stands, without a copy of its log.
    pub(crate) fn glance<T>(&self, job: JobRef, look: impl FnOnce(&JobView) -> T) -> T {
        let store = self.hub.lock();
        look(store.jobs.get(&job).expect("the job was enqueued here"))
    }

    /// All jobs, by queue and id.
    pub(crate) fn jobs(&self) -> Vec<JobView> {
        self.hub.lock().jobs.values().cloned().collect()
    }

    /// Ends a job as a person would: at once when it waits, else by asking its
    /// holder at the next heartbeat.
    pub(crate) fn cancel(&self, job: JobRef) {
        self.hub.change(|store| store.cancel(job));
    }

    /// Removes a job's record: no call finds it any more. Tests still do.
    pub(crate) fn forget(&self, job: JobRef) {
        self.hub.change(|store| {
            if let Some(view) = store.jobs.get_mut(&job) {
                view.forgotten = true;
            }
        });
    }

    /// Takes a job from its holder, as the resetter does.
    pub(crate) fn give_away(&self, job: JobRef) {
        self.hub.change(|store| store.take_back(job));
    }

    /// Every request so far, oldest first; of very many, the last 20,000.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.hub.lock().journal.requests().cloned().collect()
    }

    /// The requests whose path contains `part`, such as `dequeue`.
    pub(crate) fn requests_to(&self, part: &str) -> Vec<Request> {
        let store = self.hub.lock();
        let matching = store
            .journal
            .requests()
            .filter(|request| request.path.contains(part));
        matching.cloned().collect()
    }

    /// Number and size of all requests that have ended, by the last part of
    /// their path; `files` and `git` stand for all that is below them.
    pub(crate) fn traffic(&self) -> BTreeMap<String, Traffic> {
        self.hub.lock().journal.traffic()
    }

    /// Who has sent heartbeats, by name.
    pub(crate) fn executors(&self) -> Vec<ExecutorView> {
        self.hub.lock().executors.values().cloned().collect()
    }

    /// What clients did although they should not, in sentences: a call after
    /// an accepted mark, a log that shrank or changed its key, a second entry
    /// with the same key, the executor token where a job token was due,
    /// headers that speak of another job, git without the internal actor, a
    /// mark with a message that does not go with it, and ten seconds without
    /// a heartbeat. A repeat is none when the first answer was lost here.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.hub.lock().violations.clone()
    }

    /// Every job token that was ever handed out.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.hub.lock().tokens.clone()
    }

    /// How long the holder that has been silent for longest has been so.
    pub(crate) fn longest_silence(&self) -> Duration {
        let store = self.hub.lock();
        let silences = store.jobs.values().filter_map(|view| match &view.state {
            JobState::Processing { last_heartbeat, .. } => Some(last_heartbeat.elapsed()),
            _ => None,
        });
        silences.max().unwrap_or_default()
    }

    /// The highest number of jobs that were ever processed at once.
    pub(crate) fn max_processing(&self) -> usize {
        self.hub.lock().max_processing
    }

    /// Adds trouble. Of several faults that fit, the one that came first
    /// strikes.
    pub(crate) fn inject(&self, fault: Fault) {
        self.hub.change(|store| store.faults.push(fault));
    }

    /// Ends all trouble that has not struck yet.
    pub(crate) fn clear_faults(&self) {
        self.hub.change(|store| store.faults.clear());
    }
}

fn named(queue: &str) -> Queue {
    Queue::named(queue).expect("the server has two queues only")
}
