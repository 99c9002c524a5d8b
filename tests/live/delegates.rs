//! What sessions ask of those who start programs for whoever asks: who is told of as `caused`, by whom, and who is not.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use agentwatch::event::{Cause, Event, How, Kind, UsedBy};
use anyhow::{Context as _, Result, ensure};
use tests::compare::{json, json_lines};
use tests::daemon::{Daemon, PATIENCE, Shared};
use tests::session::SessionRun;

use crate::caused::{Folder, blame, cause_of, outside};
use crate::restarts::is_creation;

/// What a session asks of a tmux server that a person started, and what that person asks of it.
#[test]
fn what_tmux_starts_is_of_the_session_that_asked_last() -> Result<()> {
    Shared::with(|daemon| {
        let folder = Folder::new()?;
        let socket = folder.path("tmux");
        let tmux = ["tmux", "-S", &socket, "-f", "/dev/null"];
        outside(&[&tmux[..], &["new-session", "-d", "sleep 1000"]].concat())?;
        let (mark, own) = (folder.path("mark"), folder.path("own"));
        let asks = format!("> '{mark}'; /bin/sh -c '> {mark}.child'");
        let words = [&tmux[..], &["new-window", &asks]].concat();
        let asked = daemon.run_session(daemon.exec_as("open", words))?;
        ensure!(asked.status.success(), "{}: {}", asked.status, asked.stderr);
        let child = format!("{mark}.child");
        let events = until_made(daemon, &asked, &child)?;
        let (start, cause) = cause_of(&events, &mark, &asked)?;
        ensure!(cause.by == UsedBy::Asked && cause.path.0.ends_with("/tmux"), "{}", json(start));
        ensure!(!cause.others && cause.seq.is_some() && &*cause.agent == "open", "{}", json(start));
        // All that it starts is of the same session.
        let made = events.iter().find(|event| is_creation(event, &child)).context("no event")?;
        ensure!(made.session == start.session && made.attribution == Some(How::Caused), "{}", json(made));
        let pid = start.process.as_ref().context("no process")?.pid.to_string();
        let said = blame(daemon.place(), &["--pid", &pid])?;
        for part in [asked.session.as_str(), "was started by", "/tmux", "asked by session"] {
            ensure!(said.contains(part), "no `{part}` in:\n{said}");
        }
        // A person asks the same server right behind it.
        let opens = format!("> '{own}'");
        let words = [&tmux[..], &["new-window", &opens]].concat();
        outside(&words)?;
        wait_for_file(&own)?;
        let events = until_after(daemon)?;
        ensure!(!events.iter().any(|event| is_creation(event, &own)), "a person's window is told of");
        outside(&[&tmux[..], &["kill-server"]].concat())
    })
}

/// A client that asks an engine, which asks another one, which starts things; by its name only a copy of another program.
#[test]
fn what_engines_pass_on_is_of_the_session_that_asked() -> Result<()> {
    Shared::with(|daemon| {
        let folder = Folder::new()?;
        let (front, back) = (folder.path("front.sock"), folder.path("back.sock"));
        let _back = Engine::start(&folder, "containerd", &[&back])?;
        let _front = Engine::start(&folder, "dockerd", &[&front, "--to", &back])?;
        let cause = ask(daemon, &front, &folder.path("mark"))?;
        ensure!(cause.by == UsedBy::Asked && cause.path.0.ends_with("/containerd"), "{cause:?}");
        ensure!(!cause.others && cause.seq.is_some(), "{cause:?}");
        // Who asks within the same seconds may be the one for whom it is: that is said. A slow machine takes longer than
        // that at times.
        for attempt in 0..10 {
            if ask_beside_others(daemon, &folder, &front, attempt)?.others {
                return Ok(());
            }
        }
        anyhow::bail!("that others ask is not said")
    })
}

/// A session asks twice, and between that somebody else; gives why the second was done.
fn ask_beside_others(daemon: &mut Daemon, folder: &Folder, socket: &str, attempt: u32) -> Result<Cause> {
    const SCRIPT: &str = r#"aw-act ask "$1" true; echo > "$2"; read < "$3"; aw-act ask "$1" "> '$4'""#;
    let [asked, go, mark] = ["asked", "go", "mark"].map(|name| folder.path(&format!("{name}-{attempt}")));
    for fifo in [&asked, &go] {
        outside(&["mkfifo", fifo])?;
    }
    let mut session = daemon.exec_as("open", ["bash", "-c", SCRIPT, "bash", socket, &asked, &go, &mark]);
    let mut session = session.stdout(Stdio::null()).spawn()?;
    std::fs::read(&asked)?;
    outside(&["aw-act", "ask", socket, "true"])?;
    std::fs::write(&go, "\n")?;
    ensure!(session.wait()?.success(), "the session failed");
    let events = daemon.wait_for("the mark", |event| is_creation(event, &mark))?;
    let made = events.last().context("no event")?;
    let of_it = |event: &&Event| event.kind == Kind::SessionStart && event.session == made.session;
    let start = events.iter().find(of_it).with_context(|| json_lines(&events))?;
    start.cause.as_deref().cloned().with_context(|| json(start))
}

/// A server that is no delegate by its name is none.
#[test]
fn what_other_servers_start_is_of_nobody() -> Result<()> {
    Shared::with(|daemon| {
        let folder = Folder::new()?;
        let socket = folder.path("own.sock");
        let _server = Engine::start(&folder, "own-server", &[&socket])?;
        let mark = folder.path("mark");
        let asked = asked(daemon, &socket, &mark)?;
        ensure!(Path::new(&mark).exists(), "there is no `{mark}`");
        let events = [asked.events, until_after(daemon)?].concat();
        ensure!(!events.iter().any(|event| is_creation(event, &mark)), "it is told of");
        Ok(())
    })
}

/// Has a session ask for a file, and gives why that was made.
fn ask(daemon: &mut Daemon, socket: &str, mark: &str) -> Result<Cause> {
    let asked = asked(daemon, socket, mark)?;
    let events = until_made(daemon, &asked, mark)?;
    Ok(cause_of(&events, mark, &asked)?.1.clone())
}

/// Has a session ask for a file.
fn asked(daemon: &mut Daemon, socket: &str, mark: &str) -> Result<SessionRun> {
    let command = format!("> '{mark}'");
    let asked = daemon.run_session(daemon.exec_as("open", ["aw-act", "ask", socket, &command]))?;
    ensure!(asked.status.success(), "{}: {}", asked.status, asked.stderr);
    Ok(asked)
}

/// Events from a session's beginning until a file was made: before the session's end or after it.
pub fn until_made(daemon: &mut Daemon, asked: &SessionRun, path: &str) -> Result<Vec<Event>> {
    let mut events = asked.events.clone();
    if !events.iter().any(|event| is_creation(event, path)) {
        events.extend(daemon.wait_for(path, |event| is_creation(event, path))?);
    }
    Ok(events)
}

/// Events until one that comes after all that was done.
pub fn until_after(daemon: &mut Daemon) -> Result<Vec<Event>> {
    Ok(daemon.run_session(daemon.exec_as("open", ["true"]))?.events)
}

pub fn wait_for_file(path: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !Path::new(path).exists() {
        ensure!(Instant::now() < deadline, "there is no `{path}`");
        std::thread::yield_now();
    }
    Ok(())
}

/// A server that does what others ask for, under a name.
struct Engine(Child);

impl Engine {
    fn start(folder: &Folder, name: &str, args: &[&str]) -> Result<Self> {
        let program = folder.path(name);
        let actor = Command::new("sh").args(["-c", "command -v aw-act"]).output()?;
        std::fs::copy(String::from_utf8(actor.stdout)?.trim(), &program).context("no aw-act")?;
        let child = Command::new(&program).arg("delegate").args(args).stdin(Stdio::null()).spawn()?;
        let engine = Self(child);
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(args.first().context("no socket")?).is_err() {
            ensure!(Instant::now() < deadline, "{name} does not listen");
            std::thread::yield_now();
        }
        Ok(engine)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
