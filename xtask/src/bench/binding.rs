//! How soon an operator's binding intent is in force: from the start of the command that declares it to its answer, which comes
//! when the kernel has it.

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::{Found, POLICY, clock, step};
use crate::daemon::{Daemon, TURN};

/// Patterns of an intent.
pub const PATTERNS: [usize; 2] = [1, 16];
/// Intents of each kind; the slowest counts.
const ROUNDS: usize = 10;
/// How long a session may take to begin.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(600);

/// What binding a session took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Patterns of the intent.
    pub patterns: usize,
    /// Instructions of the command, the daemon and the kernel together, until the command was through.
    pub instructions: u64,
    /// Nanoseconds of the guest's clock in that time, waiting included, where an instruction takes one.
    pub guest_ns: u64,
}

/// Measures it.
///
/// # Errors
/// If it cannot be measured.
pub fn measure() -> Result<()> {
    step("binding intents: starting agentwatch");
    let daemon = Daemon::start(POLICY)?;
    let session = Session::start(&daemon)?;
    for patterns in PATTERNS {
        let mut slowest: Option<Binding> = None;
        for round in 0..ROUNDS {
            let mut command =
                daemon.agentwatch(&["intent", "declare", "--binding", "--session", &session.id]);
            for pattern in 0..patterns {
                command.args(["--write", &format!("/srv/bench/{round}/{pattern}/**")]);
            }
            let one = declare(&mut command, patterns)?;
            if slowest.as_ref().is_none_or(|slowest| slowest.guest_ns < one.guest_ns) {
                slowest = Some(one);
            }
        }
        Found::Binding(slowest.context("nothing was measured")?).tell()?;
    }
    drop(session);
    daemon.stop()
}

fn declare(command: &mut Command, patterns: usize) -> Result<Binding> {
    let (busy, began) = (clock::busy_ns()?, now_ns());
    let output = command.output().context("cannot start `agentwatch intent declare`")?;
    let guest_ns = now_ns().saturating_sub(began);
    let instructions = clock::busy_ns()?.saturating_sub(busy);
    ensure!(output.status.success(), "the intent was refused: {}", String::from_utf8_lossy(&output.stderr));
    Ok(Binding { patterns, instructions, guest_ns })
}

fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or_default() * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or_default()
}

/// A session that waits.
struct Session {
    child: Child,
    id: String,
}

impl Session {
    fn start(daemon: &Daemon) -> Result<Self> {
        let mut command = daemon.agentwatch(&["exec", "--agent", "bench", "--", "sleep", "100000"]);
        let child = command.stdin(Stdio::null()).spawn().context("cannot start a session")?;
        let mut session = Self { child, id: String::new() };
        let begun = Instant::now();
        while session.id.is_empty() {
            ensure!(begun.elapsed() < PATIENCE, "the session did not begin");
            let output = daemon.agentwatch(&["agents", "-o", "json"]).output()?;
            let view: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let first = view.pointer("/sessions/0/id").and_then(serde_json::Value::as_str);
            session.id = first.unwrap_or_default().to_owned();
            std::thread::sleep(TURN);
        }
        Ok(session)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
