//! The programs that go into guests, built static: a guest's libraries need not be ours.

use std::path::PathBuf;

use anyhow::Result;

use crate::cmd;
use crate::paths;
use crate::setup;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the guest's PID 1 and gives its file.
///
/// # Errors
/// If it does not build.
pub fn vm_init() -> Result<PathBuf> {
    // Without the host's part there is little to build.
    cargo(&["--package", "xtask", "--bin", "vm-init", "--no-default-features"])?;
    Ok(built("vm-init"))
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
    let mut cargo = cmd::command("cargo")?;
    cargo.args(["build", "--quiet", "--release", "--target", TARGET]).args(arguments);
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static").env_remove("CARGO_ENCODED_RUSTFLAGS");
    // `cargo run` tells us about ourselves; the build scripts of others must not believe it is for them.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_PKG_"))
    {
        cargo.env_remove(name);
    }
    cmd::watched(cargo.current_dir(paths::workspace()))
}

fn built(program: &str) -> PathBuf {
    paths::target_dir().join(TARGET).join("release").join(program)
}
