//! The job's token and the server's address: used for the clone, seen by
//! nobody, and gone afterwards.

use std::fs;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{look, run, seen};
use crate::frontend::fault::Fault;
use crate::frontend::record::JobState;
use crate::support::stage::Stage;
use crate::support::{MINUTES, eventually};

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle.as_bytes())
}

#[test]
fn neither_token_nor_address_reaches_a_step() {
    let stage = Stage::new();
    stage.frontend.put_file("spec1/file1", "stored\n");
    let executor = stage.executor().start();
    // As base64, since the executor would replace a token in plain sight.
    let look = look("{ env; tar --create --directory=/job .; } | base64 --wrap=0");
    let spec = stage.job().sparse("src/*").stored_file(
        "stored.txt",
        "spec1/file1",
        "2024-04-30T16:01:02Z",
    );
    let job = run(&stage, spec.step(look));
    let everything = STANDARD.decode(seen(&job).concat()).unwrap();
    for there in ["GIT_CONFIG_COUNT=1", "repository/.git/config", "stored\n"] {
        assert!(contains(&everything, there), "{there:?} is not seen");
    }
    let requests = stage.frontend.requests_to("/.executors/git/");
    let token = requests[0].header("authorization").unwrap();
    let token = token.strip_prefix("Bearer ").unwrap();
    let address = stage.frontend.address().to_string();
    for secret in [token, &address, stage.frontend.token()] {
        assert!(!contains(&everything, secret), "{secret} is seen");
    }
    executor.stop();
    stage.assert_clean();
}

/// The arguments of all processes on this machine, those of pods among them.
fn process_list() -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let arguments = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let spaced = |arguments: Vec<u8>| String::from_utf8_lossy(&arguments).replace('\0', " ");
    arguments.map(spaced).collect()
}

#[test]
fn no_process_list_shows_a_token() {
    let stage = Stage::new();
    let slow = Fault::on("/git-upload-pack").always();
    stage.frontend.inject(slow.delay(Duration::from_secs(3)));
    let executor = stage.executor().start();
    let job = stage.frontend.enqueue(stage.job().step(look("true")));
    let held = stage.frontend.wait_processing(job, MINUTES);
    let token = held.token.expect("the server makes tokens");
    let head = stage.repository.head();
    let url = stage.frontend.url();
    // The address and the commit are arguments, which tells our git apart.
    let parts = ["setup-workspace", &format!("-- origin {head}"), &url];
    let mut unseen = parts.to_vec();
    eventually(
        "the whole clone in the process list",
        MINUTES,
        || {
            let list = process_list();
            let shown = list.iter().find(|line| {
                line.contains(&token) || line.contains("git") && line.contains("open-sesame")
            });
            assert!(shown.is_none(), "{shown:?}");
            unseen.retain(|part| !list.iter().any(|line| line.contains(part)));
            unseen.is_empty().then_some(())
        },
        || stage.frontend.transcript(job),
    );
    stage.frontend.clear_faults();
    let job = stage.frontend.wait_finished(job, MINUTES);
    assert!(matches!(job.state, JobState::Completed), "{:?}", job.state);
    executor.stop();
    stage.assert_clean();
}
