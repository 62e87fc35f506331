//! The door into the workspace: makes directories and files inside of it and
//! nowhere else.
//!
//! The repository in the workspace is a stranger's. It may hold a link such as
//! `docs -> /etc`, and a file of the job may be meant for `docs/notes.txt`. So
//! no path is ever handed to the system as a whole: each directory is opened
//! from the one before it, and a link on the way is refused.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fchmod, fstat, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use super::error::WorkspaceError;

/// Every user may do everything: the volume belongs to one pod, whose steps
/// may run as different users, and scripts have to be executable.
const MODE: u32 = 0o777;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A workspace, held by its root directory.
pub(super) struct Tree {
    root: OwnedFd,
    path: PathBuf,
}

impl Tree {
    /// Opens the root, which must exist.
    pub(super) fn open(path: &Path) -> Result<Tree, WorkspaceError> {
        // The root itself is ours to choose, so it may well be a link.
        let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
        match openat(CWD, path, flags, Mode::empty()) {
            Ok(root) => Ok(Tree {
                root,
                path: path.to_owned(),
            }),
            Err(errno) => Err(WorkspaceError::Workspace {
                path: path.to_owned(),
                source: io::Error::from(errno),
            }),
        }
    }

    /// Lets every user make files in the root itself, where that is ours to
    /// change. The root of a fresh claim often belongs to one user alone.
    pub(super) fn open_to_all(&self) {
        let Ok(stat) = fstat(&self.root) else { return };
        let mode = Mode::from_raw_mode(stat.st_mode) | Mode::from_raw_mode(MODE);
        // Where it fails, the root is another's, who has opened it to us.
        let _ = fchmod(&self.root, mode);
    }

    /// Makes a directory and those above it, where they are missing.
    ///
    /// Gives back its full path; an empty path is the root.
    pub(super) fn make_dir(&self, path: &str) -> Result<PathBuf, WorkspaceError> {
        let parts = parts(path)?;
        self.walk(path, &parts)?;
        Ok(parts
            .iter()
            .fold(self.path.clone(), |dir, part| dir.join(part)))
    }

    /// Makes an empty executable file, and the directories above it.
    ///
    /// What is in its place is replaced; a link there is removed, not followed.
    pub(super) fn create(&self, path: &str) -> Result<File, WorkspaceError> {
        let parts = parts(path)?;
        let Some((name, parents)) = parts.split_last() else {
            return Err(path_error(path, "does not name a file"));
        };
        let parent = self.walk(path, parents)?;
        match unlinkat(&parent, *name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(write_error(path, errno)),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&parent, *name, flags, Mode::from_raw_mode(MODE))
            .map_err(|errno| write_error(path, errno))?;
        let file = File::from(file);
        // Once more, because the process file mask may have taken bits away.
        file.set_permissions(Permissions::from_mode(MODE))
            .map_err(|source| WorkspaceError::Write {
                path: path.to_owned(),
                source,
            })?;
        Ok(file)
    }

    /// Opens the directory that the parts lead to, making what is missing.
    fn walk(&self, path: &str, parts: &[&str]) -> Result<OwnedFd, WorkspaceError> {
        let mut dir = self
            .root
            .try_clone()
            .map_err(|source| WorkspaceError::Write {
                path: path.to_owned(),
                source,
            })?;
        for part in parts {
            dir = enter(&dir, part).map_err(|errno| match errno {
                Errno::NOTDIR | Errno::LOOP => path_error(
                    path,
                    "leads through a link or a file of the repository, where a directory is needed",
                ),
                errno => write_error(path, errno),
            })?;
        }
        Ok(dir)
    }
}

/// Opens a directory inside another one; makes it first where it is missing.
fn enter(dir: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    match openat(dir, name, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => {}
        opened => return opened,
    }
    match mkdirat(dir, name, Mode::from_raw_mode(MODE)) {
        // Another file of the same directory may be written at the same time.
        Ok(()) | Err(Errno::EXIST) => openat(dir, name, DIRECTORY, Mode::empty()),
        Err(errno) => Err(errno),
    }
}

/// Takes a relative path apart, and refuses one that could lead outside.
fn parts(path: &str) -> Result<Vec<&str>, WorkspaceError> {
    if path.starts_with('/') {
        return Err(path_error(path, "is absolute, and must be relative"));
    }
    if path.contains('\0') {
        return Err(path_error(path, "contains a NUL character"));
    }
    let parts: Vec<_> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if parts.contains(&"..") {
        return Err(path_error(path, "contains `..`, and must stay inside"));
    }
    Ok(parts)
}

fn path_error(path: &str, problem: &'static str) -> WorkspaceError {
    WorkspaceError::Path {
        path: path.to_owned(),
        problem,
    }
}

fn write_error(path: &str, errno: Errno) -> WorkspaceError {
    WorkspaceError::Write {
        path: path.to_owned(),
        source: io::Error::from(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn paths_that_could_leave_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        for path in ["/etc/x", "..", "../x", "a/../../x", "a/..", "a\0b", "", "."] {
            let error = tree.create(path).unwrap_err();
            assert!(
                matches!(error, WorkspaceError::Path { .. }),
                "{path:?}: {error}"
            );
        }
        assert!(tree.make_dir("../x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn links_never_lead_a_write_outside() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), dir.path().join("link")).unwrap();
        symlink("/nowhere", dir.path().join("dangling")).unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        for path in ["link/file", "link/deep/file", "dangling/file"] {
            let error = tree.create(path).unwrap_err().to_string();
            assert!(error.contains("leads through a link"), "{path}: {error}");
        }
        assert!(tree.make_dir("link").is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_in_a_files_place_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        symlink(outside.path(), dir.path().join("file")).unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        tree.create("file").unwrap().write_all(b"new").unwrap();
        assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"new");
        assert_eq!(fs::read(outside.path()).unwrap(), b"");
    }

    #[test]
    fn an_older_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "something longer").unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        tree.create("file").unwrap().write_all(b"new").unwrap();
        assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"new");
    }

    #[test]
    fn a_directory_in_a_files_place_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        tree.make_dir("a/b").unwrap();
        let error = tree.create("a").unwrap_err().to_string();
        assert!(error.starts_with("cannot write a to the workspace"));
    }

    #[test]
    fn everyone_may_write_to_the_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o2700)).unwrap();
        Tree::open(dir.path()).unwrap().open_to_all();
        let mode = fs::metadata(dir.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o2777, "and other bits stay");
    }

    #[test]
    fn everyone_may_read_write_and_run() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        let file = tree.create("./a//b/run.sh").unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, MODE);
        assert!(dir.path().join("a/b/run.sh").is_file());
    }
}
