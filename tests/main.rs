//! Tests of the whole: the real binary, a real cluster, a real git server and
//! a frontend that keeps the real one's rules. `scripts/test` sets all up.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a panic is how a test fails, and standard error is where it tells the story"
)]

/// The stand-in Sourcegraph frontend, and tests of it.
mod frontend;
/// The Job of one job for a matrix of configurations.
mod golden;
/// What tests stand on.
mod support;

/// Crashes and handovers: the next process goes on.
mod adoption;
/// Malformed and extreme jobs.
mod bad_input;
/// Batch changes: results, skipped steps, files, secrets.
mod batches;
/// Every state in which a job can be cancelled.
mod cancelling;
/// Random jobs through random trouble.
mod chaos;
/// The repository in the workspace: what is cloned, how, and for whom.
mod cloning;
/// Code intelligence: an index and its upload.
mod codeintel;
/// Every variable with bad values, and environments of the released executor.
mod configuration;
/// What jobs cost both servers, as far as it can be counted.
mod economy;
/// What kubectl shows of jobs, and Events of those that failed.
mod events;
/// One job from the command line.
mod exec;
/// Every cause of a failure that a cluster can give.
mod failures;
/// A server and steps that mean no good.
mod hostile;
/// What dead executors leave, and who removes it.
mod janitor;
/// Logs through broken streams, and what the kubelet does to them.
mod logs;
/// What is counted, and who may ask for it.
mod metrics;
/// Servers that are away, busy or half dead.
mod outages;
/// The manifests on the real cluster.
mod packaging;
/// Both versions of the payload, and what came before them.
mod payloads;
/// Where jobs run and on what, by configuration.
mod placing;
/// Several queues, and the limits of an executor.
mod queues;
/// The released chart and component with our image.
mod released;
/// A job from dequeue to mark.
mod running;
/// Configuration, credentials, servers that are not there yet.
mod startup;
/// Steps as users write them.
mod steps;
/// Every way in which a job stops before its end.
mod stopping;
/// What a service manager hears, and systemd's unit.
mod supervised;
/// Rules of the house that a program can check.
mod tidy;
/// Set-ups with one fault each, and what is said of it before any job runs.
mod validate;
