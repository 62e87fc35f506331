//! Clones made by the real git from a real repository, served as files.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::super::spec::{FileSourceSpec, FileSpec};
use super::super::testing::{self, Server};
use super::*;

const NAME: &str = "git.example.org/shop/cart";

/// A served repository with two commits and a tag, and a workspace beside it.
struct Fixture {
    dir: TempDir,
    first: String,
    second: String,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let served = dir.path().join(".executors/git").join(NAME);
        fs::create_dir_all(served.join("docs")).unwrap();
        fs::create_dir_all(dir.path().join("job")).unwrap();
        git(&served, &["init", "--quiet"]);
        git(&served, &["config", "uploadpack.allowFilter", "true"]);
        git(
            &served,
            &["config", "uploadpack.allowAnySHA1InWant", "true"],
        );
        fs::write(served.join("README"), "one\n").unwrap();
        fs::write(served.join("docs/a.md"), "doc a\n").unwrap();
        let first = commit(&served, "first");
        git(&served, &["tag", "v1"]);
        fs::write(served.join("README"), "two\n").unwrap();
        fs::write(served.join("docs/b.md"), "doc b\n").unwrap();
        symlink("/etc", served.join("link")).unwrap();
        let second = commit(&served, "second");
        Fixture { dir, first, second }
    }

    fn url(&self) -> String {
        format!("file://{}", self.dir.path().display())
    }

    fn repository(&self) -> RepositorySpec {
        RepositorySpec {
            name: NAME.to_owned(),
            directory: "repository".to_owned(),
            commit: self.second.clone(),
            fetch_tags: false,
            shallow: false,
            sparse_checkout: Vec::new(),
            ca_certificate: None,
        }
    }

    fn job(&self) -> PathBuf {
        self.dir.path().join("job")
    }

    /// Clones, and gives back the directory of the clone and what was said.
    fn clone(&self, repository: &RepositorySpec) -> Result<(PathBuf, String), WorkspaceError> {
        let mut out = Vec::new();
        let spec = testing::spec(&self.url());
        clone(&spec, repository, &Tree::open(&self.job())?, &mut out)?;
        let dir = self.job().join(&repository.directory);
        Ok((dir, String::from_utf8(out).unwrap()))
    }
}

/// Runs git as a step would, and gives back what it prints.
fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(dir)
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
        .args(args)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "git {args:?}: {output:?}");
    text.trim().to_owned()
}

fn commit(dir: &Path, message: &str) -> String {
    git(dir, &["add", "--all"]);
    git(dir, &["commit", "--quiet", "-m", message]);
    git(dir, &["rev-parse", "HEAD"])
}

#[test]
fn the_commit_is_checked_out_detached() {
    let fixture = Fixture::new();
    let mut repository = fixture.repository();
    repository.commit = fixture.first.clone();
    let (dir, out) = fixture.clone(&repository).unwrap();
    assert_eq!(git(&dir, &["rev-parse", "HEAD"]), fixture.first);
    assert_eq!(
        git(&dir, &["rev-parse", "--symbolic-full-name", "HEAD"]),
        "HEAD"
    );
    assert_eq!(fs::read_to_string(dir.join("README")).unwrap(), "one\n");
    assert_eq!(git(&dir, &["config", "gc.auto"]), "0");
    let headline = format!("Cloning {NAME} at {}\nCloned in ", fixture.first);
    assert!(out.starts_with(&headline), "{out}");
}

#[test]
fn a_full_clone_has_history_but_no_tags() {
    let fixture = Fixture::new();
    let (dir, _) = fixture.clone(&fixture.repository()).unwrap();
    assert_eq!(git(&dir, &["rev-list", "--count", "HEAD"]), "2");
    assert_eq!(git(&dir, &["tag"]), "");
}

#[test]
fn a_shallow_clone_has_one_commit() {
    let fixture = Fixture::new();
    let mut repository = fixture.repository();
    repository.shallow = true;
    let (dir, out) = fixture.clone(&repository).unwrap();
    assert_eq!(git(&dir, &["rev-list", "--count", "HEAD"]), "1");
    assert_eq!(git(&dir, &["tag"]), "");
    assert!(out.contains(" (shallow)\n"), "{out}");
}

#[test]
fn tags_are_fetched_when_asked_for() {
    let fixture = Fixture::new();
    for shallow in [false, true] {
        let mut repository = fixture.repository();
        repository.directory = format!("shallow-{shallow}");
        repository.fetch_tags = true;
        repository.shallow = shallow;
        let (dir, _) = fixture.clone(&repository).unwrap();
        assert_eq!(git(&dir, &["rev-parse", "v1^{commit}"]), fixture.first);
    }
}

#[test]
fn no_directory_means_the_workspace_itself() {
    let fixture = Fixture::new();
    let mut repository = fixture.repository();
    repository.directory = String::new();
    fixture.clone(&repository).unwrap();
    assert!(fixture.job().join(".git").is_dir());
    assert!(fixture.job().join("README").is_file());
}

#[test]
fn neither_credentials_nor_address_stay_behind() {
    let fixture = Fixture::new();
    for sparse_checkout in [vec![], vec!["docs/*".to_owned()]] {
        let mut repository = fixture.repository();
        repository.directory = format!("clone-{}", sparse_checkout.len());
        repository.sparse_checkout = sparse_checkout;
        let (dir, _) = fixture.clone(&repository).unwrap();
        assert_eq!(git(&dir, &["remote", "get-url", "origin"]), NAME);
        let url = fixture.url();
        for text in ["hush", url.as_str()] {
            let mut grep = Command::new("grep");
            grep.args(["--recursive", "--fixed-strings", text, "."]);
            let found = grep.current_dir(&dir).output().unwrap();
            assert_eq!(found.status.code(), Some(1), "{text}: {found:?}");
        }
    }
}

#[test]
fn a_sparse_clone_works_without_the_server() {
    let fixture = Fixture::new();
    let mut repository = fixture.repository();
    repository.shallow = true;
    repository.sparse_checkout = vec!["docs/*".to_owned(), "!docs/b.md".to_owned()];
    let (dir, out) = fixture.clone(&repository).unwrap();
    assert!(out.contains(" (shallow, sparse)\n"), "{out}");
    let missing = git(&dir, &["rev-list", "--objects", "--missing=print", "HEAD"]);
    assert!(missing.contains('?'), "no blob was left out: {missing}");
    fs::remove_dir_all(fixture.dir.path().join(".executors")).unwrap();

    assert!(dir.join("docs/a.md").is_file());
    assert!(!dir.join("docs/b.md").exists());
    assert!(!dir.join("README").exists());
    assert_eq!(git(&dir, &["status", "--porcelain"]), "");
    fs::rename(dir.join("docs/a.md"), dir.join("docs/c.md")).unwrap();
    fs::write(dir.join("docs/new.md"), "new\n").unwrap();
    git(&dir, &["add", "--all"]);
    let diff = git(&dir, &["diff", "--cached", "--no-prefix", "--binary"]);
    assert!(diff.contains("rename from docs/a.md"), "{diff}");
    assert!(diff.contains("+new"), "{diff}");
    assert!(!diff.contains("README"), "{diff}");
    git(&dir, &["commit", "--quiet", "-m", "changed"]);
    git(&dir, &["diff", "HEAD~1"]);
}

#[test]
fn a_missing_blob_is_refused_at_once() {
    let fixture = Fixture::new();
    let mut repository = fixture.repository();
    repository.sparse_checkout = vec!["docs/*".to_owned()];
    // A name that git would take for the host of an ssh server.
    repository.name = "192.0.2.1:22/shop".to_owned();
    let served = fixture.dir.path().join(".executors/git");
    fs::create_dir_all(served.join("192.0.2.1:22")).unwrap();
    fs::rename(served.join(NAME), served.join(&repository.name)).unwrap();
    let (dir, _) = fixture.clone(&repository).unwrap();
    let start = Instant::now();
    let output = Command::new("git")
        .current_dir(&dir)
        .args(["show", "HEAD:README"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("does not appear to be a git repository"),
        "{text}"
    );
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn steps_can_make_a_diff_afterwards() {
    let fixture = Fixture::new();
    let (dir, _) = fixture.clone(&fixture.repository()).unwrap();
    fs::write(dir.join("README"), "three\n").unwrap();
    fs::write(dir.join("new"), "new\n").unwrap();
    git(&dir, &["add", "--all"]);
    let names = git(&dir, &["diff", "--cached", "--name-only"]);
    assert_eq!(names, "README\nnew");
}

#[test]
fn an_interrupted_clone_starts_over() {
    let fixture = Fixture::new();
    let (dir, _) = fixture.clone(&fixture.repository()).unwrap();
    fs::write(dir.join(".git/index.lock"), "").unwrap();
    fs::write(dir.join("README"), "half").unwrap();
    fixture.clone(&fixture.repository()).unwrap();
    assert_eq!(fs::read_to_string(dir.join("README")).unwrap(), "two\n");
}

#[test]
fn a_missing_commit_is_named() {
    let fixture = Fixture::new();
    let mut repository = fixture.repository();
    for commit in ["0123456789012345678901234567890123456789", "abcdef0"] {
        repository.commit = commit.to_owned();
        let error = fixture.clone(&repository).unwrap_err().to_string();
        let text = format!(
            "commit {commit} was not found in repository {NAME} on {}; was it force-pushed away?",
            fixture.url()
        );
        assert_eq!(error, text);
    }
}

#[test]
fn only_hashes_are_commits() {
    let fixture = Fixture::new();
    let mut repository = fixture.repository();
    for commit in ["", "abcdef", "main", "--upload-pack=x", "abcdef0^{tree}"] {
        repository.commit = commit.to_owned();
        let error = fixture.clone(&repository).unwrap_err().to_string();
        assert!(error.contains("is not a commit hash"), "{error}");
    }
    assert_eq!(fs::read_dir(fixture.job()).unwrap().count(), 0);
}

#[test]
fn an_unknown_repository_is_named() {
    let fixture = Fixture::new();
    let mut repository = fixture.repository();
    repository.name = "git.example.org/gone".to_owned();
    let error = fixture.clone(&repository).unwrap_err().to_string();
    assert!(
        error.starts_with("repository git.example.org/gone was not found on file://"),
        "{error}"
    );
}

/// Clones from a server that answers every request with one status.
fn clone_by_status(status: u16) -> (String, Vec<String>) {
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let server = Server::start(&[answer.as_str(); 5]);
    let fixture = Fixture::new();
    let spec = testing::spec(&format!("{}/sub", server.url));
    let mut repository = fixture.repository();
    repository.name = "shop/odd name".to_owned();
    let git = Git {
        spec: &spec,
        repository: &repository,
        dir: fixture.job(),
        first_pause: Duration::ZERO,
    };
    git.prepare().unwrap();
    let error = git.fetch().unwrap_err().to_string();
    (error, server.requests())
}

#[test]
fn every_git_request_carries_the_headers() {
    let (_, requests) = clone_by_status(404);
    let path = "GET /sub/.executors/git/shop/odd%20name/info/refs?service=git-upload-pack ";
    assert!(requests[0].starts_with(path), "{}", requests[0]);
    for line in [
        "\r\nAuthorization: Bearer hush\r\n",
        "\r\nX-Sourcegraph-Actor-UID: internal\r\n",
        "\r\nX-Sourcegraph-Job-ID: 17\r\n",
        "\r\nX-Sourcegraph-Executor-Name: exec-0\r\n",
        "\r\nGit-Protocol: version=2\r\n",
    ] {
        assert!(requests[0].contains(line), "{line:?} in {}", requests[0]);
    }
}

#[test]
fn refusals_are_explained_and_final() {
    for (status, text) in [
        (401, "/sub does not let this job clone shop/odd name; "),
        (403, "/sub does not let this job clone shop/odd name; "),
        (404, "repository shop/odd name was not found on http://"),
    ] {
        let (error, requests) = clone_by_status(status);
        assert!(error.contains(text), "{error}");
        assert!(!error.contains("hush"), "{error}");
        assert_eq!(requests.len(), 1, "{status}");
    }
}

#[test]
fn server_faults_are_tried_again() {
    for status in [500, 302] {
        let (error, requests) = clone_by_status(status);
        assert!(error.starts_with("git fetch failed: "), "{error}");
        assert_eq!(requests.len(), 5, "{error}");
    }
}

#[test]
fn the_named_certificate_beats_the_images() {
    let spec = testing::spec("https://sg.example.org");
    let mut repository = Fixture::new().repository();
    repository.ca_certificate = Some("/ca.pem".to_owned());
    let git = Git {
        spec: &spec,
        repository: &repository,
        dir: PathBuf::from("/"),
        first_pause: Duration::ZERO,
    };
    let command = git.command(&git.remote_settings(), &["fetch"]);
    let value = command
        .get_envs()
        .find(|(name, _)| *name == "GIT_SSL_CAINFO")
        .and_then(|(_, value)| value);
    assert_eq!(value, Some("/ca.pem".as_ref()));
}

/// Runs the whole set-up with a clone and one file.
fn set_up(fixture: &Fixture, path: &str) -> (Result<(), WorkspaceError>, String) {
    let mut spec = testing::spec(&fixture.url());
    spec.repository = Some(fixture.repository());
    spec.files = vec![FileSpec {
        path: path.to_owned(),
        source: FileSourceSpec::Inline(b"mine".to_vec()),
        modified_at: None,
    }];
    let parts = tempfile::tempdir().unwrap();
    for (index, part) in spec.pack().iter().enumerate() {
        fs::write(parts.path().join(WorkspaceSpec::part_name(index)), part).unwrap();
    }
    let mut out = Vec::new();
    let result = super::super::setup(parts.path(), &fixture.job(), &mut out);
    (result, String::from_utf8(out).unwrap())
}

#[test]
fn files_can_lie_inside_the_repository() {
    let fixture = Fixture::new();
    let (result, out) = set_up(&fixture, "repository/README");
    result.unwrap();
    let file = fixture.job().join("repository/README");
    assert_eq!(fs::read(file).unwrap(), b"mine");
    assert!(out.ends_with(" s\nWrote 1 file\n"), "{out}");
}

#[test]
fn later_users_may_change_the_clone() {
    let fixture = Fixture::new();
    set_up(&fixture, "repository/docs/new").0.unwrap();
    let dir = fixture.job().join("repository");
    // As one of them would, with the usual mask.
    let commit = "umask 022; git -c user.name=t -c user.email=t commit --quiet --allow-empty -m t";
    let status = Command::new("sh")
        .args(["-c", commit])
        .current_dir(&dir)
        .status();
    assert!(status.unwrap().success());
    let objects = fs::read_dir(dir.join(".git/objects")).unwrap();
    let mut paths: Vec<_> = objects.map(|entry| entry.unwrap().path()).collect();
    assert!(
        paths.len() > 2,
        "the commit has made a directory: {paths:?}"
    );
    paths.extend([".", ".git", ".git/config", "README", "docs"].map(|path| dir.join(path)));
    for path in paths {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o666, 0o666, "{}", path.display());
    }
}

#[test]
fn files_cannot_follow_links_of_the_repository() {
    let fixture = Fixture::new();
    let (result, _) = set_up(&fixture, "repository/link/executor-was-here");
    let error = result.unwrap_err().to_string();
    assert!(error.contains("leads through a link"), "{error}");
    assert!(!Path::new("/etc/executor-was-here").exists());
}
