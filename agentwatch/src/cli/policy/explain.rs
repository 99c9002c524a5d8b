//! `agentwatch policy explain`: what would be decided, and why.

use std::path::PathBuf;

use clap::Args;
use jiff::Zoned;
use serde::Serialize;

use super::view::PlaceView;
use crate::cli::print::{self, Format};
use crate::event::time::{now_ns, short_time};
use crate::event::{Op, Verdict};
use crate::exit;
use crate::output::escape::escape;
use crate::policy::{Address, Decision, Operation, Policy, Target};
use crate::query::{parse_op, parse_when};

/// Say what a policy decides about an operation, by which rule, and why
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  agentwatch policy explain --agent coding --op connect 10.20.3.4:5432
  agentwatch policy explain --agent coding --op connect api.anthropic.com:443 --policy policy.yaml
  agentwatch policy explain --agent coding --op connect --name api.anthropic.com 203.0.113.7:443
  agentwatch policy explain --agent coding --op run 'git push --force' --at 2026-12-24T12:00:00Z
  agentwatch policy explain --agent coding --op read /home/ada/.ssh/id_ed25519 -o json

TARGET is a path for exec, read, write and delete; a command line for run; for connect and listen
HOST:PORT (IPv6 in brackets, `udp:` in front for UDP), a Unix socket's path, unix:@NAME or vsock:CID:PORT.
The policy is read from its file: paths are taken as they are written, and symbolic links are not followed.

Exit codes: 0 it would go on, 2 usage, 3 it would be refused, 4 the policy is refused.")]
pub struct ExplainArgs {
    /// The agent that does it
    #[arg(long, value_name = "NAME")]
    pub agent: String,
    /// What it does: exec, run, read, write, delete, connect, listen
    #[arg(long, value_name = "OP", value_parser = parse_op)]
    pub op: Op,
    /// To what
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// The policy: a file, or a folder of files read in the order of their names
    #[arg(long, value_name = "FILE", default_value = "/etc/agentwatch.yaml")]
    pub policy: PathBuf,
    /// When: RFC 3339, or as `agentwatch events --since` takes it; now without
    #[arg(long, value_name = "T", value_parser = when)]
    pub at: Option<u64>,
    /// A name that the address is known by
    #[arg(long = "name", value_name = "HOST")]
    pub names: Vec<String>,
    /// How to write the answer
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

fn when(text: &str) -> Result<u64, String> {
    parse_when(text, &Zoned::now())
}

/// The answer.
#[derive(Serialize)]
struct ExplainView<'a> {
    agent: &'a str,
    /// Whether the policy declares the agent.
    declared: bool,
    op: Op,
    operation: String,
    at: String,
    verdict: Verdict,
    decided: &'static str,
    mode: &'static str,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<RuleView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<ResourceView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_owner: Option<&'a str>,
    /// Milder or later rules that match too.
    also: Vec<RuleView<'a>>,
}

#[derive(Serialize)]
struct RuleView<'a> {
    name: &'a str,
    says: &'static str,
    at: PlaceView<'a>,
    #[serde(skip)]
    line: String,
}

#[derive(Serialize)]
struct ResourceView<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<&'a str>,
}

/// Runs the command; gives its exit code.
///
/// # Errors
/// The policy is refused, or the answer cannot be written.
pub fn run(args: &ExplainArgs) -> anyhow::Result<u8> {
    let mut operation = match Operation::parse(args.op, &args.target) {
        Ok(operation) => operation,
        Err(sentence) => {
            eprintln!("agentwatch: {}", escape(&sentence));
            return Ok(exit::USAGE);
        }
    };
    if let Target::Address(Address::Ip { names, .. }) = &mut operation.target {
        names.extend_from_slice(&args.names);
    }
    let (policy, _) = super::read(&args.policy)?;
    let at = args.at.unwrap_or_else(now_ns);
    let decision = policy.decide(&args.agent, &operation, at);
    let view = view(&policy, args, &operation, &decision, at);
    let text = match args.output {
        Format::Json => print::json(&view, print::to_terminal())?,
        Format::Text => text(&view),
    };
    print::print(&text)?;
    Ok(match decision.verdict {
        Verdict::Allowed | Verdict::Logged => exit::DONE,
        Verdict::WouldDeny | Verdict::Held | Verdict::Denied | Verdict::Killed => exit::VIOLATION,
    })
}

fn view<'a>(
    policy: &'a Policy,
    args: &'a ExplainArgs,
    operation: &Operation,
    decision: &'a Decision<'a>,
    at: u64,
) -> ExplainView<'a> {
    let agent = policy.agent(&args.agent);
    let rule = |rule: &'a crate::policy::Rule| RuleView {
        name: &rule.name,
        says: rule.action.as_str(),
        at: PlaceView::new(policy, rule.at),
        line: policy.line_of(rule.at),
    };
    let by = decision.by.rule();
    let matching = policy.matching(&args.agent, operation, at);
    let also = matching.into_iter().filter(|other| by.is_none_or(|by| by.at != other.at)).map(rule).collect();
    ExplainView {
        agent: &args.agent,
        declared: agent.is_some(),
        op: operation.op,
        operation: operation.to_string(),
        at: short_time(at),
        verdict: decision.verdict,
        decided: decision.action.as_str(),
        mode: decision.mode.as_str(),
        reason: decision.reason(),
        rule: by.map(rule),
        message: decision.message(),
        resource: decision.resource.map(|resource| ResourceView {
            name: &resource.name,
            why: resource.why.as_deref(),
            owner: resource.owner.as_deref(),
            environment: resource.environment.as_deref(),
        }),
        agent_owner: agent.and_then(|agent| agent.spec.owner.as_deref()),
        also,
    }
}

fn text(view: &ExplainView<'_>) -> String {
    let mut text = format!("{} by {}: {}\n", view.operation, escape(view.agent), view.verdict.name());
    let mut line = |label: &str, value: &str| {
        text.push_str(&format!("  {label:<9} {}\n", escape(value)));
    };
    line("because", &view.reason);
    if let Some(rule) = &view.rule {
        line("rule", &format!("{} ({})", rule.name, rule.line));
    }
    if let Some(message) = view.message {
        line("message", message);
    }
    if let Some(resource) = &view.resource {
        let environment = resource.environment.map(|one| format!(" ({one})")).unwrap_or_default();
        line("resource", &format!("{}{environment}", resource.name));
        resource.why.into_iter().for_each(|why| line("why", why));
        resource.owner.into_iter().for_each(|owner| line("owner", owner));
    }
    let undeclared = if view.declared { "" } else { ": the policy does not declare this agent" };
    line("mode", &format!("{}{undeclared}", view.mode));
    for rule in &view.also {
        line("also", &format!("the rule `{}` ({}) says `{}`", rule.name, rule.line, rule.says));
    }
    text
}
