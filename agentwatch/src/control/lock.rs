//! One daemon a run folder: the lock that says so, kept by the kernel until its holder ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::exit;
use crate::paths::Paths;

/// Why the daemon cannot take its run folder or open its sockets.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another daemon holds the lock.
    #[error("another agentwatch runs{}: a host has one daemon, so stop that one first",
        pid.as_ref().map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    AnotherRuns {
        /// Its process id, where the lock file says it.
        pid: Option<u32>,
    },
    /// Somebody else could replace the sockets.
    #[error("the run folder `{}` {fault}: agentwatch keeps its sockets only where no other user can replace them", path.display())]
    UnsafeFolder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The operating system refused.
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The server's own thread or its event loop cannot be had.
    #[error("cannot start the thread of the control API: {0}")]
    Thread(io::Error),
}

impl RunError {
    /// The daemon's exit code: see the contract.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => exit::NOT_ALLOWED,
            _ => exit::FAILED,
        }
    }

    /// For `map_err`: what was tried with which path.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

/// The run folder is this process's until this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct RunLock {
    paths: Paths,
    _file: File,
}

impl RunLock {
    /// Makes the run folder if need be and takes it. Meant to come before anything else that a second
    /// daemon must not do.
    ///
    /// # Errors
    /// Another daemon has it, or the folder cannot be used.
    pub fn take(paths: &Paths) -> Result<Self, RunError> {
        make_folder(&paths.run)?;
        let path = paths.daemon_lock();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path)
            .map_err(RunError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RunError::AnotherRuns { pid: holder(&mut file) }),
            Err(TryLockError::Error(source)) => return Err(RunError::io("lock", &path)(source)),
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(RunError::io("write", &path))?;
        Ok(Self { paths: paths.clone(), _file: file })
    }

    /// The folders that were taken.
    #[must_use]
    pub const fn paths(&self) -> &Paths {
        &self.paths
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn make_folder(path: &Path) -> Result<(), RunError> {
    if !path.exists() {
        fs::create_dir_all(path).map_err(RunError::io("create the folder", path))?;
        // Whatever the umask: everybody may reach `declare.sock`.
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
            .map_err(RunError::io("set the mode of", path))?;
    }
    let found = fs::symlink_metadata(path).map_err(RunError::io("look at", path))?;
    let fault = if !found.is_dir() {
        "is not a folder"
    } else if found.uid() != rustix::process::geteuid().as_raw() {
        "belongs to another user"
    } else if found.mode() & 0o022 != 0 {
        "can be written by other users"
    } else {
        return Ok(());
    };
    Err(RunError::UnsafeFolder { path: path.to_owned(), fault })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(folder: &Path) -> Paths {
        Paths { state: folder.join("state"), run: folder.join("a/run") }
    }

    #[test]
    fn the_second_is_told_who_is_first() {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(folder.path());
        let first = RunLock::take(&paths).unwrap();
        let refused = RunLock::take(&paths).unwrap_err();
        assert!(matches!(refused, RunError::AnotherRuns { pid: Some(pid) } if pid == std::process::id()));
        assert!(
            refused.to_string().starts_with(&format!("another agentwatch runs (pid {})", std::process::id()))
        );
        drop(first);
        RunLock::take(&paths).unwrap();
        assert_eq!(fs::metadata(&paths.run).unwrap().mode() & 0o7777, 0o755);
    }

    #[test]
    fn what_a_killed_daemon_left_does_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(folder.path());
        fs::create_dir_all(&paths.run).unwrap();
        fs::write(paths.daemon_lock(), "4194304999 and more\n").unwrap();
        let _lock = RunLock::take(&paths).unwrap();
        assert_eq!(fs::read_to_string(paths.daemon_lock()).unwrap(), format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_folder_that_others_can_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(folder.path());
        fs::create_dir_all(&paths.run).unwrap();
        fs::set_permissions(&paths.run, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(RunLock::take(&paths), Err(RunError::UnsafeFolder { .. })));
        fs::remove_dir(&paths.run).unwrap();
        fs::create_dir(folder.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &paths.run).unwrap();
        assert!(matches!(
            RunLock::take(&paths),
            Err(RunError::UnsafeFolder { fault: "is not a folder", .. })
        ));
    }
}
