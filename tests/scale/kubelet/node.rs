//! The node as the cluster sees it: its object, and the lease that shows every
//! ten seconds that it lives.

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1 as core;
use kube_client::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube_client::{Client, Error};
use serde_json::{Value, json};

/// Label and taint of such nodes; the value is the node's own name.
const KEY: &str = "executor.test/simulated-node";
const LEASES: &str = "kube-node-lease";
/// As real kubelets do it; after 50 s of silence the node counts as lost.
const BEAT_INTERVAL: Duration = Duration::from_secs(10);
const LEASE_SECONDS: u32 = 40;

/// The node's object and its lease.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) name: String,
    client: Client,
    logs: SocketAddr,
    room: usize,
}

impl Node {
    /// A node of a name that no other has, not registered yet.
    pub(super) fn new(client: Client, logs: SocketAddr, room: usize) -> Node {
        let mut random = [0; 4];
        getrandom::fill(&mut random).expect("the kernel has a source of randomness");
        Node {
            name: format!("simulated-{:08x}", u32::from_be_bytes(random)),
            client,
            logs,
            room,
        }
    }

    pub(super) fn selector(&self) -> String {
        format!("{KEY}={}", self.name)
    }

    pub(super) fn tolerations(&self) -> String {
        json!([{"key": KEY, "operator": "Equal", "value": self.name, "effect": "NoSchedule"}])
            .to_string()
    }

    /// Makes lease and node, in this order, so that the node is never without.
    pub(super) async fn register(&self) {
        let lease = json!({
            "metadata": {"name": self.name, "namespace": LEASES},
            "spec": {"holderIdentity": self.name, "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": micros()},
        });
        let leases: Api<Lease> = self.leases();
        let lease = serde_json::from_value(lease).expect("the lease is one");
        let made = leases.create(&PostParams::default(), &lease).await;
        made.expect("the lease of a node can be created");
        let node = serde_json::from_value(self.object()).expect("the node is one");
        let made = self.nodes().create(&PostParams::default(), &node).await;
        made.expect("a node can be created");
    }

    /// Renews the lease for as long as the runtime lives.
    pub(super) async fn beat(self) {
        loop {
            tokio::time::sleep(BEAT_INTERVAL).await;
            let patch = Patch::Merge(json!({"spec": {"renewTime": micros()}}));
            let params = PatchParams::default();
            let renewed = self.leases().patch(&self.name, &params, &patch).await;
            if let Err(problem) = renewed {
                eprintln!("the lease of node {} is not renewed: {problem}", self.name);
            }
        }
    }

    /// Removes both. What still runs on the node the cluster then gives up.
    pub(super) async fn remove(&self) -> Result<(), Error> {
        let params = DeleteParams::default();
        self.nodes().delete(&self.name, &params).await?;
        self.leases().delete(&self.name, &params).await?;
        Ok(())
    }

    fn nodes(&self) -> Api<core::Node> {
        Api::all(self.client.clone())
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), LEASES)
    }

    fn object(&self) -> Value {
        let now = jiff::Timestamp::now().to_string();
        let room = json!({"cpu": "1000", "memory": "10Ti", "ephemeral-storage": "100Ti",
            "pods": self.room.to_string()});
        let condition = |kind: &str, status: &str| {
            json!({"type": kind, "status": status, "reason": "Simulated",
                "lastHeartbeatTime": now, "lastTransitionTime": now})
        };
        json!({
            "metadata": {"name": self.name, "labels": {KEY: self.name}},
            "spec": {"taints": [{"key": KEY, "value": self.name, "effect": "NoSchedule"}]},
            "status": {
                "addresses": [{"type": "InternalIP", "address": self.logs.ip().to_string()}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": self.logs.port()}},
                "capacity": room, "allocatable": room,
                "conditions": [
                    condition("Ready", "True"), condition("MemoryPressure", "False"),
                    condition("DiskPressure", "False"), condition("PIDPressure", "False"),
                ],
                "nodeInfo": {
                    "architecture": "amd64", "operatingSystem": "linux", "machineID": "",
                    "systemUUID": "", "bootID": "", "kernelVersion": "", "osImage": "",
                    "containerRuntimeVersion": "simulated://1", "kubeProxyVersion": "",
                    "kubeletVersion": "v1.34.0",
                },
            },
        })
    }
}

/// Now, as leases have it.
fn micros() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}
