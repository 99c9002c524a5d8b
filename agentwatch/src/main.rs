//! The `agentwatch` command.

use std::{io::IsTerminal as _, process::ExitCode};

use agentwatch::cli::{Cli, failure};
use clap::Parser as _;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("AGENTWATCH_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false)
        .init();
    let code = Cli::parse().run().unwrap_or_else(|error| failure::report(&error));
    ExitCode::from(code)
}
