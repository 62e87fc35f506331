//! Variables of the released executor that mean nothing here: Firecracker,
//! Docker, and what its Kubernetes jobs needed once. They are accepted, and
//! whoever asks by one for something that will not happen is told so once.

/// A variable of the released executor that changes nothing here.
#[derive(Debug)]
pub struct Unused {
    /// Its name.
    pub name: &'static str,
    /// Values by which nobody asks for anything that is missing here; with
    /// any other one there is a warning at the start. `None` for all values.
    pub harmless: Option<&'static [&'static str]>,
    /// What is so instead, to follow a comma.
    pub instead: &'static str,
}

/// What Go takes for false.
const FALSE: Option<&[&str]> = Some(&["0", "f", "F", "false", "False", "FALSE"]);
/// What Go takes for true.
const TRUE: Option<&[&str]> = Some(&["1", "t", "T", "true", "True", "TRUE"]);
/// No value is harmless.
const NOTHING: Option<&[&str]> = Some(&[]);

const PODS: &str = "since jobs run in pods and not in virtual machines";
const NO_DOCKER: &str = "since jobs run in pods, without Docker";

/// Variables that are accepted, so that an environment of the released
/// executor can stay as it is, and read by nothing.
pub const UNUSED: &[Unused] = &[
    Unused {
        name: "EXECUTOR_USE_FIRECRACKER",
        harmless: FALSE,
        instead: PODS,
    },
    Unused {
        name: "EXECUTOR_FIRECRACKER_IMAGE",
        harmless: NOTHING,
        instead: PODS,
    },
    Unused {
        name: "EXECUTOR_FIRECRACKER_KERNEL_IMAGE",
        harmless: NOTHING,
        instead: PODS,
    },
    Unused {
        name: "EXECUTOR_FIRECRACKER_SANDBOX_IMAGE",
        harmless: NOTHING,
        instead: PODS,
    },
    Unused {
        name: "EXECUTOR_FIRECRACKER_BANDWIDTH_INGRESS",
        harmless: NOTHING,
        instead: PODS,
    },
    Unused {
        name: "EXECUTOR_FIRECRACKER_BANDWIDTH_EGRESS",
        harmless: NOTHING,
        instead: PODS,
    },
    Unused {
        name: "EXECUTOR_VM_STARTUP_SCRIPT_PATH",
        harmless: NOTHING,
        instead: PODS,
    },
    Unused {
        name: "EXECUTOR_VM_PREFIX",
        harmless: None,
        instead: PODS,
    },
    Unused {
        name: "EXECUTOR_DOCKER_ADDITIONAL_MOUNTS",
        harmless: NOTHING,
        instead: "since jobs run in pods; KUBERNETES_ADDITIONAL_JOB_VOLUME_MOUNTS is for mounts",
    },
    Unused {
        name: "EXECUTOR_DOCKER_ADD_HOST_GATEWAY",
        harmless: FALSE,
        instead: NO_DOCKER,
    },
    Unused {
        name: "EXECUTOR_DOCKER_HOST_MOUNT_PATH",
        harmless: NOTHING,
        instead: NO_DOCKER,
    },
    Unused {
        name: "EXECUTOR_DOCKER_REGISTRY_MIRROR_URL",
        harmless: NOTHING,
        instead: "since the nodes pull the images; their container runtime has a setting for mirrors",
    },
    Unused {
        name: "EXECUTOR_KEEP_WORKSPACES",
        harmless: FALSE,
        instead: "since a workspace goes with its pod; KUBERNETES_KEEP_JOBS keeps both",
    },
    Unused {
        name: "EXECUTOR_KUBERNETES_PERSISTENCE_VOLUME_NAME",
        harmless: None,
        instead: "since each job has a workspace of its own; KUBERNETES_JOB_VOLUME_TYPE says of which kind",
    },
    Unused {
        name: "KUBERNETES_SINGLE_JOB_POD",
        harmless: TRUE,
        instead: "since all steps of a job run in one pod",
    },
    Unused {
        name: "KUBERNETES_SINGLE_JOB_STEP_IMAGE",
        harmless: NOTHING,
        instead: "since workspaces are made by the executor's own image or EXECUTOR_WORKSPACE_IMAGE",
    },
    Unused {
        name: "NODE_EXPORTER_URL",
        harmless: NOTHING,
        instead: "since nodes are not the executor's",
    },
    Unused {
        name: "DOCKER_REGISTRY_NODE_EXPORTER_URL",
        harmless: NOTHING,
        instead: NO_DOCKER,
    },
    Unused {
        name: "SRC_TRACE_LOG",
        harmless: FALSE,
        instead: "since there are no traces; RUST_LOG shows more of what happens",
    },
];

/// A sentence for each variable that asks for what will not happen.
pub(super) fn warnings(lookup: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let is_asked_for = |unused: &&Unused| {
        let value = lookup(unused.name).unwrap_or_default();
        let harmless = unused.harmless.unwrap_or_default();
        !value.is_empty() && unused.harmless.is_some() && !harmless.contains(&value.as_str())
    };
    let sentence = |unused: &Unused| format!("{} is not used, {}.", unused.name, unused.instead);
    UNUSED.iter().filter(is_asked_for).map(sentence).collect()
}
