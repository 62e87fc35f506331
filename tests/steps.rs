//! Steps as users write them: shells, directories, environments, output, and
//! how they end.

use serde_json::{Value, json};

use crate::frontend::record::{JobState, JobView};
use crate::frontend::spec::StepSpec;
use crate::support::MINUTES;
use crate::support::cluster::kubectl;
use crate::support::eventually;
use crate::support::stage::{STEP_IMAGE, Stage, TINY_IMAGE, lines, quiet, tiny};

/// Most bytes of a variable on Linux, with name and `=`.
const VARIABLE_BYTES_MAX: usize = 131_071;

fn message(job: &JobView) -> &str {
    let is_errored = matches!(job.state, JobState::Errored { .. });
    assert!(is_errored, "{:?}\n{}", job.state, job.log_text());
    job.message()
}

#[test]
fn steps_run_under_bash_where_it_exists() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    // A bash that is not on the standard path, as in some images.
    let own_bash = "#!/bin/sh\necho \"own bash\"\nexec /bin/sh \"$@\"\n";
    let tell = "echo \"shell${BASH_VERSION:+ is bash} [$*]\"";
    let job = stage.complete(
        stage
            .job()
            .file("bin/bash", own_bash)
            .step(quiet("bash", STEP_IMAGE).command(tell))
            .step(quiet("sh", TINY_IMAGE).command(tell))
            .step(
                quiet("own", TINY_IMAGE)
                    .env("PATH", "/job/bin:/bin")
                    .command(tell),
            ),
    );
    assert_eq!(lines(&job, "bash"), ["shell is bash [skip-check]"]);
    assert_eq!(lines(&job, "sh"), ["shell []"]);
    assert_eq!(lines(&job, "own"), ["own bash", "shell [skip-check]"]);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_missing_directory_is_made_at_its_step() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let look = |key: &str, dir: &str| quiet(key, TINY_IMAGE).dir(dir).command("pwd; ls -A");
    let job = stage.complete(
        stage
            .job()
            .step(tiny("make", "mkdir made && echo > made/file"))
            .step(look("made", "made"))
            .step(look("missing", "repository/not/there"))
            .step(look("root", ".")),
    );
    assert_eq!(lines(&job, "made"), ["/job/made", "file"]);
    assert_eq!(lines(&job, "missing"), ["/job/repository/not/there"]);
    let expected = ["/job", ".sourcegraph-executor", "made", "repository"];
    assert_eq!(lines(&job, "root"), expected);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_file_as_directory_is_explained() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let step = tiny("lost", "pwd").dir("repository/README.md");
    let job = stage.frontend.enqueue(stage.job().step(step));
    let job = stage.frontend.wait_finished(job, MINUTES);
    let reason = "the step's directory, or one above it, is not a directory";
    assert!(message(&job).contains(reason), "{}", message(&job));
    let log = &job.log("step.kubernetes.lost").unwrap().out;
    assert!(log.contains(reason), "{log}");
    executor.stop();
    stage.assert_clean();
}

#[test]
fn environments_arrive_unchanged() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let large = "0123456789abcdef".repeat(100 * 1024 / 16);
    let secret = "wal\nnut's \"tree\" $(HOME)";
    let values = [
        ("NEWLINES", "one\ntwo\n\n"),
        ("EQUALS", "=a=b="),
        ("QUOTES", "'\"`\\\"' \\n \\"),
        ("REFERENCES", "$(HOME) $$(HOME) ${HOME} $HOME $$ $"),
        ("UNICODE", "ünï \u{feff} 😀"),
        ("SPACES", "  a\t b  "),
        ("EMPTY", ""),
        ("SECRET", secret),
        // What the script of a step itself looks into is in variables, too.
        ("next", "own"),
        ("line", "own"),
        ("LARGE_1", &large),
        ("LARGE_2", &large),
        ("LARGE_3", &large),
        ("LARGE_4", &large),
        ("LARGE_5", &large),
    ];
    let check = "for file in /job/expected/*; do name=${file##*/}; \
                 want=$(cat \"$file\"; echo .); eval \"have=\\${$name-unset}.\"; \
                 [ \"$have\" = \"$want\" ] && echo \"$name\"; done";
    let step = |key, image| {
        let step = quiet(key, image).command(check);
        let step = step.command("rm -f /job/skip.json");
        values
            .iter()
            .fold(step, |step, (name, value)| step.env(name, value))
    };
    let job = stage.job().redact(secret, "hidden");
    let job = values.iter().fold(job, |job, (name, value)| {
        job.file(&format!("expected/{name}"), *value)
    });
    let job = stage.complete(
        job.step(tiny("mark", "echo '{\"nextStep\":\"tiny\"}' > skip.json"))
            .step(step("tiny", TINY_IMAGE))
            .step(step("bash", STEP_IMAGE)),
    );
    let mut names = values.map(|(name, _)| name);
    names.sort_unstable();
    for key in ["tiny", "bash"] {
        let mut found = lines(&job, key);
        found.sort_unstable();
        assert_eq!(found, names, "{key}");
    }
    executor.stop();
    stage.assert_clean();
}

#[test]
fn environments_that_cannot_be_are_explained() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let fits = "x".repeat(VARIABLE_BYTES_MAX - "NAME=".len());
    let fitting = stage.job().step(
        quiet("fits", STEP_IMAGE)
            .env("NAME", &fits)
            .command("env | wc -c"),
    );
    let too_long = stage
        .job()
        .step(tiny("never", "true").env("NAME", &format!("{fits}x")));
    let too_many = (0..17).fold(tiny("never", "true"), |step, number| {
        step.env(&format!("NAME_{number}"), &fits[..100 * 1024])
    });
    let [fitting, too_long, too_many] =
        [fitting, too_long, stage.job().step(too_many)].map(|job| stage.frontend.enqueue(job));
    stage.wait_complete(fitting);

    let job = stage.frontend.wait_finished(too_long, MINUTES);
    let is_failed = matches!(job.state, JobState::Failed { .. });
    assert!(is_failed, "another try would not help: {:?}", job.state);
    let said = job.message();
    assert!(
        said.contains("step \"never\"") && said.contains("NAME has 131072 bytes"),
        "{said}"
    );
    assert!(job.logs.is_empty(), "nothing was started: {:?}", job.logs);

    let job = stage.frontend.wait_finished(too_many, MINUTES);
    let said = message(&job);
    assert!(said.contains("more than Kubernetes can hold"), "{said}");
    executor.stop();
    stage.assert_clean();
}

/// The tiny image by its digest, as a node knows it.
fn image_by_digest() -> String {
    let (repository, _) = TINY_IMAGE.split_once(':').unwrap();
    let prefix = format!("{repository}@sha256:");
    let names = || -> Vec<String> {
        let nodes = kubectl(&["get", "nodes", "-o", "json"], None);
        let nodes: Value = serde_json::from_str(&nodes).unwrap();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        list(&nodes["items"])
            .iter()
            .flat_map(|node| list(&node["status"]["images"]))
            .flat_map(|image| list(&image["names"]))
            .map(|name| name.as_str().unwrap_or_default().to_owned())
            .collect()
    };
    eventually(
        "a node that has the tiny image by digest",
        MINUTES,
        || names().into_iter().find(|name| name.starts_with(&prefix)),
        || format!("`scripts/cluster load` gives such names: {:#?}", names()),
    )
}

#[test]
fn images_can_be_named_by_digest() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let step = quiet("pinned", &image_by_digest()).command("echo ran");
    let job = stage.complete(stage.job().step(step));
    assert_eq!(lines(&job, "pinned"), ["ran"]);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn scripts_of_a_megabyte_run_whole() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let line = "n=$((n+1)) # one of very many lines";
    let count = (1 << 20) / line.len() + 1;
    let many = (0..count).fold(quiet("many", TINY_IMAGE), |step, _| step.command(line));
    let text = "x".repeat(1 << 20);
    let job =
        stage.complete(stage.job().step(many.command("echo $n")).step(
            StepSpec::new("long", STEP_IMAGE).command(format!("a={text}; echo ${{#a}} >&2")),
        ));
    assert_eq!(lines(&job, "many"), [count.to_string()]);
    let seen = lines(&job, "long");
    assert!(
        seen.contains(&format!("+ a={text}").as_str()),
        "the trace of a long line is not whole"
    );
    assert!(seen.contains(&"1048576"), "{:?}", seen.last());
    executor.stop();
    stage.assert_clean();
}

#[test]
fn both_streams_arrive_in_order() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let fast = "i=0; while [ $i -lt 1000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done";
    // Between the streams, the order is that in which the runtime reads.
    let slow = ["echo first", "sleep 1", "echo second >&2", "sleep 1"];
    let slow = slow
        .iter()
        .fold(StepSpec::new("slow", TINY_IMAGE), |step, line| {
            step.command(*line)
        });
    let job = stage.complete(
        stage
            .job()
            .step(quiet("fast", TINY_IMAGE).command(fast))
            .step(slow.command("echo third")),
    );
    let fast = lines(&job, "fast");
    assert_eq!(fast.len(), 2000);
    for stream in ["out", "err"] {
        let of_stream = fast.iter().filter(|line| line.starts_with(stream));
        let expected = (0..1000).map(|number| format!("{stream} {number}"));
        assert!(
            of_stream.eq(expected.collect::<Vec<_>>().iter()),
            "{fast:?}"
        );
    }
    let slow = lines(&job, "slow");
    let place = |text: &str| slow.iter().position(|line| *line == text).unwrap();
    let places = ["first", "second", "third"].map(place);
    assert!(places.is_sorted(), "{slow:?}");
    assert_eq!(slow.len(), 8, "each command is traced once: {slow:?}");
    executor.stop();
    stage.assert_clean();
}

#[test]
fn binary_output_leaves_the_rest_unharmed() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    // The runtime cuts lines into pieces of 16 KiB, so through this sign.
    let border = "head -c 16383 /dev/zero | tr '\\000' a; printf '\\342\\202\\254 after\\n'";
    let step = quiet("binary", TINY_IMAGE)
        .command("printf 'a\\377\\376b\\nlone \\200 nul \\000 end\\ncut \\342\\202\\n'")
        .command("printf '\\033[31mred\\033[0m\\ttab \\r\"q\" \\\\\\n'")
        .command("printf '\\377wal-nut\\377\\n'")
        .command(border)
        .command("head -c 100000 /dev/urandom; echo; echo still here");
    let job = stage.complete(stage.job().redact("wal-nut", "hidden").step(step));
    let seen = lines(&job, "binary");
    let expected = [
        "a\u{fffd}\u{fffd}b".to_owned(),
        "lone \u{fffd} nul \u{fffd} end".to_owned(),
        "cut \u{fffd}".to_owned(),
        "\u{1b}[31mred\u{1b}[0m\ttab \r\"q\" \\".to_owned(),
        "\u{fffd}hidden\u{fffd}".to_owned(),
        format!("{}€ after", "a".repeat(16383)),
    ];
    assert_eq!(seen[..expected.len()], expected);
    assert_eq!(seen.last(), Some(&"still here"));
    executor.stop();
    stage.assert_clean();
}

#[test]
fn exit_codes_are_shown_as_they_are() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let cases = [
        ("exit 1", 1),
        ("/etc/passwd", 126),
        ("no-such-program", 127),
        ("exit 128", 128),
        ("sh -c 'kill -KILL $$'", 137),
        ("sh -c 'kill -TERM $$'", 143),
        ("exit 255", 255),
    ];
    let jobs = cases.map(|(command, code)| {
        let step = tiny("end", command);
        (stage.frontend.enqueue(stage.job().step(step)), code)
    });
    for (job, code) in jobs {
        let job = stage.frontend.wait_finished(job, MINUTES);
        let expected = format!("running command \"step.kubernetes.end\": exit code {code}");
        assert_eq!(message(&job), expected);
        let entry = job.log("step.kubernetes.end").unwrap();
        assert_eq!(entry.exit_code, Some(code), "{}", entry.out);
    }
    executor.stop();
    stage.assert_clean();
}

#[test]
fn steps_need_no_key_commands_or_input() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let step = |commands: Value| json!({"image": TINY_IMAGE, "commands": commands});
    let reads = "cat && read line || echo \"end of file\"";
    let job = stage.frontend.enqueue_raw(
        "batches",
        json!({"version": 2, "dockerSteps": [
            step(Value::Null), step(json!([])), step(json!([""])), step(json!([reads]))]}),
    );
    let job = stage.wait_complete(job);
    for key in ["0", "1", "2"] {
        assert!(lines(&job, key).is_empty(), "{:?}", lines(&job, key));
    }
    let reader = lines(&job, "3");
    assert!(reader.contains(&"end of file"), "{reader:?}");
    let ended_well = job.logs.iter().all(|entry| entry.exit_code == Some(0));
    assert!(ended_well, "{:?}", job.logs);
    executor.stop();
    stage.assert_clean();
}
