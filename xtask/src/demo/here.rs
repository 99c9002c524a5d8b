//! The demo itself, on a machine that can be observed and with the programs on PATH.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::cmd::say;
use crate::daemon::Daemon;

const POLICY: &str = "\
version: 1
agents:
  demo:
    owner: you@example.com
    mode: enforce
rules:
  - name: the demo's database
    deny: {delete: ['**/precious.db']}
    message: this database cannot be restored, ask you@example.com
";
const AGENT: &str = include_str!("agent.sh");
/// How long the session may last.
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts all, shows all, and leaves nothing behind.
///
/// # Errors
/// If a part of it does not work.
pub fn show() -> Result<()> {
    heading(
        "the daemon starts (the kernel checks its programs, which takes a while on an emulated machine)",
    )?;
    let daemon = Daemon::start(POLICY)?;
    heading("an agent works, and this is the attribution log as it grows: `agentwatch events -f`")?;
    let (_follower, sessions) = Follower::start(&daemon)?;
    let folder = TempDir::with_prefix("demo-").context("no temporary folder")?;
    let status = run_agent(&daemon, folder.path())?;
    ensure!(status.success(), "the agent of the demo ended with {status}");
    let session = sessions
        .recv_timeout(PATIENCE)
        .with_context(|| format!("the log tells no end of the agent's session within {PATIENCE:?}"))?;
    heading("every session on this host: `agentwatch agents --all`")?;
    run(daemon.agentwatch(&["agents", "--all"]))?;
    heading("what was refused, before it happened: `agentwatch events --verdict denied`")?;
    run(daemon.agentwatch(&["events", "--verdict", "denied"]))?;
    let database = folder.path().join("precious.db");
    ensure!(fs::read(&database).is_ok_and(|rows| rows == b"rows\n"), "the database of the demo was changed");
    heading("and why: `agentwatch policy explain`")?;
    let database = database.to_str().context("the temporary folder is not UTF-8")?.to_owned();
    let policy = daemon.policy().to_str().context("the temporary folder is not UTF-8")?.to_owned();
    let words = ["policy", "explain", "--policy", &policy, "--agent", "demo", "--op", "delete", &database];
    let explained = daemon.agentwatch(&words).status().context("cannot start agentwatch")?;
    ensure!(explained.code() == Some(3), "the refusal was not explained as one: {explained}");
    heading("and who asked for it: `agentwatch policy explain --event last`")?;
    let explained = daemon.agentwatch(&["policy", "explain", "--event", "last"]).status();
    let explained = explained.context("cannot start agentwatch")?;
    ensure!(explained.code() == Some(3), "what happened was not explained as a refusal: {explained}");
    heading(&format!("what each of its processes did: `agentwatch tree {session}`"))?;
    run(daemon.agentwatch(&["tree", &session]))?;
    daemon.stop()?;
    heading("the daemon has ended, and nothing of it is left in the kernel")
}

/// The agent works in a folder of its own, and talks to a server outside its session.
fn run_agent(daemon: &Daemon, folder: &Path) -> Result<ExitStatus> {
    let server = TcpListener::bind("127.0.0.1:0").context("cannot listen on loopback")?;
    let port = server.local_addr().context("the server has no address")?.port().to_string();
    thread::spawn(move || serve(&server));
    fs::write(folder.join("agent.sh"), AGENT).context("cannot write the agent")?;
    fs::write(folder.join("precious.db"), "rows\n").context("cannot write the database")?;
    let mut agent = daemon.agentwatch(&["exec", "--agent", "demo", "--", "sh", "agent.sh", &port]);
    // Other locales make every program open a dozen files more, which would hide the agent's own work.
    agent.env("LC_ALL", "C").current_dir(folder).status().context("cannot start the agent")
}

fn serve(server: &TcpListener) {
    for peer in server.incoming() {
        // A client that goes away is none of our business.
        let _ = peer.and_then(|mut peer| peer.write_all(b"late\n"));
    }
}

fn run(mut command: Command) -> Result<()> {
    let status = command.status().context("cannot start agentwatch")?;
    ensure!(status.success(), "agentwatch ended with {status}");
    Ok(())
}

fn heading(text: &str) -> Result<()> {
    writeln!(io::stdout(), "\n== {text}").context("the standard output is closed")
}

/// `agentwatch events -f`, whose lines are passed on.
struct Follower(Child);

impl Follower {
    /// Gives the ids of the demo's sessions as well, each when its end was told.
    fn start(daemon: &Daemon) -> Result<(Self, Receiver<String>)> {
        let mut events = daemon.agentwatch(&["events", "-f", "-n", "1000", "-o", "compact"]);
        let mut child = events.stdout(Stdio::piped()).spawn().context("cannot follow the log")?;
        let lines = BufReader::new(child.stdout.take().context("the follower has no output")?).lines();
        let (sender, receiver) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // Nobody reads on: the end of the demo says so.
                let _ = writeln!(io::stdout(), "{line}");
                if let Some(session) = ended_session(&line) {
                    let _ = sender.send(session.to_owned());
                }
            }
        });
        Ok((Self(child), receiver))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            say(&format!("the follower of the log did not end: {error}"));
        }
    }
}

/// The session of agent `demo` whose end a line of the compact form tells.
fn ended_session(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let session = words.nth(1).filter(|word| word.starts_with("demo-"))?;
    words.any(|word| word == "session.end").then_some(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_demos_session_is_known() {
        let line = "2026-01-01T00:00:00.000+00:00  demo-7f3k2q  -  session.end  -";
        assert_eq!(ended_session(line), Some("demo-7f3k2q"));
        assert_eq!(ended_session(&line.replace("demo-", "coding-")), None);
        assert_eq!(ended_session(&line.replace(".end", ".start")), None);
    }
}
