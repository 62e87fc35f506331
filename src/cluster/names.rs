//! Names and labels of everything that the executor makes in the cluster.

/// Label: which executor process a pod belongs to; the one watch selects by it.
pub const INSTANCE_LABEL: &str = "executor.sourcegraph.com/instance";
/// Label: name of the attempt, which is the name of the Job.
pub const RUN_LABEL: &str = "executor.sourcegraph.com/run";
/// Label: queue that the job came from.
pub const QUEUE_LABEL: &str = "executor.sourcegraph.com/queue";
/// Label: number of the job in its queue.
pub const JOB_ID_LABEL: &str = "executor.sourcegraph.com/job-id";
/// Label and, in full, annotation: the repository.
pub const REPOSITORY_LABEL: &str = "executor.sourcegraph.com/repository";
/// Label and, in full, annotation: the commit.
pub const COMMIT_LABEL: &str = "executor.sourcegraph.com/commit";
/// Annotation: full name of the executor process, as Sourcegraph shows it.
pub const EXECUTOR_ANNOTATION: &str = "executor.sourcegraph.com/executor";

/// Annotation: name of the executor's own Pod, where that is in the namespace of
/// the jobs. With the next one it tells others whether the executor lives.
pub const EXECUTOR_POD_ANNOTATION: &str = "executor.sourcegraph.com/executor-pod";
/// Annotation: UID of that Pod.
pub const EXECUTOR_POD_UID_ANNOTATION: &str = "executor.sourcegraph.com/executor-pod-uid";
/// Annotation: `true` on what its executor goes on with after a restart, so
/// that no other one may take it for left over.
pub const ADOPTABLE_ANNOTATION: &str = "executor.sourcegraph.com/adoptable";
/// Annotation: `true` on what only a person removes.
pub const KEPT_ANNOTATION: &str = "executor.sourcegraph.com/kept";

/// Labels, with their values, of everything that executors make for jobs.
pub const JOB_OBJECT_LABELS: [(&str, &str); 2] = [
    ("app.kubernetes.io/name", "sourcegraph-executor-job"),
    ("app.kubernetes.io/managed-by", "sourcegraph-executor"),
];

/// How all names of attempts begin.
pub const RUN_PREFIX: &str = "sg-executor-job-";

/// Label values and container names have at most this many characters.
pub const LABEL_LENGTH_MAX: usize = 63;

/// Key of the log entry of the container that makes the workspace.
pub const SETUP_KEY: &str = "setup.workspace";
/// Name of that container.
pub const SETUP_CONTAINER: &str = "setup-workspace";

/// Name of one attempt at a job, new for every dequeue, so that nothing that
/// an earlier attempt left behind can be met.
pub fn run_name(queue: &str, id: i64, suffix: &str) -> String {
    format!("{RUN_PREFIX}{queue}-{id}-{suffix}")
}

/// Eight random hexadecimal digits.
pub fn random_suffix() -> String {
    random_hex::<4>()
}

/// Name of this process towards Sourcegraph: host name and a random part, new
/// at every start.
pub fn executor_name(host: &str) -> String {
    format!("{host}-{}", random_hex::<16>())
}

fn random_hex<const BYTES: usize>() -> String {
    let mut bytes = [0u8; BYTES];
    getrandom::fill(&mut bytes).expect("the kernel has a source of randomness");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The end of a text as a label value: other characters become dashes, both
/// ends are letters or digits. The end, since it tells most of a repository
/// or an executor name.
pub fn label_value(text: &str) -> String {
    let safe: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect();
    let start = safe.len().saturating_sub(LABEL_LENGTH_MAX);
    safe[start..]
        .trim_matches(|c: char| !c.is_ascii_alphanumeric())
        .to_string()
}

/// Name of the volume that all containers share.
pub const WORKSPACE_VOLUME: &str = "job-data";
/// Name of the volume that tells how to make the workspace.
pub const SPEC_VOLUME: &str = "job-spec";
/// Where the workspace is mounted in every container.
pub const WORKSPACE: &str = "/job";

/// Whether a text is one label of a DNS name, as namespaces, volumes and
/// containers are called.
pub fn is_dns_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=LABEL_LENGTH_MAX).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Key of the log entry of a step, in the form that the server groups by.
pub fn step_log_key(key: &str) -> String {
    format!("step.kubernetes.{key}")
}

/// Name of the container of a step: its log key with dashes for dots, or, if
/// Kubernetes does not take that, its number.
pub fn step_container(index: usize, key: &str) -> String {
    let name = step_log_key(key).replace('.', "-");
    match is_dns_label(&name) {
        true => name,
        false => format!("step-{index}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_limits_of_pods() {
        let name = run_name("codeintel", i64::MAX, &random_suffix());
        // The Job controller adds a dash and five characters for the pod.
        assert!(name.len() + 6 <= LABEL_LENGTH_MAX, "{name}");
    }

    #[test]
    fn label_values_are_always_valid() {
        let long = format!("git.example.org/{}/cart.git/", "x".repeat(100));
        for text in ["git.example.org/shop/cart", "", "///", "-a-", "käse", &long] {
            let value = label_value(text);
            assert!(value.len() <= LABEL_LENGTH_MAX);
            assert!(value.is_empty() || value.starts_with(|c: char| c.is_ascii_alphanumeric()));
            assert!(value.is_empty() || value.ends_with(|c: char| c.is_ascii_alphanumeric()));
        }
        assert_eq!(
            label_value("git.example.org/shop/cart"),
            "git.example.org-shop-cart"
        );
    }

    #[test]
    fn container_names_follow_the_log_keys() {
        assert_eq!(
            step_container(0, "step.0.pre"),
            "step-kubernetes-step-0-pre"
        );
        assert_eq!(step_container(3, "Bad_Key"), "step-3");
        assert_eq!(step_container(4, &"x".repeat(60)), "step-4");
        assert_eq!(step_container(5, "ends."), "step-5");
    }
}
