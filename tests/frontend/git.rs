//! Git over HTTP by the real `git http-backend`.
//!
//! Both directions are streamed: neither a request nor a pack is ever held.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;

use super::auth::{self, Caller, Scope};
use super::http::{Body, Head};
use super::hub::Hub;
use super::report::sender;
use super::response::{Outlet, Response};

/// Settings of a server that lets any commit be fetched, and in parts. The
/// last one is for repositories that a test did not make itself.
const CONFIG: [(&str, &str); 3] = [
    ("uploadpack.allowAnySHA1InWant", "true"),
    ("uploadpack.allowFilter", "true"),
    ("safe.directory", "*"),
];

/// So much is passed on at a time.
const BLOCK_BYTES: usize = 64 << 10;

/// Decides whether a call of git may go on, and where to.
pub(super) fn admit(hub: &Hub, repository: &str, head: &Head) -> Result<PathBuf, Response> {
    let mut store = hub.lock();
    let scope = Scope::Repository(repository);
    let caller = auth::job(&hub.settings, &store, head, scope)?;
    if caller == Caller::Executor
        && let Some((id, _)) = sender(head)
    {
        let job = store
            .jobs
            .values()
            .find(|view| view.job.id == id && view.repository() == repository)
            .map(|view| view.job);
        if let Some(job) = job {
            store.note_executor_token(job, "git");
        }
    }
    if head.header("x-sourcegraph-actor-uid") != Some("internal") {
        store
            .violations
            .push(format!("git of {repository} without the internal actor"));
    }
    let directory = store.repositories.get(repository).cloned();
    directory.ok_or_else(|| Response::text(404, "repository not found"))
}

/// Lets git answer. The status is that of git; an error means that the
/// connection is of no more use.
pub(super) fn serve<R: BufRead + Send>(
    directory: &Path,
    rest: &str,
    head: &Head,
    body: &mut Body<'_, R>,
    mut outlet: Outlet<'_>,
) -> io::Result<u16> {
    let stream = outlet.stream();
    if head.expects_continue() {
        outlet.go_on()?;
    }
    let mut child = backend(directory, rest, head, stream)?;
    let input = child.stdin.take().expect("the backend's input is a pipe");
    let output = child.stdout.take().expect("the backend's output is a pipe");
    let result = thread::scope(|scope| {
        thread::Builder::new()
            .name("frontend-git-input".to_owned())
            .spawn_scoped(scope, || feed(body, input))?;
        let result = answer(BufReader::new(output), outlet);
        if result.is_err() {
            // The client is gone, so that nothing may keep the other side
            // waiting for the rest of its request.
            let _ = stream.shutdown(Shutdown::Both);
            let _ = child.kill();
        }
        result
    });
    child.wait()?;
    result
}

fn backend(directory: &Path, rest: &str, head: &Head, stream: &TcpStream) -> io::Result<Child> {
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", directory)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", rest)
        .env("QUERY_STRING", &head.query)
        .env("REQUEST_METHOD", &head.method)
        .env("REMOTE_ADDR", stream.peer_addr()?.ip().to_string())
        .env("GIT_CONFIG_COUNT", CONFIG.len().to_string());
    for (index, (key, value)) in CONFIG.iter().enumerate() {
        command.env(format!("GIT_CONFIG_KEY_{index}"), key);
        command.env(format!("GIT_CONFIG_VALUE_{index}"), value);
    }
    let passed_on = [
        ("content-type", "CONTENT_TYPE"),
        ("content-length", "CONTENT_LENGTH"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "GIT_PROTOCOL"),
    ];
    for (header, variable) in passed_on {
        match head.header(header) {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
}

/// Passes the request's body on. When git has stopped to listen, the rest is
/// read all the same, since the client will not read an answer before.
fn feed<R: BufRead>(body: &mut Body<'_, R>, input: ChildStdin) {
    let mut input = Some(input);
    let mut block = vec![0; BLOCK_BYTES];
    while let Ok(got @ 1..) = body.read(&mut block) {
        let taken = input.as_mut().map(|input| input.write_all(&block[..got]));
        if let Some(Err(_)) = taken {
            input = None;
        }
    }
}

/// Turns what a CGI program writes into an HTTP answer.
fn answer(mut output: impl BufRead, mut outlet: Outlet<'_>) -> io::Result<u16> {
    let mut status = 200;
    let mut headers = vec![("Transfer-Encoding".to_owned(), "chunked".to_owned())];
    loop {
        let mut line = String::new();
        if output.read_line(&mut line)? == 0 {
            outlet.send(
                &Response::text(500, "git http-backend ended without an answer"),
                false,
            )?;
            return Ok(500);
        }
        let line = line.trim_end();
        match line.split_once(": ") {
            None if line.is_empty() => break,
            Some(("Status", value)) => {
                let code = value.split(' ').next().unwrap_or_default();
                status = code.parse().unwrap_or(500);
            }
            Some((name, value)) => headers.push((name.to_owned(), value.to_owned())),
            None => {}
        }
    }
    outlet.send_head(status, &headers)?;
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let got = output.read(&mut block)?;
        outlet.send_chunk(&block[..got])?;
        if got == 0 {
            return Ok(status);
        }
    }
}
