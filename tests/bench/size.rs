//! How large the binary and the image are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::mib;
use crate::support::cluster::project;
use crate::support::stage::EXECUTOR;
use crate::table::Table;

const BINARY_MOST: f64 = 10.0;
const IMAGE_MOST: f64 = 15.0;
/// The programs of git that are in the image.
const GIT: [&str; 3] = [
    "/usr/bin/git",
    "/usr/lib/git-core/git-remote-http",
    "/usr/lib/git-core/git-remote-https",
];

/// Weighs the files of the image as they are unpacked.
pub(crate) fn measure(table: &mut Table) {
    let binary = mib(fs::metadata(EXECUTOR).expect("it was built").len());
    table.add(
        "the binary of a release",
        format!("{binary:.1} MiB"),
        format!("≤ {BINARY_MOST} MiB"),
        binary <= BINARY_MOST,
    );
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let root = |name: &str| dir.path().join(name);
    let path = |name: &str| root(name).display().to_string();
    script("rootfs", &[&path("image"), EXECUTOR]);
    script(
        "copy-programs",
        &[&[path("git").as_str()], &GIT[..]].concat(),
    );
    script("copy-programs", &[&path("executor"), EXECUTOR]);
    let ours: BTreeSet<PathBuf> = files(&root("executor")).map(|(path, _)| path).collect();
    let whole: u64 = files(&root("image")).map(|(_, bytes)| bytes).sum();
    // Libraries that the executor loads too are not git's.
    let git: u64 = files(&root("git"))
        .filter(|(path, _)| !ours.contains(path))
        .map(|(_, bytes)| bytes)
        .sum();
    let rest = mib(whole - git);
    table.add(
        "the image without git and what git alone loads, unpacked",
        format!("{rest:.1} MiB, and git {:.1} MiB", mib(git)),
        format!("≤ {IMAGE_MOST} MiB"),
        rest <= IMAGE_MOST,
    );
}

fn script(name: &str, arguments: &[&str]) {
    let status = Command::new(project().join("scripts").join(name))
        .args(arguments)
        .status()
        .expect("the script can be run");
    assert!(status.success(), "{name} ended with {status}");
}

/// All plain files below a directory, by their paths in it, with their sizes.
fn files(root: &Path) -> impl Iterator<Item = (PathBuf, u64)> {
    let (mut found, mut open) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).expect("it can be read") {
            let path = entry.expect("it can be read").path();
            let metadata = path.symlink_metadata().expect("it is there");
            if metadata.is_dir() {
                open.push(path);
            } else if metadata.is_file() {
                let inside = path.strip_prefix(root).expect("it is below it");
                found.push((inside.to_owned(), metadata.len()));
            }
        }
    }
    found.into_iter()
}
