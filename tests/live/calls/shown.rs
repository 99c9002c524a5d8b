//! What somebody sees who follows the log beside a running agent.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tests::daemon::{Daemon, PATIENCE};

/// `agentwatch events -f`.
pub struct Shown {
    child: Child,
    path: PathBuf,
}

impl Shown {
    /// Follows from now on; what is shown goes to a file of that folder.
    pub fn follow(daemon: &Daemon, dir: &Path) -> Result<Self> {
        let path = dir.join("shown");
        let child = daemon.place().agentwatch(["events", "-f"]).stdout(File::create(&path)?).spawn()?;
        Ok(Self { child, path })
    }

    /// All that is shown up to a session's end.
    pub fn up_to_the_end_of(self, session: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = fs::read_to_string(&self.path).context("cannot read what is shown")?;
            if shown.lines().any(|line| line.contains(session) && line.contains(" session.end ")) {
                return Ok(shown);
            }
            ensure!(Instant::now() < deadline, "the end of {session} is not shown: {shown}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
