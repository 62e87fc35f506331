//! What came of the question whether the server knows our token: an answer, or
//! the manner of its absence. What it means is for who asked.

/// An answer, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenAnswer {
    /// The server is a Sourcegraph, and the token is right.
    Accepted,
    /// The server answered something else.
    Other {
        /// Status code of the answer.
        status: u16,
        /// The other address that it names, if any.
        location: Option<String>,
        /// Its text, shortened, without our credentials.
        text: String,
    },
    /// There was no answer.
    Silence {
        /// The manner of it.
        kind: Silence,
        /// The words of who noticed.
        cause: String,
    },
}

/// Why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Nobody listens at the port.
    NobodyListens,
    /// The server did not prove who it is, or does not speak TLS.
    Tls,
    /// Nothing came in time.
    TimedOut,
    /// The name is unknown, there is no way to the address, or the connection
    /// broke.
    Other,
}
