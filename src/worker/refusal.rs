//! Jobs that no cluster can run, told before anything is created.

use crate::job::{Job, Step};

/// Linux starts no program that has a variable of more bytes than this, name,
/// `=` and value together: a string of 32 pages of 4 KiB, less its final NUL.
const VARIABLE_BYTES_MAX: usize = 32 * 4096 - 1;

/// Why a job cannot run, in words for the page of the job; `None` if it can.
pub(super) fn refusal(job: &Job) -> Option<String> {
    if job.has_cli_steps {
        return Some(needs_docker(&job.queue));
    }
    job.steps.iter().find_map(impossible_variable)
}

/// What to change on the server, which decides how it writes its jobs.
fn needs_docker(queue: &str) -> String {
    let remedy = match queue {
        "batches" => {
            "an administrator must enable native execution of batch changes, by setting the \
             feature flag `native-ssbc-execution` to true"
        }
        _ => "a newer Sourcegraph sends steps that can",
    };
    format!(
        "the job holds steps that are `src` command lines, which need Docker and cannot run on \
         Kubernetes; {remedy}"
    )
}

/// Names the variable and never its value, which may be a secret.
fn impossible_variable(step: &Step) -> Option<String> {
    let key = &step.key;
    step.env.iter().find_map(|(name, value)| {
        let bytes = name.len() + 1 + value.len();
        if bytes > VARIABLE_BYTES_MAX {
            Some(format!(
                "step {key:?} cannot start: its variable {name} has {bytes} bytes with its name, \
                 and Linux allows {VARIABLE_BYTES_MAX}; put the value into a file instead"
            ))
        } else if value.contains('\0') {
            Some(format!(
                "step {key:?} cannot start: its variable {name} contains a NUL character, which \
                 Linux does not allow"
            ))
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(value: String) -> Step {
        Step {
            key: "step.0.pre".to_string(),
            image: "image".to_string(),
            commands: Vec::new(),
            dir: String::new(),
            env: vec![("KEY".to_string(), value)],
        }
    }

    #[test]
    fn variables_are_refused_where_linux_would() {
        assert_eq!(impossible_variable(&step("x".repeat(131_067))), None);
        let long = impossible_variable(&step("x".repeat(131_068))).unwrap();
        assert!(
            long.contains("\"step.0.pre\"") && long.contains("KEY has 131072 bytes"),
            "{long}"
        );
        let nul = impossible_variable(&step("wal\0nut".to_string())).unwrap();
        assert!(nul.contains("KEY contains a NUL"), "{nul}");
        assert!(!nul.contains("wal"), "{nul}");
    }

    #[test]
    fn src_command_lines_name_what_to_set() {
        assert!(needs_docker("batches").contains("`native-ssbc-execution` to true"));
        assert!(!needs_docker("codeintel").contains("batch"));
    }
}
