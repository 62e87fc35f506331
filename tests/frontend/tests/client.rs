//! A client that is as small as can be: one request for each connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::record::{JobRef, MarkKind};
use super::super::{Builder, Frontend};

/// Nothing in these tests takes this long unless it hangs.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body)
            .expect("the answer is text")
            .trim_end()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the answer is JSON")
    }
}

/// Sends bytes and reads all that comes until the server closes.
pub(super) fn exchange(address: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(bytes)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Makes a request; an answer without a head is an error.
pub(super) fn call(
    frontend: &Frontend,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Answer> {
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nHost: frontend\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    parse(&exchange(frontend.address(), request.as_bytes())?)
}

/// Takes an answer apart.
pub(super) fn parse(answer: &[u8]) -> io::Result<Answer> {
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let end = answer
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .ok_or_else(cut)?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(cut)?;
    Ok(Answer {
        status,
        head,
        body: answer[end + 4..].to_vec(),
    })
}

/// An executor of a few lines, which keeps the rules.
pub(super) struct Executor<'a> {
    pub(super) frontend: &'a Frontend,
    pub(super) name: &'static str,
    /// Scheme and value for calls of executors.
    pub(super) authorization: String,
}

/// A job in an executor's hands.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) job: JobRef,
    pub(super) token: String,
    pub(super) payload: Value,
}

impl<'a> Executor<'a> {
    pub(super) fn new(frontend: &'a Frontend, name: &'static str) -> Executor<'a> {
        let authorization = format!("token-executor {}", frontend.token());
        Executor {
            frontend,
            name,
            authorization,
        }
    }

    /// A call of the executor itself, below `/.executors`.
    pub(super) fn post(&self, path: &str, body: Value) -> Answer {
        let headers = [("Authorization", self.authorization.as_str())];
        let path = format!("/.executors/{path}");
        call(self.frontend, "POST", &path, &headers, &body.to_string()).expect("an answer comes")
    }

    pub(super) fn take(&self, job: JobRef) -> Held {
        let path = format!("queue/{}/dequeue", job.queue.name());
        let answer = self.post(
            &path,
            json!({ "executorName": self.name, "version": "5.5.0" }),
        );
        assert_eq!(answer.status, 200, "{}", answer.head);
        let payload = answer.json();
        let token = payload["token"].as_str().unwrap_or_default().to_owned();
        Held {
            job,
            token,
            payload,
        }
    }

    pub(super) fn beat(&self, job: JobRef) -> Value {
        let body = json!({ "executorName": self.name, "jobIds": [job.id], "version": "V2" });
        let answer = self.post(&format!("queue/{}/heartbeat", job.queue.name()), body);
        assert_eq!(answer.status, 200, "{}", answer.head);
        answer.json()
    }

    /// A call about a job, with the job's token.
    pub(super) fn report(&self, held: &Held, endpoint: &str, more: Value) -> io::Result<Answer> {
        let mut body = json!({ "executorName": self.name, "jobId": held.job.id });
        for (name, value) in more.as_object().expect("the fields are an object") {
            body[name] = value.clone();
        }
        let path = format!("/.executors/queue/{}/{endpoint}", held.job.queue.name());
        let headers = self.job_headers(held);
        let headers = headers
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        call(self.frontend, "POST", &path, &headers, &body.to_string())
    }

    pub(super) fn job_headers(&self, held: &Held) -> [(&'static str, String); 4] {
        [
            ("Authorization", format!("Bearer {}", held.token)),
            ("X-Sourcegraph-Job-ID", held.job.id.to_string()),
            ("X-Sourcegraph-Executor-Name", self.name.to_owned()),
            ("X-Sourcegraph-Actor-UID", "internal".to_owned()),
        ]
    }

    pub(super) fn add(&self, held: &Held, key: &str, out: &str) -> Answer {
        self.report(held, "addExecutionLogEntry", entry(key, out))
            .expect("an answer comes")
    }

    pub(super) fn mark(&self, held: &Held, kind: MarkKind) -> io::Result<Answer> {
        let more = match kind {
            MarkKind::Complete => json!({}),
            _ => json!({ "errorMessage": "it broke" }),
        };
        self.report(held, kind.endpoint(), more)
    }
}

/// The fields of a log entry.
pub(super) fn entry(key: &str, out: &str) -> Value {
    json!({
        "key": key,
        "command": null,
        "startTime": "2024-05-02T09:14:07.250113Z",
        "exitCode": 0,
        "out": out,
        "durationMs": 12,
    })
}

/// A frontend that takes jobs back after an instant.
pub(super) fn impatient() -> Builder {
    Frontend::builder()
        .stall_limit(Duration::from_millis(500))
        .resetter_interval(Duration::from_millis(20))
}
