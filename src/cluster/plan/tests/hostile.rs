//! Plans of jobs that nobody means well with: the objects keep their form, and
//! nothing of a job can name what is not its own.

use std::collections::HashSet;

use super::{RUN, planned, settings};
use crate::cluster::names::{WORKSPACE, is_dns_label};
use crate::config::Queues;
use crate::corpus;
use crate::queue::wire::{Dequeued, read_job};

#[test]
fn whatever_is_planned_keeps_its_form() {
    let queues = Queues::One("batches".to_string());
    corpus::feed("payload", |bytes| {
        let Ok(Dequeued::Job(job)) = read_job(&queues, bytes) else {
            return;
        };
        let plan = planned(&job, &settings());
        let spec = plan.job.spec.as_ref().unwrap();
        let pod = spec.template.spec.as_ref().unwrap();
        let init = pod.init_containers.as_deref().unwrap_or_default();
        let mut names = HashSet::new();
        for container in init.iter().chain(&pod.containers) {
            assert!(is_dns_label(&container.name), "{:?}", container.name);
            assert!(
                names.insert(&container.name),
                "{} is there twice",
                container.name
            );
            // Kubernetes puts variables in the place of `$(NAME)`.
            let words = container.command.iter().chain(&container.args).flatten();
            for word in words {
                assert!(!word.contains("$("), "{word:?}");
            }
            let dir = container.working_dir.as_deref().unwrap_or(WORKSPACE);
            let inside = dir == WORKSPACE || dir.starts_with(&format!("{WORKSPACE}/"));
            assert!(
                inside && !dir.split('/').any(|part| part == ".."),
                "{dir:?}"
            );
        }
        for (key, value) in plan.job.metadata.labels.iter().flatten() {
            let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            assert!(
                value.len() <= 63 && value.chars().all(is_part),
                "{key}: {value:?}"
            );
        }
        for secret in &plan.secrets {
            let name = secret.metadata.name.as_deref().unwrap_or_default();
            assert!(name.starts_with(RUN), "{name}");
        }
        assert_eq!(pod.automount_service_account_token, Some(false));
    });
}
