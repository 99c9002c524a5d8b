//! How sessions are found: by program, command line, user, cgroup.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use agentwatch::event::{Event, How, Kind};
use anyhow::{Context as _, Result, ensure};
use tests::compare::{json, json_lines};
use tests::daemon::{Daemon, Shared};
use tests::session::{copy_actor, wait, work_dir};

/// A user that owns nothing.
const NOBODY: u32 = 65_534;

/// All events up to the end of the next session, which must be this agent's, found in this way, and all that
/// there is.
pub fn next_session(daemon: &mut Daemon, agent: &str, how: How) -> Result<Vec<Event>> {
    let events = daemon.wait_for("end of a session", |event| event.kind == Kind::SessionEnd)?;
    let start =
        events.iter().find(|event| event.kind == Kind::SessionStart).context("no start of a session")?;
    ensure!(start.attribution == Some(how) && &*start.agent == agent, "{}", json(start));
    let of_sessions =
        |event: &&Event| !matches!(event.kind, Kind::DaemonStart | Kind::PolicyApplied | Kind::SelfTest);
    for event in events.iter().filter(of_sessions) {
        ensure!(event.session == start.session, "another's event: {}", json(event));
    }
    Ok(events)
}

fn created(events: &[Event], path: &Path) -> bool {
    let path = path.to_string_lossy();
    let files =
        events.iter().filter(|event| event.kind == Kind::FileCreate).filter_map(|event| event.file.as_ref());
    files.into_iter().any(|file| file.path.0 == path)
}

fn run(command: &mut Command) -> Result<()> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("cannot start the actor")?;
    let status = wait(&mut child)?;
    ensure!(status.success(), "the actor ended with {status}");
    Ok(())
}

/// Cases D18, E07, F07.
#[test]
fn by_its_program() -> Result<()> {
    Shared::with(|daemon| {
        let dir = work_dir()?;
        let program = copy_actor(&dir.path().join("aw-matched"))?;
        run(Command::new("aw-act").arg("--dir").arg(dir.path()).arg("mkdir"))?;
        run(Command::new(program).arg("--dir").arg(dir.path()).arg("create"))?;
        let events = next_session(daemon, "by-program", How::Matched)?;
        ensure!(created(&events, &dir.path().join("plain")), "{}", json_lines(&events));
        Ok(())
    })
}

#[test]
fn by_its_command_line() -> Result<()> {
    Shared::with(|daemon| {
        let dir = work_dir()?;
        let inner = dir.path().join("matched-by-run");
        std::fs::create_dir(&inner)?;
        run(Command::new("aw-act").arg("--dir").arg(dir.path()).arg("mkdir"))?;
        run(Command::new("aw-act").arg("--dir").arg(&inner).arg("create"))?;
        let events = next_session(daemon, "by-command", How::Matched)?;
        ensure!(created(&events, &inner.join("plain")), "{}", json_lines(&events));
        Ok(())
    })
}

#[test]
fn by_its_user() -> Result<()> {
    Shared::with(|daemon| {
        let dir = work_dir()?;
        std::os::unix::fs::chown(dir.path(), Some(NOBODY), None)?;
        run(Command::new("aw-act").arg("--dir").arg(dir.path()).arg("create").uid(NOBODY))?;
        let events = next_session(daemon, "by-user", How::Matched)?;
        ensure!(created(&events, &dir.path().join("plain")), "{}", json_lines(&events));
        let uid =
            events.iter().rev().find_map(|event| event.process.as_ref()).and_then(|process| process.uid);
        ensure!(uid == Some(NOBODY), "{uid:?}");
        Ok(())
    })
}

/// A cgroup that is removed with this value.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Result<Self> {
        let path = Path::new("/sys/fs/cgroup").join(name);
        std::fs::create_dir(&path).with_context(|| format!("cannot make the cgroup {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Only an empty one can be removed; a failed test may leave it.
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn by_its_cgroup() -> Result<()> {
    Shared::with(|daemon| {
        let group = Cgroup::new("aw-live-1")?;
        let dir = work_dir()?;
        // The shell moves itself, and what it then starts is in the session.
        let script = format!(
            "echo $$ > {}/cgroup.procs && aw-act --dir {} create",
            group.0.display(),
            dir.path().display()
        );
        run(Command::new("bash").args(["-c", &script]))?;
        let events = next_session(daemon, "by-cgroup", How::Matched)?;
        ensure!(created(&events, &dir.path().join("plain")), "{}", json_lines(&events));
        Ok(())
    })
}
