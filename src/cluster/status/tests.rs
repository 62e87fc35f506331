//! Every cause, from the status of a real pod or from what is told beside it.

use serde::Deserialize;
use serde_json::{Value, json};

use super::evidence::{EventView, Evidence, JobView, is_open};
use super::{Cause, PodView, Verdict, WatchedPod};

/// A pod as the API gives it, and what it means.
#[derive(Deserialize)]
struct Case {
    case: String,
    cause: String,
    permanent: bool,
    sentence: String,
    pod: WatchedPod,
}

fn names() -> Vec<String> {
    vec!["setup".to_string(), "main".to_string()]
}

/// The name of a cause, without what belongs to it.
fn name(cause: &Cause) -> String {
    let text = format!("{cause:?}");
    text.split(' ').next().unwrap_or_default().to_string()
}

#[test]
fn every_pod_status_has_its_cause() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("pods.json")).unwrap();
    for case in cases {
        let verdict = PodView::new(&case.pod, false).verdict(&names());
        let (failure, ends) = match verdict {
            Verdict::Failed(failure) => (failure, true),
            Verdict::Stuck(failure) => (failure, false),
            other => panic!("{}: {other:?}", case.case),
        };
        let found = (name(&failure.cause), failure.is_permanent());
        assert_eq!(found, (case.cause, case.permanent), "{}", case.case);
        assert_eq!(ends, case.permanent, "{}", case.case);
        let said = failure.to_string();
        assert!(said.contains(&case.sentence), "{}: {said}", case.case);
    }
}

/// Reason and message of an Event, the cause, and whether it is permanent.
const REFUSALS: &[(&str, &str, bool)] = &[
    (
        "exceeded quota: q, requested: pods=1, used: pods=4, limited: pods=4",
        "Quota",
        false,
    ),
    (
        "exceeded quota: q, requested: limits.memory=2Gi,pods=1, used: limits.memory=0,pods=4, \
         limited: limits.memory=4Gi,pods=4",
        "Quota",
        false,
    ),
    (
        "exceeded quota: q, requested: limits.memory=2Gi,requests.memory=2Gi, used: \
         limits.memory=0,requests.memory=0, limited: limits.memory=1Gi,requests.memory=1Gi",
        "QuotaTooSmall",
        true,
    ),
    (
        "exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0",
        "Quota",
        false,
    ),
    ("exceeded quota: q, requested: what=ever", "Quota", false),
    (
        "failed quota: q: must specify limits.memory for: main",
        "Admission",
        true,
    ),
    (
        "maximum memory usage per Container is 32Mi, but limit is 2Gi",
        "LimitRange",
        true,
    ),
    (
        "minimum cpu usage per Pod is 1, but request is 500m",
        "LimitRange",
        true,
    ),
    (
        "violates PodSecurity \"restricted:latest\": runAsNonRoot != true",
        "PodSecurity",
        true,
    ),
    (
        "ValidatingAdmissionPolicy 'x' with binding 'y' denied request: no pods today",
        "Admission",
        true,
    ),
    (
        "unable to create new content in namespace jobs because it is being terminated",
        "Admission",
        true,
    ),
    (
        "error looking up service account jobs/default: serviceaccount \"default\" not found",
        "AdmissionDown",
        false,
    ),
];

fn event(reason: &str, message: &str, second: i64) -> EventView {
    EventView {
        reason: reason.to_string(),
        message: message.to_string(),
        container: None,
        time: Some(jiff::Timestamp::from_second(second).unwrap()),
    }
}

fn without_pod(evidence: &Evidence) -> (String, bool) {
    match evidence.without_pod() {
        Verdict::Failed(failure) => (name(&failure.cause), true),
        Verdict::Stuck(failure) => (name(&failure.cause), false),
        other => panic!("a Job without a pod is never {other:?}"),
    }
}

#[test]
fn every_refusal_of_a_pod_has_its_cause() {
    for (words, cause, is_permanent) in REFUSALS {
        let message = format!("Error creating: pods \"j-tfq9g\" is forbidden: {words}");
        let evidence = Evidence::new(Some(vec![event("FailedCreate", &message, 1)]), None);
        let found = without_pod(&evidence);
        assert_eq!(found, (cause.to_string(), *is_permanent), "{words}");
    }
    for (message, expected) in [
        (
            "Error creating: admission webhook \"a.example.org\" denied the request: no",
            ("Admission", true),
        ),
        (
            "Error creating: Internal error occurred: failed calling webhook \"a.example.org\": \
             connection refused",
            ("AdmissionDown", false),
        ),
        (
            "Error creating: Pod \"j\" is invalid: spec.volumes: Required value",
            ("Admission", true),
        ),
        (
            "Error creating: etcdserver: request timed out",
            ("AdmissionDown", false),
        ),
    ] {
        let evidence = Evidence::new(Some(vec![event("FailedCreate", message, 1)]), None);
        let (cause, is_permanent) = without_pod(&evidence);
        assert_eq!((cause.as_str(), is_permanent), expected, "{message}");
    }
}

#[test]
fn jobs_without_pods_are_explained() {
    let quota = "Error creating: pods \"j\" is forbidden: exceeded quota: q, requested: pods=1, \
                 used: pods=1, limited: pods=1";
    let refused = || Some(vec![event("FailedCreate", quota, 5)]);
    let failed = |reason: &str| Some(JobView::Failed(reason.to_string()));
    let suspended = || vec![event("FailedCreate", quota, 1), event("Suspended", "", 2)];
    for (events, job, expected) in [
        (None, None, ("NoPod", false)),
        (Some(vec![]), Some(JobView::Open), ("NoPod", false)),
        (refused(), Some(JobView::Open), ("Quota", false)),
        (refused(), None, ("Quota", false)),
        (Some(suspended()), None, ("Suspended", false)),
        (None, Some(JobView::Suspended), ("Suspended", false)),
        (refused(), Some(JobView::Deleted), ("JobDeleted", true)),
        (None, failed("DeadlineExceeded"), ("Deadline", true)),
        (None, failed("BackoffLimitExceeded"), ("Deleted", true)),
    ] {
        let evidence = Evidence::new(events, job);
        let (cause, is_permanent) = without_pod(&evidence);
        assert_eq!((cause.as_str(), is_permanent), expected, "{evidence:?}");
    }
}

#[test]
fn pods_that_do_not_start_are_explained() {
    let missing = "MountVolume.SetUp failed for volume \"v\" : configmap \"nope\" not found";
    let summary = "Unable to attach or mount volumes: unmounted volumes=[v], unattached \
                   volumes=[v]: timed out waiting for the condition";
    let cache = "MountVolume.SetUp failed for volume \"v\" : failed to sync secret cache: timed \
                 out waiting for the condition";
    let attach = "Multi-Attach error for volume \"v\" Volume is already used by node";
    let network = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup \
                   network for sandbox \"1f\": no network";
    let own =
        "MountVolume.SetUp failed for volume \"job-spec\" : secret \"run-1-secrets-0\" not found";
    let stuck = Verdict::Stuck(Cause::NotStarted.with(""));
    let view = PodView {
        run: "run-1".to_string(),
        ..PodView::unseen("run-1-abcde", "1")
    };
    for (events, expected) in [
        (vec![], "NotStarted"),
        (vec![event("FailedMount", missing, 1)], "VolumeMissing"),
        (
            vec![
                event("FailedMount", summary, 3),
                event("FailedMount", missing, 2),
            ],
            "VolumeMissing",
        ),
        (vec![event("FailedMount", summary, 3)], "VolumeNotReady"),
        (vec![event("FailedMount", own, 1)], "VolumeNotReady"),
        (vec![event("FailedMount", cache, 1)], "VolumeNotReady"),
        (
            vec![event("FailedAttachVolume", attach, 1)],
            "VolumeNotReady",
        ),
        (
            vec![
                event("FailedCreatePodSandBox", network, 1),
                event("SandboxChanged", "", 2),
            ],
            "Sandbox",
        ),
        (
            vec![event("FailedMount", missing, 1), event("Pulling", "", 2)],
            "NotStarted",
        ),
    ] {
        let evidence = Evidence::new(Some(events), None);
        let failure = match evidence.before_start(&view, &names(), stuck.clone()) {
            Verdict::Failed(failure) if failure.is_permanent() => failure,
            Verdict::Stuck(failure) => failure,
            other => panic!("{other:?} of {evidence:?}"),
        };
        assert_eq!(name(&failure.cause), expected, "{evidence:?}");
    }
}

#[test]
fn who_deleted_a_pod_is_asked_of_its_job() {
    for (job, expected) in [
        (None, Cause::Deleted),
        (Some(JobView::Open), Cause::Deleted),
        (Some(JobView::Deleted), Cause::JobDeleted),
        (Some(JobView::Suspended), Cause::SuspendedRunning),
        (
            Some(JobView::Failed("DeadlineExceeded".to_string())),
            Cause::Deadline,
        ),
    ] {
        assert_eq!(Evidence::new(None, job).deletion().cause, expected);
    }
}

fn pod(status: Value) -> WatchedPod {
    let pod = json!({"metadata": {"name": "a", "uid": "1"}, "spec": {"nodeName": "n"},
        "status": status});
    serde_json::from_value(pod).unwrap()
}

/// A pod whose set-up is in this state, and its step after it.
fn two(setup: &Value) -> PodView {
    let container = |name: &str, state: &Value| {
        json!({"name": name, "image": "a:1", "imageID": "", "ready": false, "restartCount": 0,
            "state": state})
    };
    let waiting = json!({"waiting": {"reason": "PodInitializing"}});
    PodView::new(
        &pod(json!({"initContainerStatuses": [container("setup", setup)],
            "containerStatuses": [container("main", &waiting)]})),
        false,
    )
}

#[test]
fn only_what_does_not_go_on_is_asked_about() {
    let is_asked = |view: &PodView| is_open(view, &names(), &view.verdict(&names()));
    assert!(is_asked(&two(&json!({"waiting": {}}))), "the first is due");
    assert!(!is_asked(&two(&json!({"running": {}}))), "the first runs");
    let ended = |code: i32| json!({"terminated": {"exitCode": code}});
    assert!(is_asked(&two(&ended(0))), "the second is due");
    assert!(!is_asked(&two(&ended(1))), "it has failed");
    let known = json!({"waiting": {"reason": "ErrImagePull", "message": "dial tcp"}});
    assert!(!is_asked(&two(&known)), "the status says it");
    let silent = PodView::new(&pod(json!({})), false);
    assert!(is_asked(&silent), "the node says nothing");
    let nowhere = PodView {
        has_node: false,
        ..silent
    };
    assert!(!is_asked(&nowhere), "the scheduler says it");
}

/// The kubelet's Events are earlier than its status.
#[test]
fn events_of_a_container_tell_of_its_image() {
    let of = |container: &str, reason: &str, message: &str, second| EventView {
        container: Some(container.to_string()),
        ..event(reason, message, second)
    };
    let name = "Failed to apply default image tag \"a:1\": couldn't parse image name \"a:1\"";
    let absent = "Container image \"a:1\" is not present with pull policy of Never";
    let unknown =
        "Failed to pull image \"a:1\": failed to resolve reference \"a:1\": a:1: not found";
    let outage = "Failed to pull image \"a:1\": dial tcp: i/o timeout";
    for (events, expected) in [
        (vec![of("main", "InspectFailed", name, 1)], "InvalidImage"),
        (
            vec![of("main", "ErrImageNeverPull", absent, 1)],
            "ImageNotPresent",
        ),
        (
            vec![
                of("main", "Failed", unknown, 1),
                of("main", "Failed", "Error: ErrImagePull", 1),
            ],
            "ImageNotFound",
        ),
        (vec![of("main", "Failed", outage, 1)], "ImagePull"),
        (
            vec![
                of("main", "Failed", unknown, 1),
                of("main", "Pulling", "", 2),
            ],
            "",
        ),
        (vec![of("setup", "Failed", unknown, 1)], ""),
        (
            vec![event("FailedMount", "configmap \"nope\" not found", 1)],
            "",
        ),
    ] {
        let evidence = Evidence::new(Some(events), None);
        let view = two(&json!({"terminated": {"exitCode": 0}}));
        let found = match evidence.before_start(&view, &names(), Verdict::Running) {
            Verdict::Failed(failure) | Verdict::Stuck(failure) => self::name(&failure.cause),
            _ => String::new(),
        };
        assert_eq!(found, expected, "{evidence:?}");
    }
}

/// Kubelets before 1.31 forget in a back-off what it is for.
#[test]
fn a_back_off_keeps_its_cause() {
    let view = |reason: &str, message: &str| {
        let status = json!({"initContainerStatuses": [{"name": "setup", "image": "a:1",
            "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": reason, "message": message}}}]});
        PodView::new(&pod(status), false)
    };
    let seen = view("ErrImagePull", "dial tcp: i/o timeout")
        .followed_by(view("ImagePullBackOff", "Back-off pulling image \"a:1\""));
    let Verdict::Stuck(failure) = seen.verdict(&names()) else {
        panic!("{seen:?}");
    };
    assert_eq!(failure.message, "dial tcp: i/o timeout");
}

/// What is told beside a pod's status is no proof of anything.
#[test]
fn events_and_jobs_are_no_proof() {
    let reasons = [
        "FailedCreate",
        "Completed",
        "SuccessfulCreate",
        "Started",
        "",
    ];
    let jobs = || {
        [
            None,
            Some(JobView::Open),
            Some(JobView::Deleted),
            Some(JobView::Suspended),
            Some(JobView::Failed(String::new())),
        ]
    };
    for (reason, job) in reasons
        .iter()
        .flat_map(|reason| jobs().map(|job| (reason, job)))
    {
        let evidence = Evidence::new(Some(vec![event(reason, "", 1)]), job);
        assert_ne!(evidence.without_pod(), Verdict::Succeeded, "{evidence:?}");
        let view = PodView::unseen("a", "1");
        let verdict = evidence.before_start(&view, &names(), Verdict::Running);
        assert_ne!(verdict, Verdict::Succeeded, "{evidence:?}");
    }
}
