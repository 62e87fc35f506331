//! Looks for secrets where none may be, and remembers where it found some.

use aho_corasick::AhoCorasick;

/// What may not be seen, and what was seen of it.
#[derive(Default)]
pub(crate) struct Secrets {
    values: Vec<String>,
    found: Vec<String>,
    /// How many bytes of what were looked through.
    looked: Vec<(&'static str, u64)>,
}

impl Secrets {
    /// Adds one, unless it is known.
    pub(crate) fn add(&mut self, value: &str) {
        if !self.values.iter().any(|known| known == value) {
            self.values.push(value.to_owned());
        }
    }

    /// Looks through a text; `what` says of what kind it is, `which` the one.
    pub(crate) fn look(&mut self, what: &'static str, which: &str, text: &str) {
        let searcher = AhoCorasick::new(&self.values).expect("the secrets are few and short");
        for hit in searcher.find_iter(text) {
            let value = &self.values[hit.pattern().as_usize()];
            // Its place is enough to find it.
            self.found.push(format!(
                "{what} {which} has secret {value:?} at {}",
                hit.start()
            ));
        }
        match self.looked.iter_mut().find(|(known, _)| *known == what) {
            Some((_, bytes)) => *bytes += text.len() as u64,
            None => self.looked.push((what, text.len() as u64)),
        }
    }

    /// Where secrets were found.
    pub(crate) fn found(&self) -> &[String] {
        &self.found
    }

    /// What was looked through, in words.
    pub(crate) fn extent(&self) -> String {
        let extents: Vec<String> = self
            .looked
            .iter()
            .map(|(what, bytes)| format!("{} KiB of {what}", bytes / 1024))
            .collect();
        let secrets = self.values.len();
        format!("{secrets} secrets sought in {}", extents.join(", "))
    }
}
