//! The daemon's memory, with many processes and after many events.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::log::LogReader;
use super::{Found, POLICY, step};
use crate::daemon::{Daemon, TURN};

/// How long the daemon may take to see everything.
const PATIENCE: Duration = Duration::from_secs(600);
/// Live processes in a session.
const PROCESSES: u64 = 10_000;

/// The daemon's memory at one time, in KiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// When.
    pub when: String,
    /// Resident.
    pub rss_kib: u64,
    /// The most that was ever resident.
    pub peak_kib: u64,
    /// Resident and not a file's or shared: what the daemon allocated.
    pub anonymous_kib: u64,
    /// Its proportional share of all that is resident.
    pub pss_kib: u64,
}

/// Measures it.
///
/// # Errors
/// If something cannot be measured.
pub fn measure(quick: bool) -> Result<()> {
    step("memory: starting agentwatch");
    let daemon = Daemon::start(POLICY)?;
    Found::Memory(Memory::now(&daemon, "at the start")?).tell()?;
    step("memory: 10,000 processes");
    with_processes(&daemon)?;
    let looks: &[u64] = if quick { &[100_000, 200_000] } else { &[100_000, 400_000, 700_000, 1_000_000] };
    let mut made = 0;
    for look in looks {
        step(&format!("memory: {look} events"));
        events(&daemon, look - made)?;
        made = *look;
        Found::Memory(Memory::now(&daemon, &format!("after {look} events more"))?).tell()?;
    }
    daemon.stop()
}

fn with_processes(daemon: &Daemon) -> Result<()> {
    let folder = TempDir::new().context("no temporary folder")?;
    let mut log = LogReader::at_end(&daemon.log(), folder.path())?;
    let n = PROCESSES.to_string();
    let mut command = daemon.agentwatch(&["exec", "--agent", "bench", "--", "aw-act", "--dir"]);
    command.arg(folder.path()).args(["processes", &n]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut actor = command.spawn().context("cannot start `agentwatch exec`")?;
    let mut lines = BufReader::new(actor.stdout.take().context("aw-act has no output")?).lines();
    let live = lines.next().context("aw-act ended before its processes lived")?;
    live.context("cannot read what aw-act says")?;
    await_kind(&mut log, "process.fork", PROCESSES)?;
    Found::Memory(Memory::now(daemon, "with 10,000 live processes in a session")?).tell()?;
    // The end of its input tells it to end.
    drop(actor.stdin.take());
    lines.for_each(drop);
    let status = actor.wait().context("cannot wait for aw-act")?;
    ensure!(status.success(), "aw-act ended with {status}");
    await_kind(&mut log, "session.end", 1)
}

/// Distinct files, so that each event is written.
fn events(daemon: &Daemon, count: u64) -> Result<()> {
    let folder = TempDir::new_in("/dev/shm").context("no temporary folder in memory")?;
    let mut log = LogReader::at_end(&daemon.log(), folder.path())?;
    let n = (count / 3).to_string();
    let mut command = daemon.agentwatch(&["exec", "--agent", "bench", "--", "aw-act", "--dir"]);
    command.arg(folder.path()).args(["load", "--op", "create-unlink", "--distinct", "10000", "--files", &n]);
    let output = command.output().context("cannot start `agentwatch exec`")?;
    ensure!(output.status.success(), "aw-act failed: {}", String::from_utf8_lossy(&output.stderr));
    await_kind(&mut log, "session.end", 1)
}

fn await_kind(log: &mut LogReader, kind: &str, count: u64) -> Result<()> {
    let start = Instant::now();
    loop {
        let told = log.read()?.get(kind).copied().unwrap_or_default();
        if told.stand_for + told.lost >= count {
            return Ok(());
        }
        let seen = told.stand_for;
        ensure!(start.elapsed() < PATIENCE, "{seen} of {count} `{kind}` in the log within {PATIENCE:?}");
        std::thread::sleep(TURN);
    }
}

impl Memory {
    /// What the daemon has now.
    ///
    /// # Errors
    /// It has ended, or the kernel does not tell.
    pub fn now(daemon: &Daemon, when: &str) -> Result<Self> {
        let read = |name: &str| {
            let path = format!("/proc/{}/{name}", daemon.pid());
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}: has the daemon ended?"))
        };
        let (status, smaps) = (read("status")?, read("smaps_rollup")?);
        let number =
            |text: &str, name: &str| field(text, name).with_context(|| format!("the kernel tells no {name}"));
        Ok(Self {
            when: when.to_owned(),
            rss_kib: number(&status, "VmRSS")?,
            peak_kib: number(&status, "VmHWM")?,
            anonymous_kib: number(&status, "RssAnon")?,
            pss_kib: number(&smaps, "Pss")?,
        })
    }
}

/// A line such as `VmRSS:     1234 kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_are_read_by_their_whole_name() {
        let text = "Name:\tagentwatch\nVmRSS:\t    5120 kB\nPss_Anon:  3 kB\nPss:       70 kB\n";
        assert_eq!(
            (field(text, "VmRSS"), field(text, "Pss"), field(text, "Vm")),
            (Some(5120), Some(70), None)
        );
    }
}
