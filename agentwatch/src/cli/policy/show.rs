//! `agentwatch policy show`: what is in force.

use clap::Args;

use super::view::counted;
use crate::cli::print::{self, Format};
use crate::cli::table::{Column, Set, table};
use crate::control::Client;
use crate::control::policy::{PolicyAgentView, PolicyOrigin, PolicyRuleView, PolicyView, Standing};
use crate::control::selftest::SelfTestView;
use crate::exit;
use crate::output::escape::escape;
use crate::paths::Paths;

/// Show the policy in force, and what of it is carried out on this host
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  agentwatch policy show
  agentwatch policy show -o json | jq -r '.rules[] | select(.status != \"enforced\").name'

STATUS says what comes of a rule:
  enforced      the kernel carries it out, for all agents that it is for
  partly        for some of them, or not for all that it covers: the lines below the table say what is missing
  would-deny    what it would refuse is told, and happens: the mode recommend
  observed      nothing is decided: the mode observe
  not-enforced  it should be carried out and is not: the lines below the table say why

Agents that the policy does not declare are only observed.

Needs root and a running daemon. Exit codes: 0 done, 5 the daemon is not reachable, 6 no permission.")]
pub struct ShowArgs {
    /// How to write the answer
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

/// Runs the command; gives its exit code.
///
/// # Errors
/// The daemon cannot be asked, or the answer cannot be written.
pub fn run(args: &ShowArgs, paths: &Paths) -> anyhow::Result<u8> {
    let view = Client::new(paths).policy()?;
    let text = match args.output {
        Format::Json => print::json(&view, print::to_terminal())?,
        Format::Text => text(&view, print::terminal_width()),
    };
    print::print(&text)?;
    Ok(exit::DONE)
}

const AGENTS: [Column; 4] = [
    Column { title: "AGENT", set: Set::Left },
    Column { title: "MODE", set: Set::Left },
    Column { title: "OWNER", set: Set::Cut },
    Column { title: "GUARDS", set: Set::Cut },
];
const RULES: [Column; 5] = [
    Column { title: "STATUS", set: Set::Left },
    Column { title: "SAYS", set: Set::Left },
    Column { title: "RULE", set: Set::Cut },
    Column { title: "AGENTS", set: Set::Cut },
    Column { title: "LINE", set: Set::Cut },
];

fn text(view: &PolicyView, width: Option<usize>) -> String {
    let mut text = head(view);
    if !view.agents.is_empty() {
        let rows: Vec<_> = view.agents.iter().map(agent_row).collect();
        text.push_str(&format!("\n{}", table(&AGENTS, &rows, width)));
    }
    if !view.rules.is_empty() {
        let rows: Vec<_> = view.rules.iter().map(rule_row).collect();
        text.push_str(&format!("\n{}", table(&RULES, &rows, width)));
    }
    let mut told: Vec<String> = Vec::new();
    for rule in view.rules.iter().filter(|rule| !rule.reasons.is_empty()) {
        told.push(format!("{}: {}", escape(&rule.name), escape(&rule.reasons.join("; "))));
    }
    if !told.is_empty() {
        text.push_str(&format!("\n{}\n", told.join("\n")));
    }
    text
}

fn head(view: &PolicyView) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        text.push_str(&format!("{label:<8} {}\n", escape(value)));
    };
    line("version", &format!("{} ({})", view.version, view.hash));
    line("since", &view.since);
    match view.origin {
        PolicyOrigin::None => line("from", "nothing: the daemon has no policy, and agents are only observed"),
        PolicyOrigin::Files => line("from", view.path.as_deref().unwrap_or_default()),
        PolicyOrigin::Applied => line("from", &applied(view)),
    }
    let is_path = view.files.len() == 1 && view.files.first() == view.path.as_ref();
    if !view.files.is_empty() && !is_path {
        line("files", &view.files.join(", "));
    }
    if let Some(mode) = &view.held_to {
        line("held to", &format!("{mode}, by `agentwatch run --mode`"));
    }
    if let Some(why) = &view.refused {
        line("refused", &format!("a later one: {why}"));
    }
    line("tested", &tested(&view.self_test));
    let enforced = view.rules.iter().filter(|rule| rule.status == Standing::Enforced).count();
    line("rules", &format!("{}, {enforced} of them enforced", counted(view.rules.len(), "rule")));
    text
}

/// What the self-test proved.
fn tested(view: &SelfTestView) -> String {
    let time = view.time.as_deref().unwrap_or_default();
    let unproved: Vec<&str> =
        view.results.iter().filter(|one| !one.proved).map(|one| one.name.as_str()).collect();
    match &view.skipped {
        Some(why) => format!("no: {why}"),
        None if unproved.is_empty() => format!("{time}: what is forbidden is refused"),
        None => format!("{time}: NOT ENFORCED: {}", unproved.join(", ")),
    }
}

fn applied(view: &PolicyView) -> String {
    let until = view.path.as_ref().map(|path| format!(", until `{path}` changes, or SIGHUP asks for it"));
    format!("`agentwatch policy apply`{}", until.unwrap_or_default())
}

fn agent_row(agent: &PolicyAgentView) -> Vec<String> {
    vec![
        escape(&agent.name).into_owned(),
        agent.mode.clone(),
        escape(agent.owner.as_deref().unwrap_or("-")).into_owned(),
        guards(agent),
    ]
}

/// Guards by what comes of them: `enforced: ptrace, signal; off: mount`.
fn guards(agent: &PolicyAgentView) -> String {
    let states =
        [Standing::Enforced, Standing::WouldDeny, Standing::Observed, Standing::NotEnforced, Standing::Off];
    let of = |status: Standing| {
        let names: Vec<&str> = (agent.guards.iter())
            .filter(|guard| guard.status == status)
            .map(|guard| guard.guard.as_str())
            .collect();
        match names.len() {
            0 => None,
            some if some == agent.guards.len() => Some(format!("{}: all", status.word())),
            _ => Some(format!("{}: {}", status.word(), names.join(", "))),
        }
    };
    states.into_iter().filter_map(of).collect::<Vec<_>>().join("; ")
}

fn rule_row(rule: &PolicyRuleView) -> Vec<String> {
    let agents = rule.agents.as_ref().map_or_else(|| "all".to_owned(), |agents| agents.join(", "));
    vec![
        rule.status.word().to_owned(),
        rule.says.clone(),
        escape(&rule.name).into_owned(),
        escape(&agents).into_owned(),
        escape(&format!("{}:{}", rule.file, rule.line)).into_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::samples;

    #[test]
    fn it_says_what_is_in_force_and_what_is_not() {
        let wanted = "\
version  3 (abababababababababababababababababababababababababababababababab)
since    2026-05-04T06:00:00Z
from     /etc/agentwatch.yaml
refused  a later one: /etc/agentwatch.yaml:3:1: `agent` is not known here (AW0101)
tested   2026-05-04T06:00:00Z: NOT ENFORCED: read
rules    2 rules, 1 of them enforced

AGENT   MODE     OWNER                           GUARDS
coding  enforce  developer-platform@example.com  not-enforced: all

STATUS    SAYS  RULE        AGENTS  LINE
partly    deny  all         all     /etc/agentwatch.yaml:12
enforced  deny  no \\x1b[2J  coding  /etc/agentwatch.yaml:12

all: `data` is in the mode `observe`: nothing is decided
";
        assert_eq!(text(&samples::policy(), None), wanted);
    }

    #[test]
    fn without_a_policy_it_says_so() {
        let none = PolicyView {
            origin: PolicyOrigin::None,
            path: None,
            files: Vec::new(),
            agents: Vec::new(),
            rules: Vec::new(),
            refused: None,
            held_to: Some("recommend".into()),
            ..samples::policy()
        };
        let text = text(&none, None);
        assert!(text.contains("only observed") && text.contains("held to  recommend"), "{text}");
        assert!(text.ends_with("rules    0 rules, 0 of them enforced\n"), "{text}");
    }
}
