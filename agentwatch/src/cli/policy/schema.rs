//! `agentwatch policy schema`: the policy file's form, for editors.

use clap::Args;

use crate::cli::print;
use crate::exit;
use crate::policy::SCHEMA;

/// Print the JSON Schema of the policy file, for editors
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  agentwatch policy schema > ~/.config/agentwatch.schema.json
  then, as the first line of a policy, for editors with yaml-language-server:
    # yaml-language-server: $schema=/home/me/.config/agentwatch.schema.json

The schema knows the form, and not what names and patterns mean: `agentwatch policy check` does.")]
pub struct SchemaArgs {}

/// Runs the command; gives its exit code.
///
/// # Errors
/// The answer cannot be written.
pub fn run() -> anyhow::Result<u8> {
    print::print(SCHEMA)?;
    Ok(exit::DONE)
}
