//! `executor` takes jobs from a Sourcegraph instance and runs each one as a
//! Kubernetes Job whose steps are separate containers over one workspace.
//!
//! It blocks: a dequeue thread feeds a bounded channel, a fixed pool of
//! workers drains it, and each worker follows one job from its dequeue to its
//! mark. ARCHITECTURE.md has the drawing, the threads and the invariants. The
//! rooms, in the order in which to read them:

pub mod adopt;
pub mod backoff;
pub mod cluster;
pub mod config;
#[cfg(test)]
mod corpus;
pub mod daemon;
pub mod dequeue;
pub mod exec;
pub mod exit;
pub mod heartbeat;
pub mod http;
pub mod janitor;
pub mod job;
pub mod logging;
pub mod logs;
pub mod metrics;
pub mod pgrep;
pub mod pool;
pub mod queue;
pub mod shutdown;
pub mod state;
pub mod supervisor;
pub mod validate;
pub mod worker;
pub mod workspace;
