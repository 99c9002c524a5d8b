//! A gate at which a shell waits until the test lets it go on.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// A named pipe. The test holds both its ends, so that neither side waits for the other to open it: a command that never
/// gets there is noticed by its exit.
pub struct Gate {
    path: PathBuf,
    ends: File,
}

impl Gate {
    /// A gate in a folder, closed.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(dir: &Path) -> Result<Self> {
        let path = dir.join("gate");
        let made = Command::new("mkfifo").arg(&path).status().context("cannot start mkfifo")?;
        ensure!(made.success(), "mkfifo ended with {made}");
        let ends = OpenOptions::new().read(true).write(true).open(&path).context("cannot open the gate")?;
        Ok(Self { path, ends })
    }

    /// The words of a shell that waits here.
    #[must_use]
    pub fn wait(&self) -> String {
        format!("read go < {}", self.path.display())
    }

    /// Lets one shell go on.
    ///
    /// # Errors
    /// If the pipe cannot be written to.
    pub fn open(&mut self) -> Result<()> {
        self.ends.write_all(b"go\n").context("cannot open the gate")
    }
}
