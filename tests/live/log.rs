//! The log and the daemon's life: killed, restarted, doubled, damaged.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use agentwatch::event::{Event, Kind};
use anyhow::{Context as _, Result, ensure};
use tests::compare::json_lines;
use tests::daemon::{Daemon, Place, Shared, wait};
use tests::log::LogFollower;

/// Every event that a state folder holds; numbers without gaps are checked on the way.
fn all_events(place: &Place) -> Result<Vec<Event>> {
    let mut log = LogFollower::new(&place.state())?;
    std::iter::from_fn(|| log.next().transpose()).collect()
}

/// A shell in a session, which waits for lines to run.
struct Shell(Child);

impl Shell {
    fn start(daemon: &Daemon) -> Result<Self> {
        let mut command = daemon.exec(["bash", "-c", "while read -r line; do eval \"$line\"; done"]);
        Ok(Self(command.stdin(Stdio::piped()).spawn().context("cannot start a shell")?))
    }

    fn say(&mut self, line: &str) -> Result<()> {
        let input = self.0.stdin.as_mut().context("the shell has no input")?;
        writeln!(input, "{line}").context("the shell is gone")
    }

    fn end(mut self) -> Result<()> {
        drop(self.0.stdin.take());
        let status = wait(&mut self.0)?;
        ensure!(status.success(), "the shell ended with {status}");
        Ok(())
    }
}

fn is_creation(event: &Event, path: &str) -> bool {
    event.kind == Kind::FileCreate && event.file.as_ref().is_some_and(|file| file.path.0 == path)
}

#[test]
fn a_killed_daemon_is_followed_by_one_that_knows_its_sessions() -> Result<()> {
    let machine = Shared::none()?;
    let place = Place::new()?;
    let dir = tests::daemon::work_dir()?;
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let mut daemon = Daemon::start(&place)?;
    let mut shell = Shell::start(&daemon)?;
    shell.say(&format!("> {}", path("before")))?;
    let before = daemon.wait_for("first file", |event| is_creation(event, &path("before")))?;
    let session = before.last().context("no event")?.session.clone();
    daemon.kill()?;
    let written = all_events(&place)?;

    let mut daemon = Daemon::start(&place)?;
    shell.say(&format!("> {}", path("after")))?;
    let after = daemon.wait_for("second file", |event| is_creation(event, &path("after")))?;
    ensure!(after.last().is_some_and(|event| event.session == session), "another session: {}", json_lines(&after));
    shell.end()?;
    let rest = daemon.wait_for("end of the session", |event| event.kind == Kind::SessionEnd)?;
    ensure!(rest.last().is_some_and(|event| event.session == session), "{}", json_lines(&rest));
    daemon.stop()?;

    // What was written stays, as it was; numbers go on; the session began once.
    let all = all_events(&place)?;
    ensure!(all.starts_with(&written), "events of the killed daemon are gone or changed");
    let starts = all.iter().filter(|event| event.kind == Kind::SessionStart).count();
    ensure!(starts == 1, "{starts} sessions began");
    let sessions: BTreeSet<_> = all.iter().map(|event| &*event.session).filter(|id| !id.is_empty()).collect();
    ensure!(sessions == BTreeSet::from([&*session]), "{sessions:?}");
    drop(machine);
    Ok(())
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() -> Result<()> {
    Shared::with(|daemon| {
        let output = daemon.place().run().output().context("cannot start agentwatch")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "it ended with {}: {said}", output.status);
        ensure!(said.contains(&daemon.pid().to_string()), "it does not name the first one's process: {said}");
        ensure!(daemon.sentinel()?.status.success(), "the first daemon does not answer");
        Ok(())
    })
}

/// The segment that is written to.
fn last_segment(place: &Place) -> Result<PathBuf> {
    LogFollower::new(&place.state())?.segments()?.pop().context("no segment")
}

#[test]
fn a_damaged_end_is_put_aside_and_nothing_else_is_lost() -> Result<()> {
    let machine = Shared::none()?;
    for damage in [&b"{\"time\":\"2026-"[..], b"\xff\x00\x1b[2J garbage\n{\"seq\":", b"{\"seq\":1}\n"] {
        let place = Place::new()?;
        let mut daemon = Daemon::start(&place)?;
        daemon.sentinel()?;
        daemon.kill()?;
        let written = all_events(&place)?;
        ensure!(written.iter().any(|event| event.kind == Kind::SessionEnd), "the session's end is not on disk");
        let segment = last_segment(&place)?;
        std::fs::OpenOptions::new().append(true).open(&segment)?.write_all(damage)?;

        let mut daemon = Daemon::start(&place)?;
        let run = daemon.sentinel()?;
        ensure!(run.status.success(), "no session after the damage {damage:?}");
        daemon.stop()?;
        let all = all_events(&place)?;
        ensure!(all.starts_with(&written), "events before the damage {damage:?} are gone or changed");
        let told = all.iter().filter(|event| event.kind == Kind::LogRecovered).count();
        ensure!(told == 1, "the damage {damage:?} was told {told} times");
        ensure!(all.iter().any(|event| *event.session == *run.session), "nothing new after {damage:?}");
    }
    drop(machine);
    Ok(())
}

#[test]
fn without_a_daemon_a_command_does_not_run() -> Result<()> {
    let machine = Shared::none()?;
    let place = Place::new()?;
    let dir = tests::daemon::work_dir()?;
    let file = dir.path().join("file");
    let words = ["exec".into(), "--agent".into(), "test".into(), "--".into(), "touch".into(), file.clone().into_os_string()];
    let output = place.agentwatch(words).output().context("cannot start agentwatch")?;
    ensure!(output.status.code() == Some(5), "it ended with {}", output.status);
    ensure!(!file.exists(), "the command ran unseen");
    drop(machine);
    Ok(())
}
