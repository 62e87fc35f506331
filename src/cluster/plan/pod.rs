//! The pod of a job: containers, volumes, environment, security.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::cluster::names::{RUN_LABEL, SETUP_CONTAINER, SPEC_VOLUME, WORKSPACE, WORKSPACE_VOLUME};
use crate::cluster::plan::secrets::{JobSecrets, secret_name};
use crate::cluster::plan::{NamedStep, Setting, placement, script};
use crate::job::{Job, Step};
use crate::logs::redact::Redactions;
use crate::workspace::SPEC_DIR;

/// How long containers have after a cancellation, in seconds. Steps are shell
/// scripts, which as first process of a container do not hear SIGTERM anyway.
const GRACE_SECONDS: i64 = 2;

/// The environment of one step, and those of its values that go in a Secret.
pub struct Environment {
    /// For the container.
    pub variables: Vec<core::EnvVar>,
    /// Key in the Secret → value.
    pub hidden: BTreeMap<String, String>,
}

/// The environment of every step.
pub fn environments(job: &Job, run: &str, redactions: &Redactions) -> Vec<Environment> {
    // Many steps can have the same secrets, which must fit into one Secret.
    let mut keys = BTreeMap::new();
    job.steps
        .iter()
        .enumerate()
        .map(|(index, step)| environment(step, index, run, redactions, &mut keys))
        .collect()
}

/// `keys` are those of all hidden values so far.
fn environment<'a>(
    step: &'a Step,
    index: usize,
    run: &str,
    redactions: &Redactions,
    keys: &mut BTreeMap<&'a str, String>,
) -> Environment {
    let mut hidden = BTreeMap::new();
    let mut variables = Vec::new();
    for (place, (name, value)) in step.env.iter().enumerate() {
        // A name may stand twice, and the last one counts; the API takes each
        // name once only.
        if step.env[place + 1..].iter().any(|(later, _)| later == name) {
            continue;
        }
        if redactions.matches(value) {
            let key = keys
                .entry(value)
                .or_insert_with(|| format!("step-{index}.{place}"));
            variables.push(secret_variable(name, run, key));
            hidden.insert(key.clone(), value.clone());
        } else {
            variables.push(plain_variable(name, value));
        }
    }
    variables.extend(own_variables(step));
    Environment { variables, hidden }
}

/// What every step gets beside its own: git must work whoever owns the clone
/// (`script` sees to old ones), and the helper program of Sourcegraph must not
/// try to arrange that itself.
fn own_variables(step: &Step) -> Vec<core::EnvVar> {
    let own = [
        ("EXECUTOR_ADD_SAFE", "false"),
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "safe.directory"),
        ("GIT_CONFIG_VALUE_0", "*"),
    ];
    let has = |wanted: &str| step.env.iter().any(|(name, _)| name == wanted);
    // A step that sets git up by these variables knows what it does.
    let own_git = has("GIT_CONFIG_COUNT");
    own.into_iter()
        .filter(|(name, _)| !(has(name) || own_git && name.starts_with("GIT_CONFIG")))
        .map(|(name, value)| plain_variable(name, value))
        .collect()
}

fn plain_variable(name: &str, value: &str) -> core::EnvVar {
    core::EnvVar {
        name: name.to_string(),
        // Kubernetes expands `$(NAME)` and takes `$$` for a dollar sign.
        value: Some(value.replace('$', "$$")),
        value_from: None,
    }
}

fn secret_variable(name: &str, run: &str, key: &str) -> core::EnvVar {
    core::EnvVar {
        name: name.to_string(),
        value: None,
        value_from: Some(core::EnvVarSource {
            secret_key_ref: Some(core::SecretKeySelector {
                name: secret_name(run, 0),
                key: key.to_string(),
                optional: None,
            }),
            ..core::EnvVarSource::default()
        }),
    }
}

/// The specification of the pod.
pub fn pod(
    job: &Job,
    setting: &Setting<'_>,
    steps: &[NamedStep],
    environments: Vec<Environment>,
    secrets: &JobSecrets,
) -> core::PodSpec {
    let mut containers = vec![setup_container(setting)];
    containers.extend(
        steps
            .iter()
            .zip(environments)
            .map(|(step, environment)| step_container(job, setting, step, environment)),
    );
    let last = containers.split_off(containers.len() - 1);
    let settings = setting.job;
    let pull_secrets = settings
        .pull_secrets
        .iter()
        .chain(setting.workspace_pull_secrets);
    let mut pull_secrets: Vec<String> = pull_secrets.chain(&secrets.registry).cloned().collect();
    pull_secrets.sort();
    pull_secrets.dedup();
    let mut volumes = vec![workspace_volume(setting), spec_volume(secrets)];
    volumes.extend_from_slice(settings.volumes.additional.items());
    let placement = &settings.placement;
    core::PodSpec {
        init_containers: Some(containers),
        containers: last,
        volumes: Some(volumes),
        node_name: placement.node_name.clone(),
        node_selector: (!placement.node_selector.is_empty())
            .then(|| placement.node_selector.clone()),
        affinity: placement::affinity(placement),
        tolerations: placement.tolerations.to_option(),
        host_network: settings.host_network.then_some(true),
        // Without it, names of the cluster's Services would not be found.
        dns_policy: settings
            .host_network
            .then(|| "ClusterFirstWithHostNet".to_string()),
        restart_policy: Some("Never".to_string()),
        active_deadline_seconds: Some(settings.deadline.as_secs() as i64),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        image_pull_secrets: (!pull_secrets.is_empty()).then(|| {
            pull_secrets
                .into_iter()
                .map(|name| core::LocalObjectReference { name })
                .collect()
        }),
        security_context: Some(core::PodSecurityContext {
            run_as_user: settings.run_as_user,
            run_as_group: settings.run_as_group,
            run_as_non_root: settings.is_restricted.then_some(true),
            fs_group: settings.fs_group,
            seccomp_profile: Some(core::SeccompProfile {
                type_: "RuntimeDefault".to_string(),
                localhost_profile: None,
            }),
            ..core::PodSecurityContext::default()
        }),
        ..core::PodSpec::default()
    }
}

fn setup_container(setting: &Setting<'_>) -> core::Container {
    let executor = "/usr/local/bin/executor";
    let mut container = container(setting, SETUP_CONTAINER, setting.workspace_image, "");
    container.command = Some(vec![executor.to_string(), "setup-workspace".to_string()]);
    container
        .volume_mounts
        .get_or_insert_default()
        .push(core::VolumeMount {
            name: SPEC_VOLUME.to_string(),
            mount_path: SPEC_DIR.to_string(),
            read_only: Some(true),
            ..core::VolumeMount::default()
        });
    // git has its own way to this certificate; the file store has this one.
    container.env = setting
        .job
        .git_ca_certificate
        .as_ref()
        .map(|path| vec![plain_variable("SSL_CERT_FILE", path)]);
    if let Some(security) = &mut container.security_context {
        // Our image has a user of its own, for the daemon. The workspace is
        // made by the user that most steps run as.
        security.run_as_user = setting.job.run_as_user.or(Some(0));
        security.run_as_group = setting.job.run_as_group.or(Some(0));
    }
    container
}

fn step_container(
    job: &Job,
    setting: &Setting<'_>,
    named: &NamedStep,
    environment: Environment,
) -> core::Container {
    let step = &job.steps[named.index];
    let mut container = container(setting, &named.container, &step.image, &step.dir);
    container.command = Some(script::command(job, named.index));
    container.env = Some(environment.variables);
    container
}

/// What all containers have in common.
fn container(setting: &Setting<'_>, name: &str, image: &str, dir: &str) -> core::Container {
    let settings = setting.job;
    let directory = match dir {
        "" => WORKSPACE.to_string(),
        dir => format!("{}/{dir}", WORKSPACE),
    };
    core::Container {
        name: name.to_string(),
        image: Some(image.to_string()),
        image_pull_policy: Some(settings.pull_policy.clone()),
        working_dir: Some(directory),
        resources: Some(core::ResourceRequirements {
            limits: quantities(
                &settings.resources.limit_cpu,
                &settings.resources.limit_memory,
            ),
            requests: quantities(
                &settings.resources.request_cpu,
                &settings.resources.request_memory,
            ),
            claims: None,
        }),
        security_context: Some(core::SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: settings.is_restricted.then(|| core::Capabilities {
                add: None,
                drop: Some(vec!["ALL".to_string()]),
            }),
            ..core::SecurityContext::default()
        }),
        volume_mounts: Some(mounts(setting)),
        ..core::Container::default()
    }
}

/// The workspace, and what is configured beside it.
fn mounts(setting: &Setting<'_>) -> Vec<core::VolumeMount> {
    let mut mounts = vec![core::VolumeMount {
        name: WORKSPACE_VOLUME.to_string(),
        mount_path: WORKSPACE.to_string(),
        ..core::VolumeMount::default()
    }];
    mounts.extend_from_slice(setting.job.volumes.mounts.items());
    mounts
}

fn quantities(cpu: &Option<String>, memory: &Option<String>) -> Option<BTreeMap<String, Quantity>> {
    let quantities: BTreeMap<_, _> = [("cpu", cpu), ("memory", memory)]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_string(), Quantity(value.clone()?))))
        .collect();
    (!quantities.is_empty()).then_some(quantities)
}

/// A directory of the node; or a claim that the cluster itself makes with the
/// pod and removes with it, so that none is ever left behind.
fn workspace_volume(setting: &Setting<'_>) -> core::Volume {
    let size = Quantity(setting.job.volumes.size.clone());
    let volume = core::Volume {
        name: WORKSPACE_VOLUME.to_string(),
        ..core::Volume::default()
    };
    if !setting.job.volumes.is_claim {
        return core::Volume {
            empty_dir: Some(core::EmptyDirVolumeSource {
                medium: None,
                size_limit: Some(size),
            }),
            ..volume
        };
    }
    let claim = core::PersistentVolumeClaimSpec {
        access_modes: Some(vec!["ReadWriteOnce".to_string()]),
        resources: Some(core::VolumeResourceRequirements {
            requests: Some([("storage".to_string(), size)].into()),
            limits: None,
        }),
        ..core::PersistentVolumeClaimSpec::default()
    };
    core::Volume {
        ephemeral: Some(core::EphemeralVolumeSource {
            volume_claim_template: Some(core::PersistentVolumeClaimTemplate {
                metadata: Some(claim_metadata(setting)),
                spec: claim,
            }),
        }),
        ..volume
    }
}

/// The labels by which everything of a job is found.
fn claim_metadata(setting: &Setting<'_>) -> ObjectMeta {
    ObjectMeta {
        labels: Some([(RUN_LABEL.to_string(), setting.run.clone())].into()),
        ..ObjectMeta::default()
    }
}

/// All parts of the workspace specification as files of one directory.
fn spec_volume(secrets: &JobSecrets) -> core::Volume {
    let sources = secrets
        .workspace
        .iter()
        .map(|(name, key)| core::VolumeProjection {
            secret: Some(core::SecretProjection {
                name: name.clone(),
                items: Some(vec![core::KeyToPath {
                    key: key.clone(),
                    path: key.clone(),
                    mode: None,
                }]),
                optional: None,
            }),
            ..core::VolumeProjection::default()
        });
    core::Volume {
        name: SPEC_VOLUME.to_string(),
        projected: Some(core::ProjectedVolumeSource {
            // Only the container that makes the workspace mounts it, and that
            // one may run as any user.
            default_mode: Some(0o444),
            sources: Some(sources.collect()),
        }),
        ..core::Volume::default()
    }
}
