//! `cargo xtask bench`: what agentwatch costs, in instructions of a guest, beside what auditd costs.
//!
//! The host boots guests and prints the tables; this same program measures inside them, and says what it
//! found as one JSON object a line.

mod audit;
mod binding;
mod clock;
mod cost;
mod large;
mod load;
mod log;
mod memory;
mod report;
mod rules;

use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::cmd::say;
use crate::programs::{Program, Programs};
use crate::vm::{self, Sinks, VmSpec};

/// The policy of the benchmarks: one agent that exists only by `agentwatch exec`.
const POLICY: &str = "version: 1\nagents:\n  bench: {owner: bench@example.com}\n";
/// How long a guest may measure: everything is emulated.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Measure what agentwatch costs, beside auditd, in virtual machines.
#[derive(clap::Args)]
pub struct Args {
    /// The kernel's series.
    #[arg(long, default_value = "6.1", value_parser = vm::SERIES)]
    kernel: String,
    /// Fewer repetitions: rougher figures, sooner.
    #[arg(long)]
    quick: bool,
    /// Only this part.
    #[arg(long, value_enum)]
    only: Option<Measure>,
    /// What is measured here, within a guest.
    #[arg(long, hide = true, value_enum, conflicts_with = "only")]
    guest: Option<Measure>,
}

/// What is measured in one guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Measure {
    /// Instructions per operation.
    Cost,
    /// Instructions by the number of rules, and what a large policy takes to come into force.
    Rules,
    /// How soon a binding intent is in force.
    Binding,
    /// Losses under load, and memory.
    Load,
}

/// What a guest found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Found {
    Binding(binding::Binding),
    Cost(cost::Cost),
    Large(large::Large),
    Load(load::Load),
    Memory(memory::Memory),
}

impl Found {
    /// Tells the host, and who watches, as long as there is no table yet.
    fn tell(&self) -> Result<()> {
        step(&report::figure(self));
        let line = serde_json::to_string(self).context("a figure cannot be written as JSON")?;
        writeln!(io::stdout(), "{line}").context("the standard output is closed")
    }
}

/// Measures and prints; gives the exit status to end with, which does not depend on the figures.
///
/// # Errors
/// If something cannot be measured.
pub fn main(args: &Args) -> Result<i32> {
    match args.guest {
        Some(Measure::Cost) => cost::measure(args.quick).map(|()| 0),
        Some(Measure::Rules) => large::measure().and_then(|()| rules::measure(args.quick)).map(|()| 0),
        Some(Measure::Binding) => binding::measure().map(|()| 0),
        Some(Measure::Load) => {
            load::measure(args.quick).and_then(|()| memory::measure(args.quick)).map(|()| 0)
        }
        None => on_host(args).map(|()| 0),
    }
}

fn on_host(args: &Args) -> Result<()> {
    let programs = Programs::build(&[Program::Agentwatch, Program::Act, Program::Xtask])?;
    let (mut found, mut result) = (Vec::new(), Ok(()));
    for measure in [Measure::Cost, Measure::Rules, Measure::Binding, Measure::Load] {
        if args.only.is_none_or(|only| only == measure) && result.is_ok() {
            result = in_guest(args, measure, &programs, &mut found);
        }
    }
    // What was measured before something failed is worth seeing.
    let text = report::text(&args.kernel, &found);
    io::stdout().lock().write_all(text.as_bytes()).context("the standard output is closed")?;
    result
}

fn in_guest(args: &Args, measure: Measure, programs: &Programs, found: &mut Vec<Found>) -> Result<()> {
    let (name, cpus, packages): (_, _, &[&str]) = match measure {
        Measure::Cost => ("cost", 1, &["auditd"]),
        Measure::Rules => ("rules", 1, &["gcc", "libc6-dev", "make"]),
        Measure::Binding => ("binding", 1, &[]),
        Measure::Load => ("load", 2, &[]),
    };
    let mut command: Vec<String> = ["xtask", "bench", "--guest"].map(str::to_owned).to_vec();
    command.push(name.to_owned());
    command.extend(args.quick.then(|| "--quick".to_owned()));
    let spec = VmSpec {
        kernel: args.kernel.clone(),
        cpus,
        // Losses too are counted where time is instructions: what an emulated CPU does in a second of ours says
        // nothing, and would differ with each run.
        icount: true,
        memory_mb: 4096,
        packages: packages.iter().copied().map(str::to_owned).collect(),
        command,
        timeout: PATIENCE,
        agentwatch: Some(programs.folder().to_owned()),
        ..VmSpec::default()
    };
    let stdout = Lines::default();
    let sinks = || Sinks { stdout: Box::new(stdout.clone()), stderr: Box::new(io::stderr()) };
    let ended = vm::run_into(&spec, &sinks);
    let text = stdout.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for line in String::from_utf8_lossy(&text).lines() {
        found
            .push(serde_json::from_str(line).with_context(|| format!("the guest gave no figure: `{line}`"))?);
    }
    let code = ended?;
    if code != 0 {
        bail!("measuring failed in the guest, which ended with {code}; its messages are above");
    }
    Ok(())
}

/// A sink that keeps what comes.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tells the user of a step in the guest.
fn step(text: &str) {
    say(&format!("bench: {text}"));
}
