//! What a service manager hears of an executor that it started, and the unit
//! by which systemd starts one.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};

use crate::support::SOON;
use crate::support::cluster::project;
use crate::support::stage::Stage;

/// The next message, which comes soon.
fn next(socket: &UnixDatagram) -> String {
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let mut message = [0; 1024];
    let length = socket.recv(&mut message).expect("a message comes soon");
    String::from_utf8_lossy(&message[..length]).into_owned()
}

/// Fails if there is a message already.
fn assert_nothing(socket: &UnixDatagram) {
    socket.set_nonblocking(true).unwrap();
    let received = socket.recv(&mut [0; 1024]).map_err(|error| error.kind());
    assert_eq!(received, Err(ErrorKind::WouldBlock));
}

#[test]
fn ready_is_told_when_both_servers_have_answered() {
    let stage = Stage::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    stage.frontend.stop_answering();
    let executor = stage
        .executor()
        .env("NOTIFY_SOCKET", path.to_str().unwrap())
        .spawn();
    executor.wait_for_log("Not connected to Sourcegraph");
    assert_nothing(&socket);
    stage.frontend.resume();
    let ready = next(&socket);
    let status = format!(
        "READY=1\nSTATUS=Connected to Sourcegraph at {}",
        stage.frontend.url()
    );
    assert!(ready.starts_with(&status), "{ready}");
    // With every heartbeat, whether it arrives or not.
    assert_eq!(next(&socket), "WATCHDOG=1");
    stage.frontend.stop_answering();
    assert_eq!(next(&socket), "WATCHDOG=1");
    assert_eq!(next(&socket), "WATCHDOG=1");
    stage.frontend.resume();
    executor.signal("TERM");
    let stopping = loop {
        match next(&socket) {
            message if message == "WATCHDOG=1" => {}
            message => break message,
        }
    };
    assert!(
        stopping.starts_with("STOPPING=1\nSTATUS=Stopping with 0 jobs"),
        "{stopping}"
    );
    let mut executor = executor;
    assert_eq!(executor.wait(SOON).code(), Some(0), "{}", executor.log());
}

#[test]
fn an_abstract_address_is_reached_too() {
    let stage = Stage::new();
    let name = format!("executor-{}", stage.namespace.name);
    let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    let executor = stage
        .executor()
        .env("NOTIFY_SOCKET", &format!("@{name}"))
        .start();
    assert!(next(&socket).starts_with("READY=1\n"));
    executor.stop();
}

#[test]
fn a_manager_that_is_gone_stops_nothing() {
    let stage = Stage::new();
    let gone = stage.executor().env("NOTIFY_SOCKET", "/nonexistent/notify");
    let executor = gone.start();
    executor.wait_for_log("does not hear that we are ready");
    executor.stop();
}

/// Says so where there is no systemd to ask.
#[test]
fn systemd_takes_the_unit_and_its_walls() {
    let is_there = |it: &mut Command| it.stdout(Stdio::null()).status().is_ok_and(|s| s.success());
    if !is_there(Command::new("systemd-analyze").arg("--version")) {
        eprintln!("not run: there is no systemd-analyze");
        return;
    }
    let unit = std::fs::read_to_string(project().join("manifests/systemd/executor.service"));
    let program = env!("CARGO_BIN_EXE_executor");
    let unit = unit.unwrap().replace("/usr/local/bin/executor", program);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("executor.service");
    std::fs::write(&path, &unit).unwrap();
    for words in [
        &["verify"][..],
        &["security", "--offline=yes", "--threshold=15"],
    ] {
        let analyze = Command::new("systemd-analyze")
            .args(words)
            .arg(&path)
            .output();
        let output = analyze.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let table = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.is_empty(),
            "{words:?}: {said}\n{table}"
        );
    }
}
