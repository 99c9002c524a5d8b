//! `cargo xtask vm`: Debian kernels with a Debian userland, in QEMU, for one command each.

mod build;
mod initramfs;
mod kernel;
mod qemu;
mod rootfs;
mod run;
mod share;
mod soak;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub use build::{agentwatch as build_agentwatch, static_build};
pub use kernel::SERIES;
pub use run::{Captured, Sinks, TIMED_OUT, capture, run, run_counted, run_into};

/// A guest and its command.
#[derive(Debug, Clone)]
pub struct VmSpec {
    /// The kernel's series, one of [`SERIES`].
    pub kernel: String,
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory.
    pub memory_mb: u32,
    /// Whether the guest's time counts instructions, a nanosecond each, of all its CPUs together.
    pub icount: bool,
    /// Debian packages beside the usual ones.
    pub packages: Vec<String>,
    /// Folders to be seen at `/share/NAME`.
    pub shares: Vec<PathBuf>,
    /// Where the guest's `/out` goes.
    pub out: Option<PathBuf>,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// How long the guest may live.
    pub timeout: Duration,
    /// The agentwatch program, or a folder of programs, to put on PATH.
    pub agentwatch: Option<PathBuf>,
    /// Whether to look for a newer kernel and build the image again.
    pub refresh: bool,
}

impl Default for VmSpec {
    fn default() -> Self {
        Self {
            kernel: "6.1".to_owned(),
            cpus: 2,
            memory_mb: 2048,
            icount: false,
            packages: Vec::new(),
            shares: Vec::new(),
            out: None,
            command: Vec::new(),
            timeout: Duration::from_secs(1200),
            agentwatch: None,
            refresh: false,
        }
    }
}

impl VmSpec {
    fn check(&self) -> Result<()> {
        if self.command.is_empty() {
            bail!("no command is given for the guest: put one after `--`");
        }
        if self.command.iter().any(|word| word.contains('\0')) {
            bail!("a word of the command holds a NUL byte, which no program can be given");
        }
        let mut names = Vec::new();
        for shared in &self.shares {
            let name = share::name(shared)?;
            if names.contains(&name) {
                bail!("two shared folders have the name {name}: both would be /share/{name} in the guest");
            }
            names.push(name);
        }
        Ok(())
    }
}

/// Run commands in virtual machines.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: VmCommand,
}

#[derive(clap::Subcommand)]
enum VmCommand {
    /// Boot Debian's kernel of a series and run a command as root; the exit status is the command's.
    Run(RunArgs),
    /// Boot many times and report the failures.
    Soak(soak::Args),
}

#[derive(clap::Args)]
struct RunArgs {
    /// The kernel's series.
    #[arg(long, value_parser = SERIES)]
    kernel: String,
    /// Number of CPUs [default: 2, or 1 with --icount].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: Option<u32>,
    /// Memory of the guest, in MiB.
    #[arg(long = "memory", value_name = "MB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(256..))]
    memory_mb: u32,
    /// Let the guest's time count instructions (of all CPUs together), for measurements.
    #[arg(long)]
    icount: bool,
    /// Debian packages to have beside the usual ones; each set is an image of its own.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    packages: Vec<String>,
    /// A folder to be seen, read-only, at /share/NAME.
    #[arg(long = "share", value_name = "DIR")]
    shares: Vec<PathBuf>,
    /// Where to put what the command leaves in /out.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How long the guest may live; then it is killed, and the exit status is 124.
    #[arg(long, value_name = "SECONDS", default_value_t = 1200)]
    timeout: u64,
    /// Do not build agentwatch and put it on PATH.
    #[arg(long)]
    no_agentwatch: bool,
    /// Look for a newer kernel of the series, and build the root image again.
    #[arg(long)]
    refresh: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Runs the subcommand; gives the exit status to end with.
///
/// # Errors
/// If a guest cannot be made, or dies.
pub fn main(args: &Args) -> Result<i32> {
    match &args.command {
        VmCommand::Run(args) => run(&args.spec()?),
        VmCommand::Soak(args) => soak::main(args),
    }
}

impl RunArgs {
    fn agentwatch(&self) -> Result<Option<PathBuf>> {
        if self.no_agentwatch {
            return Ok(None);
        }
        build_agentwatch()
            .map(Some)
            .context("agentwatch does not build (--no-agentwatch runs the guest without it)")
    }

    fn spec(&self) -> Result<VmSpec> {
        Ok(VmSpec {
            kernel: self.kernel.clone(),
            cpus: self.cpus.unwrap_or(if self.icount { 1 } else { 2 }),
            memory_mb: self.memory_mb,
            icount: self.icount,
            packages: self.packages.clone(),
            shares: self.shares.clone(),
            out: self.out.clone(),
            command: self.command.clone(),
            timeout: Duration::from_secs(self.timeout),
            agentwatch: self.agentwatch()?,
            refresh: self.refresh,
        })
    }
}

/// Fetches every kernel and builds the usual image.
///
/// # Errors
/// If one of them cannot be had.
pub fn prepare_all() -> Result<()> {
    prepare(&SERIES, &[])
}

/// Fetches these kernels and builds the image with these packages added to the usual ones.
///
/// # Errors
/// If one of them cannot be had.
pub fn prepare(kernels: &[impl AsRef<str>], packages: &[String]) -> Result<()> {
    rootfs::get(packages, false)?;
    kernels.iter().try_for_each(|series| kernel::Kernel::get(series.as_ref(), false).map(drop))
}
