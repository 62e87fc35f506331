//! What can go wrong while a workspace is made.
//!
//! The texts are the last lines of the set-up log that users read, so each
//! says what failed, on what, and where it helps, what to do.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// What to do about a certificate that is not trusted.
const TRUST_HINT: &str = "; the executor's KUBERNETES_GIT_CA_CERT can name a file in this \
                          container that is to be trusted";

/// What to do about a volume that belongs to another user.
const GROUP_HINT: &str = "; where jobs run as KUBERNETES_RUN_AS_USER, KUBERNETES_FS_GROUP can \
                          open their volume to them";

/// Why a workspace could not be made.
#[derive(Debug)]
pub enum WorkspaceError {
    /// The specification of the job could not be read.
    Specification {
        /// Directory that should hold its parts.
        dir: PathBuf,
        /// What the system or the decoder said.
        source: io::Error,
    },
    /// The workspace itself could not be opened.
    Workspace {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A path of the job would leave the workspace, or is no path.
    Path {
        /// The path as the job gives it.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A file or a directory of the workspace could not be made.
    Write {
        /// Path relative to the workspace.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A modification time is not an RFC 3339 time.
    Time {
        /// File that should get it.
        path: String,
        /// The time as the job gives it.
        text: String,
    },
    /// The server's store does not have a file that the job names.
    FileNotFound {
        /// Path relative to the workspace.
        path: String,
    },
    /// A file could not be fetched from the server's store.
    Fetch {
        /// Path relative to the workspace.
        path: String,
        /// What happened, the last time.
        problem: String,
    },
    /// The server's certificate is not trusted.
    Certificate {
        /// Base URL of the server.
        frontend_url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The repository could not be cloned.
    Clone(CloneError),
    /// The report of what is done could not be written.
    Output {
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for WorkspaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use WorkspaceError::*;
        match self {
            Specification { dir, source } => write!(
                f,
                "cannot read the job specification in {}: {source}",
                dir.display()
            ),
            Workspace { path, source } => {
                write!(f, "cannot open the workspace {}: {source}", path.display())
            }
            Path { path, problem } => write!(f, "the path {path:?} {problem}"),
            Write { path, source } => {
                write!(f, "cannot write {path} to the workspace: {source}")?;
                match source.kind() {
                    // Root may write everywhere.
                    io::ErrorKind::PermissionDenied => f.write_str(GROUP_HINT),
                    _ => Ok(()),
                }
            }
            Time { path, text } => write!(
                f,
                "the modification time {text:?} of {path} is not an RFC 3339 time"
            ),
            FileNotFound { path } => {
                write!(f, "workspace file {path} does not exist on the server")
            }
            Fetch { path, problem } => write!(f, "cannot fetch workspace file {path}: {problem}"),
            Certificate {
                frontend_url,
                problem,
            } => write!(
                f,
                "the certificate of {frontend_url} is not trusted{TRUST_HINT}: {problem}"
            ),
            Output { source } => write!(f, "cannot report progress: {source}"),
            Clone(error) => error.fmt(f),
        }
    }
}

impl Error for WorkspaceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            WorkspaceError::Specification { source, .. }
            | WorkspaceError::Workspace { source, .. }
            | WorkspaceError::Write { source, .. }
            | WorkspaceError::Output { source } => Some(source),
            WorkspaceError::Clone(error) => Some(error),
            _ => None,
        }
    }
}

/// Why a repository could not be cloned.
#[derive(Debug)]
pub enum CloneError {
    /// The commit of the job is not a hash.
    Commit {
        /// The commit as the job gives it.
        commit: String,
    },
    /// The program git could not be started.
    Start {
        /// What the system said.
        source: io::Error,
    },
    /// A git command failed for a reason that only its output tells.
    Git {
        /// Git's name of the command.
        command: String,
        /// What it printed.
        output: String,
    },
    /// The server does not let this job read the repository.
    Refused {
        /// Name of the repository.
        repository: String,
        /// Base URL of the server.
        frontend_url: String,
        /// What git printed.
        output: String,
    },
    /// Git does not trust the server's certificate.
    Certificate {
        /// Base URL of the server.
        frontend_url: String,
        /// What git printed.
        output: String,
    },
    /// The file with the certificate that git is to trust cannot be read.
    CertificateFile {
        /// Where it should be.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The server does not know the repository.
    RepositoryNotFound {
        /// Name of the repository.
        repository: String,
        /// Base URL of the server.
        frontend_url: String,
    },
    /// The repository does not have the commit.
    CommitNotFound {
        /// Hash of the commit.
        commit: String,
        /// Name of the repository.
        repository: String,
        /// Base URL of the server.
        frontend_url: String,
    },
}

impl fmt::Display for CloneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use CloneError::*;
        match self {
            Commit { commit } => write!(
                f,
                "{commit:?} is not a commit hash: 7 to 64 hexadecimal digits are"
            ),
            Start { source } => write!(
                f,
                "cannot run git: {source}; the image of this container must have it"
            ),
            Git { command, output } => write!(f, "git {command} failed: {output}"),
            Refused {
                repository,
                frontend_url,
                output,
            } => write!(
                f,
                "{frontend_url} does not let this job clone {repository}; the executor's \
                 credentials may be wrong, or the job was given to another executor: {output}"
            ),
            Certificate {
                frontend_url,
                output,
            } => write!(
                f,
                "git does not trust the certificate of {frontend_url}{TRUST_HINT}: {output}"
            ),
            CertificateFile { path, source } => write!(
                f,
                "cannot read {path}, the certificate file that the executor's \
                 KUBERNETES_GIT_CA_CERT names: {source}; KUBERNETES_ADDITIONAL_JOB_VOLUMES and \
                 KUBERNETES_ADDITIONAL_JOB_VOLUME_MOUNTS can bring it into this container"
            ),
            RepositoryNotFound {
                repository,
                frontend_url,
            } => write!(
                f,
                "repository {repository} was not found on {frontend_url}; was it removed, \
                 or is a path missing in the executor's frontend URL?"
            ),
            CommitNotFound {
                commit,
                repository,
                frontend_url,
            } => write!(
                f,
                "commit {commit} was not found in repository {repository} on {frontend_url}; \
                 was it force-pushed away?"
            ),
        }
    }
}

impl Error for CloneError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            CloneError::Start { source } | CloneError::CertificateFile { source, .. } => {
                Some(source)
            }
            _ => None,
        }
    }
}

impl From<CloneError> for WorkspaceError {
    fn from(error: CloneError) -> WorkspaceError {
        WorkspaceError::Clone(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_of_another_user_is_explained() {
        let error = |kind: io::ErrorKind| WorkspaceError::Write {
            path: "repository".to_owned(),
            source: kind.into(),
        };
        assert_eq!(
            error(io::ErrorKind::PermissionDenied).to_string(),
            "cannot write repository to the workspace: permission denied; where jobs run as \
             KUBERNETES_RUN_AS_USER, KUBERNETES_FS_GROUP can open their volume to them"
        );
        assert_eq!(
            error(io::ErrorKind::StorageFull).to_string(),
            "cannot write repository to the workspace: no storage space"
        );
    }
}
