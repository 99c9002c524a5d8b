//! Live tests: what agents do in a virtual machine, and what the log says of it.
//!
//! They need root, a kernel that agentwatch can observe, and `agentwatch` and `aw-act` on PATH:
//! `cargo xtask test` runs them. One daemon observes a machine, so they run one after the other.

mod agent;
mod attribution;
mod bad_input;
mod bindings;
mod calls;
mod catalogue_escape;
mod catalogue_exec;
mod catalogue_files;
mod catalogue_network;
mod caused;
mod changes;
mod contract;
mod delegates;
mod docker;
mod enforcement;
mod failures;
mod files;
mod guards;
mod handed;
mod harnesses;
mod intents;
mod jobs;
mod later;
mod load;
mod losses;
mod managers;
mod mcp;
mod names;
mod nested;
mod network;
mod other_names;
mod otlp;
mod outsiders;
mod paths;
mod policies;
mod postgres;
mod processes;
mod properties;
mod recognition;
mod restarts;
mod sockets;
mod standing;
mod unloaded;

use anyhow::Result;
use tests::compare::{same_acts, same_processes};
use tests::daemon::Shared;

/// Runs an act as a session and checks that the log tells all of it and nothing else.
fn told_exactly(args: &[&str]) -> Result<()> {
    Shared::with(|daemon| {
        let run = daemon.act(args)?;
        same_processes(&run)?;
        same_acts(&run)
    })
}

/// Makes a test of each act.
macro_rules! exact {
    ($($(#[$meta:meta])* $name:ident: $args:expr,)*) => {
        $($(#[$meta])* #[test] fn $name() -> anyhow::Result<()> { $crate::told_exactly(&$args) })*
    };
}
use exact;
