//! `cargo xtask bless`: golden files as the program writes them now.

use anyhow::{Context, Result};

use crate::cmd::{self, say};

/// Renew the golden files; the difference is then yours to read and commit.
#[derive(clap::Args)]
pub struct Args {
    /// Only the tests whose name holds this.
    filter: Option<String>,
}

/// Tells the golden tests to write instead of to compare: `AGENTWATCH_BLESS=1`.
///
/// # Errors
/// If a test fails all the same.
pub fn main(args: &Args) -> Result<()> {
    let mut tests = cmd::cargo()?;
    tests.args(["test", "--quiet", "--package", "agentwatch"]).args(&args.filter);
    tests.env("AGENTWATCH_BLESS", "1").env("AGENTWATCH_SKIP_EBPF", "1");
    cmd::watched(&mut tests).context("a test fails for another reason than its golden file")?;
    say("bless: done; `git diff` shows what changed");
    Ok(())
}
