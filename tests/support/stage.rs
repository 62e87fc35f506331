//! What one test plays on: a namespace, a frontend, a repository.

use std::path::Path;

use super::cluster::{Namespace, host_address};
use super::proxy::Proxy;
use super::repository::Repository;
use super::{MINUTES, daemon};
use crate::frontend::Frontend;
use crate::frontend::record::{JobRef, JobState, JobView};
use crate::frontend::spec::{JobSpec, StepSpec};

/// Image with bash, git and coreutils.
pub(crate) const STEP_IMAGE: &str = "localhost/step:dev";
/// The same, for a user of its own with a home.
pub(crate) const NONROOT_IMAGE: &str = "localhost/nonroot:dev";
/// The same, for a user without one.
pub(crate) const NOBODY_IMAGE: &str = "localhost/nobody:dev";
/// Image with little more than a shell.
pub(crate) const TINY_IMAGE: &str = "localhost/busybox:dev";
/// Image of the executor itself.
pub(crate) const EXECUTOR_IMAGE: &str = "localhost/executor:dev";
/// Name of the repository that every stage has.
pub(crate) const REPOSITORY: &str = "git.example.org/shop/cart";

/// The binary: for tests the one that was built with them, for the demo the
/// one that is shipped.
pub(crate) const EXECUTOR: &str = match option_env!("CARGO_BIN_EXE_executor") {
    Some(path) => path,
    None => concat!(env!("CARGO_MANIFEST_DIR"), "/target/release/executor"),
};

/// All that a test needs beside an executor.
pub(crate) struct Stage {
    /// Where jobs run.
    pub(crate) namespace: Namespace,
    /// Where jobs come from.
    pub(crate) frontend: Frontend,
    /// What jobs clone.
    pub(crate) repository: Repository,
}

impl Stage {
    /// A stage with a frontend of today's rules.
    pub(crate) fn new() -> Stage {
        Stage::with(Frontend::builder())
    }

    /// A stage with another frontend.
    pub(crate) fn with(builder: crate::frontend::Builder) -> Stage {
        let frontend = builder.listen(&format!("{}:0", host_address())).start();
        let repository = Repository::with_files(&[
            ("README.md", "# Cart\n"),
            ("src/cart.txt", "apples\npears\n"),
        ]);
        frontend.add_repository(REPOSITORY, &repository.git_dir());
        Stage {
            namespace: Namespace::new(),
            frontend,
            repository,
        }
    }

    /// An executor for this stage, with small requests and quick polls.
    pub(crate) fn executor(&self) -> daemon::Builder {
        let kubeconfig = self
            .namespace
            .kubeconfig
            .to_str()
            .expect("the path is plain");
        daemon::Builder::new(Path::new(EXECUTOR))
            .env("EXECUTOR_QUEUE_NAME", "batches")
            .env("EXECUTOR_FRONTEND_URL", &self.frontend.url())
            .env("EXECUTOR_FRONTEND_PASSWORD", self.frontend.token())
            .env("EXECUTOR_QUEUE_POLL_INTERVAL", "200ms")
            .env("EXECUTOR_MAXIMUM_NUM_JOBS", "4")
            .env("EXECUTOR_KUBERNETES_CONFIG_PATH", kubeconfig)
            .env("EXECUTOR_KUBERNETES_NAMESPACE", &self.namespace.name)
            .env("EXECUTOR_KUBERNETES_RESOURCE_REQUEST_MEMORY", "16Mi")
            .env("EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY", "512Mi")
            // Many executors run on this machine at once.
            .env("EXECUTOR_METRICS_ADDR", "127.0.0.1:0")
            .env("EXECUTOR_WORKSPACE_IMAGE", EXECUTOR_IMAGE)
            .env("EXECUTOR_STATE_DIR", "none")
            .env("RUST_LOG", "warn,executor=debug")
    }

    /// The same, which reaches the API server through a proxy.
    pub(crate) fn executor_through(&self, proxy: &Proxy) -> daemon::Builder {
        self.executor()
            .env("EXECUTOR_KUBERNETES_CONFIG_PATH", proxy.kubeconfig())
    }

    /// A job on the stage's repository, without steps yet.
    pub(crate) fn job(&self) -> JobSpec {
        JobSpec::new("batches")
            .repository(REPOSITORY, &self.repository.head())
            .directory("repository")
            .shallow(true)
    }

    /// Runs a job to its end, which must be a good one.
    pub(crate) fn complete(&self, spec: JobSpec) -> JobView {
        self.wait_complete(self.frontend.enqueue(spec))
    }

    /// Waits for the end of a job, which must be a good one.
    pub(crate) fn wait_complete(&self, job: JobRef) -> JobView {
        let job = self.frontend.wait_finished(job, MINUTES);
        let is_complete = matches!(job.state, JobState::Completed);
        assert!(is_complete, "{:?}\n{}", job.state, job.log_text());
        job
    }

    /// What must be true after every test: nothing left, no rule broken.
    pub(crate) fn assert_clean(&self) {
        self.namespace.wait_until_empty();
        let violations = self.frontend.violations();
        assert!(
            violations.is_empty(),
            "rules were broken:\n{}",
            violations.join("\n")
        );
    }
}

/// The lines that a step printed.
pub(crate) fn lines<'a>(job: &'a JobView, key: &str) -> Vec<&'a str> {
    let entry = job.log(&format!("step.kubernetes.{key}"));
    let entry = entry.unwrap_or_else(|| panic!("{key} did not run\n{}", job.log_text()));
    let lines = entry.out.split_terminator('\n');
    let unmarked = lines.map(|line| line.strip_prefix("stdout: "));
    unmarked
        .map(|line| line.unwrap_or_else(|| panic!("every line is marked: {}", entry.out)))
        .collect()
}

/// A step that does not trace its commands.
pub(crate) fn quiet(key: &str, image: &str) -> StepSpec {
    StepSpec::new(key, image).command("{ set +x; } 2>/dev/null")
}

/// A step in the tiny image.
pub(crate) fn tiny(key: &str, command: &str) -> StepSpec {
    StepSpec::new(key, TINY_IMAGE).command(command)
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("----- namespace -----\n{}", self.namespace.story());
        }
    }
}
