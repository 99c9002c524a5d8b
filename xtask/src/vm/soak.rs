//! `cargo xtask vm soak`: is booting dependable?

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{SERIES, Sinks, VmSpec, run_counted};
use crate::cmd::say;

/// How long one boot may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// The subcommand's arguments.
#[derive(clap::Args)]
pub struct Args {
    /// The kernel's series.
    #[arg(long, value_parser = SERIES)]
    kernel: String,
    /// How many times to run.
    #[arg(long, default_value_t = 100)]
    boots: u32,
    /// Number of CPUs.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
}

/// Boots, runs a command that exercises processes and disk, and counts what went wrong: each as `vm run` does it, and
/// how often that had to boot a second time.
///
/// # Errors
/// None: a failed run is counted.
pub fn main(args: &Args) -> Result<i32> {
    let spec = VmSpec {
        kernel: args.kernel.clone(),
        cpus: args.cpus,
        timeout: PATIENCE,
        command: ["python3", "-c", EXERCISE].map(str::to_owned).to_vec(),
        ..VmSpec::default()
    };
    let (start, mut failures, mut second_boots) = (Instant::now(), 0, 0);
    for boot in 1..=args.boots {
        match run_counted(&spec, &Sinks::own) {
            Ok((0, boots)) => {
                second_boots += boots - 1;
                continue;
            }
            Ok((code, _)) => say(&format!("soak: boot {boot} ended with {code}")),
            Err(error) => say(&format!("soak: boot {boot}: {error:#}")),
        }
        failures += 1;
    }
    let mean = start.elapsed().as_secs_f64() / f64::from(args.boots.max(1));
    say(&format!(
        "soak: {failures} of {} runs on {} failed, {second_boots} took a second boot; {mean:.1} s each",
        args.boots, args.kernel
    ));
    Ok(i32::from(failures > 0))
}

const EXERCISE: &str = "
import os, subprocess, threading
threads = [threading.Thread(target=subprocess.check_call, args=(['true'],)) for _ in range(20)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
for number in range(200):
    with open('/tmp/%d' % number, 'w') as file:
        file.write('x' * 5000)
os.sync()
";
