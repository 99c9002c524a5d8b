//! Instructions per operation, in a guest whose time counts instructions.
//!
//! Each figure is the difference of two runs that differ only in their number of operations, so that starting
//! and ending cancel out; and each run lasts until the last of its events is in the log, so that nothing is
//! put off beyond the clock.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::audit::Auditd;
use super::log::LogReader;
use super::{Found, POLICY, clock, step};
use crate::cmd;
use crate::daemon::{Daemon, TURN};

/// How long the log may take to have everything.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// What is measured: name, words for `aw-act`, and the numbers of operations whose difference counts.
pub const OPERATIONS: [Operation; 5] = [
    Operation { name: "open + close", words: &["bench", "open-close"], few: 1_000, many: 11_000 },
    Operation { name: "create + unlink", words: &["bench", "create-unlink"], few: 500, many: 4_500 },
    Operation { name: "UDP socket + connect + close", words: &["bench", "udp"], few: 500, many: 4_500 },
    Operation { name: "fork + exec + wait", words: &["bench", "fork-exec"], few: 100, many: 2_100 },
    Operation { name: "create + open, each file once", words: &["load", "--files"], few: 500, many: 4_500 },
];

/// One operation.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// Its name in the table.
    pub name: &'static str,
    /// For `aw-act`.
    pub(super) words: &'static [&'static str],
    pub(super) few: u64,
    pub(super) many: u64,
}

/// What watches while it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Setting {
    /// Nothing.
    Bare,
    /// agentwatch, from whose sessions the process is none.
    Outside,
    /// agentwatch, and the process is in a session.
    Inside,
    /// Nothing again, after agentwatch.
    BareAgain,
    /// auditd.
    Audited,
    /// The process is in a session whose agent is held to so many rules.
    Rules(u32),
}

/// A figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Name of the operation.
    pub operation: String,
    /// What watched.
    pub setting: Setting,
    /// Instructions of one operation, of the whole machine.
    pub instructions: f64,
    /// Events in the log for one operation.
    pub events: f64,
    /// Records that were lost.
    pub lost: u64,
}

/// Measures everything.
///
/// # Errors
/// If something cannot be measured.
pub fn measure(quick: bool) -> Result<()> {
    let rounds = if quick { 1 } else { 3 };
    // In memory, where neither a journal nor a disk adds noise or hides what is to be measured.
    let folder = TempDir::new_in("/dev/shm").context("no temporary folder in memory")?;
    let bench = Bench { folder: folder.path(), rounds };
    // Checking the programs leaves the kernel's memory in another order for good, in which a fork costs 2 % more: all
    // is measured in that order.
    step(
        "starting agentwatch (its programs are checked by a kernel that counts instructions), and stopping it",
    );
    Daemon::start(POLICY)?.stop()?;
    bench.all(Setting::Bare, |operation, n| plain(bench.words(operation, n)))?;
    step("starting agentwatch");
    let daemon = Daemon::start(POLICY)?;
    bench.all(Setting::Outside, |operation, n| plain(bench.words(operation, n)))?;
    bench
        .all(Setting::Inside, |operation, n| in_session(&daemon, folder.path(), bench.words(operation, n)))?;
    daemon.stop()?;
    bench.all(Setting::BareAgain, |operation, n| plain(bench.words(operation, n)))?;
    step("starting auditd");
    let auditd = Auditd::start()?;
    let mut number = 0;
    // It is slow, and its noise is nothing beside its cost.
    let once = Bench { rounds: 1, ..bench };
    once.all(Setting::Audited, |operation, n| {
        number += 1;
        let before = Auditd::lost()?;
        let mut run = run(bench.words(operation, n), || auditd.drain(&format!("mark-{number}-")))?;
        run.lost = Auditd::lost()?.saturating_sub(before);
        Ok(run)
    })
}

#[derive(Clone, Copy)]
pub(super) struct Bench<'a> {
    /// Where the work is done.
    pub folder: &'a Path,
    /// How often each figure is taken: the middle one counts.
    pub rounds: u32,
}

/// One run of an operation's loop.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Run {
    /// Of the whole machine.
    pub instructions: u64,
    /// In the log.
    pub events: u64,
    /// By the log's own account.
    pub lost: u64,
}

impl Bench<'_> {
    fn all(&self, setting: Setting, mut run: impl FnMut(&Operation, u64) -> Result<Run>) -> Result<()> {
        OPERATIONS.iter().try_for_each(|operation| self.one(operation, setting, &mut run))
    }

    /// Measures one operation, and tells what it costs.
    pub fn one(
        &self,
        operation: &Operation,
        setting: Setting,
        mut run: impl FnMut(&Operation, u64) -> Result<Run>,
    ) -> Result<()> {
        step(&format!("{}, {setting:?}", operation.name));
        let mut costs = Vec::new();
        for _ in 0..self.rounds {
            // Folders that grew in the first run would make the second one cheaper or dearer.
            let (few, many) = (run(operation, operation.few)?, run(operation, operation.many)?);
            costs.push(operation.difference(setting, few, many));
        }
        costs.sort_by(|a, b| a.instructions.total_cmp(&b.instructions));
        let lost = costs.iter().map(|cost| cost.lost).sum();
        let middle = costs.into_iter().nth(self.rounds as usize / 2).context("nothing was measured")?;
        Found::Cost(Cost { lost, ..middle }).tell()
    }

    /// The actor's command line for N operations.
    pub fn words(&self, operation: &Operation, n: u64) -> Command {
        let folder = self.folder.join("work");
        let mut command = Command::new("aw-act");
        command.arg("--dir").arg(folder).args(operation.words).arg(n.to_string());
        if operation.words.first() == Some(&"load") {
            command.args(["--distinct", &n.to_string()]);
        }
        command
    }
}

impl Operation {
    fn difference(&self, setting: Setting, few: Run, many: Run) -> Cost {
        let per_operation = |few: u64, many: u64| (many as f64 - few as f64) / (self.many - self.few) as f64;
        Cost {
            operation: self.name.to_owned(),
            setting,
            instructions: per_operation(few.instructions, many.instructions),
            events: per_operation(few.events, many.events),
            lost: few.lost + many.lost,
        }
    }
}

/// Runs the actor in a fresh folder; `drain` waits until all that it did is written.
fn run(mut actor: Command, drain: impl FnOnce() -> Result<()>) -> Result<Run> {
    let folder = actor.get_args().nth(1).map(Path::new).context("the actor has no folder")?.to_owned();
    fresh(&folder)?;
    let before = clock::busy_ns()?;
    let output = actor.stdin(Stdio::null()).output().context("cannot start aw-act: is it on PATH?")?;
    drain()?;
    let after = clock::busy_ns()?;
    ensure!(output.status.success(), "aw-act failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(Run { instructions: after.saturating_sub(before), ..Run::default() })
}

/// Runs the actor where nothing watches, or watches others.
pub(super) fn plain(actor: Command) -> Result<Run> {
    run(actor, || Ok(()))
}

/// Runs the actor in a session, until the end of the session is in the log.
pub(super) fn in_session(daemon: &Daemon, folder: &Path, actor: Command) -> Result<Run> {
    let mut log = LogReader::at_end(&daemon.log(), folder)?;
    let mut command = daemon.agentwatch(&["exec", "--agent", "bench", "--"]);
    command.arg(actor.get_program()).args(actor.get_args());
    let work = actor.get_args().nth(1).map(Path::new).context("the actor has no folder")?;
    fresh(work)?;
    let before = clock::busy_ns()?;
    let output = command.output().context("cannot start `agentwatch exec`")?;
    let start = Instant::now();
    while !log.tail_holds("\"session.end\"")? {
        ensure!(start.elapsed() < PATIENCE, "the log tells no end of the session within {PATIENCE:?}");
        std::thread::sleep(TURN);
    }
    let after = clock::busy_ns()?;
    ensure!(output.status.success(), "aw-act failed: {}", String::from_utf8_lossy(&output.stderr));
    let told = log.read()?;
    let events = told.values().map(|told| told.events).sum();
    let lost = told.values().map(|told| told.lost).sum();
    Ok(Run { instructions: after.saturating_sub(before), events, lost })
}

/// An empty folder, and nothing left to write from the one before.
pub(super) fn fresh(folder: &Path) -> Result<()> {
    crate::cache::remove(folder)?;
    crate::paths::make_dir(folder)?;
    cmd::quiet(&mut cmd::command("sync")?)
}
