//! The Kubernetes side: what is created for a job, what becomes of it, and
//! the calls.
//!
//! `plan/` turns a job into objects and `status/` what is seen of a pod into a
//! verdict, both pure; `fragments.rs` reads what people write of a pod
//! themselves; `names.rs` has the names and labels, and `found.rs` reads them
//! again from what was found; `demand.rs` says what a plan asks of its
//! namespace and `inventory.rs` what a namespace has; `client/` makes the calls
//! and is the only room with `async` in it.

pub mod client;
pub mod demand;
pub mod error;
pub mod found;
pub mod fragments;
pub mod inventory;
pub mod names;
pub mod plan;
pub mod status;
