//! The four things that the log asks of a file system, so that tests can make each of them fail.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

pub(super) trait Storage: Send {
    /// Makes a new file to append to, that only its owner can read.
    fn create(&mut self, path: &Path) -> io::Result<File>;
    /// Appends as much of `bytes` as there is room for.
    fn write(&mut self, file: &File, bytes: &[u8]) -> io::Result<usize>;
    /// Cuts the file off.
    fn truncate(&mut self, file: &File, length: u64) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, path: &Path) -> io::Result<()>;
}

/// The real one.
pub(super) struct Disk;

impl Storage for Disk {
    fn create(&mut self, path: &Path) -> io::Result<File> {
        OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
    }

    fn write(&mut self, mut file: &File, bytes: &[u8]) -> io::Result<usize> {
        file.write(bytes)
    }

    fn truncate(&mut self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}
