//! `agentwatch hook`: what harnesses call by their own hooks, and how it gets into their settings.

mod claude_code;
mod codex;
mod gemini;
mod mcp;
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
    /// Called by Codex CLI's hooks, in the same way
    Codex,
    /// Called by Gemini CLI's hooks, in the same way
    Gemini,
    Mcp(mcp::McpArgs),
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
  agentwatch hook install codex --yes
  agentwatch hook install gemini --yes

The settings are ~/.claude/settings.json, hooks.json in $CODEX_HOME or ~/.codex, ~/.gemini/settings.json, or
those of --settings. What they were is kept beside them (FILE.before-agentwatch). Events of the agent's sessions then have tool_call and prompt_id, and
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
    /// Codex CLI, version 0.124 or later
    Codex,
    /// Gemini CLI, version 0.26 or later
    Gemini,
}

/// Runs the command; gives its exit code. A hook's own is always 0: what goes wrong with it does not break the agent.
///
/// # Errors
/// The settings cannot be read or written.
pub fn run(args: &HookArgs, paths: &Paths) -> anyhow::Result<u8> {
    match &args.command {
        HookCommand::ClaudeCode => Ok(called(Harness::ClaudeCode, paths)),
        HookCommand::Codex => Ok(called(Harness::Codex, paths)),
        HookCommand::Gemini => Ok(called(Harness::Gemini, paths)),
        HookCommand::Mcp(args) => mcp::run(args, paths),
        HookCommand::Install(args) => settings::install(args),
        HookCommand::Remove(args) => settings::remove(args),
    }
}

/// What goes wrong is said, and breaks nothing.
fn called(by: Harness, paths: &Paths) -> u8 {
    if let Err(error) = pass_on(by, paths) {
        eprintln!("agentwatch: {}", escape(&error.to_string()));
    }
    exit::DONE
}

fn pass_on(by: Harness, paths: &Paths) -> anyhow::Result<()> {
    let mut text = Vec::new();
    io::stdin().lock().take(INPUT_BYTES).read_to_end(&mut text)?;
    let input: Value = serde_json::from_slice(&text)?;
    let body = match by {
        Harness::ClaudeCode => claude_code::body(&input),
        Harness::Codex => codex::body(&input),
        Harness::Gemini => gemini::body(&input),
    };
    let Some(body) = body else { return Ok(()) };
    let is_end = matches!(body, ToolBody::End(_));
    let view = Client::new(paths).tool(&body)?;
    let answer = match by {
        // Codex reads the same.
        Harness::ClaudeCode | Harness::Codex => claude_code::answer(&input, &view),
        Harness::Gemini => gemini::answer(&input, &view),
    };
    if let Some(answer) = answer.filter(|_| is_end) {
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
