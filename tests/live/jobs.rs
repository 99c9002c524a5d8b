//! What cron, `at` and systemd run later because a session left a line, a job or a unit: told of as `caused`.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::{Child, Command, Stdio};

use agentwatch::event::{Kind, UsedBy};
use anyhow::{Context as _, Result, ensure};
use tests::compare::json;
use tests::daemon::{Daemon, Place, Shared};

use crate::caused::{Folder, SCRIPT, blame, cause_of, leave_behind_by_call};
use crate::delegates::{until_after, wait_for_file};
use crate::restarts::is_creation;

/// A daemon that runs what others ask for, as the distribution has it.
pub struct Delegate(Child);

impl Delegate {
    pub fn start(name: &str) -> Result<Self> {
        let child = Command::new(name).arg("-f").stdin(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| format!("no {name}: is it installed?"))?))
    }
}

impl Drop for Delegate {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Case D14: what an agent left behind, run by cron: a script that a person's line names, and a line of its own in the same
/// table.
#[test]
fn what_cron_runs_is_blamed_on_the_session_that_left_it() -> Result<()> {
    const TABLE: &str = "/var/spool/cron/crontabs/root";
    let machine = Shared::apart()?;
    let place = Place::new()?;
    let folder = Folder::new()?;
    let script = folder.path("job.sh");
    let [by_script, by_line, own] = ["by-script", "by-line", "own"].map(|name| folder.path(name));
    fs::write(TABLE, format!("* * * * * {script} {by_script}\n* * * * * > {own}\n"))?;
    fs::set_permissions(TABLE, fs::Permissions::from_mode(0o600))?;
    let mut daemon = Daemon::start(&place)?;
    let writer = leave_behind_by_call(&mut daemon, &script, SCRIPT)?;
    let adds = r#"(crontab -l; echo "* * * * * > $1; /bin/sh -c '> $1.child'") | crontab -"#;
    let adder = daemon.run_session(daemon.exec_as("open", ["bash", "-c", adds, "bash", &by_line]))?;
    ensure!(adder.status.success(), "{}: {}", adder.status, adder.stderr);
    wait_for_kept_job(&place, &adder.session)?;
    let cron = Delegate::start("cron")?;
    let (mut events, child) = (Vec::new(), format!("{by_line}.child"));
    for path in [&by_script, &child] {
        if !events.iter().any(|event| is_creation(event, path)) {
            events.extend(daemon.wait_for("what cron runs", |event| is_creation(event, path))?);
        }
    }
    let (by_own_line, cause) = cause_of(&events, &by_line, &adder)?;
    ensure!(cause.by == UsedBy::Job && cause.path.0 == TABLE && cause.seq.is_some(), "{}", json(by_own_line));
    let of_child = events.iter().find(|event| is_creation(event, &child)).context("no event")?;
    ensure!(of_child.session == by_own_line.session, "{}", json(of_child));
    let (start, cause) = cause_of(&events, &by_script, &writer)?;
    ensure!(cause.by == UsedBy::Exec, "{}", json(start));
    // A person's line stays nobody's, though a session wrote the table anew.
    wait_for_file(&own)?;
    ensure!(
        !until_after(&mut daemon)?.iter().chain(&events).any(|event| is_creation(event, &own)),
        "it is told of"
    );
    drop(cron);
    fs::remove_file(TABLE)?;
    let said = blame(&place, &[&script])?;
    for part in [writer.session.as_str(), "toolu_7", "prompt-7", &script, &start.session] {
        ensure!(said.contains(part), "no `{part}` in:\n{said}");
    }
    for (start, parts) in [
        (start, [writer.session.as_str(), "toolu_7", "prompt-7", &script]),
        (by_own_line, [adder.session.as_str(), "is a job of", TABLE, "written by session"]),
    ] {
        let pid = start.process.as_ref().context("no process")?.pid.to_string();
        let said = blame(&place, &["--pid", &pid])?;
        for part in parts {
            ensure!(said.contains(part), "no `{part}` in:\n{said}");
        }
    }
    daemon.stop()?;
    drop(machine);
    Ok(())
}

/// Waits until the daemon keeps a job of a session on disk, and so has told the kernel of it.
pub fn wait_for_kept_job(place: &Place, session: &str) -> Result<()> {
    let path = place.state().join("jobs.json");
    let deadline = std::time::Instant::now() + tests::daemon::PATIENCE;
    while !fs::read_to_string(&path).unwrap_or_default().contains(session) {
        ensure!(std::time::Instant::now() < deadline, "nothing of {session} is kept in `{}`", path.display());
        std::thread::yield_now();
    }
    Ok(())
}

/// Case D14: what an agent asks of `at` is run by somebody else's process.
#[test]
fn what_at_runs_is_blamed_on_the_session_that_asked() -> Result<()> {
    const DAEMON: u32 = 1;
    Shared::with(|daemon| {
        for name in ["atjobs", "atspool"] {
            let path = format!("/var/spool/cron/{name}");
            fs::create_dir_all(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o1770))?;
            chown(&path, Some(DAEMON), Some(DAEMON))?;
        }
        fs::write("/var/spool/cron/atjobs/.SEQ", "0")?;
        chown("/var/spool/cron/atjobs/.SEQ", Some(DAEMON), Some(DAEMON))?;
        let folder = Folder::new()?;
        let mark = folder.path("mark");
        let asks = r#"echo "> '$1'" | at now"#;
        let asked = daemon.run_session(daemon.exec_as("open", ["bash", "-c", asks, "bash", &mark]))?;
        ensure!(asked.status.success(), "{}: {}", asked.status, asked.stderr);
        // Not before: a job that comes within the second of the daemon's last look, by the folder's
        // time, waits for an hour.
        let atd = Delegate::start("atd")?;
        let events = daemon.wait_for("what at runs", |event| is_creation(event, &mark))?;
        let (start, cause) = cause_of(&events, &mark, &asked)?;
        ensure!(
            cause.by == UsedBy::Read && cause.path.0.starts_with("/var/spool/cron/atjobs/"),
            "{}",
            json(start)
        );
        let pid = start.process.as_ref().context("no process")?.pid.to_string();
        let of_job = start.session.clone();
        daemon.wait_for("its end", |event| event.kind == Kind::SessionEnd && event.session == of_job)?;
        drop(atd);
        let said = blame(daemon.place(), &["--pid", &pid])?;
        ensure!(said.contains(asked.session.as_str()), "{said}");
        Ok(())
    })
}
