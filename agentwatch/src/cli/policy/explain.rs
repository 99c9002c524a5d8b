//! `agentwatch policy explain`: what would be decided, and why.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::{Zoned, tz::TimeZone};
use serde::Serialize;

use super::explain_event;
use super::view::PlaceView;
use crate::cli::print::{self, Format};
use crate::cli::{events, failure};
use crate::event::time::{now_ns, short_time};
use crate::event::{Op, Verdict};
use crate::exit;
use crate::kernel::hooks_for;
use crate::output::escape::escape;
use crate::paths::Paths;
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
  agentwatch policy explain --event last          what was refused last, and who asked for it
  agentwatch policy explain --event 90412

TARGET is a path for exec, read, write and delete; a command line for run; for connect and listen
HOST:PORT (IPv6 in brackets, `udp:` in front for UDP), a Unix socket's path, unix:@NAME or vsock:CID:PORT.
The policy is read from its file: paths are taken as they are written, and symbolic links are not followed.

An event is explained from the log: by which rule it was decided, at which hook of the kernel, and which
ancestor made the process an agent. Its number is `seq` in `agentwatch events -o json`.

Exit codes: 0 it would go on, or went on, 1 there is no such event, 2 usage, 3 it would be or was refused,
4 the policy is refused, 5 there is no log, 6 no permission to read it.")]
pub struct ExplainArgs {
    /// The agent that does it
    #[arg(long, value_name = "NAME", required_unless_present = "event")]
    pub agent: Option<String>,
    /// What it does: exec, run, read, write, delete, connect, listen
    #[arg(long, value_name = "OP", value_parser = parse_op, required_unless_present = "event")]
    pub op: Option<Op>,
    /// To what
    #[arg(value_name = "TARGET", required_unless_present = "event")]
    pub target: Option<String>,
    /// Explain what happened instead: an event of the log by its number, or `last` for what was refused last
    #[arg(long, value_name = "N", value_parser = EventName::parse,
          conflicts_with_all = ["agent", "op", "target", "policy", "at", "names"])]
    pub event: Option<EventName>,
    /// What was refused last in this session; the beginning of its id is enough
    #[arg(long, value_name = "ID", requires = "event")]
    pub session: Option<String>,
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

/// Which event is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventName {
    /// That of this number.
    Number(u64),
    /// What was refused last.
    Last,
}

impl EventName {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "last" => Ok(Self::Last),
            _ => text.parse().map(Self::Number).map_err(|_| {
                format!(
                    "`{text}` is no event: write its number (`seq` in `agentwatch events -o json`), or `last`"
                )
            }),
        }
    }
}

/// The answer.
#[derive(Serialize)]
struct ExplainView<'a> {
    agent: &'a str,
    /// Whether the policy declares the agent.
    declared: bool,
    op: Op,
    operation: String,
    /// The kernel's hooks at which it is decided.
    hooks: Vec<&'static str>,
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
pub fn run(args: &ExplainArgs, paths: &Paths) -> anyhow::Result<u8> {
    if let Some(event) = args.event {
        return of_event(args, event, &paths.state);
    }
    // One of the command line's requirements.
    let (Some(agent), Some(op), Some(target)) = (&args.agent, args.op, &args.target) else {
        return Ok(exit::USAGE);
    };
    let mut operation = match Operation::parse(op, target) {
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
    let decision = policy.decide(agent, &operation, at);
    let view = view(&policy, agent, &operation, &decision, at);
    let text = match args.output {
        Format::Json => print::json(&view, print::to_terminal())?,
        Format::Text => text(&view),
    };
    print::print(&text)?;
    Ok(code_of(decision.verdict))
}

const fn code_of(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Allowed | Verdict::Logged => exit::DONE,
        Verdict::WouldDeny | Verdict::Held | Verdict::Denied | Verdict::Killed => exit::VIOLATION,
    }
}

/// Explains what happened.
fn of_event(args: &ExplainArgs, event: EventName, state: &Path) -> anyhow::Result<u8> {
    let view = match explain_event::explain(state, event, args.session.as_deref()) {
        Ok(view) => view,
        Err(error) => match events::code_of(&error) {
            exit::FAILED => return Err(error),
            code => {
                let _ = failure::report(&error);
                return Ok(code);
            }
        },
    };
    let text = match args.output {
        Format::Json => print::json(&view, print::to_terminal())?,
        Format::Text => explain_event::text(&view, &TimeZone::system()),
    };
    print::print(&text)?;
    Ok(code_of(view.verdict()))
}

fn view<'a>(
    policy: &'a Policy,
    agent: &'a str,
    operation: &Operation,
    decision: &'a Decision<'a>,
    at: u64,
) -> ExplainView<'a> {
    let declared = policy.agent(agent);
    let is_unix = matches!(operation.target, Target::Address(Address::Unix(_)));
    let rule = |rule: &'a crate::policy::Rule| RuleView {
        name: &rule.name,
        says: rule.action.as_str(),
        at: PlaceView::new(policy, rule.at),
        line: policy.line_of(rule.at),
    };
    let by = decision.by.rule();
    let matching = policy.matching(agent, operation, at);
    let also = matching.into_iter().filter(|other| by.is_none_or(|by| by.at != other.at)).map(rule).collect();
    ExplainView {
        agent,
        declared: declared.is_some(),
        op: operation.op,
        operation: operation.to_string(),
        hooks: hooks_for(operation.op, is_unix),
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
        agent_owner: declared.and_then(|agent| agent.spec.owner.as_deref()),
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
    line("hooks", &view.hooks.join(", "));
    let undeclared = if view.declared { "" } else { ": the policy does not declare this agent" };
    line("mode", &format!("{}{undeclared}", view.mode));
    for rule in &view.also {
        line("also", &format!("the rule `{}` ({}) says `{}`", rule.name, rule.line, rule.says));
    }
    text
}
