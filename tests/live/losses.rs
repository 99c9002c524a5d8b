//! What is lost where the disk is full, and while no daemon runs.

use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;

use agentwatch::event::Kind;
use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags};
use tests::compare::{json_lines, same_acts};
use tests::daemon::{Daemon, PATIENCE, Place, Shared};
use tests::session::{act_words, truth, wait, work_dir};

use crate::load::Counted;
use crate::restarts::{Shell, all_events, is_creation};

/// A small file system, until this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Result<Self> {
        std::fs::create_dir(&at)?;
        rustix::mount::mount("none", &at, "tmpfs", MountFlags::empty(), Some(c"size=64m"))
            .context("cannot mount a small file system")?;
        Ok(Self(at))
    }

    /// Takes all its room but some bytes.
    fn fill_all_but(&self, left: u64) -> Result<()> {
        let found = rustix::fs::statvfs(&self.0).context("cannot ask for the room")?;
        let room = found.f_bavail.saturating_mul(found.f_frsize);
        let file = File::create(self.0.join("fill"))?;
        let length = room.checked_sub(left).context("there is less room")?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length)
            .context("cannot take the room")
    }

    fn make_room(&self) -> Result<()> {
        std::fs::remove_file(self.0.join("fill")).context("cannot make room")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Asks `doctor` about the log until it says that it cannot be written and that events found no room.
fn wait_until_events_find_no_room(place: &Place) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = place.agentwatch(["doctor", "-o", "json"]).output()?;
        let lines: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        if let Some(log) = lines.iter().find(|line| line["name"] == "log") {
            ensure!(log["state"] == "absent" && output.status.code() == Some(3), "{log}, {}", output.status);
            let reason = log["reason"].as_str().context("no reason")?;
            ensure!(reason.contains("No space left on device"), "{reason}");
            if !reason.contains(" and 0 found no room") {
                return Ok(());
            }
        }
        ensure!(Instant::now() < deadline, "the log never filled: {lines:?}");
    }
}

/// Case E12.
#[test]
fn a_disk_that_fills_and_has_room_again_costs_only_what_is_counted() -> Result<()> {
    const LOAD: [&str; 7] = ["load", "--op", "create-unlink", "--files", "8000", "--distinct", "8000"];
    let _machine = Shared::apart()?;
    let place = Place::new()?;
    let disk = SmallDisk::mount(place.state())?;
    let mut daemon = Daemon::start(&place)?;
    disk.fill_all_but(512 * 1024)?;
    let dir = work_dir()?;
    let output = tempfile::NamedTempFile::new()?;
    let words = act_words(dir.path(), &[&LOAD[..], &["--rate", "max"]].concat());
    let mut child = daemon.exec(words).stdout(output.reopen()?).spawn().context("cannot start the load")?;
    let mut counted = Counted::new(child.id(), dir.path());
    ensure!(wait(&mut child)?.success(), "the load failed");
    let truth = truth(&std::fs::read(output.path())?)?;
    wait_until_events_find_no_room(&place).with_context(|| daemon.said())?;
    let written = all_events(&place)?;

    disk.make_room()?;
    let mut reasons = Vec::new();
    daemon.until("account of every loss", |event| {
        counted.take(&event);
        reasons.extend(event.loss.as_ref().map(|loss| loss.reason.clone()));
        counted.is_all(&truth)
    })?;
    ensure!(reasons.iter().any(|reason| reason == "disk_full"), "{reasons:?}");
    ensure!(counted.told.values().all(|told| told.lost > 0), "{:?}", counted.told);
    // It goes on as if nothing had been, and says so. What is told after the account comes first.
    daemon.sentinel()?;
    same_acts(&daemon.act(&["rename"])?)?;
    let doctor = place.agentwatch(["doctor", "-o", "json"]).output()?;
    let lines: Vec<serde_json::Value> = serde_json::from_slice(&doctor.stdout)?;
    ensure!(lines.iter().all(|line| line["name"] != "log"), "{lines:?}");
    daemon.stop()?;
    let all = all_events(&place)?;
    ensure!(all.len() > written.len() && all.starts_with(&written), "written events are gone or changed");
    Ok(())
}

#[test]
fn what_is_lost_while_no_daemon_runs_is_told_once_by_the_next() -> Result<()> {
    let _machine = Shared::apart()?;
    let place = Place::new()?;
    let mut daemon = Daemon::start(&place)?;
    let dir = work_dir()?;
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let mut shell = Shell::start(&daemon)?;
    let mut counted = Counted::new(shell.id(), &dir.path().join("load"));
    std::fs::create_dir(dir.path().join("load"))?;
    shell.say(&format!("> {}", path("before")))?;
    for event in daemon.wait_for("first file", |event| is_creation(event, &path("before")))? {
        counted.take(&event);
    }
    daemon.kill()?;

    // More than the ring has room for, between two ends of which only the first finds it.
    let load = "load --op create-unlink --files 20000 --distinct 20000 --rate max";
    let line = format!("(exit 3); aw-act --dir {} {load}; (exit 4)", path("load"));
    let truth = truth(shell.ask(&line)?.as_bytes())?;
    let mut daemon = Daemon::start(&place)?;
    let mut told = Vec::new();
    daemon.until("account of every loss", |event| {
        counted.take(&event);
        let is_enough = counted.is_all(&truth)?;
        if event.file.is_none() {
            told.push(event);
        }
        Ok(is_enough)
    })?;
    ensure!(counted.told.values().all(|told| told.lost > 0), "nothing was lost: {:?}", counted.told);
    let session = counted.session.clone().context("no session")?;
    shell.say(&format!("> {}", path("after")))?;
    let after = daemon.wait_for("second file", |event| is_creation(event, &path("after")))?;
    ensure!(after.last().is_some_and(|event| *event.session == *session), "another session");
    told.extend(after);
    let exits = |code| {
        let exits = told.iter().filter(|event| event.kind == Kind::ProcessExit);
        exits.filter(|event| event.exit.as_ref().and_then(|exit| exit.code) == Some(code)).count()
    };
    ensure!((exits(3), exits(4)) == (1, 0), "{}", json_lines(&told));
    let lost_exits =
        told.iter().filter_map(|event| event.loss.as_ref()).find(|loss| loss.kind == "process.exit");
    ensure!(lost_exits.is_some_and(|loss| loss.reason == "ring_full"), "{}", json_lines(&told));
    ensure!(!told.iter().any(|event| event.kind == Kind::SessionEnd), "{}", json_lines(&told));
    daemon.stop()?;

    // The third knows what the second told, and the session that goes on.
    let mut daemon = Daemon::start(&place)?;
    shell.end()?;
    let rest = daemon.wait_for("end of the session", |event| {
        event.kind == Kind::SessionEnd && *event.session == *session
    })?;
    ensure!(!rest.iter().any(|event| event.kind == Kind::Loss), "told twice: {}", json_lines(&rest));
    daemon.stop()
}
