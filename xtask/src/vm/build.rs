//! The programs that go into guests, built static: a guest's libraries need not be ours.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache;
use crate::cmd::{self, say};
use crate::paths;
use crate::setup;

/// Whose static binaries run on every guest and every host.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What the guest's PID 1 is made of.
const VM_INIT: [&str; 6] = [
    include_str!("../../Cargo.toml"),
    include_str!("../job.rs"),
    include_str!("../vm_init/machine.rs"),
    include_str!("../vm_init/main.rs"),
    include_str!("../vm_init/pump.rs"),
    include_str!("../vm_init/supervise.rs"),
];

/// Gives the guest's PID 1, built if the cache lacks the one of these sources: so that a guest need
/// not wait for another cargo at work in the same target folder.
///
/// # Errors
/// If it does not build.
pub fn vm_init() -> Result<PathBuf> {
    let place = paths::cache_dir("vm-init")?.join(cache::key(&VM_INIT));
    cache::once(&place, "the guests' PID 1", |partial| {
        say("vm: building the guests' PID 1");
        // Without the host's part there is little to build.
        cargo(&["--package", "xtask", "--bin", "vm-init", "--no-default-features"])?;
        let program = built("vm-init");
        fs::copy(&program, partial).with_context(|| format!("cannot copy {}", program.display()))?;
        Ok(())
    })
}

/// Builds agentwatch, with its kernel programs inside, and gives its file.
///
/// # Errors
/// If what building needs cannot be had, or it does not build.
pub fn agentwatch() -> Result<PathBuf> {
    setup::for_build()?;
    cargo(&["--package", "agentwatch"])?;
    Ok(built("agentwatch"))
}

fn cargo(arguments: &[&str]) -> Result<()> {
    cmd::watched(static_build()?.arg("--quiet").args(arguments))
}

/// `cargo build` for static release programs, without saying which.
///
/// # Errors
/// If PATH cannot be made.
pub fn static_build() -> Result<Command> {
    let mut cargo = cmd::cargo()?;
    cargo.args(["build", "--release", "--target", TARGET]);
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static").env_remove("CARGO_ENCODED_RUSTFLAGS");
    Ok(cargo)
}

fn built(program: &str) -> PathBuf {
    paths::target_dir().join(TARGET).join("release").join(program)
}
