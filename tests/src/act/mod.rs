//! The scripted actor: does one kind of thing and says what it did.
//!
//! Everything that it does in its folder is in its list, the making of what it needs included, so that a test
//! can ask for equality. What it needs elsewhere (loader, `/proc`) is outside that folder.

mod bench;
mod delegate;
mod file;
mod guard;
mod io_uring;
mod load;
mod mount;
mod names;
mod net;
mod ops;
mod process;
mod record;
mod spawn;
mod thread;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

pub use record::Recorder;

/// Does one kind of thing, and prints as JSON what it did.
#[derive(Parser)]
#[command(name = "aw-act")]
struct Args {
    /// Folder to work in; it must exist
    #[arg(long, default_value = ".", global = true)]
    dir: PathBuf,
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand)]
enum Act {
    /// Nothing at all, and silently
    Noop,
    #[command(flatten)]
    Process(process::Act),
    #[command(flatten)]
    Thread(thread::Act),
    #[command(flatten)]
    File(file::Act),
    #[command(flatten)]
    Names(names::Act),
    #[command(flatten)]
    Mount(mount::Act),
    #[command(flatten)]
    Net(net::Act),
    #[command(flatten)]
    IoUring(io_uring::Act),
    #[command(flatten)]
    Load(load::Act),
    #[command(flatten)]
    Guard(guard::Act),
    #[command(flatten)]
    Bench(bench::Act),
    #[command(flatten)]
    Delegate(delegate::Act),
}

/// The program.
///
/// # Errors
/// If something could not be done: then nothing is printed, since nothing can be compared.
pub fn main() -> Result<ExitCode> {
    // Started very often by other acts: it must do next to nothing.
    if std::env::args_os().nth(1).is_some_and(|word| word == "noop") {
        return Ok(ExitCode::SUCCESS);
    }
    let args = Args::parse();
    // Modes then are as given.
    rustix::process::umask(rustix::fs::Mode::empty());
    let dir = args.dir.canonicalize().with_context(|| format!("no folder `{}`", args.dir.display()))?;
    let recorder = Recorder::new(dir);
    let end = match args.act {
        Act::Noop => End::Success,
        Act::Process(act) => act.run(&recorder)?,
        Act::Thread(act) => act.run(&recorder).map(|()| End::Success)?,
        Act::File(act) => act.run(&recorder).map(|()| End::Success)?,
        Act::Names(act) => act.run(&recorder).map(|()| End::Success)?,
        Act::Mount(act) => act.run(&recorder).map(|()| End::Success)?,
        Act::Net(act) => act.run(&recorder).map(|()| End::Success)?,
        Act::IoUring(act) => act.run(&recorder).map(|()| End::Success)?,
        Act::Load(act) => act.run(&recorder).map(|()| End::Success)?,
        Act::Guard(act) => act.run(&recorder).map(|()| End::Success)?,
        Act::Bench(act) => act.run(&recorder).map(|()| End::Success)?,
        Act::Delegate(act) => act.run().map(|()| End::Success)?,
    };
    let line = recorder.into_json()?;
    writeln!(std::io::stdout(), "{line}").context("standard output is closed")?;
    end.reach()
}

/// How the actor itself ends after it has spoken.
enum End {
    Success,
    Code(u8),
    Signal(rustix::process::Signal),
}

impl End {
    fn reach(self) -> Result<ExitCode> {
        match self {
            Self::Success => Ok(ExitCode::SUCCESS),
            Self::Code(code) => Ok(ExitCode::from(code)),
            Self::Signal(signal) => {
                rustix::process::kill_process(rustix::process::getpid(), signal)
                    .context("cannot signal itself")?;
                anyhow::bail!("signal {} did not end it", signal.as_raw())
            }
        }
    }
}
