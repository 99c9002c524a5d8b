//! Intents that bind: what is outside of them the kernel refuses, from the moment at which the declaration is answered.

mod inside;
mod reached;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use agentwatch::control::intent::{IntentState, IntentView, IntentsView};
use agentwatch::event::{Alignment, Event, Kind, Verdict};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tests::compare::json_lines;
use tests::daemon::{Daemon, Place, Shared};

use crate::intents::{Setting, declared};
use crate::restarts::is_creation;

/// Whether a command succeeds in a session's shell.
fn goes(setting: &mut Setting, command: &str) -> Result<bool> {
    let answer =
        setting.shell.ask(&format!("if {{ {command}; }} 2> /dev/null; then echo yes; else echo no; fi"))?;
    match answer.as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        other => bail!("{command}: {other}"),
    }
}

/// Whether a session's shell can make a file.
fn writes(setting: &mut Setting, name: &str) -> Result<bool> {
    let path = setting.path(name);
    goes(setting, &format!("echo x > {path}"))
}

/// Binds a session as an operator; gives the intent's id. A word that begins with `@` is a path of the setting.
fn bind(place: &Place, setting: &Setting, words: &[&str]) -> Result<String> {
    let words: Vec<String> = words
        .iter()
        .map(|word| word.strip_prefix('@').map_or_else(|| (*word).to_owned(), |name| setting.path(name)))
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    declared(place, &[&["--session", &setting.session, "--binding"][..], &words].concat())
}

fn listed(place: &Place, id: &str) -> Result<IntentView> {
    let output = place.agentwatch(["intent", "list", "--all", "-o", "json"]).output()?;
    let view: IntentsView = serde_json::from_slice(&output.stdout)?;
    view.intents.into_iter().find(|one| *one.id == *id).context("it is not listed")
}

fn close(place: &Place, id: &str) -> Result<()> {
    let output = place.agentwatch(["intent", "close", id]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What was refused, for who looks why a test failed.
fn refusals(place: &Place) -> Result<String> {
    let output = place.agentwatch(["events", "--verdict", "denied", "-o", "json"]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether an event tells that this intent refused something, with all that belongs to that.
fn is_refusal(event: &Event, id: &str, verdict: Verdict) -> bool {
    let intent = event.intent.as_ref();
    let outside = intent.is_some_and(|one| one.alignment == Some(Alignment::Outside));
    event.verdict == verdict
        && event.policy.is_none()
        && event.rule.as_deref() == Some(&*format!("intent: {id}"))
        && intent.and_then(|one| one.id.as_deref()) == Some(id)
        && outside
        && event.reason.as_ref().is_some_and(|reason| reason.contains(&format!("binding intent {id}")))
}

/// Programs that the tests' shell starts.
const FILE_TOOLS: [&str; 6] = ["--exec", "/usr/bin/rm", "--exec", "/usr/bin/mv", "--exec", "/usr/bin/cat"];

#[test]
fn what_is_done_to_files_outside_is_refused() -> Result<()> {
    Shared::with(|daemon| {
        let mut setting = Setting::new(daemon)?;
        let mut other = Setting::new(daemon)?;
        let place = daemon.place().clone();
        ensure!(writes(&mut setting, "out/x")? && writes(&mut setting, "in/x")?);
        let words = ["--task", "tidy up", "--write", "@in", "--delete", "@in"];
        let id = bind(&place, &setting, &[&words[..], &FILE_TOOLS].concat())?;
        // At once: the answer came when the kernel had it.
        ensure!(!writes(&mut setting, "out/a")?, "it was written outside");
        ensure!(writes(&mut setting, "in/a")?, "it was not written inside");
        let path = setting.path("out/a");
        let events = daemon.wait_for("the refusal", |event| is_creation(event, &path))?;
        let told = events.last().context("no event")?;
        ensure!(is_refusal(told, &id, Verdict::Denied), "{}", json_lines(&events));
        ensure!(told.errno.as_deref() == Some("EPERM") && told.policy.is_none(), "{told:?}");
        let reason = told.reason.as_deref().unwrap_or_default();
        ensure!(reason.starts_with("write is outside of") && reason.contains("(tidy up)"), "{reason}");
        let within = setting.path("in");
        let outside = setting.path("out");
        for (command, wanted) in [
            (format!("mv {within}/a {within}/b"), true),
            (format!("mv {within}/b {outside}/b"), false),
            (format!("mv {outside}/x {within}/y"), false),
            (format!("rm {outside}/x"), false),
            (format!("rm {within}/b"), true),
            (format!("echo x > {outside}/x"), false),
            (format!("echo x >> {within}/x"), true),
            ("cat /etc/hostname > /dev/null".to_owned(), true),
        ] {
            ensure!(goes(&mut setting, &format!("{command} 2> /dev/null"))? == wanted, "{command}");
        }
        ensure!(Path::new(&setting.path("out/x")).exists() && fs::read(setting.path("out/x"))? == b"x\n");
        ensure!(writes(&mut other, "out/a")?, "another session is held");
        let view = listed(&place, &id)?;
        ensure!(view.binding && view.outside >= 4, "{view:?}");
        close(&place, &id)?;
        ensure!(writes(&mut setting, "out/a")?, "it binds though it is closed");
        setting.shell.end()?;
        other.shell.end()
    })
}

#[test]
fn programs_outside_are_not_started() -> Result<()> {
    Shared::with(|daemon| {
        let mut setting = Setting::new(daemon)?;
        let place = daemon.place().clone();
        let cat = |what: &str| format!("cat /etc/{what} > /dev/null 2>&1");
        bind(&place, &setting, &["--exec", "/usr/bin/true"])?;
        ensure!(goes(&mut setting, "/usr/bin/true")? && !goes(&mut setting, &cat("hostname"))?);
        // By its path it is not started at all.
        let said = setting.shell.ask("echo \"$(/usr/bin/env true 2>&1)\"")?;
        ensure!(said.contains("Operation not permitted"), "{said}");
        // Of several only the last binds.
        let id = bind(&place, &setting, &["--exec", "/usr/bin/true", "--run", "cat /etc/host*"])?;
        ensure!(goes(&mut setting, "/usr/bin/true")? && goes(&mut setting, &cat("hostname"))?);
        ensure!(!goes(&mut setting, &cat("passwd"))?, "another command line");
        ensure!(!goes(&mut setting, "/usr/bin/env true 2> /dev/null")?, "another program");
        let refused =
            |event: &Event| event.kind == Kind::ProcessExec && is_refusal(event, &id, Verdict::Denied);
        let events = daemon.wait_for("the refusal", refused)?;
        let command = events.last().and_then(|event| event.command.as_ref()).map(|text| text.0.clone());
        ensure!(command.as_deref() == Some("cat /etc/passwd"), "{command:?}");
        setting.shell.end()
    })
}

#[test]
fn what_takes_the_place_of_another_alone_binds() -> Result<()> {
    Shared::with(|daemon| {
        let mut setting = Setting::new(daemon)?;
        let place = daemon.place().clone();
        let first = bind(&place, &setting, &["--write", "@in"])?;
        ensure!(writes(&mut setting, "in/a")? && !writes(&mut setting, "out/a")?);
        let second = bind(&place, &setting, &["--write", "@out"])?;
        ensure!(!writes(&mut setting, "in/b")? && writes(&mut setting, "out/b")?);
        let is_first =
            |event: &Event| event.intent.as_ref().and_then(|one| one.id.as_deref()) == Some(&*first);
        let closed = daemon
            .wait_for("the end of the first", |event| event.kind == Kind::IntentClosed && is_first(event))?;
        let reason = closed.last().and_then(|event| event.reason.clone()).unwrap_or_default();
        ensure!(reason == format!("closed: the binding intent {second} took its place"), "{reason}");
        ensure!(listed(&place, &first)?.state == IntentState::Closed);
        // One that binds nothing stands beside it, and opens nothing.
        declared(&place, &["--session", &setting.session, "--write", &setting.path("in")])?;
        ensure!(!writes(&mut setting, "in/b")?, "an intent that does not bind opens what another refuses");
        // Neither does an agent's own, nor does it bind.
        let within = setting.path("in");
        let ask = format!("agentwatch intent declare --binding --write {within} 2>&1 | tr '\\n' ' '; echo");
        close(&place, &second)?;
        let answer = setting.shell.ask(&ask)?;
        ensure!(answer.contains("only an operator's intent binds"), "{answer}");
        ensure!(writes(&mut setting, "out/c")?, "an agent bound itself");
        let refused = daemon.wait_for("the attempt", |event| event.kind == Kind::IntentRefused)?;
        ensure!(refused.last().is_some_and(|event| *event.session == *setting.session));
        setting.shell.end()
    })
}

#[test]
fn no_mount_is_a_way_out() -> Result<()> {
    Shared::with(|daemon| {
        let mut setting = Setting::new(daemon)?;
        let place = daemon.place().clone();
        let (within, outside) = (setting.path("in"), setting.path("out"));
        let shell = fs::canonicalize("/bin/sh")?.to_string_lossy().into_owned();
        fs::create_dir(setting.path("in/d"))?;
        let words =
            ["--write", "@in", "--exec", &shell, "--exec", "/usr/bin/*mount", "--exec", "/usr/bin/unshare"];
        bind(&place, &setting, &words)?;
        let private = |script: &str| format!("unshare -m {shell} -c '{script}' 2> /dev/null");
        ensure!(
            goes(&mut setting, &private(&format!("echo x > {within}/own")))?,
            "what the host calls so too"
        );
        // What is mounted is not written to.
        let shown = format!("mount --bind {outside} {within}/d && ! echo x > {within}/d/a");
        ensure!(goes(&mut setting, &private(&shown))?, "it was not mounted, or written to");
        ensure!(!Path::new(&setting.path("out/a")).exists(), "a private mount is a way out");
        // In the initial namespace, too.
        ensure!(goes(&mut setting, &format!("mount --bind {outside} {within}/d"))?, "it was not mounted");
        let made = writes(&mut setting, "in/d/b");
        let unmounted = std::process::Command::new("umount").arg(setting.path("in/d")).status()?;
        ensure!(unmounted.success() && !made?);
        ensure!(!Path::new(&setting.path("out/b")).exists(), "a mount is a way out");
        setting.shell.end()
    })
}

#[test]
fn in_the_mode_recommend_it_is_told() -> Result<()> {
    Shared::with(|daemon| {
        let mut setting = Setting::of(daemon, "soft")?;
        let place = daemon.place().clone();
        let id = bind(&place, &setting, &["--write", "@in"])?;
        ensure!(writes(&mut setting, "out/a")?, "it was refused");
        let path = setting.path("out/a");
        let events = daemon.wait_for("the file", |event| is_creation(event, &path))?;
        let told = events.last().context("no event")?;
        ensure!(is_refusal(told, &id, Verdict::WouldDeny), "{}", json_lines(&events));
        setting.shell.end()
    })
}

#[test]
fn a_policy_that_refuses_keeps_the_word() -> Result<()> {
    Shared::with(|daemon| {
        let mut setting = Setting::of(daemon, "strict")?;
        let place = daemon.place().clone();
        fs::create_dir_all("/srv/aw-prod")?;
        fs::write("/srv/aw-prod/f", "precious")?;
        let id = bind(&place, &setting, &["--write", "@in", "--write", "/srv/aw-prod/f"])?;
        for (path, rule) in
            [("/srv/aw-prod/f", "protected".to_owned()), ("/srv/aw-other", format!("intent: {id}"))]
        {
            ensure!(!goes(&mut setting, &format!("echo x >> {path}"))?, "{path}");
            let refused = |event: &Event| {
                event.verdict == Verdict::Denied
                    && event.file.as_ref().is_some_and(|file| file.path.0 == path)
            };
            let events = daemon.wait_for("the refusal", refused)?;
            let told = events.last().context("no event")?;
            ensure!(told.rule.as_deref() == Some(&*rule), "{path}: {told:?}");
        }
        setting.shell.end()
    })
}

/// Waits until a session's shell can make a file.
fn until_it_writes(setting: &mut Setting, name: &str) -> Result<()> {
    const LONG: Duration = Duration::from_secs(120);
    let began = Instant::now();
    while !writes(setting, name)? {
        ensure!(began.elapsed() < LONG, "it still binds");
    }
    Ok(())
}

#[test]
fn it_ends_by_the_kernels_clock() -> Result<()> {
    Shared::with(|daemon| {
        let mut setting = Setting::new(daemon)?;
        let place = daemon.place().clone();
        let id = bind(&place, &setting, &["--write", "@in", "--expires", "15s"])?;
        ensure!(!writes(&mut setting, "out/a")?, "it does not bind");
        let pid = i32::try_from(daemon.pid()).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, Signal::STOP)?;
        let ended = until_it_writes(&mut setting, "out/a");
        kill_process(pid, Signal::CONT)?;
        ended?;
        ensure!(listed(&place, &id)?.state == IntentState::Expired);
        setting.shell.end()
    })
}

#[test]
fn it_binds_while_the_daemon_is_dead_and_after_its_restart() -> Result<()> {
    let machine = Shared::apart()?;
    let place = Place::new()?;
    let daemon = Daemon::start(&place)?;
    let mut setting = Setting::new(&daemon)?;
    let id = bind(&place, &setting, &["--task", "stay here", "--write", "@in"])?;
    // At once: it is kept before it is answered.
    daemon.kill()?;
    ensure!(writes(&mut setting, "in/a")? && !writes(&mut setting, "out/a")?, "nobody holds it");
    let mut daemon = Daemon::start(&place)?;
    ensure!(writes(&mut setting, "in/b")? && !writes(&mut setting, "out/b")?, "the next daemon let it go");
    let path = setting.path("out/b");
    let events = daemon.wait_for("the refusal", |event| is_creation(event, &path))?;
    ensure!(
        events.last().is_some_and(|event| is_refusal(event, &id, Verdict::Denied)),
        "{}",
        json_lines(&events)
    );
    ensure!(listed(&place, &id)?.state == IntentState::InForce);
    close(&place, &id)?;
    ensure!(writes(&mut setting, "out/c")?, "it binds though it is closed");
    setting.shell.end()?;
    daemon.stop()?;
    drop(machine);
    Ok(())
}

#[test]
fn more_than_the_kernel_has_room_for_are_refused() -> Result<()> {
    const MOST: usize = agentwatch_common::bound::BINDINGS_MOST as usize;
    Shared::with(|daemon| {
        let mut setting = Setting::new(daemon)?;
        let place = daemon.place().clone();
        let (gate, ready) = (setting.path("in/gate"), setting.path("in/ready"));
        let made = std::process::Command::new("mkfifo").args([&gate, &ready]).status()?;
        ensure!(made.success(), "no fifos");
        // One after the other: the daemon answers no crowd in time.
        let script = format!("echo on > {ready}; read go < {gate}; true");
        // Whoever gives up waiting for its answer must not leave this one waiting for ever.
        let begin = format!("agentwatch exec --agent test -- bash -c '{script}' || echo off > {ready}");
        // Open all the time: who opens it anew may meet the writer before, who is about to close it.
        ensure!(setting.shell.ask(&format!("exec 7<> {ready}; echo open"))? == "open", "no fifo");
        for _ in 0..=MOST {
            // On a guest that gets no time it may have to be asked again.
            let mut tries = 0;
            while setting.shell.ask(&format!("{{ {begin}; }} & read on <&7; echo $on"))? != "on" {
                tries += 1;
                ensure!(tries < 5, "a session did not begin");
            }
        }
        let (mut sessions, outer) = (Vec::new(), setting.session.clone());
        daemon.until("the sessions", |event| {
            let inside = event.parent_session.as_deref() == Some(&*outer);
            match event.kind {
                Kind::SessionStart if inside => sessions.push(event.session.to_string()),
                // Of one that was given up.
                Kind::SessionEnd => sessions.retain(|session| *session != *event.session),
                _ => {}
            }
            Ok(sessions.len() > MOST)
        })?;
        let mut ids = Vec::new();
        for session in sessions.iter().take(MOST) {
            ids.push(declared(&place, &["--session", session, "--binding", "--write", "/tmp"])?);
        }
        let last = sessions.last().context("no session")?;
        let output = place
            .agentwatch(["intent", "declare", "--session", last, "--binding", "--write", "/tmp"])
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains("more cannot be at once"), "{said}");
        for id in ids {
            close(&place, &id)?;
        }
        // A line for each, and one who has not come to read yet finds it there.
        let lines = 2 * MOST;
        setting.shell.ask(&format!("exec 8<> {gate}; yes go | head -n {lines} >&8; wait; echo done"))?;
        setting.shell.end()
    })
}
