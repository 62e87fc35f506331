//! Git and the file store.

use std::path::Path;
use std::process::{Command, Output};

use super::super::Frontend;
use super::super::fault::Fault;
use super::super::journal::Request;
use super::super::spec::JobSpec;
use super::client::{Executor, Held, SOON, call, exchange};

const NAME: &str = "git.example.org/shop/cart";

/// Runs git without the settings of whoever runs the tests.
fn git(directory: &Path, arguments: &[&str], headers: &[String]) -> Output {
    let mut command = Command::new("git");
    command
        .current_dir(directory)
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_AUTHOR_NAME", "a")
        .env("GIT_AUTHOR_EMAIL", "a@example.org")
        .env("GIT_COMMITTER_NAME", "a")
        .env("GIT_COMMITTER_EMAIL", "a@example.org")
        .env("GIT_CONFIG_COUNT", headers.len().to_string());
    for (index, header) in headers.iter().enumerate() {
        command.env(format!("GIT_CONFIG_KEY_{index}"), "http.extraHeader");
        command.env(format!("GIT_CONFIG_VALUE_{index}"), header);
    }
    command.output().expect("git is there")
}

fn done(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A repository of two commits, the older of which has a large file.
fn repository(directory: &Path) -> [String; 2] {
    done(&git(
        directory,
        &["init", "--quiet", "--initial-branch=main"],
        &[],
    ));
    // Numbers compress badly enough to make a pack of more than one block.
    let large: Vec<u8> = (0..400_000_u32)
        .flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes())
        .collect();
    std::fs::write(directory.join("large"), large).expect("the file can be written");
    [("one", "a.txt"), ("two", "b.txt")].map(|(text, file)| {
        std::fs::write(directory.join(file), text).expect("the file can be written");
        done(&git(directory, &["add", "."], &[]));
        done(&git(directory, &["commit", "--quiet", "-m", text], &[]));
        done(&git(directory, &["rev-parse", "HEAD"], &[]))
    })
}

fn headers(executor: &Executor<'_>, held: &Held) -> Vec<String> {
    let headers = executor.job_headers(held);
    headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect()
}

struct Shop {
    frontend: Frontend,
    commits: [String; 2],
    clones: tempfile::TempDir,
    origin: tempfile::TempDir,
}

impl Shop {
    fn open() -> Shop {
        let [origin, clones] =
            [(); 2].map(|()| tempfile::tempdir().expect("a directory can be made"));
        let commits = repository(origin.path());
        let frontend = Frontend::start();
        frontend.add_repository(NAME, origin.path());
        Shop {
            frontend,
            commits,
            clones,
            origin,
        }
    }

    fn take(&self, repository: &str) -> (Executor<'_>, Held) {
        let spec = JobSpec::new("batches").repository(repository, &self.commits[0]);
        let executor = Executor::new(&self.frontend, "one");
        let held = executor.take(self.frontend.enqueue(spec));
        (executor, held)
    }

    fn address(&self) -> String {
        format!("{}/.executors/git/{NAME}", self.frontend.url())
    }
}

#[test]
fn git_clone_works_with_the_job_token() {
    let shop = Shop::open();
    let (executor, held) = shop.take(NAME);
    let headers = headers(&executor, &held);
    let clone = ["clone", "--quiet", &shop.address(), "clone"];
    done(&git(shop.clones.path(), &clone, &headers));
    let clone = shop.clones.path().join("clone");
    assert_eq!(
        done(&git(&clone, &["rev-parse", "HEAD"], &[])),
        shop.commits[1]
    );
    assert_eq!(
        std::fs::metadata(clone.join("large"))
            .expect("it is there")
            .len(),
        1_600_000
    );
    assert_eq!(shop.frontend.violations(), [""; 0]);
}

#[test]
fn one_commit_can_be_fetched_in_part() {
    let shop = Shop::open();
    let (executor, held) = shop.take(NAME);
    let headers = headers(&executor, &held);
    let (clone, address) = (shop.clones.path(), shop.address());
    for protocol in ["0", "2"] {
        done(&git(clone, &["init", "--quiet", protocol], &[]));
        let clone = clone.join(protocol);
        let version = format!("protocol.version={protocol}");
        let fetch = [
            "-c",
            &version,
            "fetch",
            "--quiet",
            "--depth=1",
            "--filter=blob:none",
            &address,
            &shop.commits[0],
        ];
        done(&git(&clone, &fetch, &headers));
        assert_eq!(
            done(&git(&clone, &["rev-parse", "FETCH_HEAD"], &[])),
            shop.commits[0]
        );
        assert_eq!(
            done(&git(&clone, &["rev-list", "--count", "FETCH_HEAD"], &[])),
            "1"
        );
    }
}

#[test]
fn compressed_requests_reach_git() {
    let shop = Shop::open();
    let (executor, held) = shop.take(NAME);
    let headers = headers(&executor, &held);
    // Git compresses what is longer than a kilobyte, such as many wishes.
    let commits: Vec<String> = (0..40)
        .map(|number: u32| {
            let message = number.to_string();
            let commit = ["commit-tree", "HEAD^{tree}", "-m", &message];
            done(&git(shop.origin.path(), &commit, &[]))
        })
        .collect();
    done(&git(shop.clones.path(), &["init", "--quiet"], &[]));
    let address = shop.address();
    let mut fetch = vec!["fetch", "--quiet", "--depth=1", &address];
    fetch.extend(commits.iter().map(String::as_str));
    done(&git(shop.clones.path(), &fetch, &headers));
    done(&git(
        shop.clones.path(),
        &["cat-file", "-e", &commits[39]],
        &[],
    ));
    let requests = shop.frontend.requests_to("git-upload-pack");
    let is_compressed = |request: &Request| request.header("content-encoding") == Some("gzip");
    assert!(requests.iter().any(is_compressed));
}

#[test]
fn a_request_in_chunks_reaches_git() {
    let shop = Shop::open();
    let (executor, held) = shop.take(NAME);
    let mut request = format!("POST /.executors/git/{NAME}/git-upload-pack HTTP/1.1\r\n");
    for (name, value) in executor.job_headers(&held) {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(
        "Content-Type: application/x-git-upload-pack-request\r\n\
         Git-Protocol: version=2\r\nConnection: close\r\nExpect: 100-continue\r\n\
         Transfer-Encoding: chunked\r\n\r\n\
         4\r\n0014\r\n14\r\ncommand=ls-refs\n0000\r\n0\r\n\r\n",
    );
    let answer = exchange(shop.frontend.address(), request.as_bytes()).expect("an answer comes");
    let text = String::from_utf8_lossy(&answer);
    assert!(
        text.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"),
        "{text}"
    );
    assert!(
        text.contains(&format!("{} refs/heads/main", shop.commits[1])),
        "{text}"
    );
    // The answer leaves before its request is written down as ended.
    let is_ended =
        |request: &Request| request.endpoint() == "git-upload-pack" && request.status == Some(200);
    let requests = shop.frontend.wait_for_requests(1, SOON, is_ended);
    assert_eq!(requests[0].body_length, 24);
}

#[test]
fn git_needs_the_token_of_its_repository() {
    let shop = Shop::open();
    let (executor, held) = shop.take("git.example.org/shop/other");
    let headers = headers(&executor, &held);
    let fetch = ["ls-remote", &shop.address()];
    for headers in [headers, Vec::new()] {
        assert!(!git(shop.clones.path(), &fetch, &headers).status.success());
    }
    let statuses: Vec<_> = shop
        .frontend
        .requests_to("/info/refs")
        .iter()
        .map(|r| r.status)
        .collect();
    assert_eq!(statuses, [Some(403), Some(401)]);
}

#[test]
fn a_cut_pack_fails_a_clone() {
    let shop = Shop::open();
    let (executor, held) = shop.take(NAME);
    let headers = headers(&executor, &held);
    let is_fetch = |request: &Request| {
        // The reference discovery of protocol 2 goes through the same call.
        request.header("content-encoding").is_some()
            || request
                .header("content-length")
                .is_some_and(|length| length.parse().unwrap_or(0) > 200)
    };
    shop.frontend.inject(
        Fault::on("git-upload-pack")
            .when(is_fetch)
            .cut_within(100_000),
    );
    let clone = ["clone", "--quiet", &shop.address(), "clone"];
    assert!(!git(shop.clones.path(), &clone, &headers).status.success());
    done(&git(shop.clones.path(), &clone, &headers));
}

#[test]
fn files_are_served_to_jobs_of_batches() {
    let frontend = Frontend::start();
    let executor = Executor::new(&frontend, "one");
    frontend.put_file("spec9a/file3c", *b"\x00\xffhi");
    let batches = executor.take(frontend.enqueue(JobSpec::new("batches")));
    let codeintel = executor.take(frontend.enqueue(JobSpec::new("codeintel")));
    let get = |method: &str, key: &str, held: &Held| {
        let headers = executor.job_headers(held);
        let headers = headers
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        let path = format!("/.executors/files/batch-changes/{key}");
        call(&frontend, method, &path, &headers, "").expect("an answer comes")
    };
    assert_eq!(get("GET", "spec9a/file3c", &batches).body, b"\x00\xffhi");
    let head = get("HEAD", "spec9a/file3c", &batches);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(head.head.contains("Content-Length: 4"));
    let missing = get("GET", "spec9a/other", &batches);
    assert_eq!(
        (missing.status, missing.text()),
        (404, "workspace file does not exist")
    );
    assert_eq!(get("HEAD", "spec9a/other", &batches).status, 404);
    assert_eq!(get("GET", "spec9a/file3c", &codeintel).status, 403);
    assert_eq!(get("GET", "a/b/c", &batches).status, 404);
}
