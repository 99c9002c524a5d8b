//! `agentwatch hook`: what harnesses call by their own hooks, and how it gets into their settings.

mod claude_code;
mod settings;

use std::io::{self, Read as _};
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use crate::control::Client;
use crate::control::tool::{ToolBody, ToolView};
use crate::exit;
use crate::output::escape::escape;
use crate::paths::Paths;

/// Bytes of what a harness gives its hook. Past it it is not told.
const INPUT_BYTES: u64 = 64 << 20;

/// Tell of an agent's tool calls, as its harness's own hooks do
#[derive(Clone, Debug, Args)]
pub struct HookArgs {
    #[command(subcommand)]
    command: HookCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum HookCommand {
    /// Called by Claude Code's hooks: reads what it gives, and gives back what was refused
    ClaudeCode,
    Install(SettingsArgs),
    Remove(SettingsArgs),
}

/// Put the hooks into a harness's settings, or take them out: the difference is shown first
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  agentwatch hook install claude-code               shows what would change
  agentwatch hook install claude-code --yes         and changes it
  agentwatch hook remove claude-code --yes

The settings are ~/.claude/settings.json, or those of --settings. What they were is kept beside them
(settings.json.before-agentwatch). Events of the agent's sessions then have tool_call and prompt_id, and
what is refused is told to the agent in the tool's result.

Exit codes: 0 done, or nothing to do, 1 failed, 2 usage, 3 shown and not changed.")]
pub struct SettingsArgs {
    /// Whose settings
    #[arg(value_enum, value_name = "HARNESS")]
    pub harness: Harness,
    /// Change them
    #[arg(long)]
    pub yes: bool,
    /// The file
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
}

/// A harness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Harness {
    /// Claude Code
    ClaudeCode,
}

/// Runs the command; gives its exit code. A hook's own is always 0: what goes wrong with it does not break the agent.
///
/// # Errors
/// The settings cannot be read or written.
pub fn run(args: &HookArgs, paths: &Paths) -> anyhow::Result<u8> {
    match &args.command {
        HookCommand::ClaudeCode => {
            if let Err(error) = claude_code(paths) {
                eprintln!("agentwatch: {}", escape(&error.to_string()));
            }
            Ok(exit::DONE)
        }
        HookCommand::Install(args) => settings::install(args),
        HookCommand::Remove(args) => settings::remove(args),
    }
}

fn claude_code(paths: &Paths) -> anyhow::Result<()> {
    let mut text = Vec::new();
    io::stdin().lock().take(INPUT_BYTES).read_to_end(&mut text)?;
    let input: Value = serde_json::from_slice(&text)?;
    let Some(body) = claude_code::body(&input) else { return Ok(()) };
    let is_end = matches!(body, ToolBody::End(_));
    let view = Client::new(paths).tool(&body)?;
    if let Some(answer) = claude_code::answer(&input, &view).filter(|_| is_end) {
        println!("{answer}");
    }
    Ok(())
}

/// What was refused, in sentences for the agent and its user; nothing where nothing was.
fn sentence(view: &ToolView) -> Option<String> {
    if view.refused.is_empty() {
        return None;
    }
    let one = |refused: &crate::control::tool::RefusedView| {
        let rule = refused.rule.as_deref().map(|rule| format!(", rule `{rule}`")).unwrap_or_default();
        let reason = refused.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        format!("{}{rule}{reason}", refused.what)
    };
    let all: Vec<String> = view.refused.iter().map(one).collect();
    let more = view.refusals.saturating_sub(all.len() as u64);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    Some(format!(
        "agentwatch refused {} of what this tool call tried: {}{more}. This is the policy of this host and not an error: do \
         not look for another way; tell your user, who can ask the policy's owner.",
        view.refusals,
        all.join("; ")
    ))
}
