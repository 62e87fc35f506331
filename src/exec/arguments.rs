//! The words of `executor exec`, and the job that they ask for.

use std::collections::BTreeMap;

use crate::cluster::plan::script::single_quoted;
use crate::job::{Job, Registries, Repository, Step};

/// The queue that such jobs seem to come from, by their names and labels.
pub const QUEUE: &str = "exec";
/// Key of the only step.
const STEP: &str = "exec";
/// Where a repository goes, as in batch changes.
const DIRECTORY: &str = "repository";
/// Takes back what every step begins with, so that the output is the command's
/// alone.
const WITHOUT_TRACE: &str = "{ set +x; } 2>/dev/null";

/// One job as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// Whether the objects are shown and not created.
    pub is_dry_run: bool,
    image: String,
    /// Name on the Sourcegraph instance, and commit.
    repository: Option<(String, String)>,
    env: Vec<(String, String)>,
    command: Vec<String>,
}

impl Arguments {
    /// Reads the words after `exec`. An error says which is wrong, and what it
    /// should be.
    pub fn parse(words: &[&str]) -> Result<Arguments, String> {
        let (mut image, mut name, mut commit) = (None, None, None);
        let (mut env, mut is_dry_run) = (Vec::new(), false);
        let mut words = words.iter().copied();
        let mut has_command = false;
        while let Some(word) = words.next() {
            let (option, joined) = match word.split_once('=') {
                Some((option, value)) => (option, Some(value)),
                None => (word, None),
            };
            let mut value = || {
                let value = joined.or_else(|| words.next());
                let value = value.filter(|value| !value.is_empty() && *value != "--");
                value
                    .map(str::to_string)
                    .ok_or(format!("{option} needs a value"))
            };
            match option {
                "--image" => image = Some(value()?),
                "--repo" => name = Some(value()?),
                "--commit" => commit = Some(hash(value()?)?),
                "--env" => env.push(variable(&value()?)?),
                "--dry-run" if joined.is_none() => is_dry_run = true,
                "--" if joined.is_none() => {
                    has_command = true;
                    break;
                }
                _ => return Err(format!("{word} is none of its options")),
            }
        }
        let command: Vec<String> = words.map(str::to_string).collect();
        if !has_command || command.is_empty() {
            return Err("the command is missing, which comes after --".to_string());
        }
        Ok(Arguments {
            is_dry_run,
            image: image.ok_or("--image is missing, the image to run the command in")?,
            repository: match (name, commit) {
                (None, None) => None,
                (Some(name), Some(commit)) => Some((name, commit)),
                _ => return Err("--repo and --commit need each other".to_string()),
            },
            env,
            command,
        })
    }

    /// Whether anything comes from Sourcegraph.
    pub fn has_repository(&self) -> bool {
        self.repository.is_some()
    }

    /// The job: one step, in the clone if there is one.
    pub fn job(&self) -> Job {
        let repository = self.repository.as_ref().map(|(name, commit)| Repository {
            name: name.clone(),
            directory: DIRECTORY.to_string(),
            commit: commit.clone(),
            fetch_tags: false,
            shallow: true,
            sparse_checkout: Vec::new(),
        });
        let words: Vec<String> = self.command.iter().map(|it| single_quoted(it)).collect();
        Job {
            queue: QUEUE.to_string(),
            id: 0,
            token: None,
            steps: vec![Step {
                key: STEP.to_string(),
                image: self.image.clone(),
                commands: vec![WITHOUT_TRACE.to_string(), words.join(" ")],
                dir: repository.as_ref().map_or("", |_| DIRECTORY).to_string(),
                env: self.env.clone(),
            }],
            repository,
            files: Vec::new(),
            has_cli_steps: false,
            redacted_values: BTreeMap::new(),
            registries: Registries::default(),
        }
    }
}

/// A commit has to be fetched by its full hash.
fn hash(commit: String) -> Result<String, String> {
    let is_hash = [40, 64].contains(&commit.len()) && commit.bytes().all(|b| b.is_ascii_hexdigit());
    match is_hash {
        true => Ok(commit),
        false => Err(format!(
            "--commit must be the full hash of a commit ({commit:?} is none)"
        )),
    }
}

/// The value may be a secret, so that no error shows it.
fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
        _ => Err("--env must be NAME=VALUE".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(&line.split(' ').collect::<Vec<_>>())
    }

    #[test]
    fn all_options_become_one_job() {
        let line = format!(
            "--image=a/b:1 --repo git.example.org/c --commit {COMMIT} --env A=1=2 --env=B= -- \
             make --env it's"
        );
        let job = parse(&line).unwrap().job();
        let step = &job.steps[0];
        assert_eq!((&*step.image, &*step.dir), ("a/b:1", "repository"));
        assert_eq!(step.commands[1], r"'make' '--env' 'it'\''s'");
        let env = [("A", "1=2"), ("B", "")];
        assert_eq!(step.env, env.map(|(n, v)| (n.to_string(), v.to_string())));
        let repository = job.repository.unwrap();
        assert_eq!(repository.name, "git.example.org/c");
        assert_eq!(repository.commit, COMMIT);
    }

    #[test]
    fn without_a_repository_the_workspace_is_empty() {
        let arguments = parse("--image a --dry-run -- true").unwrap();
        assert!(arguments.is_dry_run && !arguments.has_repository());
        let job = arguments.job();
        assert!(job.repository.is_none());
        assert_eq!(job.steps[0].dir, "");
    }

    #[test]
    fn every_wrong_word_is_named() {
        for (line, expected) in [
            ("--image a", "command is missing"),
            ("--image a --", "command is missing"),
            ("-- true", "--image is missing"),
            ("--image -- true", "--image needs a value"),
            ("--image a true", "true is none of its options"),
            ("--image a --dry-run=1 -- true", "--dry-run=1 is none"),
            ("--image a --repo b -- true", "need each other"),
            (
                "--image a --repo b --commit main -- true",
                "\"main\" is none",
            ),
            ("--image a --env walnut -- true", "must be NAME=VALUE"),
        ] {
            let problem = parse(line).unwrap_err();
            assert!(problem.contains(expected), "{line}: {problem}");
            assert!(!problem.contains("walnut"), "{problem}");
        }
    }
}
