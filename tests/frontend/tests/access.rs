//! Who is let in, and what others are told.

use serde_json::json;

use super::super::Frontend;
use super::super::record::MarkKind;
use super::super::spec::JobSpec;
use super::client::{Answer, Executor, Held, call};

const TEST_AUTH: &str = "/.executors/test/auth";

fn test_auth(frontend: &Frontend, authorization: Option<&str>) -> Answer {
    let headers = authorization.map(|value| ("Authorization", value));
    call(frontend, "GET", TEST_AUTH, headers.as_slice(), "null").expect("an answer comes")
}

#[test]
fn the_right_token_is_let_in() {
    let frontend = Frontend::start();
    let answer = test_auth(
        &frontend,
        Some(&format!("token-executor {}", frontend.token())),
    );
    assert_eq!((answer.status, answer.text()), (200, "ok"));
}

#[test]
fn a_wrong_token_is_refused() {
    let frontend = Frontend::start();
    let answer = test_auth(&frontend, Some("token-executor nonsense"));
    assert_eq!((answer.status, answer.text()), (401, ""));
}

#[test]
fn bad_credentials_are_explained() {
    let frontend = Frontend::start();
    let cases = [
        (None, "no token value"),
        (Some("token-executor"), "must be of the following form"),
        (
            Some("token-executor  two-spaces"),
            "must be of the following form",
        ),
        (
            Some("Basic dTpw"),
            "unrecognized HTTP Authorization request header scheme",
        ),
    ];
    for (authorization, text) in cases {
        let answer = test_auth(&frontend, authorization);
        assert_eq!(answer.status, 401, "{authorization:?}");
        assert!(
            answer.text().contains(text),
            "{authorization:?}: {}",
            answer.text()
        );
    }
}

#[test]
fn a_server_without_token_says_so() {
    let frontend = Frontend::builder().token("").start();
    let answer = test_auth(&frontend, Some("token-executor x"));
    assert_eq!(answer.status, 500);
    assert_eq!(
        answer.text(),
        "Executors are not configured on this instance"
    );
}

#[test]
fn unknown_calls_are_not_found() {
    let frontend = Frontend::builder().prefix("/sub").start();
    let authorization = format!("token-executor {}", frontend.token());
    let cases = [
        ("GET", "/sub/.executors/test/auth", 200),
        ("GET", "/.executors/test/auth", 404),
        ("POST", "/sub/.executors/test/auth", 405),
        ("POST", "/sub/.executors/queue/insights/dequeue", 404),
        ("POST", "/sub/.executors/queue/batches/canceled", 404),
        (
            "POST",
            "/sub/.executors/git/shop/cart/git-receive-pack",
            404,
        ),
        ("GET", "/sub/.executors/git/shop/cart/HEAD", 404),
        ("GET", "/sub/.executors/files/other/spec/file", 404),
    ];
    for (method, path, status) in cases {
        let headers = [("Authorization", authorization.as_str())];
        let answer = call(&frontend, method, path, &headers, "{}").expect("an answer comes");
        assert_eq!(answer.status, status, "{method} {path}");
    }
}

/// Marks a job complete with the headers that a case asks for.
fn mark_with(frontend: &Frontend, queue: &str, held: &Held, headers: &[(&str, &str)]) -> Answer {
    let body = json!({ "executorName": "one", "jobId": held.job.id }).to_string();
    let path = format!("/.executors/queue/{queue}/markComplete");
    call(frontend, "POST", &path, headers, &body).expect("an answer comes")
}

#[test]
fn a_job_call_needs_its_headers() {
    let frontend = Frontend::start();
    let job = frontend.enqueue(JobSpec::new("batches"));
    let held = Executor::new(&frontend, "one").take(job);
    let bearer = format!("Bearer {}", held.token);
    let token = ("Authorization", bearer.as_str());
    let name = ("X-Sourcegraph-Executor-Name", "one");
    let (id, bad_id) = (
        ("X-Sourcegraph-Job-ID", "1"),
        ("X-Sourcegraph-Job-ID", "one"),
    );
    let cases: [(&[_], u16, &str); 5] = [
        (&[], 401, "no token value"),
        (
            &[token, name],
            400,
            "job ID not provided in header 'X-Sourcegraph-Job-ID'",
        ),
        (&[token, name, bad_id], 400, "failed to parse Job ID: "),
        (&[token, id], 400, "worker hostname cannot be empty"),
        (&[("Authorization", "token-executor x"), name, id], 403, ""),
    ];
    for (headers, status, text) in cases {
        let answer = mark_with(&frontend, "batches", &held, headers);
        assert_eq!(answer.status, status, "{headers:?}");
        assert!(
            answer.text().starts_with(text),
            "{headers:?}: {}",
            answer.text()
        );
    }
    assert_eq!(
        mark_with(&frontend, "batches", &held, &[token, name, id]).status,
        204
    );
}

#[test]
fn a_job_token_is_good_for_one_job() {
    let frontend = Frontend::start();
    let executor = Executor::new(&frontend, "one");
    let first = executor.take(frontend.enqueue(JobSpec::new("batches")));
    let second = executor.take(frontend.enqueue(JobSpec::new("batches")));
    let headers = |token: &str| {
        let mut headers = executor.job_headers(&first);
        headers[0].1 = format!("Bearer {token}");
        headers
    };
    let cases = [
        ("batches", second.token.as_str(), 403),
        ("codeintel", first.token.as_str(), 403),
        ("batches", "0123456789abcdef", 401),
        ("batches", first.token.as_str(), 204),
    ];
    for (queue, token, status) in cases {
        let headers = headers(token);
        let headers = headers
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        let answer = mark_with(&frontend, queue, &first, &headers);
        assert_eq!(answer.status, status, "{queue} {token}");
        assert!(["", "invalid token"].contains(&answer.text()));
    }
}

#[test]
fn a_mark_ends_the_job_token() {
    let frontend = Frontend::start();
    let executor = Executor::new(&frontend, "one");
    let held = executor.take(frontend.enqueue(JobSpec::new("batches")));
    let statuses = [MarkKind::Complete, MarkKind::Complete]
        .map(|kind| executor.mark(&held, kind).expect("an answer comes").status);
    assert_eq!(statuses, [204, 401]);
    assert_eq!(executor.add(&held, "late", "").status, 401);
    let marks = frontend.job(held.job).marks;
    assert_eq!(
        marks.iter().map(|mark| mark.status).collect::<Vec<_>>(),
        [204, 401]
    );
    assert_eq!(
        frontend.violations(),
        [
            "job 1-batches: markComplete after the mark",
            "job 1-batches: addExecutionLogEntry after the mark"
        ]
    );
}

#[test]
fn the_executor_token_on_job_calls_is_noted() {
    let frontend = Frontend::start();
    let executor = Executor::new(&frontend, "one");
    let held = executor.take(frontend.enqueue(JobSpec::new("batches")));
    let body = json!({ "executorName": "one", "jobId": held.job.id });
    assert_eq!(
        executor
            .post("queue/batches/markComplete", body.clone())
            .status,
        204
    );
    assert_eq!(
        frontend.violations().len(),
        1,
        "{:?}",
        frontend.violations()
    );
    let again = executor.post("queue/batches/markComplete", body);
    assert_eq!((again.status, again.text()), (404, "null"));
}
