//! A daemon of agentwatch with folders of its own, for the demo and the benchmarks: it ends with this value,
//! and takes its kernel programs with it.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long it may take to start or stop: an emulated machine verifies kernel programs slowly.
const PATIENCE: Duration = Duration::from_secs(900);
/// Between two looks at something that tells nobody when it is ready.
pub const TURN: Duration = Duration::from_millis(50);
/// Where every daemon keeps its kernel programs.
pub const PINS: &str = "/sys/fs/bpf/agentwatch";

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    folder: TempDir,
    child: Child,
}

impl Daemon {
    /// Starts `agentwatch run` and waits until it observes.
    ///
    /// # Errors
    /// If it ends, or is not ready in time; with what it said.
    pub fn start(policy: &str) -> Result<Self> {
        let folder = TempDir::with_prefix("agentwatch-").context("no temporary folder")?;
        // Sessions of any user may ask the daemon for theirs.
        open_to_all(folder.path())?;
        fs::write(folder.path().join("policy.yaml"), policy).context("cannot write the policy")?;
        let messages = File::create(folder.path().join("messages")).context("cannot make a file")?;
        let mut command = agentwatch_in(folder.path(), &["run", "--detach-on-exit", "--policy"]);
        command.arg(folder.path().join("policy.yaml"));
        command.stdout(messages.try_clone().context("no descriptor is left")?).stderr(messages);
        let child = command.spawn().context("cannot start `agentwatch run`: is agentwatch on PATH?")?;
        let mut daemon = Self { folder, child };
        daemon.await_start()?;
        Ok(daemon)
    }

    fn await_start(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().context("cannot ask for the daemon")? {
                bail!("the daemon ended with {status} at its start; it said:\n{}", self.said());
            }
            let answers = UnixStream::connect(self.folder.path().join("run/control.sock")).is_ok();
            if answers && self.log_holds("\"daemon.start\"") {
                return Ok(());
            }
            ensure!(
                start.elapsed() < PATIENCE,
                "the daemon is not ready after {PATIENCE:?}; it said:\n{}",
                self.said()
            );
            std::thread::sleep(TURN);
        }
    }

    /// A command of agentwatch for this daemon.
    #[must_use]
    pub fn agentwatch(&self, words: &[&str]) -> Command {
        agentwatch_in(self.folder.path(), words)
    }

    /// The file of its policy.
    #[must_use]
    pub fn policy(&self) -> PathBuf {
        self.folder.path().join("policy.yaml")
    }

    /// The folder of the log's segments.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("state/log")
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed.
    #[must_use]
    pub fn said(&self) -> String {
        let text = fs::read(self.folder.path().join("messages")).unwrap_or_default();
        crate::cmd::last_lines(&String::from_utf8_lossy(&text), 30)
    }

    /// Whether the log's first segment holds a text.
    fn log_holds(&self, text: &str) -> bool {
        let mut segments: Vec<PathBuf> =
            fs::read_dir(self.log()).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        segments.sort();
        let first = segments.iter().find(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
        first.and_then(|path| fs::read_to_string(path).ok()).is_some_and(|content| content.contains(text))
    }

    /// Ends it as an administrator does, and sees that nothing of it stays in the kernel.
    ///
    /// # Errors
    /// If it does not end with 0, or its kernel programs stay.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().context("cannot ask for the daemon")? {
                break status;
            }
            ensure!(start.elapsed() < PATIENCE, "the daemon did not end within {PATIENCE:?} after SIGTERM");
            std::thread::sleep(TURN);
        };
        ensure!(status.success(), "the daemon ended with {status}; it said:\n{}", self.said());
        ensure!(!is_pinned(), "the daemon ended and left its kernel programs in {PINS}");
        Ok(())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no such process id")?;
        kill_process(pid, signal).context("cannot signal the daemon")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Only where something failed before it was stopped in order.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.signal(Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

/// Whether kernel programs of agentwatch are pinned on this machine.
#[must_use]
pub fn is_pinned() -> bool {
    fs::read_dir(PINS).is_ok_and(|mut entries| entries.next().is_some())
}

fn open_to_all(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder, mode).with_context(|| format!("cannot open {} to all", folder.display()))
}

fn agentwatch_in(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("agentwatch");
    command
        .args(words)
        .env("AGENTWATCH_STATE", folder.join("state"))
        .env("AGENTWATCH_RUN", folder.join("run"))
        .stdin(Stdio::null());
    command
}
