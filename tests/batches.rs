//! Batch changes: steps with their helpers before and after them, as the
//! server sends them. The helper program is played by shell lines that write
//! the same files and print the same events.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::frontend::spec::StepSpec;
use crate::support::stage::{STEP_IMAGE, Stage, TINY_IMAGE, lines, quiet};

const TOOL_MODIFIED: &str = "2024-04-30T16:01:02.123456789Z";

/// The event that a helper prints before a step.
fn started(number: u32) -> String {
    let step = number + 1;
    format!(
        "echo '{{\"operation\":\"TASK_STEP\",\"timestamp\":\"2024-05-02 09:14:12 +0000 UTC\",\
         \"status\":\"STARTED\",\"metadata\":{{\"step\":{step}}}}}'"
    )
}

/// What a helper prints after a step, with the outputs that `outputs` prints
/// and the diff that `diff` prints.
fn result(number: u32, outputs: &str, diff: &str) -> [String; 5] {
    [
        format!(
            "printf '{{\"operation\":\"CACHE_AFTER_STEP_RESULT\",\"status\":\"SUCCESS\",\
             \"metadata\":{{\"key\":\"key-{number}\",\"value\":{{\"version\":2,\
             \"stepIndex\":{number},\"outputs\":{{'"
        ),
        outputs.to_owned(),
        "printf '},\"diff\":\"'".to_owned(),
        diff.to_owned(),
        "printf '\"}}}\\n'".to_owned(),
    ]
}

fn with_commands(step: StepSpec, commands: impl IntoIterator<Item = String>) -> StepSpec {
    commands.into_iter().fold(step, StepSpec::command)
}

/// A step of the user's, with its output copied as the server asks for it.
fn run(number: u32) -> StepSpec {
    let copied = format!(
        "{{ bash ../step{number}.sh 2>&1 1>&3 | tee ../stderr{number}.log >&2; }} 3>&1 | \
         tee ../stdout{number}.log"
    );
    quiet(&format!("step.{number}.run"), STEP_IMAGE)
        .dir("repository")
        .command("set -e -o pipefail")
        .command(copied)
}

#[test]
fn a_batch_change_completes_by_its_results() {
    let stage = Stage::new();
    let tool = "#!/bin/sh\nsed -i s/apples/plums/ src/cart.txt\ncp ../blob assets/blob\n";
    stage.frontend.put_file("spec1/file1", tool);
    let executor = stage.executor().start();
    // Cannot be compressed, so that the result is one line of many MiB.
    let mut blob = vec![0u8; 4 << 20];
    getrandom::fill(&mut blob).unwrap();
    let secret = "walnut \"tree\"\nnutmeg";
    let tell_secret = "token=${NPM_TOKEN//\\\"/\\\\\\\"}; printf '\"token\":\"%s\"' \
                       \"${token//$'\\n'/\\\\n}\"";
    let pre = quiet("step.0.pre", STEP_IMAGE)
        .env("NPM_TOKEN", secret)
        .command("echo \"$NPM_TOKEN\"; [ \"$NPM_TOKEN\" = \"$(cat secret)\" ] && echo complete")
        .command("stat -c '%s %.Y' workspace-files/tools/fix.sh")
        .command("echo 'mkdir assets; echo fixing; echo careful >&2' > step0.sh")
        .command("echo ../workspace-files/tools/fix.sh >> step0.sh")
        .command(started(0));
    let post = StepSpec::new("step.0.post", STEP_IMAGE)
        .env("NPM_TOKEN", secret)
        .command("set +x; cat stdout0.log stderr0.log")
        .command("git -C repository add --all")
        .command("git -C repository diff --cached --no-prefix --binary > step0.diff");
    // Chatter on the other stream, which must not get into the event.
    let post = post.command("set -x; echo hello world >&2; set +x");
    let post = with_commands(post, result(0, tell_secret, "base64 -w0 step0.diff"));
    let post = post.command("set -x; echo done >&2");
    let job = stage.complete(
        stage
            .job()
            .file("input.json", "{\"steps\":[]}")
            .file("secret", secret)
            .file("blob", blob.clone())
            .stored_file("workspace-files/tools/fix.sh", "spec1/file1", TOOL_MODIFIED)
            .redact(secret, "${{ secrets.NPM_TOKEN }}")
            .step(pre)
            .step(run(0))
            .step(post),
    );

    let pre = lines(&job, "step.0.pre");
    let size_and_time = format!("{} 1714492862.123456789", tool.len());
    let expected = ["${{ secrets.NPM_TOKEN }}", "complete", &size_and_time];
    assert_eq!(pre[..3], expected);
    let mut seen = lines(&job, "step.0.run");
    seen.sort_unstable();
    assert_eq!(seen, ["careful", "fixing"]);
    let seen = lines(&job, "step.0.post");
    assert_eq!(seen[..3], ["+ set +x", "fixing", "careful"]);
    let hello = ["+ echo hello world", "hello world", "+ set +x"];
    assert_eq!(seen[3..6], hello);
    assert_eq!(seen[7..], ["+ echo done", "done"]);

    let results = job.step_results();
    assert_eq!(results.len(), 1, "one line is one event");
    let value = &results[0]["metadata"]["value"];
    assert_eq!(value["outputs"]["token"], "${{ secrets.NPM_TOKEN }}");
    let diff = STANDARD.decode(value["diff"].as_str().unwrap()).unwrap();
    let changed = apply(&stage, &diff);
    let cart = std::fs::read_to_string(changed.path().join("src/cart.txt"));
    assert_eq!(cart.unwrap(), "plums\npears\n");
    let stored = std::fs::read(changed.path().join("assets/blob")).unwrap();
    assert!(stored == blob, "the blob is not what it was");
    executor.stop();
    stage.assert_clean();
}

/// The stage's repository with a diff on top of it.
fn apply(stage: &Stage, diff: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("diff");
    std::fs::write(&file, diff).unwrap();
    let git = |arguments: &[&str]| {
        let status = std::process::Command::new("git")
            .arg("--git-dir")
            .arg(stage.repository.git_dir())
            .args(["--work-tree", "."])
            .args(arguments)
            .current_dir(dir.path())
            .status();
        assert!(status.unwrap().success(), "git {arguments:?}");
    };
    git(&["checkout", "--quiet", "--", "."]);
    git(&["apply", "-p0", "diff"]);
    dir
}

#[test]
fn skip_json_skips_just_the_steps_before_the_next() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let step = |key: &str| quiet(key, TINY_IMAGE).command("rm -f /job/skip.json; echo ran");
    // As a program writes it, over several lines; then as the server's does.
    let to_2 = "printf '{\\n  \"nextStep\": \"step.2.pre\"\\n}\\n' > skip.json";
    let to_the_end = "printf '{\"nextStep\":\"step.4.pre\"}' > skip.json";
    let job = (0..4).fold(stage.job(), |job, number| {
        let pre = step(&format!("step.{number}.pre"));
        let pre = match number {
            1 => pre.command(to_2),
            3 => pre.command(to_the_end),
            _ => pre.command(started(number)),
        };
        let run = step(&format!("step.{number}.run"));
        let post = step(&format!("step.{number}.post"));
        let post = with_commands(post, result(number, "printf ''", "printf ''"));
        job.step(pre).step(run).step(post)
    });
    let job = stage.complete(job);
    let skipped = ["step.1.run", "step.1.post", "step.3.run", "step.3.post"];
    for number in 0..4 {
        for part in ["pre", "run", "post"] {
            let key = format!("step.{number}.{part}");
            let seen = lines(&job, &key);
            let entry = job.log(&format!("step.kubernetes.{key}")).unwrap();
            assert_eq!(entry.exit_code, Some(0), "{key}: {}", entry.out);
            match skipped.contains(&key.as_str()) {
                true => assert!(seen.is_empty(), "{key} ran: {seen:?}"),
                false => assert_eq!(seen.first(), Some(&"ran"), "{key}"),
            }
        }
    }
    let results = job.step_results();
    let steps = results
        .iter()
        .map(|result| &result["metadata"]["value"]["stepIndex"]);
    assert!(steps.eq([0, 2].iter()), "{results:?}");
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_cached_diff_comes_before_all_steps() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let diff = "--- src/cart.txt\n+++ src/cart.txt\n@@ -1,2 +1,2 @@\n-apples\n+plums\n pears\n";
    let apply = StepSpec::new("apply-diff", STEP_IMAGE)
        .dir("repository")
        .command("set -e")
        .command("git apply -p0 ../state.diff")
        .command("git add --all");
    let look = quiet("step.1.run", STEP_IMAGE)
        .dir("repository")
        .command("git diff --cached --name-only; cat src/cart.txt");
    let job = stage.complete(stage.job().file("state.diff", diff).step(apply).step(look));
    assert_eq!(
        lines(&job, "step.1.run"),
        ["src/cart.txt", "plums", "pears"]
    );
    executor.stop();
    stage.assert_clean();
}
