//! The command line: reads the environment, starts logging, runs a command.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use executor::cluster::plan::script::WORKSPACE;
use executor::config::Config;
use executor::daemon::{self, Place};
use executor::exit::Exit;
use executor::shutdown::Shutdown;
use executor::{logging, workspace};

const USAGE: &str = "\
Runs Sourcegraph batch changes and code-intelligence jobs as Kubernetes Jobs.

Usage: executor [COMMAND]

Commands:
  run              take jobs and run them until stopped (the default)
  setup-workspace  make a job's workspace; runs inside of its pod
  help             show this text
  version          show the version

All configuration comes from environment variables; see README.md.
Exit codes: 0 success, 1 failure, 2 ended by a second signal with jobs left.
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next();
    match (command.as_deref(), arguments.next()) {
        (None | Some("run"), None) => run().into(),
        (Some("setup-workspace"), None) => setup_workspace().into(),
        (Some("help" | "--help" | "-h"), _) => print(USAGE).into(),
        (Some("version" | "--version" | "-V"), None) => {
            print(concat!("executor ", env!("CARGO_PKG_VERSION"), "\n")).into()
        }
        (command, unexpected) => {
            let word = unexpected
                .or(command.map(str::to_string))
                .unwrap_or_default();
            complain(&format!(
                "Unknown command {word}. Use executor help to learn more."
            ));
            Exit::Failed.into()
        }
    }
}

fn run() -> Exit {
    let config = match Config::from_lookup(variable) {
        Ok(config) => config,
        Err(errors) => {
            complain(&errors.to_string());
            return Exit::Failed;
        }
    };
    logging::start(&config.log);
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    let shutdown = match Shutdown::on_signals() {
        Ok(shutdown) => shutdown,
        Err(error) => {
            log::error!("Cannot listen to signals: {error}.");
            return Exit::Failed;
        }
    };
    daemon::run(config, place(), &shutdown)
}

/// A variable of the environment. As with all programs of Sourcegraph, one
/// with this program's name at its end counts before the general one.
fn variable(name: &str) -> Option<String> {
    [format!("{name}_executor"), name.to_string()]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.is_empty())
}

fn place() -> Place {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .ok()
            .map(|text| text.trim().to_string())
    };
    let not_empty = |text: &String| !text.is_empty();
    Place {
        host: std::env::var("HOSTNAME")
            .ok()
            .filter(not_empty)
            .or_else(|| read("/proc/sys/kernel/hostname").filter(not_empty))
            .unwrap_or_else(|| "executor".to_string()),
        namespace: read("/var/run/secrets/kubernetes.io/serviceaccount/namespace"),
        spool_dir: std::env::temp_dir(),
    }
}

fn setup_workspace() -> Exit {
    let (spec, job) = (Path::new(workspace::SPEC_DIR), Path::new(WORKSPACE));
    match workspace::setup(spec, job, &mut std::io::stdout()) {
        Ok(()) => Exit::Clean,
        Err(error) => {
            complain(&error.to_string());
            Exit::Failed
        }
    }
}

/// Answers on standard output.
fn print(text: &str) -> Exit {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => Exit::Clean,
        Err(_) => Exit::Failed,
    }
}

/// Says on standard error what is wrong.
fn complain(text: &str) {
    let program = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&program)
        .file_name()
        .and_then(OsStr::to_str)
        .unwrap_or("executor");
    // If standard error is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{name}: {text}");
}
