//! What can be asked for over HTTP: the metrics, and how the executor is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::metrics::Metrics;
use crate::shutdown::Shutdown;

const TEXT: &str = "Content-Type: text/plain; charset=utf-8\r\n";
/// Names the version of the format, for parsers of other versions.
const METRICS_TEXT: &str = "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n";

/// Whether the executor is ready to take jobs. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    connected: Arc<AtomicBool>,
    shutdown: Shutdown,
}

impl Health {
    /// Not connected yet.
    pub fn new(shutdown: &Shutdown) -> Health {
        Health {
            connected: Arc::default(),
            shutdown: shutdown.clone(),
        }
    }

    /// Both servers have answered.
    pub fn set_connected(&self) {
        self.connected.store(true, Ordering::Relaxed);
    }

    /// What keeps the executor from taking jobs.
    fn obstacle(&self) -> Option<&'static str> {
        if self.shutdown.is_draining() {
            return Some("stopping: no more jobs are taken\n");
        }
        let connected = self.connected.load(Ordering::Relaxed);
        (!connected).then_some("not connected to Sourcegraph and Kubernetes yet\n")
    }
}

/// What can be asked for.
pub(super) struct Pages {
    /// What was counted.
    pub(super) metrics: Metrics,
    /// Whether jobs can be taken.
    pub(super) health: Health,
}

impl Pages {
    /// The whole answer to a request line.
    pub(super) fn answer(&self, request: &str) -> Vec<u8> {
        let mut words = request.split(' ');
        let (method, target, version) = (words.next(), words.next(), words.next());
        let is_http = version.is_some_and(|version| version.starts_with("HTTP/1."));
        let Some(target) = target.filter(|_| is_http && words.next().is_none()) else {
            return response("400 Bad Request", "", "");
        };
        if method != Some("GET") {
            return response("405 Method Not Allowed", "Allow: GET\r\n", "");
        }
        match target.split('?').next() {
            Some("/metrics") => response("200 OK", METRICS_TEXT, &self.metrics.text()),
            Some("/healthz") => unless(self.metrics.pulses.late().as_deref()),
            Some("/readyz") => unless(self.health.obstacle()),
            _ => response(
                "404 Not Found",
                TEXT,
                "there are /metrics, /healthz, /readyz\n",
            ),
        }
    }
}

/// That all is well, unless there is a problem.
fn unless(problem: Option<&str>) -> Vec<u8> {
    match problem {
        None => response("200 OK", TEXT, "ok\n"),
        Some(problem) => response("503 Service Unavailable", TEXT, problem),
    }
}

/// A whole answer. `headers` are whole lines.
pub(super) fn response(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
