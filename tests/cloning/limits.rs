//! Large repositories and bad lines: neither needs much memory, nor leaves
//! anything behind.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Command;

use super::{look, run, seen};
use crate::frontend::fault::Fault;
use crate::frontend::journal::Request;
use crate::support::MINUTES;
use crate::support::stage::Stage;

const MIB: usize = 1 << 20;

/// Commits a file of random bytes, which nothing makes smaller, and gives what
/// `cksum` says of it.
fn commit_random(stage: &Stage, name: &str, mib: usize) -> String {
    let repository = &stage.repository;
    // So the server's side is quick: it packs what it has as it is.
    for setting in [("core.compression", "0"), ("core.bigFileThreshold", "1m")] {
        repository.git(&["config", setting.0, setting.1]);
    }
    let path = repository.path().join(name);
    let mut file = File::create(&path).unwrap();
    let mut random = File::open("/dev/urandom").unwrap().take((mib * MIB) as u64);
    std::io::copy(&mut random, &mut file).unwrap();
    file.flush().unwrap();
    repository.commit(&[]);
    let sum = Command::new("cksum").arg(&path).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    let words: Vec<_> = sum.split(' ').take(2).collect();
    words.join(" ")
}

#[test]
fn a_large_repository_needs_little_memory() {
    let stage = Stage::new();
    let sums = [("large.bin", 200), ("a.bin", 7), ("b.bin", 7)]
        .map(|(name, mib)| commit_random(&stage, name, mib));
    let executor = stage
        .executor()
        .env("EXECUTOR_KUBERNETES_RESOURCE_LIMIT_MEMORY", "32Mi")
        .start();
    let look = look("for file in large a b; do cksum < $file.bin; done; git status --porcelain");
    let job = run(&stage, stage.job().step(look));
    assert_eq!(seen(&job), sums);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_broken_transfer_is_tried_again() {
    let stage = Stage::new();
    let sum = commit_random(&stage, "large.bin", 20);
    let executor = stage.executor().start();
    let fault = Fault::on("/git-upload-pack").cut_within(10 * MIB as u64);
    stage.frontend.inject(fault.always());
    let job = stage.frontend.enqueue(stage.job().step(look(
        "cksum < large.bin; ls -A .git/objects/pack | sed 's/.*[.]//' | sort; git fsck",
    )));
    let is_pack = |request: &Request| request.endpoint() == "git-upload-pack";
    stage.frontend.wait_for_requests(1, MINUTES, is_pack);
    stage.frontend.clear_faults();
    let job = stage.frontend.wait_finished(job, MINUTES);
    let packs = stage.frontend.requests_to("/git-upload-pack");
    let statuses: Vec<_> = packs.iter().map(|request| request.status).collect();
    assert_eq!(statuses, [None, Some(200)], "{}", job.log_text());
    assert_eq!(seen(&job), [sum.as_str(), "idx", "pack"]);
    executor.stop();
    stage.assert_clean();
}
