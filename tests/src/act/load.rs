//! Much of the same, counted exactly.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Subcommand, ValueEnum};
use rustix::fs::{self, Mode, OFlags};

use super::record::Recorder;

/// Operations between two looks at the clock.
const BATCH: u64 = 64;

/// Load.
#[derive(Subcommand)]
pub enum Act {
    /// Repeats an operation on files, and prints how many events of each kind that makes
    Load {
        /// What is repeated
        #[arg(long, default_value = "open-close")]
        op: Op,
        /// How often
        #[arg(long)]
        files: u64,
        /// Operations a second, or `max`
        #[arg(long, default_value = "max", value_parser = rate)]
        rate: Rate,
        /// Files among which it goes round
        #[arg(long, default_value_t = 1)]
        distinct: u64,
    },
}

/// What is repeated.
#[derive(Clone, Copy, ValueEnum)]
pub enum Op {
    /// Opens for reading and closes
    OpenClose,
    /// Creates and removes
    CreateUnlink,
}

/// How fast; none is as fast as it goes.
#[derive(Clone, Copy)]
pub struct Rate(Option<u32>);

fn rate(text: &str) -> Result<Rate> {
    if text == "max" {
        return Ok(Rate(None));
    }
    let rate: u32 = text.parse().with_context(|| format!("`{text}` is neither a number nor `max`"))?;
    ensure!(rate > 0, "a rate of 0 never ends");
    Ok(Rate(Some(rate)))
}

impl Act {
    /// Does it.
    pub fn run(&self, rec: &Recorder) -> Result<()> {
        let Self::Load { op, files, rate, distinct } = *self;
        ensure!(distinct > 0, "at least one file is needed");
        let paths: Vec<_> = (0..distinct).map(|index| rec.path(format!("load-{index}"))).collect();
        let made = match op {
            Op::OpenClose => paths.iter().try_for_each(|path| create(path)).map(|()| distinct)?,
            Op::CreateUnlink => 0,
        };
        let start = Instant::now();
        repeat(op, files, rate, &paths)?;
        let elapsed = start.elapsed();
        let (created, deleted) = match op {
            Op::OpenClose => (made, 0),
            Op::CreateUnlink => (files, files),
        };
        rec.fact("file.create", created);
        rec.fact("file.open", made + files);
        rec.fact("file.delete", deleted);
        rec.fact("elapsed_ns", u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
        Ok(())
    }
}

fn repeat(op: Op, times: u64, rate: Rate, paths: &[PathBuf]) -> Result<()> {
    let start = Instant::now();
    for (done, path) in (0..times).zip(paths.iter().cycle()) {
        once(op, path)?;
        if let Rate(Some(rate)) = rate
            && done % BATCH == 0
        {
            let due = Duration::from_secs(1).mul_f64(done as f64 / f64::from(rate));
            // Pacing, not waiting for something.
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }
    Ok(())
}

/// The operation, once.
pub fn once(op: Op, path: &Path) -> Result<()> {
    match op {
        Op::OpenClose => fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map(drop)
            .with_context(|| format!("cannot open `{}`", path.display())),
        Op::CreateUnlink => {
            create(path)?;
            fs::unlink(path).with_context(|| format!("cannot remove `{}`", path.display()))
        }
    }
}

/// A new file.
pub fn create(path: &Path) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::RUSR | Mode::WUSR)
        .map(drop)
        .with_context(|| format!("cannot create `{}`", path.display()))
}
