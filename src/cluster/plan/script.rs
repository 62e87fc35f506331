//! The shell script of a step, and what runs it.

use crate::job::{Job, Step};

/// Where the workspace is mounted in every container.
pub const WORKSPACE: &str = "/job";
/// Directory of the step scripts, relative to the workspace.
const SCRIPT_DIR: &str = ".sourcegraph-executor";
/// How keys end of the steps in whose output the server looks for events.
const EVENTS_SUFFIX: &str = ".post";

/// Path of a step's script, relative to the workspace.
pub fn path(job: &Job, index: usize) -> String {
    let name = match &job.repository {
        Some(repository) => {
            // A slash would make directories, and Kubernetes puts variables
            // in the place of `$(NAME)` in commands.
            format!("{}@{}", repository.name, repository.commit).replace(['/', '$'], "_")
        }
        None => "no-repository".to_string(),
    };
    // A file name ends at 255 bytes; repository names may be longer.
    let end = (0..=200.min(name.len()))
        .rev()
        .find(|end| name.is_char_boundary(*end));
    let name = &name[..end.unwrap_or(0)];
    format!("{SCRIPT_DIR}/{}.{index}_{name}.sh", job.id)
}

/// The command of a step's container, which is also what its log entry shows.
pub fn command(job: &Job, index: usize) -> Vec<String> {
    vec![
        "/bin/sh".to_string(),
        format!("{WORKSPACE}/{}", path(job, index)),
    ]
}

/// The script of a step.
///
/// It first looks whether an earlier step asked to skip this one, then goes
/// on under bash where the image has it: on the standard path, in `/bin`, or
/// where the image's own path leads. Then it runs the commands with tracing
/// and without an end at the first failing line, as the reference does. Only
/// shell built-ins are used, since an image may have nothing else, and no
/// variable is set but in a subshell, since every name may be the step's.
///
/// The runtime reads the two streams of a container side by side, in pieces
/// of 16 KiB, so a line of one stream can end up inside of a long line of the
/// other. In a step whose output the server reads, where each line is an
/// event, both are one stream, which keeps lines whole. Elsewhere they stay
/// apart: there programs write pieces of lines to one while others use the
/// other, and no line has to be whole.
pub fn script(step: &Step) -> String {
    let key = single_quoted(&step.key);
    let commands = step.commands.join("\n");
    let join_streams = match step.key.ends_with(EVENTS_SUFFIX) {
        true => "exec 2>&1\n",
        false => "",
    };
    format!(
        r#"if [ "${{1-}}" != skip-check ]; then
  [ -f {WORKSPACE}/skip.json ] && (
    next=
    while IFS= read -r line || [ -n "$line" ]; do next=$next$line; done
    case $next in *'"nextStep"'*) ;; *) exit 1 ;; esac
    next=${{next#*\"nextStep\"}}
    next=${{next#*\"}}
    next=${{next%%\"*}}
    case {key} in *"$next") exit 1 ;; esac
  ) <{WORKSPACE}/skip.json && exit 0
  set -- "$(
    exec 2>/dev/null
    command -p -v bash || {{ [ -x /bin/bash ] && echo /bin/bash; }} || command -v bash
  )"
  case $1 in /*) exec "$1" "$0" skip-check ;; esac
  set --
fi
set +e
{join_streams}set -x

{commands}
"#
    )
}

/// A text as one word of the shell, whatever it holds.
fn single_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn run(shell: &str, key: &str, commands: &[&str], skip: Option<&str>) -> (i32, String) {
        let dir = tempfile::tempdir().unwrap();
        let step = Step {
            key: key.to_string(),
            image: "image".to_string(),
            commands: commands.iter().map(|line| line.to_string()).collect(),
            dir: String::new(),
            env: Vec::new(),
        };
        let workspace = dir.path().to_str().unwrap();
        let text = script(&step).replace("/job/skip.json", &format!("{workspace}/skip.json"));
        let file = dir.path().join("step.sh");
        std::fs::write(&file, text).unwrap();
        if let Some(skip) = skip {
            std::fs::write(dir.path().join("skip.json"), skip).unwrap();
        }
        let output = Command::new(shell).arg(&file).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code().unwrap(), text)
    }

    #[test]
    fn commands_go_on_after_a_failing_line() {
        let result = run("/bin/sh", "a", &["false", "echo on", "exit 7"], None);
        assert_eq!(result, (7, "on\n".to_string()));
    }

    #[test]
    fn bash_is_used_where_it_exists() {
        let result = run("/bin/sh", "a", &["echo ${BASH_VERSION:+bash} $1"], None);
        assert_eq!(result, (0, "bash skip-check\n".to_string()));
    }

    #[test]
    fn steps_before_the_next_one_are_skipped() {
        let skip = Some("{\n  \"nextStep\": \"step.2.pre\"\n}");
        assert_eq!(
            run("/bin/sh", "step.1.run", &["echo ran"], skip),
            (0, String::new())
        );
        assert_eq!(
            run("/bin/sh", "step.2.pre", &["echo ran"], skip),
            (0, "ran\n".to_string())
        );
        let end = Some(r#"{"nextStep":"step.9.pre"}"#);
        assert_eq!(
            run("/bin/sh", "step.2.pre", &["echo ran"], end),
            (0, String::new())
        );
    }

    #[test]
    fn a_step_meets_no_variable_of_ours() {
        let skip = Some(r#"{"nextStep":"step.2.pre"}"#);
        assert_eq!(
            run("/bin/sh", "step.2.pre", &["echo ${next-} ${line-}"], skip),
            (0, "\n".to_string())
        );
    }

    #[test]
    fn file_names_are_plain() {
        let job = Job {
            queue: "batches".to_string(),
            id: 7,
            token: None,
            repository: Some(crate::job::Repository {
                name: "git.example.org/$(HOME)/cart".to_string(),
                directory: String::new(),
                commit: "9c1e".to_string(),
                fetch_tags: false,
                shallow: false,
                sparse_checkout: Vec::new(),
            }),
            files: Vec::new(),
            steps: Vec::new(),
            has_cli_steps: false,
            redacted_values: Default::default(),
            docker_config: None,
        };
        assert_eq!(
            path(&job, 2),
            ".sourcegraph-executor/7.2_git.example.org__(HOME)_cart@9c1e.sh"
        );
    }

    #[test]
    fn events_share_one_stream_with_the_trace() {
        let commands = ["echo event", "echo more >&2"];
        let events = "+ echo event\nevent\n+ echo more\nmore\n";
        assert_eq!(
            run("/bin/sh", "step.0.post", &commands, None),
            (0, events.to_string())
        );
        assert_eq!(
            run("/bin/sh", "step.0.run", &commands, None),
            (0, "event\n".to_string())
        );
    }

    #[test]
    fn quotes_in_a_key_do_no_harm() {
        let skip = Some(r#"{"nextStep":"x"}"#);
        assert_eq!(
            run("/bin/sh", "it's $(id)", &["echo ran"], skip),
            (0, String::new())
        );
    }
}
