//! Help for the tests of this room: a specification, and a server by script.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::spec::WorkspaceSpec;

/// A specification without repository and files.
pub(super) fn spec(frontend_url: &str) -> WorkspaceSpec {
    WorkspaceSpec {
        frontend_url: frontend_url.to_owned(),
        authorization: "Bearer hush".to_owned(),
        executor_name: "exec-0".to_owned(),
        job_id: 17,
        repository: None,
        files: Vec::new(),
    }
}

/// Gives one scripted answer to each connection, then refuses them.
pub(super) struct Server {
    pub(super) url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(super) fn start(answers: &[&str]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let answers: Vec<String> = answers.iter().map(|text| (*text).to_owned()).collect();
        thread::spawn(move || {
            for answer in answers {
                let Ok((mut stream, _)) = listener.accept() else {
                    return;
                };
                let request = read_head(&mut stream);
                seen.lock().unwrap().push(request);
                // The client may have gone already, which is its right.
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Server { url, requests }
    }

    /// Heads of the requests so far.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}
