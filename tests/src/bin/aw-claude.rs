//! Installs the real agent of the live tests into a folder that guests can share: see [`tests::claude`].

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;

/// Installs Claude Code with npm, unless it is there, and prints the path of its program.
#[derive(Parser)]
struct Args {
    /// Folder for it; about 360 MiB
    dir: PathBuf,
}

fn main() -> Result<()> {
    let program = tests::claude::install(&Args::parse().dir)?;
    writeln!(std::io::stdout(), "{}", program.display()).context("standard output is closed")
}
