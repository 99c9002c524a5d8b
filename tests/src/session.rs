//! A session that has ended, and the actor in and outside of sessions.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use agentwatch::event::{Event, Kind};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Pid;
use tempfile::TempDir;

use crate::daemon::PATIENCE;
use crate::truth::Truth;

/// A session that has ended.
pub struct SessionRun {
    /// The session's id.
    pub session: String,
    /// Process id of its first process.
    pub pid: u32,
    /// How the command ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
    /// All events from its start to the session's end, those of others among them.
    pub events: Vec<Event>,
}

impl SessionRun {
    /// The session's own events.
    pub fn own(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(|event| *event.session == *self.session)
    }

    /// The session's own events of one kind.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Event> {
        self.own().filter(move |event| event.kind == kind)
    }
}

/// A session of the actor that has ended.
pub struct ActRun {
    /// The session.
    pub run: SessionRun,
    /// What the actor did.
    pub truth: Truth,
    /// Its folder.
    pub dir: TempDir,
}

impl std::ops::Deref for ActRun {
    type Target = SessionRun;

    fn deref(&self) -> &SessionRun {
        &self.run
    }
}

/// A folder for an actor.
///
/// # Errors
/// If it cannot be made.
pub fn work_dir() -> Result<TempDir> {
    tempfile::Builder::new().prefix("aw-work-").tempdir().context("no temporary folder")
}

/// The command line of the actor.
#[must_use]
pub fn act_words(dir: &Path, args: &[&str]) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["aw-act", "--dir"].map(OsString::from).into();
    words.push(dir.into());
    words.extend(args.iter().map(OsString::from));
    words
}

/// What the actor printed last.
///
/// # Errors
/// If that is no list.
pub fn truth(stdout: &[u8]) -> Result<Truth> {
    let text = std::str::from_utf8(stdout).context("the actor's output is not UTF-8")?;
    let line = text.lines().last().context("the actor printed nothing")?;
    serde_json::from_str(line).context("the actor's output is no list")
}

/// Runs the actor outside any session.
///
/// # Errors
/// If it fails.
pub fn act_outside(args: &[&str]) -> Result<(Truth, TempDir)> {
    let dir = work_dir()?;
    let words = act_words(dir.path(), args);
    let (program, rest) = words.split_first().context("no command")?;
    let output =
        Command::new(program).args(rest).stdin(Stdio::null()).output().context("cannot start aw-act")?;
    ensure!(output.status.success(), "aw-act {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok((truth(&output.stdout)?, dir))
}

/// A copy of the actor's program under another name.
///
/// # Errors
/// If it is not on PATH, or cannot be copied.
pub fn copy_actor(to: &Path) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("aw-act")).find(|file| file.is_file());
    let program = found.context("aw-act is not on PATH")?;
    std::fs::copy(program, to).with_context(|| format!("cannot copy aw-act to `{}`", to.display()))?;
    Ok(to.to_path_buf())
}

/// Waits for a child, but not for ever.
///
/// # Errors
/// If it does not end in time: then it is killed.
pub fn wait(child: &mut Child) -> Result<ExitStatus> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no such process id")?;
    let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).context("no pidfd")?;
    let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    let timeout = rustix::event::Timespec::try_from(PATIENCE).context("a time that does not fit")?;
    if rustix::event::poll(&mut fds, Some(&timeout)).context("cannot wait for a child")? == 0 {
        child.kill().context("cannot kill a child")?;
        child.wait().context("cannot wait for a child")?;
        bail!("process {} did not end within {PATIENCE:?}", child.id());
    }
    child.wait().context("cannot wait for a child")
}

/// All that was written to a file.
///
/// # Errors
/// If it cannot be read.
pub fn contents(file: &File) -> Result<Vec<u8>> {
    let mut file = file.try_clone().context("no descriptor is left")?;
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.read_to_end(&mut bytes))
        .context("cannot read an output")?;
    Ok(bytes)
}
