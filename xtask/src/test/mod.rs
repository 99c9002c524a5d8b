//! `cargo xtask test`: everything that says whether this tree is good, on a machine that has only Rust.

mod host;
mod libtest;
mod live;
mod summary;

use std::ops::AddAssign;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::cmd::say;
use crate::programs::{Program, Programs};
use crate::{setup, vm};

/// Check format and lints, run the unit tests, and the live tests on every kernel.
#[derive(clap::Args)]
pub struct Args {
    /// Only this kernel series; may be given several times [default: all].
    #[arg(long = "kernel", value_name = "SERIES", value_parser = vm::SERIES)]
    kernels: Vec<String>,
    /// Only what needs no virtual machine.
    #[arg(long, conflicts_with_all = ["kernels", "live"])]
    no_vm: bool,
    /// Only the live tests whose name holds this, and nothing else.
    #[arg(long, value_name = "FILTER")]
    live: Option<String>,
    /// How many virtual machines run at a time.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=4))]
    jobs: u32,
    /// How long the live tests of one kernel may take, in seconds.
    #[arg(long, default_value_t = 2700)]
    timeout: u64,
}

/// What the guests have on PATH.
const PROGRAMS: [Program; 5] =
    [Program::Agentwatch, Program::Act, Program::Model, Program::Agents, Program::Live];

/// How many tests ended how.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Passed.
    pub passed: u64,
    /// Failed.
    pub failed: u64,
    /// Not run on purpose.
    pub skipped: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// One part of the work and how it ended.
#[derive(Debug)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Its tests; a check without tests counts as one.
    pub counts: Counts,
    /// How long it took.
    pub took: Duration,
    /// Why it failed, one sentence or name each.
    pub failures: Vec<String>,
}

impl Part {
    /// Does a check that has no tests of its own.
    fn check(name: &str, check: impl FnOnce() -> Result<()>) -> Self {
        say(&format!("\n== {name}"));
        let start = Instant::now();
        let (counts, failures) = match check() {
            Ok(()) => (Counts { passed: 1, ..Counts::default() }, Vec::new()),
            Err(error) => (Counts { failed: 1, ..Counts::default() }, vec![format!("{error:#}")]),
        };
        Self { name: name.to_owned(), counts, took: start.elapsed(), failures }
    }

    /// Whether all went well, and something went at all.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.counts.failed == 0 && self.counts.passed > 0 && self.failures.is_empty()
    }
}

/// Runs all that was asked for; gives the exit status to end with.
///
/// # Errors
/// If there is no result to speak of: what fails is part of the result.
pub fn main(args: &Args) -> Result<i32> {
    let start = Instant::now();
    let mut parts = Vec::new();
    let kernels = args.kernels();
    thread::scope(|scope| {
        // Mostly waiting for the network and one CPU: beside the builds it costs little time.
        let images = (!args.no_vm)
            .then(|| scope.spawn(|| setup::for_vm().and_then(|()| vm::prepare(&kernels, &live::packages()))));
        if args.live.is_none() {
            parts.extend(host::checks());
        }
        let Some(images) = images else { return };
        let mut programs = None;
        parts.push(Part::check("programs for the guests", || {
            programs = Some(Programs::build(&PROGRAMS)?);
            Ok(())
        }));
        parts.push(Part::check("the real agents", || live::install_agents(programs.as_ref())));
        parts.push(Part::check("OpenTelemetry's SDK", || setup::python::ensure_otel().map(drop)));
        parts.push(Part::check("kernels and images", || {
            images.join().unwrap_or_else(|_| Err(anyhow!("their preparation panicked; its message is above")))
        }));
        if let Some(programs) = programs {
            parts.extend(live::run(args, &kernels, &programs));
        }
    });
    summary::print(&parts, start.elapsed())?;
    Ok(i32::from(!parts.iter().all(Part::is_good)))
}

impl Args {
    fn kernels(&self) -> Vec<String> {
        if self.kernels.is_empty() { vm::SERIES.map(str::to_owned).to_vec() } else { self.kernels.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_without_any_test_is_not_good() {
        let part = |passed, failed| Part {
            name: String::new(),
            counts: Counts { passed, failed, skipped: 0 },
            took: Duration::ZERO,
            failures: Vec::new(),
        };
        assert!(part(1, 0).is_good());
        assert!(!part(0, 0).is_good());
        assert!(!part(1, 1).is_good());
    }
}
