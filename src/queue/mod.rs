//! The Sourcegraph side: taking jobs, telling who is alive, logs and marks.
//!
//! `client.rs` makes the calls, `wire.rs` knows the shapes of their bodies,
//! `answer.rs` what an answer is, `error.rs` what can go wrong, `token.rs` what
//! the server may say to our token. Every call is tried once; whoever owns the
//! outcome decides about another try.

mod answer;
pub mod client;
pub mod error;
pub mod token;
pub mod wire;
