//! From what a container writes to what the server shows.
//!
//! `records.rs` takes the kubelet's times out, `resume.rs` finds the place in a
//! stream that was opened again, `progress.rs` decides when to open one and when
//! all is there, `pace.rs` how often all jobs together doubt one; `redact.rs` hides
//! secrets, `output.rs` collects, `entry.rs` keeps what belongs to one log entry,
//! `upload.rs` sends, or `terminal.rs` prints.

pub mod entry;
pub mod output;
pub mod pace;
pub mod progress;
pub mod records;
pub mod redact;
pub mod resume;
pub mod terminal;
pub mod upload;
