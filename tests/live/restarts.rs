//! The log and the daemon's life: killed, restarted, doubled, damaged.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use agentwatch::event::{Alignment, Event, Kind, Verdict};
use anyhow::{Context as _, Result, ensure};
use tests::compare::json_lines;
use tests::daemon::{Daemon, Place, Shared};
use tests::log::LogFollower;
use tests::session::{wait, work_dir};

use crate::intents::{Setting, declared};

/// Every event that a state folder holds; numbers without gaps are checked on the way.
pub fn all_events(place: &Place) -> Result<Vec<Event>> {
    let mut log = LogFollower::new(&place.state())?;
    std::iter::from_fn(|| log.next_event().transpose()).collect()
}

/// A shell in a session, which waits for lines to run.
pub struct Shell(Child);

impl Shell {
    /// Starts it.
    pub fn start(daemon: &Daemon) -> Result<Self> {
        Self::start_as(daemon, "test")
    }

    /// Starts it as another agent.
    pub fn start_as(daemon: &Daemon, agent: &str) -> Result<Self> {
        let mut command =
            daemon.exec_as(agent, ["bash", "-c", "while read -r line; do eval \"$line\"; done"]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self(command.spawn().context("cannot start a shell")?))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Gives it a line, and waits for the line that this prints.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        self.say(line)?;
        let output = self.0.stdout.as_mut().context("the shell has no output")?;
        let mut answer = Vec::new();
        // Byte by byte, so that nothing is read that the next call needs.
        while answer.last() != Some(&b'\n') {
            let mut byte = [0];
            output.read_exact(&mut byte).context("the shell is gone")?;
            answer.extend(byte);
        }
        Ok(String::from_utf8(answer)?.trim_end().to_owned())
    }

    /// Gives it a line to run.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let input = self.0.stdin.as_mut().context("the shell has no input")?;
        writeln!(input, "{line}").context("the shell is gone")
    }

    /// Ends it in order.
    pub fn end(mut self) -> Result<()> {
        drop(self.0.stdin.take());
        let status = wait(&mut self.0)?;
        ensure!(status.success(), "the shell ended with {status}");
        Ok(())
    }
}

/// Whether this is the creation of a file.
pub fn is_creation(event: &Event, path: &str) -> bool {
    event.kind == Kind::FileCreate && event.file.as_ref().is_some_and(|file| file.path.0 == path)
}

/// Cases D17, E22.
#[test]
fn a_killed_daemon_is_followed_by_one_that_knows_its_sessions() -> Result<()> {
    let machine = Shared::apart()?;
    let place = Place::new()?;
    let dir = work_dir()?;
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
    ensure!(
        after.last().is_some_and(|event| event.session == session),
        "another session: {}",
        json_lines(&after)
    );
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

/// The segment that is written to.
fn last_segment(place: &Place) -> Result<PathBuf> {
    LogFollower::new(&place.state())?.segments()?.pop().context("no segment")
}

#[test]
fn a_damaged_end_is_put_aside_and_nothing_else_is_lost() -> Result<()> {
    let machine = Shared::apart()?;
    let place = Place::new()?;
    let mut daemon = Daemon::start(&place)?;
    daemon.sentinel()?;
    for (number, damage) in
        [&b"{\"time\":\"2026-"[..], b"\xff\x00\x1b[2J garbage\n{\"seq\":", b"{\"seq\":1}\n"]
            .iter()
            .enumerate()
    {
        daemon.kill()?;
        let written = all_events(&place)?;
        ensure!(
            written.iter().any(|event| event.kind == Kind::SessionEnd),
            "the session's end is not on disk"
        );
        let segment = last_segment(&place)?;
        std::fs::OpenOptions::new().append(true).open(&segment)?.write_all(damage)?;

        daemon = Daemon::start(&place)?;
        let run = daemon.sentinel()?;
        ensure!(run.status.success(), "no session after the damage {damage:?}");
        let all = all_events(&place)?;
        ensure!(all.starts_with(&written), "events before the damage {damage:?} are gone or changed");
        let told = all.iter().filter(|event| event.kind == Kind::LogRecovered).count();
        ensure!(told == number + 1, "{told} recoveries told after the damage {damage:?}");
        ensure!(all.iter().any(|event| *event.session == *run.session), "nothing new after {damage:?}");
    }
    daemon.stop()?;
    drop(machine);
    Ok(())
}

/// Case F07.
#[test]
fn without_a_daemon_a_command_does_not_run() -> Result<()> {
    let machine = Shared::apart()?;
    let place = Place::new()?;
    let dir = work_dir()?;
    let file = dir.path().join("file");
    let words = [
        "exec".into(),
        "--agent".into(),
        "test".into(),
        "--".into(),
        "touch".into(),
        file.clone().into_os_string(),
    ];
    let output = place.agentwatch(words).output().context("cannot start agentwatch")?;
    ensure!(output.status.code() == Some(5), "it ended with {}", output.status);
    ensure!(!file.exists(), "the command ran unseen");
    drop(machine);
    Ok(())
}

/// Cases E22, F08.
#[test]
fn rules_stay_in_force_without_a_daemon() -> Result<()> {
    let _machine = Shared::apart()?;
    let place = Place::new()?;
    let daemon = Daemon::start(&place)?;
    std::fs::create_dir_all("/srv/aw-prod")?;
    std::fs::write("/srv/aw-prod/f", "precious")?;
    let mut command = daemon.exec_as("strict", ["sh", "-c", "read go; exec cat /srv/aw-prod/f"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // The daemon has answered `agentwatch exec` when the shell reads.
    let mut daemon = daemon;
    daemon.wait_for("the shell", |event| {
        event.command.as_ref().is_some_and(|command| command.0.contains("read go"))
    })?;
    daemon.kill()?;
    drop(child.stdin.take());
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && output.stdout.is_empty(), "it was read: {said}");
    ensure!(said.contains("Operation not permitted"), "{said}");
    // The next daemon tells of it.
    let mut daemon = Daemon::start(&place)?;
    daemon.wait_for("the refusal", |event| event.verdict == Verdict::Denied)?;
    daemon.stop()
}

#[test]
fn what_was_declared_outlives_the_daemon() -> Result<()> {
    let machine = Shared::apart()?;
    let mut daemon = Daemon::start(&Place::new()?)?;
    let mut setting = Setting::new(&daemon)?;
    let within = setting.path("in");
    let id = declared(daemon.place(), &["--session", &setting.session, "--write", &within])?;
    ensure!(setting.makes(&mut daemon, "in/a")? == (Some(Alignment::Aligned), Some(id.clone())));
    // What is saved is saved within a second: an event that comes after the next look says that it is.
    daemon.sentinel()?;
    let place = daemon.place().clone();
    daemon.stop()?;
    let mut daemon = Daemon::start(&place)?;
    ensure!(setting.makes(&mut daemon, "in/b")? == (Some(Alignment::Aligned), Some(id)));
    setting.shell.end()?;
    daemon.stop()?;
    drop(machine);
    Ok(())
}

/// Waits until the daemon has kept which processes belong to tool calls.
fn until_calls_are_kept(place: &Place, id: &str) -> Result<()> {
    const LONG: Duration = Duration::from_secs(120);
    let (began, file) = (Instant::now(), place.state().join("calls.json"));
    loop {
        let kept: serde_json::Value = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(_) => serde_json::Value::Null,
        };
        let processes = kept.pointer("/1/processes").and_then(serde_json::Value::as_array);
        let is_of_call = |one: &serde_json::Value| one.pointer("/call/id").is_some_and(|found| found == id);
        if processes.is_some_and(|all| all.iter().any(is_of_call)) {
            return Ok(());
        }
        ensure!(began.elapsed() < LONG, "`{id}` is not kept: {kept}");
        std::thread::yield_now();
    }
}

#[test]
fn a_tool_call_goes_on_over_a_restart() -> Result<()> {
    const ID: &str = "toolu_9";
    let machine = Shared::apart()?;
    let place = Place::new()?;
    let mut daemon = Daemon::start(&place)?;
    let mut setting = Setting::new(&daemon)?;
    let [before, after, gate] = ["in/before", "in/after", "in/gate"].map(|name| setting.path(name));
    let made = std::process::Command::new("mkfifo").arg(&gate).status()?;
    ensure!(made.success(), "no fifo");
    let told = |event: &str| {
        let call = r#""prompt_id":"prompt-9","tool_name":"Bash","tool_input":{"command":"the-call"}"#;
        let call = format!(r#"{{"hook_event_name":"{event}","tool_use_id":"{ID}",{call}}}"#);
        format!("printf %s '{call}' | hook; echo done")
    };
    setting.shell.say("hook() { agentwatch hook claude-code > /dev/null; }")?;
    setting.shell.ask(&told("PreToolUse"))?;
    let script = format!("echo x > {before}; read go < {gate}; echo x > {after}");
    setting.shell.ask(&format!("bash -c '{script}' the-call & echo done"))?;
    let of_call = |events: &[Event]| {
        let call = events.last().and_then(|event| event.tool_call.clone());
        call.is_some_and(|call| &*call.id == ID)
    };
    let events = daemon.wait_for("the first file", |event| is_creation(event, &before))?;
    ensure!(of_call(&events), "{}", json_lines(&events));
    until_calls_are_kept(&place, ID)?;
    daemon.kill()?;
    let mut daemon = Daemon::start(&place)?;
    setting.shell.ask(&format!("echo go > {gate}; wait; echo done"))?;
    let events = daemon.wait_for("the second file", |event| is_creation(event, &after))?;
    ensure!(of_call(&events), "{}", json_lines(&events));
    ensure!(events.last().is_some_and(|event| event.prompt_id.as_deref() == Some("prompt-9")));
    setting.shell.ask(&told("PostToolUse"))?;
    let events = daemon.wait_for("the end of the call", |event| event.kind == Kind::ToolEnded)?;
    ensure!(of_call(&events), "{}", json_lines(&events));
    setting.shell.end()?;
    daemon.stop()?;
    drop(machine);
    Ok(())
}
