//! An instance whose certificate only its own people trust.

use super::{fail, look, run, seen};
use crate::frontend::spec::JobSpec;
use crate::support::daemon::Builder;
use crate::support::stage::Stage;
use crate::support::tls::Terminator;

/// An executor that trusts the instance itself.
fn executor(stage: &Stage, tls: &Terminator) -> Builder {
    let authority = tls.authority();
    let authority = authority.to_str().expect("the path is plain");
    stage
        .executor()
        .env("EXECUTOR_FRONTEND_URL", &tls.url())
        .env("SSL_CERT_FILE", authority)
}

/// The same, whose pods have the certificate too.
fn executor_with_volume(stage: &Stage, tls: &Terminator) -> Builder {
    let file = format!("--from-file=ca.pem={}", tls.authority().display());
    stage
        .namespace
        .kubectl(&["create", "configmap", "authority", &file]);
    executor(stage, tls)
        .env(
            "KUBERNETES_ADDITIONAL_JOB_VOLUMES",
            r#"[{"name": "certs", "configMap": {"name": "authority"}}]"#,
        )
        .env(
            "KUBERNETES_ADDITIONAL_JOB_VOLUME_MOUNTS",
            r#"[{"name": "certs", "mountPath": "/certs"}]"#,
        )
}

#[test]
fn a_named_certificate_is_trusted_everywhere() {
    let stage = Stage::new();
    stage.frontend.put_file("spec1/file1", "stored\n");
    let tls = Terminator::before(stage.frontend.address());
    let executor = executor_with_volume(&stage, &tls)
        .env("KUBERNETES_GIT_CA_CERT", "/certs/ca.pem")
        .start();
    let spec = stage
        .job()
        // A sparse clone asks the server twice.
        .sparse("README.md")
        .stored_file("stored.txt", "spec1/file1", "2024-04-30T16:01:02Z");
    let job = run(&stage, spec.step(look("cat README.md ../stored.txt")));
    assert_eq!(seen(&job), ["# Cart", "stored"]);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn an_untrusted_certificate_is_explained() {
    let stage = Stage::new();
    stage.frontend.put_file("spec1/file1", "stored\n");
    let tls = Terminator::before(stage.frontend.address());
    let executor = executor(&stage, &tls).start();
    let only_file = JobSpec::new("batches").stored_file("f", "spec1/file1", "");
    for spec in [stage.job(), only_file] {
        let said = fail(&stage, spec);
        assert!(said.contains("KUBERNETES_GIT_CA_CERT"), "{said}");
        assert!(said.contains(&tls.url()), "{said}");
    }
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_certificate_that_is_not_there_is_explained() {
    let stage = Stage::new();
    let tls = Terminator::before(stage.frontend.address());
    let executor = executor(&stage, &tls)
        .env("KUBERNETES_GIT_CA_CERT", "/certs/ca.pem")
        .start();
    let said = fail(&stage, stage.job());
    assert!(said.contains("KUBERNETES_GIT_CA_CERT"), "{said}");
    assert!(said.contains("/certs/ca.pem"), "{said}");
    executor.stop();
    stage.assert_clean();
}
