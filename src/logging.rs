//! The form of log lines: a sentence after time, level and thread, or the
//! same as `key=value` pairs or as a JSON object.

use std::io::{self, Write};

use jiff::Timestamp;
use log::Record;
use serde_json::json;

use crate::config::{LogFormat, LogSettings};

/// Starts logging to standard error.
pub fn start(settings: &LogSettings) {
    let format = settings.format;
    env_logger::Builder::new()
        .parse_filters(&settings.filter)
        .format(move |line, record| {
            let thread = std::thread::current();
            let thread = thread.name().unwrap_or("-");
            write_line(line, format, &Timestamp::now(), thread, record)
        })
        .init();
}

fn write_line(
    line: &mut impl Write,
    format: LogFormat,
    time: &Timestamp,
    thread: &str,
    record: &Record<'_>,
) -> io::Result<()> {
    let (level, message) = (record.level(), record.args());
    match format {
        LogFormat::Sentence => writeln!(line, "{time:.3} {level:5} {thread} {message}"),
        LogFormat::Logfmt => {
            let level = level.as_str().to_lowercase();
            let message = message.to_string();
            writeln!(
                line,
                "t={time:.3} lvl={level} thread={thread} msg={message:?}"
            )
        }
        LogFormat::Json => {
            let object = json!({
                "timestamp": format!("{time:.3}"),
                "level": level.as_str().to_lowercase(),
                "thread": thread,
                "message": message.to_string(),
            });
            writeln!(line, "{object}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: LogFormat) -> String {
        let mut line = Vec::new();
        let record = Record::builder()
            .args(format_args!("Job \"a\"\nis done."))
            .level(log::Level::Info)
            .build();
        let time = "2026-01-31T12:00:00.5Z".parse().unwrap();
        write_line(&mut line, format, &time, "worker-0", &record).unwrap();
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn every_format_tells_the_same() {
        assert_eq!(
            line(LogFormat::Sentence),
            "2026-01-31T12:00:00.500Z INFO  worker-0 Job \"a\"\nis done.\n"
        );
        assert_eq!(
            line(LogFormat::Logfmt),
            "t=2026-01-31T12:00:00.500Z lvl=info thread=worker-0 msg=\"Job \\\"a\\\"\\nis done.\"\n"
        );
        let object: serde_json::Value = serde_json::from_str(&line(LogFormat::Json)).unwrap();
        assert_eq!(
            object,
            json!({"timestamp": "2026-01-31T12:00:00.500Z", "level": "info",
                "thread": "worker-0", "message": "Job \"a\"\nis done."})
        );
    }
}
