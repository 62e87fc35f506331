//! What all plans of this process have in common: the settings, and who we are.

use crate::cluster::client::OwnPod;
use crate::cluster::plan::{Plan, Setting, plan};
use crate::config::JobSettings;
use crate::job::Job;
use crate::logs::redact::Redactions;

/// Makes the plans of jobs in one namespace.
pub struct Planner {
    /// Limits, images and security of jobs.
    pub settings: JobSettings,
    /// Namespace of all objects.
    pub namespace: String,
    /// Name of this process towards Sourcegraph.
    pub executor_name: String,
    /// Image that makes workspaces.
    pub workspace_image: String,
    /// Our own Pod, where it is known.
    pub own_pod: Option<OwnPod>,
    /// Whether that Pod is in the namespace of the jobs.
    pub own_pod_is_beside: bool,
    /// What jobs have to do with that Pod.
    pub tie: Tie,
}

/// What becomes of a Job when its executor goes. The last two need our own Pod
/// to be known, and in the same namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    /// The next process with the same state goes on with it, in whatever Pod.
    State,
    /// It goes with the Pod, and is left over when the process in it is another.
    Process,
    /// It goes with the Pod, beside whose own process this one runs.
    Pod,
}

/// How the container that makes a workspace gets at repository and files; empty
/// if there are neither.
#[derive(Default)]
pub struct Access {
    /// Base URL of the Sourcegraph instance.
    pub url: String,
    /// Value of the Authorization header.
    pub authorization: String,
}

impl Planner {
    /// Our own Pod, where it is known and in the namespace of the jobs.
    pub fn executor_pod(&self) -> Option<&OwnPod> {
        self.own_pod.as_ref().filter(|_| self.own_pod_is_beside)
    }

    /// The objects of a job that has steps.
    pub fn plan(&self, job: &Job, access: &Access, redactions: &Redactions, run: &str) -> Plan {
        let own_pod = self.own_pod.as_ref();
        let executor_pod = self.executor_pod().map(|pod| &pod.owner);
        let setting = Setting {
            job: &self.settings,
            namespace: &self.namespace,
            frontend_url: &access.url,
            authorization: access.authorization.clone(),
            executor_name: &self.executor_name,
            workspace_image: &self.workspace_image,
            workspace_pull_secrets: own_pod.map_or(&[], |pod| &pod.pull_secrets),
            executor_pod: executor_pod.filter(|_| self.tie != Tie::Pod),
            // Jobs that the next Pod takes over may not go with this one.
            owner: executor_pod.filter(|_| self.tie != Tie::State),
            is_adoptable: self.tie == Tie::State,
            redactions,
            run: run.to_string(),
        };
        plan(job, &setting)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cluster::names::EXECUTOR_POD_ANNOTATION;
    use crate::config::ExecConfig;
    use crate::exec::arguments::Arguments;

    /// Whether the Pod owns the Job, and whether the Job names it.
    fn bonds(tie: Tie) -> (bool, bool) {
        let own_pod = OwnPod {
            image: "executor:1".to_string(),
            pull_secrets: Vec::new(),
            owner: Default::default(),
            has_one_executor: true,
        };
        let planner = Planner {
            settings: ExecConfig::from_lookup(|_| None, false).unwrap().job,
            namespace: "executor".to_string(),
            executor_name: "executor-0".to_string(),
            workspace_image: own_pod.image.clone(),
            own_pod: Some(own_pod),
            own_pod_is_beside: true,
            tie,
        };
        let job = Arguments::parse(&["--image", "a", "--", "true"])
            .unwrap()
            .job();
        let redactions = Redactions::new(&BTreeMap::new());
        let plan = planner.plan(&job, &Access::default(), &redactions, "r");
        let metadata = plan.job.metadata;
        let annotations = metadata.annotations.unwrap_or_default();
        (
            metadata.owner_references.is_some(),
            annotations.contains_key(EXECUTOR_POD_ANNOTATION),
        )
    }

    /// A Job that names the Pod is left over as soon as another process of the
    /// Pod says so, and the daemon in it is another one than `exec`.
    #[test]
    fn only_jobs_of_the_pods_process_name_the_pod() {
        assert_eq!(bonds(Tie::Process), (true, true));
        assert_eq!(bonds(Tie::State), (false, true));
        assert_eq!(bonds(Tie::Pod), (true, false));
    }
}
