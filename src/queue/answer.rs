//! What a server answered, as a whole.

/// Status and body of an answer.
pub(super) struct Answer {
    /// Status code.
    pub(super) status: u16,
    /// The whole body.
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// Whether the server did what was asked.
    pub(super) fn is_good(&self) -> bool {
        matches!(self.status, 200 | 204)
    }

    /// The beginning of the body, for messages.
    pub(super) fn text(&self) -> String {
        self.text_without(&[])
    }

    /// The same without these words: some servers show the whole request in
    /// their error pages.
    pub(super) fn text_without(&self, secrets: &[&str]) -> String {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        let hide = |text: String, secret: &&str| text.replace(secret, "…");
        secrets
            .iter()
            .fold(text, hide)
            .trim()
            .chars()
            .take(300)
            .collect()
    }
}
