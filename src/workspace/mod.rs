//! The subcommand `setup-workspace`: makes the workspace of one job.
//!
//! It runs inside the job's pod, before all steps, and is the only container
//! there that sees the job's credentials. The daemon has written what to do
//! into Secrets (`spec.rs`); here the repository is cloned with the real git
//! (`git.rs`) and the files are written (`files.rs`), both through a door that
//! does not let a hostile repository lead a write outside (`tree.rs`). What is
//! printed becomes the set-up log entry that users read.

mod error;
mod files;
mod git;
pub mod spec;

/// Where the specification is mounted in the container that makes the
/// workspace.
pub const SPEC_DIR: &str = "/run/executor/job";

#[cfg(test)]
mod testing;
mod tree;

use std::io::Write;
use std::path::Path;

use rustix::fs::Mode;

pub use error::{CloneError, WorkspaceError};
use spec::WorkspaceSpec;
use tree::Tree;

/// Makes the workspace that the specification in a directory asks for.
///
/// The repository comes first, so that files can lie inside of it. Short lines
/// on what is done go to `out`. Changes the file mask of the whole process.
pub fn setup(
    spec_dir: &Path,
    workspace: &Path,
    out: &mut impl Write,
) -> Result<(), WorkspaceError> {
    let spec = WorkspaceSpec::unpack(spec_dir).map_err(|source| WorkspaceError::Specification {
        dir: spec_dir.to_owned(),
        source,
    })?;
    // Steps may run as other users than this process, and must be able to
    // change what git makes. The volume is this pod's alone.
    rustix::process::umask(Mode::empty());
    let tree = Tree::open(workspace)?;
    tree.open_to_all();
    if let Some(repository) = &spec.repository {
        git::clone(&spec, repository, &tree, out)?;
    }
    files::write(&spec, &tree, out)
}

/// Prints one line of the set-up log, at once.
fn say(out: &mut impl Write, line: &str) -> Result<(), WorkspaceError> {
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|source| WorkspaceError::Output { source })
}

/// Counts files in words: `1 file`, `2 files`.
fn counted(files: usize) -> String {
    let noun = if files == 1 { "file" } else { "files" };
    format!("{files} {noun}")
}
