//! A node without a machine: it stands in the real cluster, takes pods from the
//! real scheduler, plays their containers and serves their logs to the real API
//! server, so that thousands of jobs cost what they cost the servers alone.
//!
//! Only pods that tolerate its taint come to it, and the taint has a name that
//! no other run has.

mod log;
mod node;
mod pods;
mod server;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube_client::config::{KubeConfigOptions, Kubeconfig};
use kube_client::{Client, Config};
use tokio::runtime::Runtime;

use crate::support::cluster;
use log::Logs;
use node::Node;
use server::Server;

/// When a pod came to the node, and when the cluster knew that it had ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    /// The first event of the watch that had it.
    pub(crate) came: Instant,
    /// The answer to the status that had its end; none before that.
    pub(crate) ended: Option<Instant>,
}

/// The lives of all pods so far, by the id of their job.
type Lives = Arc<Mutex<HashMap<i64, Life>>>;

/// A node that is up. Dropping it removes it from the cluster.
pub(crate) struct Kubelet {
    node: Node,
    lives: Lives,
    runtime: Runtime,
    _server: Server,
}

impl Kubelet {
    /// A node with room for so many pods of one job each, whose containers run
    /// for that long.
    pub(crate) fn start(room: usize, container_life: Duration) -> Kubelet {
        let runtime = Runtime::new().expect("a runtime can be built");
        let client = runtime.block_on(client());
        let logs = Logs::default();
        let server = Server::start(logs.clone());
        let node = Node::new(client.clone(), server.address(), room);
        runtime.block_on(node.register());
        runtime.spawn(node.clone().beat());
        let lives = Lives::default();
        let stage = pods::Stage {
            client,
            node: node.name.clone(),
            container_life,
            logs,
            lives: Arc::clone(&lives),
        };
        runtime.spawn(pods::watch(stage));
        Kubelet {
            node,
            lives,
            runtime,
            _server: server,
        }
    }

    /// The executor's setting that leads jobs to this node.
    pub(crate) fn selector(&self) -> String {
        self.node.selector()
    }

    /// The executor's setting by which this node takes them.
    pub(crate) fn tolerations(&self) -> String {
        self.node.tolerations()
    }

    /// The life of a job's pod, if it came here.
    pub(crate) fn life(&self, job: i64) -> Option<Life> {
        lock(&self.lives).get(&job).copied()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        if let Err(problem) = self.runtime.block_on(self.node.remove()) {
            eprintln!("node {} stays: {problem}", self.node.name);
        }
    }
}

async fn client() -> Client {
    let file = Kubeconfig::read_from(cluster::kubeconfig());
    let file = file.expect("the kubeconfig can be read");
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("the kubeconfig is right")).expect("the kubeconfig is right")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
