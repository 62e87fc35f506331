//! Claims about the stand-in itself: that it keeps the server's rules, so that
//! what is tested against it means something.

/// Requests as a client would make them.
mod client;

/// Who is let in, and what others are told.
mod access;
/// How old servers differ.
mod generations;
/// How jobs are handed out and taken back.
mod holding;
/// How log entries and marks are taken.
mod reporting;
/// Git and the file store.
mod storage;
/// Outages, cut connections, and the like.
mod trouble;
