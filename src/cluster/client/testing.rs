//! Help for the tests of this room: an API server by script.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::KubeCluster;
use crate::config::ClusterSettings;
use crate::metrics::Metrics;

/// What the server does with a request.
pub(crate) enum Answer {
    /// A status code and an object.
    Object(u16, Value),
    /// It does what was asked, and its answer is lost.
    Nothing,
}

impl Answer {
    /// A refusal in the form of Kubernetes.
    pub(crate) fn refusal(code: u16, reason: &str) -> Answer {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": "Failure", "reason": reason, "message": reason, "code": code});
        Answer::Object(code, status)
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Method and path with the query, such as `GET /api/v1/pods?limit=1`.
    pub(crate) line: String,
    /// The body; null if there is none.
    pub(crate) body: Value,
}

/// An API server that asks a function what to answer; ends with the test.
pub(crate) struct ApiServer {
    /// A client of it.
    pub(crate) cluster: KubeCluster,
    requests: Arc<Mutex<Vec<Request>>>,
    _dir: tempfile::TempDir,
}

impl ApiServer {
    pub(crate) fn start(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> ApiServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let kubeconfig = dir.path().join("kubeconfig");
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::fs::write(&kubeconfig, kubeconfig_of(&url).to_string()).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, script) = (Arc::clone(&requests), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                thread::spawn(move || serve(stream, &seen, &*script));
            }
        });
        let settings = ClusterSettings {
            namespace: "jobs".to_string(),
            config_path: Some(kubeconfig),
        };
        ApiServer {
            cluster: KubeCluster::new(&settings, &Metrics::new(&[]).cluster).unwrap(),
            requests,
            _dir: dir,
        }
    }

    /// What was asked so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn kubeconfig_of(url: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    })
}

/// Answers one request; the next one comes by another connection.
fn serve(stream: TcpStream, seen: &Mutex<Vec<Request>>, script: &dyn Fn(&Request) -> Answer) {
    let mut reader = BufReader::new(stream);
    let Some(request) = read(&mut reader) else {
        return;
    };
    seen.lock().unwrap().push(request.clone());
    let Answer::Object(code, object) = script(&request) else {
        return;
    };
    let body = object.to_string();
    let answer = format!(
        "HTTP/1.1 {code} Because\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    // The client may have gone already, which is its right.
    let _ = reader.get_mut().write_all(answer.as_bytes());
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let line = first.trim_end().strip_suffix(" HTTP/1.1")?.to_string();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Some(Request { line, body })
}
