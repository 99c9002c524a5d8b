//! `agentwatch policy`: what a policy says, checked and tried without a daemon; what is in force.

mod apply;
mod check;
mod diff;
mod explain;
mod explain_event;
mod schema;
mod show;
mod simulate;
mod test;
mod view;

use std::path::Path;

use clap::{Args, Subcommand};

use crate::event::time::now_ns;
use crate::paths::Paths;
use crate::policy::{Context, Diagnostic, Policy, Problems, Users, load};

/// Check a policy, test it, try it on the past, ask what it decides and why, compare two; bring one into force, show it
#[derive(Clone, Debug, Args)]
pub struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum PolicyCommand {
    Check(check::CheckArgs),
    Apply(apply::ApplyArgs),
    Show(show::ShowArgs),
    Test(test::TestArgs),
    Explain(explain::ExplainArgs),
    Diff(diff::DiffArgs),
    Simulate(simulate::SimulateArgs),
    Schema(schema::SchemaArgs),
}

/// Runs the command; gives its exit code.
///
/// # Errors
/// The policy is refused, or the answer cannot be written.
pub fn run(args: &PolicyArgs, paths: &Paths) -> anyhow::Result<u8> {
    match &args.command {
        PolicyCommand::Check(args) => check::run(args),
        PolicyCommand::Apply(args) => apply::run(args, paths),
        PolicyCommand::Show(args) => show::run(args, paths),
        PolicyCommand::Test(args) => test::run(args),
        PolicyCommand::Explain(args) => explain::run(args, paths),
        PolicyCommand::Diff(args) => diff::run(args),
        PolicyCommand::Simulate(args) => simulate::run(args, paths),
        PolicyCommand::Schema(_) => schema::run(),
    }
}

/// Reads a policy with this host's users.
fn read(path: &Path) -> Result<(Policy, Vec<Diagnostic>), Problems> {
    // Without the file nobody is known: each user of the policy is told of then.
    let users = Users::read(Path::new("/etc/passwd")).unwrap_or_default();
    load(path, Context { users: &users, now_ns: now_ns() })
}
