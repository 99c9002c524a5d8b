//! `cargo xtask setup`: all that building and trying agentwatch needs and a machine may lack.
//!
//! Each step does nothing if there is nothing to do, and the other commands call the steps that
//! they need, so nobody has to run this first.

pub mod bpf_linker;
pub mod packages;
pub mod python;
pub mod rust_src;

use anyhow::Result;

use crate::cmd::say;
use crate::vm;

/// Install what building and testing need: bpf-linker, core's source, QEMU, kernels, images.
#[derive(clap::Args)]
pub struct Args {
    /// Only what building needs: no QEMU, no kernels.
    #[arg(long)]
    build_only: bool,
}

/// Runs every step.
///
/// # Errors
/// Those of the step that fails.
pub fn main(args: &Args) -> Result<()> {
    for_build()?;
    if !args.build_only {
        for_vm()?;
        vm::prepare_all()?;
    }
    say("setup: everything is in place");
    Ok(())
}

/// What building agentwatch needs.
///
/// # Errors
/// Those of the step that fails.
pub fn for_build() -> Result<()> {
    rust_src::ensure()?;
    bpf_linker::ensure()
}

/// What virtual machines need.
///
/// # Errors
/// Those of the step that fails.
pub fn for_vm() -> Result<()> {
    packages::ensure()
}
