//! The commands: one file each.

pub mod agents;
pub mod blame;
pub mod doctor;
pub mod events;
pub mod exec;
pub mod failure;
pub mod hook;
pub mod intent;
pub mod policy;
pub mod print;
pub mod run;
pub mod slo;
pub mod table;
pub mod tree;

use clap::{Parser, Subcommand};

use crate::{exit, paths::Paths, selftest};

/// See what AI agents do on this host, attribute it to them, follow it
#[derive(Debug, Parser)]
#[command(name = "agentwatch", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    paths: Paths,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Exec(exec::ExecArgs),
    Events(events::EventsArgs),
    Agents(agents::AgentsArgs),
    Tree(tree::TreeArgs),
    Policy(policy::PolicyArgs),
    Intent(intent::IntentArgs),
    Slo(slo::SloArgs),
    Blame(blame::BlameArgs),
    Hook(hook::HookArgs),
    Doctor(doctor::DoctorArgs),
    /// The part of the self-test that tries what is forbidden: the daemon starts it
    #[command(name = selftest::canary::COMMAND, hide = true)]
    Canary {
        /// An empty folder
        folder: std::path::PathBuf,
    },
}

impl Cli {
    /// Runs the command; gives its exit code.
    ///
    /// # Errors
    /// What went wrong, in a sentence.
    pub fn run(&self) -> anyhow::Result<u8> {
        match &self.command {
            Command::Run(args) => run::run(args, &self.paths),
            Command::Exec(args) => exec::run(args, &self.paths),
            Command::Events(args) => events::run(args, &self.paths),
            Command::Agents(args) => agents::run(args, &self.paths),
            Command::Tree(args) => tree::run(args, &self.paths),
            Command::Policy(args) => policy::run(args, &self.paths),
            Command::Intent(args) => intent::run(args, &self.paths),
            Command::Hook(args) => hook::run(args, &self.paths),
            Command::Slo(args) => slo::run(args, &self.paths),
            Command::Blame(args) => blame::run(args, &self.paths),
            Command::Doctor(args) => doctor::run(args, &self.paths),
            Command::Canary { folder } => {
                selftest::canary::sing(folder)?;
                Ok(exit::DONE)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn options_of_commands_and_those_of_all_do_not_meet() {
        Cli::command().debug_assert();
        for words in [
            &["intent", "declare", "--run", "make*", "--exec", "/usr/bin/make", "--plan", "x"][..],
            &["slo", "--by", "session", "--since", "1h"],
            &["policy", "explain", "--event", "last", "--session", "a"],
            &["intent", "check", "int-1", "--failed"],
            &["blame", "/etc/cron.d/x", "--limit", "3"],
            &["blame", "--socket", "[::1]:5432", "-o", "json"],
        ] {
            let words = ["agentwatch", "--run-dir", "/r", "--state", "/s"].iter().chain(words);
            let parsed = Cli::try_parse_from(words);
            assert!(parsed.is_ok_and(|cli| cli.paths.run == std::path::Path::new("/r")));
        }
    }
}
