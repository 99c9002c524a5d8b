//! What real managers of services do for sessions: systemd, and a bus of D-Bus.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use agentwatch::event::{Event, Kind, UsedBy};
use anyhow::{Context as _, Result, ensure};
use tests::compare::{json, json_lines};
use tests::daemon::{Daemon, PATIENCE, Shared};

use crate::caused::{Folder, blame, cause_of, leave_behind};
use crate::delegates::{until_after, until_made, wait_for_file};
use crate::jobs::wait_for_kept_job;
use crate::restarts::is_creation;

/// Where managers are, each in one of its own: what a systemd has divided up takes no process itself any more.
const CGROUP: &str = "/sys/fs/cgroup/aw-manager";
/// Managers so far.
static MANAGERS: AtomicU32 = AtomicU32::new(0);
/// By this users' managers know that systemd runs the host.
const BOOTED: &str = "/run/systemd/system";

/// What managers make while they run: where a user's systemd has it.
const RUNTIME: &str = "/run/user/0";
/// Where it writes the units that it is asked for.
const TRANSIENT: &str = "/run/user/0/systemd/transient/";

/// A manager of services.
struct Manager(Child);

impl Manager {
    fn start(words: &[&str]) -> Result<Self> {
        let program = words.first().context("no manager")?;
        // systemd wants a cgroup of its own, below which it makes others, and a host that it runs.
        let cgroup = format!("{CGROUP}-{}", MANAGERS.fetch_add(1, Ordering::Relaxed));
        fs::create_dir_all(&cgroup)?;
        fs::create_dir_all(BOOTED)?;
        fs::create_dir_all(RUNTIME)?;
        let child = Command::new("sh")
            .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"", &cgroup])
            .args(words)
            .env("XDG_RUNTIME_DIR", RUNTIME)
            .env("HOME", "/root")
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("no {program}: is it installed?"))?;
        Ok(Self(child))
    }

    /// Waits until it answers.
    fn answers(&self, words: &[&str]) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.command(words)?.output()?;
            if output.status.success() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(Instant::now() < deadline, "{words:?}: {}: {said}", output.status);
            std::thread::yield_now();
        }
    }

    fn command(&self, words: &[&str]) -> Result<Command> {
        let (program, rest) = words.split_first().context("no program")?;
        let mut command = Command::new(program);
        command.args(rest).env("XDG_RUNTIME_DIR", RUNTIME).stdin(Stdio::null());
        Ok(command)
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        for folder in [BOOTED, RUNTIME] {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// Runs a session that asks a manager for something.
fn ask(daemon: &mut Daemon, words: &[&str]) -> Result<tests::session::SessionRun> {
    let mut command = daemon.exec_as("open", words);
    command.env("XDG_RUNTIME_DIR", RUNTIME);
    let run = daemon.run_session(command)?;
    ensure!(run.status.success(), "{}: {}", run.status, run.stderr);
    Ok(run)
}

#[test]
fn what_systemd_starts_is_of_the_session_that_asked_or_wrote_the_unit() -> Result<()> {
    const UNIT: &str = "/root/.config/systemd/user/aw-left.service";
    Shared::with(|daemon| {
        let manager = Manager::start(&["/lib/systemd/systemd", "--user"])?;
        manager.answers(&["systemctl", "--user", "list-units"])?;
        let folder = Folder::new()?;
        let [asked_for, left, own] = ["asked", "left", "own"].map(|name| folder.path(name));
        // What a person asks for, which is nobody's.
        manager.answers(&["systemd-run", "--user", "/bin/sh", "-c", &format!("> {own}")])?;
        wait_for_file(&own)?;
        // What a session asks for.
        let run = format!("> {asked_for}");
        let asked = ask(daemon, &["systemd-run", "--user", "/bin/sh", "-c", &run])?;
        let events = until_made(daemon, &asked, &asked_for)?;
        let (start, cause) = cause_of(&events, &asked_for, &asked)?;
        // Its unit may have been found by the time that it runs.
        let is_known = match cause.by {
            UsedBy::Job => cause.path.0.starts_with(TRANSIENT),
            by => by == UsedBy::Asked && cause.path.0.ends_with("/systemd"),
        };
        ensure!(is_known, "{}", json(start));
        // What a session left, and a person starts: that another one asked for something else says less.
        fs::create_dir_all("/root/.config/systemd/user")?;
        let text = format!("[Service]\nType=oneshot\nExecStart=/bin/sh -c '> {left}'\n");
        let writer = leave_behind(daemon, "open", UNIT, &text)?;
        wait_for_kept_job(daemon.place(), &writer.session)?;
        manager.answers(&["systemctl", "--user", "daemon-reload"])?;
        manager.answers(&["systemctl", "--user", "start", "aw-left"])?;
        let events = [events, writer.events.clone(), until_after(daemon)?].concat();
        let (start, cause) = cause_of(&events, &left, &writer)?;
        ensure!(cause.by == UsedBy::Job && cause.path.0 == UNIT && cause.seq.is_some(), "{}", json(start));
        ensure!(!events.iter().any(|event| is_creation(event, &own)), "{}", json_lines(&events));
        let pid = start.process.as_ref().context("no process")?.pid.to_string();
        let said = blame(daemon.place(), &["--pid", &pid])?;
        for part in [writer.session.as_str(), "is a job of", UNIT, "written by session"] {
            ensure!(said.contains(part), "no `{part}` in:\n{said}");
        }
        fs::remove_file(UNIT)?;
        Ok(())
    })
}

/// What systemd keeps for later: nobody asks it then, and its file is one that systemd wrote.
#[test]
fn what_systemd_starts_later_is_of_the_session_that_asked() -> Result<()> {
    Shared::with(|daemon| {
        let manager = Manager::start(&["/lib/systemd/systemd", "--user"])?;
        manager.answers(&["systemctl", "--user", "list-units"])?;
        let folder = Folder::new()?;
        let [mark, own] = ["mark", "own"].map(|name| folder.path(name));
        let [makes, makes_own] = [&mark, &own].map(|path| format!("> {path}"));
        // Longer than what it does counts as asked for.
        let later =
            ["systemd-run", "--user", "--on-active=8", "--timer-property=AccuracySec=100ms", "/bin/sh", "-c"];
        manager.answers(&[&later[..], &[&makes_own]].concat())?;
        let asked = ask(daemon, &[&later[..], &[&makes]].concat())?;
        wait_for_kept_job(daemon.place(), &asked.session)?;
        let events = until_made(daemon, &asked, &mark)?;
        let (start, cause) = cause_of(&events, &mark, &asked)?;
        let is_unit = cause.path.0.starts_with(TRANSIENT);
        ensure!(cause.by == UsedBy::Job && is_unit && cause.seq.is_some(), "{}", json(start));
        // A person's, asked for right before it.
        wait_for_file(&own)?;
        let events = [events, until_after(daemon)?].concat();
        ensure!(!events.iter().any(|event| is_creation(event, &own)), "{}", json_lines(&events));
        Ok(())
    })
}

/// A program that a session left makes units, which systemd has run.
#[test]
fn what_a_generator_of_a_session_makes_is_its_own() -> Result<()> {
    const GENERATORS: &str = "/etc/systemd/user-generators";
    const UNIT: &str = "/run/user/0/systemd/generator/aw-made.service";
    Shared::with(|daemon| {
        let manager = Manager::start(&["/lib/systemd/systemd", "--user"])?;
        manager.answers(&["systemctl", "--user", "list-units"])?;
        let folder = Folder::new()?;
        let mark = folder.path("mark");
        fs::create_dir_all(GENERATORS)?;
        let generator = format!("{GENERATORS}/aw-made");
        let text = format!(
            "#!/bin/sh\nprintf '[Service]\\nType=oneshot\\nExecStart=/bin/sh -c \"> {mark}\"\\n' > $1/aw-made.service\n"
        );
        let writer = leave_behind(daemon, "open", &generator, &text)?;
        manager.answers(&["systemctl", "--user", "daemon-reload"])?;
        wait_for_kept_job(daemon.place(), UNIT)?;
        manager.answers(&["systemctl", "--user", "start", "aw-made"])?;
        let events = daemon.wait_for(&mark, |event| is_creation(event, &mark))?;
        let made = events.last().context("no event")?;
        let is_start = |event: &&Event| event.kind == Kind::SessionStart && event.session == made.session;
        let start = events.iter().find(is_start).with_context(|| json_lines(&events))?;
        let cause = start.cause.as_ref().context("no cause")?;
        ensure!(cause.by == UsedBy::Job && cause.path.0 == UNIT, "{}", json(start));
        let first = cause.cause.as_ref().with_context(|| json(start))?;
        ensure!(*first.session == *writer.session && first.path.0 == generator, "{}", json(start));
        fs::remove_file(generator)?;
        Ok(())
    })
}

#[test]
fn what_a_bus_starts_is_of_the_session_that_asked() -> Result<()> {
    Shared::with(|daemon| {
        let folder = Folder::new()?;
        let (mark, address) = (folder.path("mark"), format!("unix:path={}", folder.path("bus")));
        fs::create_dir(folder.path("services"))?;
        let service = format!("[D-BUS Service]\nName=org.agentwatch.Job\nExec=/bin/sh -c '> {mark}'\n");
        fs::write(folder.path("services/job.service"), service)?;
        let config = format!(
            "<busconfig><type>session</type><listen>{address}</listen><servicedir>{}</servicedir>\
             <policy context=\"default\"><allow send_destination=\"*\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
            folder.path("services")
        );
        fs::write(folder.path("bus.conf"), config)?;
        let at = format!("--config-file={}", folder.path("bus.conf"));
        let bus = Manager::start(&["dbus-daemon", "--nofork", &at])?;
        let to = format!("--bus={address}");
        let send = ["dbus-send", &to, "--print-reply", "--reply-timeout=20000"];
        let lists = ["--dest=org.freedesktop.DBus", "/", "org.freedesktop.DBus.ListNames"];
        bus.answers(&[&send[..], &lists].concat())?;
        let call = ["dbus-send", &to, "--dest=org.agentwatch.Job", "/", "org.agentwatch.Job.Go"];
        let asked = ask(daemon, &call)?;
        let events = until_made(daemon, &asked, &mark)?;
        let (start, cause) = cause_of(&events, &mark, &asked)?;
        ensure!(cause.by == UsedBy::Asked && cause.path.0.ends_with("/dbus-daemon"), "{}", json(start));
        Ok(())
    })
}
