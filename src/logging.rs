//! The form of log lines: a sentence after time, level and thread, or the
//! same as `key=value` pairs or as a JSON object. A line is one line, whatever
//! a server or a cluster has put into it.
//!
//! A thread that works for a job says so once, and all its lines name the job,
//! those of rooms too that know of none.

use std::cell::RefCell;
use std::io::{self, Write};
use std::marker::PhantomData;

use jiff::Timestamp;
use log::Level;
use serde_json::json;

use crate::config::{LogFormat, LogSettings};
use crate::job::JobKey;

thread_local! {
    static JOB: RefCell<Option<JobKey>> = const { RefCell::new(None) };
}

/// As long as it lives, the lines of its thread name a job.
pub struct AboutJob {
    /// It stays on its thread.
    here: PhantomData<*const ()>,
}

/// Begins to work for a job on this thread.
pub fn about(job: &JobKey) -> AboutJob {
    JOB.set(Some(job.clone()));
    AboutJob { here: PhantomData }
}

impl Drop for AboutJob {
    fn drop(&mut self) {
        JOB.set(None);
    }
}

/// Starts logging to standard error. Panics are lines like all others.
pub fn start(settings: &LogSettings) {
    std::panic::set_hook(Box::new(|panic| log::error!("This thread {panic}")));
    let format = settings.format;
    env_logger::Builder::new()
        .parse_filters(&settings.filter)
        .format(move |line, record| {
            let message = record.args().to_string();
            JOB.with_borrow(|job| {
                write_line(line, format, &Origin::here(job), record.level(), &message)
            })
        })
        .init();
}

/// Says what keeps logging from being started, in the form that was asked for
/// and whatever the level is.
pub fn complain(format: LogFormat, problem: &str) {
    let origin = Origin::here(&None);
    // If standard error is closed there is nobody to tell.
    let _ = write_line(&mut io::stderr(), format, &origin, Level::Error, problem);
}

/// When and where a line was written.
struct Origin<'a> {
    time: Timestamp,
    thread: String,
    job: &'a Option<JobKey>,
}

impl Origin<'_> {
    fn here(job: &Option<JobKey>) -> Origin<'_> {
        Origin {
            time: Timestamp::now(),
            thread: std::thread::current().name().unwrap_or("-").to_string(),
            job,
        }
    }
}

fn write_line(
    line: &mut impl Write,
    format: LogFormat,
    origin: &Origin<'_>,
    level: Level,
    message: &str,
) -> io::Result<()> {
    let Origin { time, thread, job } = origin;
    let word = level.as_str().to_lowercase();
    match format {
        LogFormat::Sentence => {
            write!(line, "{time:.3} {level:5} {thread} ")?;
            if let Some(job) = job {
                write!(line, "Job {job}: ")?;
            }
            writeln!(line, "{}", without_controls(message))
        }
        LogFormat::Logfmt => {
            write!(line, "t={time:.3} lvl={word} thread={thread} ")?;
            if let Some(job) = job {
                write!(line, "job={job} ")?;
            }
            writeln!(line, "msg={message:?}")
        }
        LogFormat::Json => {
            let mut object = json!({
                "timestamp": format!("{time:.3}"),
                "level": word,
                "thread": thread,
                "message": message,
            });
            if let Some(job) = job {
                object["job"] = json!(job.to_string());
            }
            writeln!(line, "{object}")
        }
    }
}

/// Line breaks and other control characters as escape sequences.
fn without_controls(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for c in message.chars() {
        match c.is_control() {
            true => text.extend(c.escape_default()),
            false => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = "Created \"a\",\n\x1b[31mat last.";

    fn line(format: LogFormat, job: Option<JobKey>) -> String {
        let mut line = Vec::new();
        let origin = Origin {
            time: "2026-01-31T12:00:00.5Z".parse().unwrap(),
            thread: "worker-0".to_string(),
            job: &job,
        };
        write_line(&mut line, format, &origin, Level::Info, MESSAGE).unwrap();
        String::from_utf8(line).unwrap()
    }

    fn job() -> Option<JobKey> {
        let queue = "batches".to_string();
        Some(JobKey { queue, id: 7 })
    }

    #[test]
    fn every_format_tells_the_same() {
        assert_eq!(
            line(LogFormat::Sentence, job()),
            "2026-01-31T12:00:00.500Z INFO  worker-0 Job batches/7: Created \"a\",\\n\\u{1b}[31mat last.\n"
        );
        assert_eq!(
            line(LogFormat::Logfmt, job()),
            "t=2026-01-31T12:00:00.500Z lvl=info thread=worker-0 job=batches/7 msg=\"Created \\\"a\\\",\\n\\u{1b}[31mat last.\"\n"
        );
        let object: serde_json::Value =
            serde_json::from_str(&line(LogFormat::Json, job())).unwrap();
        assert_eq!(
            object,
            json!({"timestamp": "2026-01-31T12:00:00.500Z", "level": "info",
                "thread": "worker-0", "job": "batches/7", "message": MESSAGE})
        );
    }

    #[test]
    fn a_message_is_one_line_in_every_format() {
        for format in [LogFormat::Sentence, LogFormat::Logfmt, LogFormat::Json] {
            let line = line(format, None);
            assert_eq!(line.lines().count(), 1, "{line}");
            assert!(!line.contains('\x1b'), "{line}");
            assert!(!line.contains("batches"), "{line}");
        }
    }

    #[test]
    fn a_thread_names_its_job_until_it_is_done() {
        let here = || JOB.with_borrow(Clone::clone);
        {
            let _about = about(&job().unwrap());
            assert_eq!(here(), job());
            let elsewhere = std::thread::spawn(|| JOB.with_borrow(Clone::clone));
            assert_eq!(elsewhere.join().unwrap(), None);
        }
        assert_eq!(here(), None);
    }
}
