//! The command line: reads the environment, starts logging, runs a command.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use executor::cluster::names::WORKSPACE;
use executor::config::{Config, ConfigErrors, ExecConfig, LogFormat};
use executor::daemon::{self, Place};
use executor::exec::arguments::Arguments;
use executor::exit::Exit;
use executor::logs::terminal::Terminal;
use executor::shutdown::Shutdown;
use executor::supervisor::Supervisor;
use executor::{exec, logging, validate, workspace};

const USAGE: &str = "\
Runs Sourcegraph batch changes and code-intelligence jobs as Kubernetes Jobs.

Usage: executor [COMMAND]

Commands:
  run [--verify]   take jobs and run them until stopped (the default); with
                   --verify, make the checks of validate first
  validate         check whether jobs can run here, and say what to do if not
  exec --image IMAGE [--repo NAME --commit HASH] [--env NAME=VALUE]...
       [--dry-run] -- COMMAND [ARGUMENT]...
                   run a command as a job of its own and show its log; with
                   --dry-run, show its objects only
  setup-workspace  make a job's workspace; runs inside of its pod
  help             show this text
  version          show the version

All configuration comes from environment variables; see docs/configuration.md.
Exit codes: 0 success, 1 failure, 2 ended by a second signal with jobs left.
validate ends with 0 only if jobs can run; exec ends as its command does, with
125 if that did not run or its end was not seen, and 130 after a signal.
";

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1).map(OsString::into_string);
    let arguments: Vec<String> = match arguments.collect() {
        Ok(arguments) => arguments,
        Err(word) => {
            complain(&format!("The argument {word:?} is not UTF-8."));
            return Exit::Failed.into();
        }
    };
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] | ["run"] => run(false).into(),
        ["run", "--verify"] => run(true).into(),
        ["validate"] => validate().into(),
        ["exec", "--help" | "-h"] => print(USAGE).into(),
        ["exec", ref rest @ ..] => exec(rest).into(),
        ["setup-workspace"] => setup_workspace().into(),
        ["help" | "--help" | "-h", ..] | ["run", "--help" | "-h"] => print(USAGE).into(),
        ["version" | "--version" | "-V"] => {
            print(concat!("executor ", env!("CARGO_PKG_VERSION"), "\n")).into()
        }
        [.., word] => {
            complain(&format!(
                "Unknown command {word}. Use executor help to learn more."
            ));
            Exit::Failed.into()
        }
    }
}

/// Runs the daemon, after the checks of `validate` if they are asked for.
fn run(verify: bool) -> Exit {
    let config = match Config::from_lookup(variable) {
        Ok(config) => config,
        Err(errors) => {
            tell_faults(&errors);
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
    let place = place();
    if verify && !validate::run(&config, &place, &mut std::io::stdout()) {
        return Exit::Failed;
    }
    daemon::run(config, place, &supervisor(), &shutdown)
}

/// Runs one job of these words, or shows what it would be.
fn exec(words: &[&str]) -> Exit {
    let arguments = match Arguments::parse(words) {
        Ok(arguments) => arguments,
        Err(problem) => {
            complain(&format!(
                "{problem}. Use executor help to learn more of exec."
            ));
            return Exit::NotRun;
        }
    };
    let config = match ExecConfig::from_lookup(variable, arguments.has_repository()) {
        Ok(config) => config,
        Err(errors) => {
            complain(&errors.to_string());
            return Exit::NotRun;
        }
    };
    logging::start(&config.log);
    if arguments.is_dry_run {
        return match exec::show(&arguments, config, &place(), &mut std::io::stdout()) {
            Ok(()) => Exit::Clean,
            Err(problem) => {
                complain(&format!("{problem}."));
                Exit::NotRun
            }
        };
    }
    match Shutdown::on_signals() {
        Ok(shutdown) => {
            let terminal = Terminal::new(std::io::stdout(), std::io::stderr());
            exec::run(&arguments, config, place(), &shutdown, &terminal)
        }
        Err(error) => {
            complain(&format!("Cannot listen to signals: {error}."));
            Exit::NotRun
        }
    }
}

fn validate() -> Exit {
    let out = &mut std::io::stdout();
    let can_run = match Config::from_lookup(variable) {
        Ok(config) => validate::run(&config, &place(), out),
        Err(errors) => validate::refuse(&errors, out),
    };
    match can_run {
        true => Exit::Clean,
        false => Exit::Failed,
    }
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

/// The service manager that started this process, if one did.
fn supervisor() -> Supervisor {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else {
        return Supervisor::default();
    };
    Supervisor::at(&address).unwrap_or_else(|error| {
        log::warn!("NOTIFY_SOCKET={address:?} cannot be used, so nothing is told there: {error}.");
        Supervisor::default()
    })
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

/// Says what is wrong with the configuration: to a person, or in the form of
/// log lines that was asked for, a line each.
fn tell_faults(errors: &ConfigErrors) {
    match LogFormat::from_lookup(variable) {
        LogFormat::Sentence => complain(&errors.to_string()),
        format => {
            for error in &errors.0 {
                logging::complain(format, &format!("The configuration is wrong: {error}."));
            }
        }
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
