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
use crate::control::required;
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
    ClaudeCode(CalledArgs),
    /// Called by Codex CLI's hooks, in the same way
    Codex(CalledArgs),
    /// Called by Gemini CLI's hooks, in the same way
    Gemini(CalledArgs),
    Mcp(mcp::McpArgs),
    Install(SettingsArgs),
    Remove(SettingsArgs),
}

/// What a hook does where nobody can be told.
#[derive(Clone, Copy, Debug, Args)]
struct CalledArgs {
    /// Have the harness stop what it is about to do where agentwatch cannot be told of it (exit code 2)
    #[arg(long)]
    required: bool,
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
  agentwatch hook install claude-code --required --settings /etc/claude-code/managed-settings.json

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
    /// Nothing is done that agentwatch cannot be told of: hooks that fail stop the agent
    #[arg(long)]
    pub required: bool,
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

/// Exit code by which a hook stops what its harness is about to do: the same for all of them.
const STOP: u8 = 2;

/// Runs the command; gives its exit code. A hook's own is 0 where it is not required: what goes wrong with it does not
/// break the agent.
///
/// # Errors
/// The settings cannot be read or written.
pub fn run(args: &HookArgs, paths: &Paths) -> anyhow::Result<u8> {
    match &args.command {
        HookCommand::ClaudeCode(args) => Ok(called(Harness::ClaudeCode, args, paths)),
        HookCommand::Codex(args) => Ok(called(Harness::Codex, args, paths)),
        HookCommand::Gemini(args) => Ok(called(Harness::Gemini, args, paths)),
        HookCommand::Mcp(args) => mcp::run(args, paths),
        HookCommand::Install(args) => settings::install(args),
        HookCommand::Remove(args) => settings::remove(args),
    }
}

/// What goes wrong is said. It breaks nothing, unless that is wanted of what is about to be done.
fn called(by: Harness, args: &CalledArgs, paths: &Paths) -> u8 {
    let (is_ahead, told) = match read(by) {
        Ok(None) => return exit::DONE,
        Ok(Some((input, body))) => {
            (matches!(body, ToolBody::Begin(_) | ToolBody::Prompt { .. }), pass_on(by, &input, &body, paths))
        }
        // What cannot be read may be anything.
        Err(error) => (true, Err(error)),
    };
    let Err(error) = told else { return exit::DONE };
    eprintln!("agentwatch: {}", escape(&error.to_string()));
    if !(is_ahead && (args.required || required::is_required(&paths.run, by.name()))) {
        return exit::DONE;
    }
    eprintln!(
        "This was stopped, since nothing may be done here that agentwatch is not told of. Do not look for another way: tell \
         your user, who can ask whoever is on call for agents on this host."
    );
    STOP
}

/// What the harness gives, and what is to be told of it, if anything.
fn read(by: Harness) -> anyhow::Result<Option<(Value, ToolBody)>> {
    let mut text = Vec::new();
    io::stdin().lock().take(INPUT_BYTES).read_to_end(&mut text)?;
    let input: Value = serde_json::from_slice(&text)?;
    let body = match by {
        Harness::ClaudeCode => claude_code::body(&input),
        Harness::Codex => codex::body(&input),
        Harness::Gemini => gemini::body(&input),
    };
    Ok(body.map(|body| (input, body)))
}

fn pass_on(by: Harness, input: &Value, body: &ToolBody, paths: &Paths) -> anyhow::Result<()> {
    let view = Client::new(paths).tool(body)?;
    let answer = match by {
        // Codex reads the same.
        Harness::ClaudeCode | Harness::Codex => claude_code::answer(input, &view),
        Harness::Gemini => gemini::answer(input, &view),
    };
    if let Some(answer) = answer.filter(|_| matches!(body, ToolBody::End(_))) {
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
