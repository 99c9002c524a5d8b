//! `agentwatch policy diff`: what differs in two policies.

use std::path::PathBuf;

use clap::Args;

use crate::cli::print::{self, Format};
use crate::event::time::now_ns;
use crate::exit;
use crate::output::escape::escape;
use crate::policy::{Change, Changes, Kind, changes};

/// Compare two policies: what means something else, and which tests are decided otherwise
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  agentwatch policy diff /etc/agentwatch.yaml policy.yaml
  agentwatch policy diff -o json old/ new/ | jq '.decisions'

Order, comments and spelling of the YAML mean nothing. The tests of both policies are decided by both: what
comes out differently is shown with the rules that decide.

Exit codes: 0 compared, 2 usage, 4 one of them is refused.")]
pub struct DiffArgs {
    /// The policy before: a file or a folder
    #[arg(value_name = "A")]
    pub before: PathBuf,
    /// The policy after
    #[arg(value_name = "B")]
    pub after: PathBuf,
    /// How to write the answer
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

/// Runs the command; gives its exit code.
///
/// # Errors
/// A policy is refused, or the answer cannot be written.
pub fn run(args: &DiffArgs) -> anyhow::Result<u8> {
    let (before, _) = super::read(&args.before)?;
    let (after, _) = super::read(&args.after)?;
    let changes = changes(&before, &after, now_ns());
    let text = match args.output {
        Format::Json => print::json(&changes, print::to_terminal())?,
        Format::Text => text(&changes),
    };
    print::print(&text)?;
    Ok(exit::DONE)
}

fn text(changes: &Changes) -> String {
    if changes.parts.is_empty() && changes.decisions.is_empty() {
        return "both mean the same\n".to_owned();
    }
    let mut text: String = changes.parts.iter().map(part).collect();
    for decision in &changes.decisions {
        let of = |side: &crate::policy::Side| match &side.rule {
            Some(rule) => format!("{} (rule `{rule}`)", side.decided),
            None => side.decided.to_owned(),
        };
        let line = format!(
            "{} by {}: {} -> {}",
            decision.operation,
            decision.agent,
            of(&decision.before),
            of(&decision.after)
        );
        text.push_str(&format!("! {}\n", escape(&line)));
    }
    text
}

fn part(change: &Change) -> String {
    let sign = match change.change {
        Kind::Added => '+',
        Kind::Removed => '-',
        Kind::Changed => '~',
    };
    let mut text = format!("{sign} {} {}\n", change.part, escape(&change.name));
    for (sign, lines) in [('-', &change.removed), ('+', &change.added)] {
        for line in lines {
            text.push_str(&format!("    {sign} {}\n", escape(line)));
        }
    }
    text
}
