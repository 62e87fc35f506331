//! The shell script of a step, and what runs it.

use crate::cluster::names::WORKSPACE;
use crate::job::{Job, Step};

/// Directory of the step scripts, relative to the workspace.
const SCRIPT_DIR: &str = ".sourcegraph-executor";
/// Key of the step by which the server applies what earlier steps changed.
const CACHED_DIFF_KEY: &str = "apply-diff";
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
/// A step may run as another user than the one that made the workspace. What
/// such a step makes must be open to the steps after it, and so must what is
/// made for them by the server's own step that applies a cached diff. Git from
/// 2.38 on works by the environment that every step has; an older one heeds
/// only its files when it looks whether a repository may be trusted, so its
/// user's file gets a line, in a container that nobody uses again.
///
/// The runtime reads the two streams of a container side by side, in pieces
/// of 16 KiB, so a line of one stream can end up inside of a long line of the
/// other. In a step whose output the server reads, where each line is an
/// event, both are one stream, which keeps lines whole. Elsewhere they stay
/// apart: there programs write pieces of lines to one while others use the
/// other, and no line has to be whole.
///
/// When a container ends, some runtimes drop what its streams still hold, at
/// most the 64 KiB of a pipe. A step whose output the server reads says the most
/// at its end, so it gives the runtime a moment; whether the image has a `sleep`
/// makes no difference to how the step ends.
pub fn script(step: &Step) -> String {
    let key = single_quoted(&step.key);
    let commands = step.commands.join("\n");
    let is_owner = match step.key.as_str() {
        CACHED_DIFF_KEY => "false".to_string(),
        _ => format!("[ -O {WORKSPACE}/{SCRIPT_DIR} ]"),
    };
    let join_streams = match step.key.ends_with(EVENTS_SUFFIX) {
        true => "exec 2>&1\ntrap '{ set +x; sleep 0.2; } 2>/dev/null' EXIT\n",
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
  {is_owner} || umask 0
  [ -O {WORKSPACE} ] || case "${{HOME-}}" in
    {WORKSPACE}*) ;;
    *) printf '\n[safe]\n\tdirectory = *\n' >>"${{HOME-}}/.gitconfig" ;;
  esac 2>/dev/null
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
pub fn single_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;
    use crate::corpus;

    /// A workspace of ours, and a home beside it.
    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Place {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(dir.path().join("workspace").join(SCRIPT_DIR)).unwrap();
            std::fs::create_dir(dir.path().join("home")).unwrap();
            Place { dir }
        }

        fn workspace(&self) -> PathBuf {
            self.dir.path().join("workspace")
        }

        fn gitconfig(&self) -> Option<String> {
            std::fs::read_to_string(self.dir.path().join("home/.gitconfig")).ok()
        }

        /// Runs a step; its exit code and standard output.
        fn run(&self, shell: &str, key: &str, commands: &[&str]) -> (i32, String) {
            let step = Step {
                key: key.to_string(),
                image: "image".to_string(),
                commands: commands.iter().map(|line| line.to_string()).collect(),
                dir: String::new(),
                env: Vec::new(),
            };
            let workspace = self.workspace();
            let text = script(&step).replace(WORKSPACE, workspace.to_str().unwrap());
            let file = self.dir.path().join("step.sh");
            std::fs::write(&file, text).unwrap();
            let output = Command::new(shell)
                .arg(&file)
                .env("HOME", self.dir.path().join("home"))
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            (output.status.code().unwrap(), text)
        }
    }

    fn run(shell: &str, key: &str, commands: &[&str], skip: Option<&str>) -> (i32, String) {
        let place = Place::new();
        if let Some(skip) = skip {
            std::fs::write(place.workspace().join("skip.json"), skip).unwrap();
        }
        place.run(shell, key, commands)
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
            registries: Default::default(),
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
    fn the_last_moment_keeps_the_exit_code() {
        for shell in ["/bin/sh", "/bin/bash"] {
            for (commands, code) in [(["exit 7"], 7), (["(exit 3)"], 3), (["true"], 0)] {
                let (found, out) = run(shell, "step.0.post", &commands, None);
                assert_eq!(found, code, "{shell}: {out}");
                assert!(!out.contains("sleep"), "{shell}: {out}");
            }
        }
    }

    #[test]
    fn quotes_in_a_key_do_no_harm() {
        let skip = Some(r#"{"nextStep":"x"}"#);
        assert_eq!(
            run("/bin/sh", "it's $(id)", &["echo ran"], skip),
            (0, String::new())
        );
    }

    /// The mask that the calling process hands on.
    fn own_mask() -> String {
        let output = Command::new("/bin/sh").args(["-c", "umask"]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    #[test]
    fn the_owner_of_the_workspace_keeps_its_settings() {
        let place = Place::new();
        let result = place.run("/bin/sh", "step.0.run", &["umask"]);
        assert_eq!(result, (0, own_mask()));
        assert_eq!(place.gitconfig(), None);
    }

    #[test]
    fn other_users_work_for_everyone() {
        for shell in ["/bin/sh", "/bin/bash"] {
            let place = Place::new();
            // What is not there is nobody's, so not ours either.
            std::fs::remove_dir_all(place.workspace()).unwrap();
            std::fs::write(place.dir.path().join("home/.gitconfig"), "[a]\n\tb = c").unwrap();
            let commands = ["umask; git config a.b; git config --global safe.directory"];
            let (code, text) = place.run(shell, "step.0.run", &commands);
            assert_eq!((code, text.as_str()), (0, "0000\nc\n*\n"), "{shell}");
        }
    }

    #[test]
    fn a_home_that_cannot_be_written_does_no_harm() {
        let place = Place::new();
        std::fs::remove_dir_all(place.workspace()).unwrap();
        std::fs::remove_dir(place.dir.path().join("home")).unwrap();
        let result = place.run("/bin/sh", "step.0.run", &["echo on"]);
        assert_eq!(result, (0, "on\n".to_string()));
    }

    #[test]
    fn a_cached_diff_is_applied_for_everyone() {
        let place = Place::new();
        let result = place.run("/bin/sh", "apply-diff", &["umask"]);
        assert_eq!(result, (0, "0000\n".to_string()));
        assert_eq!(place.gitconfig(), None);
    }

    /// A file that steps can write as they like decides whether a step runs, and
    /// nothing else: it is no program, and its end is one of two.
    #[test]
    fn whatever_skip_json_holds_is_never_run() {
        corpus::feed("skip", |bytes| {
            let place = Place::new();
            std::fs::write(place.workspace().join("skip.json"), bytes).unwrap();
            let (code, output) = place.run("/bin/sh", "step.2.pre", &["echo ran"]);
            assert!(
                code == 0 && ["", "ran\n"].contains(&&*output),
                "{code} {output}"
            );
            let left = std::fs::read_dir(place.dir.path()).unwrap().count();
            assert_eq!(left, 3, "workspace, home and script");
        });
    }
}
