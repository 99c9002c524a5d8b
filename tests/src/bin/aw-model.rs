//! The scripted model server as a program, for trying agents by hand: see [`tests::model_server`].

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use tests::model_server::{ModelServer, Script};

/// Plays Anthropic's Messages API on loopback from a script, and prints its address as JSON.
#[derive(Parser)]
struct Args {
    /// JSON file with the assistant's turns: {"turns": [{"text", "tools": [{"name", "input"}]}]}
    #[arg(long)]
    script: PathBuf,
    /// File to which each request is appended as a line of JSON
    #[arg(long)]
    record: PathBuf,
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let server = ModelServer::start(Script::read(&args.script)?, &args.record, args.port)?;
    let line = serde_json::json!({"url": server.url()});
    writeln!(std::io::stdout(), "{line}").context("standard output is closed")?;
    server.wait();
    Ok(())
}
