//! Streams the log of one container and hands its bytes to a blocking reader.

use std::pin::pin;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use futures::{AsyncBufRead, AsyncBufReadExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use kube_client::api::{Api, LogParams};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use crate::cluster::client::{CALL_TIMEOUT, kind_of, result_of};
use crate::cluster::error::{ClusterError, ClusterErrorKind};
use crate::metrics::calls::ClusterMetrics;

/// Chunks that may wait for the reader. With chunks of at most
/// `CHUNK_BYTES_MAX` a hundred busy streams hold less than 7 MiB.
const CHUNKS_MAX: usize = 4;
const CHUNK_BYTES_MAX: usize = 16 * 1024;

/// A log that is being read. Dropping it ends the stream.
pub struct LogStream {
    events: Receiver<LogEvent>,
    task: AbortHandle,
}

/// What a stream brings.
pub enum LogEvent {
    /// Bytes, as the API sent them.
    Chunk(LogChunk),
    /// The stream has ended, which does not mean that the container has.
    End(Result<(), ClusterError>),
}

/// Bytes that hold a place in the queue until they are dropped.
pub struct LogChunk {
    /// The bytes.
    pub bytes: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

impl LogStream {
    pub(super) fn start(
        runtime: &Runtime,
        pods: Api<core::Pod>,
        pod: &str,
        params: LogParams,
        metrics: ClusterMetrics,
    ) -> LogStream {
        // The places bound the chunks, and one more is for the end: so a send
        // never blocks the runtime's thread.
        let (sender, events) = bounded(CHUNKS_MAX + 1);
        let pod = pod.to_string();
        let task = runtime.spawn(async move {
            let end = follow(&pods, &pod, &params, &metrics, &sender).await;
            // The reader may be gone; then nobody is interested in the end.
            let _ = sender.try_send(LogEvent::End(end));
        });
        LogStream {
            events,
            task: task.abort_handle(),
        }
    }

    /// Where the events arrive.
    pub fn events(&self) -> &Receiver<LogEvent> {
        &self.events
    }
}

impl Drop for LogStream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A container's log from a whole second on, or from its first byte: to its
/// end, or as far as it is there.
pub(super) fn params(container: &str, since: Option<Timestamp>, follow: bool) -> LogParams {
    LogParams {
        container: Some(container.to_string()),
        follow,
        timestamps: true,
        since_time: since,
        ..LogParams::default()
    }
}

async fn follow(
    pods: &Api<core::Pod>,
    pod: &str,
    params: &LogParams,
    metrics: &ClusterMetrics,
    sender: &Sender<LogEvent>,
) -> Result<(), ClusterError> {
    let container = params.container.as_deref().unwrap_or_default();
    let fail = |kind| ClusterError {
        call: format!("read the log of container {container} in pod {pod}"),
        kind,
    };
    let answer = tokio::time::timeout(CALL_TIMEOUT, pods.log_stream(pod, params)).await;
    metrics.requested("get", "pods/log", result_of(&answer));
    let stream = answer
        .map_err(|_| fail(ClusterErrorKind::Unreachable("no answer".to_string())))?
        .map_err(|error| fail(kind_of(error)))?;
    let mut stream = pin!(stream);
    let places = Arc::new(Semaphore::new(CHUNKS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return Ok(());
        };
        let ready = stream
            .fill_buf()
            .await
            .map_err(|error| fail(ClusterErrorKind::Unreachable(error.to_string())))?;
        let bytes = ready[..ready.len().min(CHUNK_BYTES_MAX)].to_vec();
        if bytes.is_empty() {
            return Ok(());
        }
        AsyncBufRead::consume(stream.as_mut(), bytes.len());
        if sender
            .try_send(LogEvent::Chunk(LogChunk {
                bytes,
                _place: place,
            }))
            .is_err()
        {
            return Ok(());
        }
    }
}
