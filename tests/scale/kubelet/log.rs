//! What containers have written, and what their readers wait for.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::lock;

/// The log of one container, growing until it is closed.
#[derive(Default)]
pub(super) struct Log {
    written: Mutex<Written>,
    changed: Condvar,
}

#[derive(Default)]
struct Written {
    lines: Vec<(Timestamp, String)>,
    is_closed: bool,
}

impl Log {
    pub(super) fn write(&self, line: String) {
        lock(&self.written).lines.push((Timestamp::now(), line));
        self.changed.notify_all();
    }

    pub(super) fn close(&self) {
        lock(&self.written).is_closed = true;
        self.changed.notify_all();
    }

    /// The lines from the one of this number on, once there are any. None at
    /// all when the log is closed, or when nothing has come for that long.
    pub(super) fn read_from(&self, number: usize, within: Duration) -> Vec<(Timestamp, String)> {
        let has_none = |written: &mut Written| written.lines.len() <= number && !written.is_closed;
        let (written, _) = self
            .changed
            .wait_timeout_while(lock(&self.written), within, has_none)
            .unwrap_or_else(PoisonError::into_inner);
        written.lines.get(number..).unwrap_or_default().to_vec()
    }
}

/// All logs of the node.
#[derive(Clone, Default)]
pub(super) struct Logs(Arc<Mutex<HashMap<String, PodLogs>>>);

/// Those of a pod, by container.
type PodLogs = HashMap<String, Arc<Log>>;

impl Logs {
    /// A new log, for a container that starts.
    pub(super) fn open(&self, pod: &str, container: &str) -> Arc<Log> {
        let log = Arc::new(Log::default());
        let mut pods = lock(&self.0);
        let containers = pods.entry(pod.to_owned()).or_default();
        containers.insert(container.to_owned(), Arc::clone(&log));
        log
    }

    pub(super) fn find(&self, pod: &str, container: &str) -> Option<Arc<Log>> {
        lock(&self.0).get(pod)?.get(container).cloned()
    }

    /// Closes and forgets what a pod wrote.
    pub(super) fn forget(&self, pod: &str) {
        let forgotten = lock(&self.0).remove(pod);
        for log in forgotten.into_iter().flatten() {
            log.1.close();
        }
    }
}
