//! Installs the real agents of the live tests into a folder that guests can share: see [`tests::agents`].

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

/// Installs Claude Code, Codex CLI and Gemini CLI with npm, unless they are there.
#[derive(Parser)]
struct Args {
    /// Folder for them; about 900 MiB
    dir: PathBuf,
}

fn main() -> Result<()> {
    tests::agents::install(&Args::parse().dir)
}
