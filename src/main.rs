//! The command line: reads the environment, starts logging, runs a command.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use executor::cluster::names::WORKSPACE;
use executor::config::{Config, ConfigErrors, ExecConfig, LogFormat};
use executor::daemon::{self, Place};
use executor::exec::arguments::Arguments;
use executor::exit::Exit;
use executor::logs::terminal::Terminal;
use executor::shutdown::Shutdown;
use executor::supervisor::Supervisor;
use executor::{exec, logging, pgrep, validate, workspace};

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

/// One heap for all threads, and no stock of freed pieces for each of them; what
/// is large goes back as soon as it is freed.
const HEAP_SETTINGS: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0"),
    ("MALLOC_MMAP_THRESHOLD_", "65536"),
];

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
    if name() == "pgrep" {
        return pgrep(&words).into();
    }
    match words[..] {
        [] | ["run"] => run_with_one_heap(false).into(),
        ["run", "--verify"] => run_with_one_heap(true).into(),
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

/// The C library reads its settings at the start of a process. Left to itself
/// it makes many heaps for threads, each of which keeps what was freed in it;
/// with two hundred threads that is a third of our memory, and no thread of ours
/// allocates so much that one heap would make it wait. So the program starts once
/// more in its own place, unless somebody has chosen for it.
fn run_with_one_heap(verify: bool) -> Exit {
    let is_chosen = HEAP_SETTINGS
        .iter()
        .any(|(name, _)| std::env::var_os(name).is_some());
    let mut words = std::env::args_os();
    if let (false, Some(name), Ok(program)) = (is_chosen, words.next(), std::env::current_exe()) {
        // It returns only if it did not work; then more memory is what it costs.
        let _ = Command::new(program)
            .arg0(name)
            .args(words)
            .envs(HEAP_SETTINGS)
            .exec();
    }
    run(verify)
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

/// What probes call by another name of this program: `pgrep -f TEXT`.
fn pgrep(words: &[&str]) -> Exit {
    let ["-f", text] = words else {
        complain("Only -f with one text is understood here.");
        return Exit::Failed;
    };
    match pgrep::find(Path::new("/proc"), text, std::process::id()) {
        Ok(found) if found.is_empty() => Exit::Failed,
        Ok(found) => {
            let lines: String = found.iter().map(|number| format!("{number}\n")).collect();
            print(&lines)
        }
        Err(error) => {
            complain(&format!("/proc cannot be read: {error}."));
            Exit::Failed
        }
    }
}

/// The name by which this program was called.
fn name() -> String {
    let program = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&program).file_name().and_then(OsStr::to_str);
    name.unwrap_or("executor").to_string()
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
    let name = name();
    // If standard error is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{name}: {text}");
}
