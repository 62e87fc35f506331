//! A real git repository to clone from.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A repository with one branch; goes with its test.
pub(crate) struct Repository {
    dir: tempfile::TempDir,
}

impl Repository {
    /// One with a commit that holds these files.
    pub(crate) fn with_files(files: &[(&str, &str)]) -> Repository {
        let repository = Repository {
            dir: tempfile::tempdir().expect("a directory can be made"),
        };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository.commit(files);
        repository
    }

    /// Adds a commit that writes these files, and gives its hash.
    pub(crate) fn commit(&self, files: &[(&str, &str)]) -> String {
        for (path, content) in files {
            let file = self.dir.path().join(path);
            let parent = file.parent().expect("a file has a parent");
            std::fs::create_dir_all(parent).expect("the directory is writable");
            std::fs::write(&file, content).expect("the directory is writable");
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "A change"]);
        self.head()
    }

    /// Hash of the newest commit.
    pub(crate) fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Where its git directory is.
    pub(crate) fn git_dir(&self) -> PathBuf {
        self.dir.path().join(".git")
    }

    /// Where its files are.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Runs git in it, and gives what that prints.
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        git(self.dir.path(), arguments)
    }
}

fn git(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.org"])
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect("git can be run");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "git {}: {error}",
        arguments.join(" ")
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
