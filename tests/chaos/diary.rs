//! What happened when: printed at once, and kept for the story of a job.

use std::time::Instant;

/// Everything that was told, oldest first.
pub(crate) struct Diary {
    began: Instant,
    lines: Vec<(Instant, String)>,
}

impl Diary {
    /// An empty one, whose times count from now.
    pub(crate) fn new() -> Diary {
        Diary {
            began: Instant::now(),
            lines: Vec::new(),
        }
    }

    /// Tells something.
    pub(crate) fn tell(&mut self, text: &str) {
        let now = Instant::now();
        eprintln!("{}", self.line(now, text));
        self.lines.push((now, text.to_owned()));
    }

    /// What was told in a span of time.
    pub(crate) fn between(&self, from: Instant, to: Instant) -> String {
        let told = self.lines.iter().filter(|(at, _)| (from..=to).contains(at));
        told.map(|(at, text)| self.line(*at, text) + "\n").collect()
    }

    fn line(&self, at: Instant, text: &str) -> String {
        let seconds = at.duration_since(self.began).as_secs_f64();
        format!("[{seconds:7.2} s] {text}")
    }
}
