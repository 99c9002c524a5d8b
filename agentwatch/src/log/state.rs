//! The state folder: made, tried and locked.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::LogError;

/// Makes a folder that only its owner can read, where the one above it is there.
pub(super) fn make_folder(path: &Path) -> Result<(), LogError> {
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(source) => Err(LogError::State { path: path.to_owned(), source }),
        Ok(()) => Ok(()),
    }
}

/// Bytes that must find room when the log is opened: some events.
const ROOM_BYTES: usize = 16 * 1024;

/// Finds out now, and not at the first event, that the folder cannot be written or has no room.
pub(super) fn check_writable(folder: &Path) -> io::Result<()> {
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)?;
    let path = folder.join("room.partial");
    let written = std::fs::write(&path, [0; ROOM_BYTES]);
    // Also where it was written in part.
    written.and(std::fs::remove_file(&path))
}

/// Takes the state folder for this process; given back when the file is dropped.
pub(super) fn lock(state: &Path) -> Result<File, LogError> {
    let path = state.join("lock");
    let failed = |source| LogError::State { path: path.clone(), source };
    let options =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = options.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let read = file.take(32).read_to_string(&mut text);
            let pid = read.ok().and_then(|_| text.trim().parse().ok());
            return Err(LogError::Locked { path: state.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    // Only for the other daemon's message: the lock holds without it, on a full disk too.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}
