//! Much at once from one session: nothing may be lost, or what is lost must be counted to the last one.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::log::{LogReader, Told};
use super::{Found, POLICY, step};
use crate::daemon::{Daemon, TURN};

/// How long the daemon may take to write all that happened.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long the account of losses may lag behind the end of a session.
const LATE: Duration = Duration::from_secs(15);

/// Nanoseconds of the guest's clock in which each of its two CPUs does 10^9 instructions, one a nanosecond and one CPU
/// at a time: a second of a machine with two CPUs, and slow ones.
const SECOND_NS: u64 = 2_000_000_000;

/// The runs: name, operation, events that it makes, events a second, number of files.
const RUNS: [Plan; 5] = [
    Plan {
        name: "one file, again and again",
        op: "open-close",
        events: 1,
        rate: Some(50_000),
        files: Some(1),
        reader_stops: false,
    },
    Plan {
        name: "1,000 files in turn",
        op: "open-close",
        events: 1,
        rate: Some(50_000),
        files: Some(1_000),
        reader_stops: false,
    },
    Plan {
        name: "new files, removed again",
        op: "create-unlink",
        events: 3,
        rate: Some(50_000),
        files: Some(1_000),
        reader_stops: false,
    },
    Plan {
        name: "each file once, at full speed",
        op: "open-close",
        events: 1,
        rate: None,
        files: None,
        reader_stops: false,
    },
    Plan {
        name: "the same, the daemon stopped",
        op: "open-close",
        events: 1,
        rate: None,
        files: None,
        reader_stops: true,
    },
];

struct Plan {
    name: &'static str,
    op: &'static str,
    events: u64,
    rate: Option<u64>,
    files: Option<u64>,
    /// Whether the daemon stands still from the beginning to the end, so that the ring overruns.
    reader_stops: bool,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Name of the run.
    pub name: String,
    /// Events that were asked for in [`SECOND_NS`]; none is as many as possible.
    pub wanted: Option<u64>,
    /// What the load generator did that makes an event.
    pub did: u64,
    /// How many of these it did in such a second, once its files were made.
    pub rate: f64,
    /// Lines in the log.
    pub events: u64,
    /// What those lines stand for beyond one each.
    pub folded: u64,
    /// Lost, by the log's account.
    pub lost: u64,
}

/// What the load generator prints.
#[derive(Deserialize)]
struct Truth {
    facts: BTreeMap<String, u64>,
}

/// Measures all runs.
///
/// # Errors
/// If one cannot be measured.
pub fn measure(quick: bool) -> Result<()> {
    step("starting agentwatch");
    let daemon = Daemon::start(POLICY)?;
    let total = if quick { 100_000 } else { 500_000 };
    for plan in &RUNS {
        step(&format!("load: {}", plan.name));
        Found::Load(plan.run(&daemon, total / plan.events)?).tell()?;
    }
    daemon.stop()
}

impl Plan {
    fn run(&self, daemon: &Daemon, operations: u64) -> Result<Load> {
        let folder = TempDir::new_in("/dev/shm").context("no temporary folder in memory")?;
        let mut log = LogReader::at_end(&daemon.log(), folder.path())?;
        let per_clock_second = |rate: u64| rate * 1_000_000_000 / SECOND_NS / self.events;
        let rate = self.rate.map_or_else(|| "max".to_owned(), |rate| per_clock_second(rate).to_string());
        let operations = self.files.map_or(operations / 5, |_| operations);
        let (n, distinct) = (operations.to_string(), self.files.unwrap_or(operations).to_string());
        let mut command = daemon.agentwatch(&["exec", "--agent", "bench", "--", "aw-act", "--dir"]);
        command.arg(folder.path()).args(["load", "--op", self.op, "--files", &n, "--rate", &rate]);
        command.args(["--distinct", &distinct]).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let child = command.spawn().context("cannot start `agentwatch exec`")?;
        if self.reader_stops {
            await_kind(&mut log, "process.exec")?;
            daemon.signal(Signal::STOP)?;
        }
        let output = child.wait_with_output().context("cannot wait for `agentwatch exec`");
        if self.reader_stops {
            daemon.signal(Signal::CONT)?;
        }
        let output = output?;
        ensure!(output.status.success(), "aw-act ended with {}", output.status);
        let truth: Truth = serde_json::from_slice(&output.stdout).context("aw-act gave no list")?;
        let did =
            truth.facts.iter().filter(|(kind, _)| kind.starts_with("file.")).map(|(_, count)| count).sum();
        let told = settle(&mut log, did)?;
        let nanoseconds = truth.facts.get("elapsed_ns").context("aw-act tells no time")?;
        Ok(Load {
            name: self.name.to_owned(),
            wanted: self.rate,
            did,
            rate: (operations * self.events) as f64 * SECOND_NS as f64 / *nanoseconds as f64,
            events: told.events,
            folded: told.stand_for - told.events,
            lost: told.lost,
        })
    }
}

/// Waits until the log tells such an event.
fn await_kind(log: &mut LogReader, kind: &str) -> Result<()> {
    let start = Instant::now();
    while !log.read()?.contains_key(kind) {
        ensure!(start.elapsed() < PATIENCE, "the log tells no `{kind}` within {PATIENCE:?}");
        std::thread::sleep(TURN);
    }
    Ok(())
}

/// Waits for the end of the session, and then a while for what may still come, until the sum is right.
fn settle(log: &mut LogReader, did: u64) -> Result<Told> {
    let start = Instant::now();
    let mut ended = None;
    loop {
        let kinds = log.read()?;
        let mut sum = Told::default();
        for told in kinds.iter().filter(|(kind, _)| kind.starts_with("file.")).map(|(_, told)| told) {
            sum.events += told.events;
            sum.stand_for += told.stand_for;
            sum.lost += told.lost;
        }
        if ended.is_none() && kinds.contains_key("session.end") {
            ended = Some(Instant::now());
        }
        if ended.is_some_and(|ended| sum.stand_for + sum.lost == did || ended.elapsed() > LATE) {
            return Ok(sum);
        }
        ensure!(start.elapsed() < PATIENCE, "the log tells no end of the session within {PATIENCE:?}");
        std::thread::sleep(TURN);
    }
}
