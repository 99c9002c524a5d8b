//! `cargo xtask demo`: the main job, before one's eyes.

mod here;
mod place;

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cmd::say;
use crate::paths;
use crate::programs::{Program, Programs};
use crate::vm::{self, VmSpec};
use place::{Facts, Place};

/// Watch an agent at work: start the daemon, an agent, and show the log as it grows.
#[derive(clap::Args)]
pub struct Args {
    /// In a virtual machine, whatever this host can do.
    #[arg(long, conflicts_with = "host")]
    vm: bool,
    /// On this host, or not at all.
    #[arg(long)]
    host: bool,
    /// The kernel's series, in a virtual machine.
    #[arg(long, default_value = "6.12", value_parser = vm::SERIES, conflicts_with = "host")]
    kernel: String,
    /// Here, with the programs on PATH: what runs in the virtual machine.
    #[arg(long, hide = true)]
    here: bool,
}

/// How long the guest may live.
const PATIENCE: Duration = Duration::from_secs(600);

/// Shows it; gives the exit status to end with.
///
/// # Errors
/// If it cannot be shown.
pub fn main(args: &Args) -> Result<i32> {
    if args.here {
        return here::show().map(|()| 0);
    }
    match place::choose(&Facts::gather()) {
        Place::Host if !args.vm => {
            say("demo: on this host: it has BTF and the BPF LSM, and you are root");
            on_host()
        }
        Place::Vm { reason } if args.host => bail!("the demo cannot run on this host: {reason}"),
        Place::Vm { reason } if !args.vm => {
            say(&format!("demo: in a virtual machine, since {reason}"));
            in_vm(&args.kernel)
        }
        _ => {
            say("demo: in a virtual machine, as asked");
            in_vm(&args.kernel)
        }
    }
}

fn on_host() -> Result<i32> {
    let programs = Programs::build(&[Program::Agentwatch, Program::Xtask])?;
    let mut folders = vec![programs.folder().to_owned()];
    folders.extend(std::env::split_paths(&paths::search_path()?));
    let path = std::env::join_paths(folders).context("PATH cannot be extended")?;
    let mut show = Command::new(programs.folder().join(Program::Xtask.name()));
    let status = show.args(["demo", "--here"]).env("PATH", path).status().context("cannot start the demo")?;
    Ok(status.code().unwrap_or(1))
}

fn in_vm(kernel: &str) -> Result<i32> {
    let programs = Programs::build(&[Program::Agentwatch, Program::Xtask])?;
    vm::run(&VmSpec {
        kernel: kernel.to_owned(),
        command: ["xtask", "demo", "--here"].map(str::to_owned).to_vec(),
        timeout: PATIENCE,
        agentwatch: Some(programs.folder().to_owned()),
        ..VmSpec::default()
    })
}
