//! Much at once: nothing is lost, or what is lost is counted exactly.

use std::collections::BTreeMap;
use std::path::Path;

use agentwatch::event::{Event, Kind};
use anyhow::{Context as _, Result, ensure};
use tests::daemon::{Daemon, Shared};
use tests::session::{act_words, truth, wait, work_dir};
use tests::truth::Truth;

/// What the log says of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    events: u64,
    /// Counted as lost.
    pub lost: u64,
}

/// Kinds that are counted.
const KINDS: [(&str, Kind); 3] =
    [("file.create", Kind::FileCreate), ("file.open", Kind::FileOpen), ("file.delete", Kind::FileDelete)];

/// Runs a load as a session, and reads the log until all that was done is told or counted as lost.
fn load(daemon: &mut Daemon, args: &[&str]) -> Result<(Truth, BTreeMap<&'static str, Told>)> {
    let dir = work_dir()?;
    let output = tempfile::NamedTempFile::new()?;
    let mut command = daemon.exec(act_words(dir.path(), args));
    let mut child = command.stdout(output.reopen()?).spawn().context("cannot start the load")?;
    let pid = child.id();
    let mut counted = Counted::new(pid, dir.path());
    // Reads along: a long log is not held in memory.
    daemon.until("end of the session", |event| {
        counted.take(&event);
        Ok(counted.ended)
    })?;
    let status = wait(&mut child)?;
    ensure!(status.success(), "the load ended with {status}");
    let truth = truth(&std::fs::read(output.path())?)?;
    // Losses are told a moment later than what came after them.
    if !counted.is_all(&truth)? {
        daemon
            .until("account of every loss", |event| {
                counted.take(&event);
                counted.is_all(&truth)
            })
            .with_context(|| format!("did {:?}, told {:?}", truth.facts, counted.told))?;
    }
    Ok((truth, counted.told))
}

/// The account of a load: what is told of it, and what is counted as lost.
pub struct Counted {
    pid: u32,
    prefix: String,
    /// The session that it runs in, as soon as it is known.
    pub session: Option<String>,
    /// By kind.
    pub told: BTreeMap<&'static str, Told>,
    ended: bool,
}

impl Counted {
    /// Of the session whose first process this is, with files in a folder.
    pub fn new(pid: u32, dir: &Path) -> Self {
        let prefix = dir.to_string_lossy().into_owned();
        Self { pid, prefix, session: None, told: BTreeMap::new(), ended: false }
    }

    /// Takes an event in the order of the log.
    pub fn take(&mut self, event: &Event) {
        if self.session.is_none() && event.process.as_ref().is_some_and(|process| process.pid == self.pid) {
            self.session = Some(event.session.to_string());
        }
        if self.session.as_deref() != Some(&*event.session) {
            return;
        }
        self.ended |= event.kind == Kind::SessionEnd;
        for (name, kind) in KINDS {
            let told = self.told.entry(name).or_default();
            let here = event.file.as_ref().is_some_and(|file| file.path.0.starts_with(&self.prefix));
            if event.kind == kind && here {
                told.events += event.count;
            }
            if let Some(loss) = event.loss.as_ref().filter(|loss| loss.kind == name) {
                told.lost += loss.count;
            }
        }
    }

    /// Whether everything that was done is told or counted.
    pub fn is_all(&self, truth: &Truth) -> Result<bool> {
        for (name, _) in KINDS {
            let told = self.told.get(name).copied().unwrap_or_default();
            let (told, did) = (told.events + told.lost, truth.number(name)?);
            ensure!(told <= did, "{told} of {name} told, {did} done: {:?}", self.told);
            if told < did {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn none_lost(args: &[&str]) -> Result<()> {
    Shared::with(|daemon| {
        let (_, told) = load(daemon, args)?;
        ensure!(told.values().all(|told| told.lost == 0), "something was lost: {told:?}");
        Ok(())
    })
}

#[test]
fn nothing_is_lost_of_repeats() -> Result<()> {
    none_lost(&["load", "--files", "60000", "--rate", "20000", "--distinct", "1"])
}

#[test]
fn nothing_is_lost_of_different_files() -> Result<()> {
    none_lost(&["load", "--files", "10000", "--rate", "2000", "--distinct", "10000"])
}

/// Case D05.
#[test]
fn nothing_is_lost_of_short_lives() -> Result<()> {
    none_lost(&["load", "--op", "create-unlink", "--files", "6000", "--rate", "2000", "--distinct", "100"])
}

/// The log is slower than this on an emulated machine; what is lost must then be in the sum.
/// Case E11.
#[test]
fn did_is_events_and_counts_and_losses() -> Result<()> {
    Shared::with(|daemon| {
        let args =
            ["load", "--op", "create-unlink", "--files", "40000", "--rate", "max", "--distinct", "40000"];
        load(daemon, &args).map(drop)?;
        // And all is well again afterwards.
        tests::compare::same_acts(&daemon.act(&["rename"])?)
    })
}
