//! `agentwatch policy simulate`: what a policy would have decided over the recorded past.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Zoned;
use serde::Serialize;

use super::view::counted;
use crate::cli::print::{self, Format};
use crate::cli::table::{Column, Set, table};
use crate::cli::{events, failure};
use crate::event::time::short_time;
use crate::exit;
use crate::log::{Item, LogError, Reader, Start};
use crate::output::escape::escape;
use crate::paths::Paths;
use crate::policy::{Difference, Policy, Replay, Summary, enforceable};
use crate::query::parse_when;

/// Say what a policy would have decided about what agents did: over the recorded past, without a daemon
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  agentwatch policy simulate policy.yaml --since 7d
  agentwatch policy simulate policy.d/ --since 2026-11-01
  agentwatch policy simulate policy.yaml --since 24h -o json | jq '.differences[] | .target'

Shows what comes out otherwise than it did: what would be refused and went on, what would go on and was
refused. Rules bound to times count as they would have when it happened. T is as `agentwatch events` takes it.

What was not recorded whole (a path that is too deep, arguments that are missing) the kernel would refuse where
rules are enforced; it is told as such. Addresses were recorded without names: rules by name match nothing here.
A rename is taken for one over something, a script for its interpreter, and a session inside another is looked
at by its own agent alone.

Needs to read the state folder. Exit codes: 0 nothing that went on would be refused, 1 failed, 2 usage, 3
something would (in the mode recommend: would be told), 4 the policy is refused, 5 there is no log, 6 no
permission to read it.")]
pub struct SimulateArgs {
    /// The policy: a file, or a folder of files read in the order of their names
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// From when on
    #[arg(long, value_name = "T", value_parser = when)]
    pub since: u64,
    /// How to write the answer
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

fn when(text: &str) -> Result<u64, String> {
    parse_when(text, &Zoned::now())
}

/// The answer.
#[derive(Serialize)]
struct SimulateView {
    since: String,
    summary: Summary,
    differences: Vec<Difference>,
}

/// Runs the command; gives its exit code.
///
/// # Errors
/// The policy is refused, or the answer cannot be written.
pub fn run(args: &SimulateArgs, paths: &Paths) -> anyhow::Result<u8> {
    let (policy, _) = super::read(&args.file)?;
    for problem in enforceable(&policy) {
        eprintln!("{problem}\n");
    }
    let (summary, differences) = match replay(&policy, &paths.state, args.since) {
        Ok(answer) => answer,
        Err(error) => {
            let error = anyhow::Error::from(error);
            let code = events::code_of(&error);
            let _ = failure::report(&error);
            return Ok(code);
        }
    };
    let view = SimulateView { since: short_time(args.since), summary, differences };
    let text = match args.output {
        Format::Json => print::json(&view, print::to_terminal())?,
        Format::Text => text(&view, print::terminal_width()),
    };
    print::print(&text)?;
    let stricter = summary.newly_denied + summary.newly_would_deny > 0;
    Ok(if stricter { exit::VIOLATION } else { exit::DONE })
}

fn replay(policy: &Policy, state: &Path, since: u64) -> Result<(Summary, Vec<Difference>), LogError> {
    let mut reader = Reader::open(state, Start::Time(since))?;
    let mut replay = Replay::new(policy);
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Line(line) => match line.event() {
                Ok(event) => replay.take(&event),
                Err(_) => replay.unreadable(),
            },
            Item::Damaged { .. } => replay.unreadable(),
            Item::Missing { first, last } => replay.missing(last - first + 1),
        }
    }
    Ok(replay.end())
}

const COLUMNS: [Column; 7] = [
    Column { title: "AGENT", set: Set::Left },
    Column { title: "OP", set: Set::Left },
    Column { title: "TARGET", set: Set::Cut },
    Column { title: "THEN", set: Set::Left },
    Column { title: "NOW", set: Set::Left },
    Column { title: "RULE", set: Set::Cut },
    Column { title: "COUNT", set: Set::Right },
];

fn text(view: &SimulateView, width: Option<usize>) -> String {
    let mut text = String::new();
    if !view.differences.is_empty() {
        let rows: Vec<_> = view.differences.iter().map(row).collect();
        text.push_str(&table(&COLUMNS, &rows, width));
        text.push('\n');
    }
    let Summary { operations, newly_denied, newly_would_deny, newly_allowed, unchanged, .. } = view.summary;
    text.push_str(&format!(
        "{} since {}: {newly_denied} newly denied, {newly_would_deny} newly would-deny, {newly_allowed} newly allowed, \
         {unchanged} as before\n",
        counted(usize::try_from(operations).unwrap_or(usize::MAX), "operation"),
        view.since
    ));
    let notes = [
        (view.summary.undecided, "were not recorded whole: the kernel refuses such where rules are enforced"),
        (view.summary.lost, "are missing from the log, and could be anything"),
        (view.summary.unreadable, "are damaged or of another version of agentwatch, and were not looked at"),
        (view.summary.not_told, "more differ and are not shown, since there are so many"),
    ];
    for (count, what) in notes.iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!("{count} {what}\n"));
    }
    text
}

fn row(one: &Difference) -> Vec<String> {
    vec![
        escape(&one.agent).into_owned(),
        one.op.name().to_owned(),
        one.target.clone(),
        one.then.name().to_owned(),
        one.now.name().to_owned(),
        escape(one.rule.as_deref().unwrap_or("-")).into_owned(),
        one.count.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Op, Verdict};

    #[test]
    fn it_tells_what_comes_out_otherwise_and_what_is_not_known() {
        let difference = Difference {
            agent: "coding".into(),
            op: Op::Read,
            target: "/srv/x".into(),
            then: Verdict::Allowed,
            now: Verdict::Denied,
            rule: Some("secrets".into()),
            count: 12,
            first: String::new(),
            last: String::new(),
        };
        let summary =
            Summary { operations: 40, newly_denied: 12, unchanged: 28, lost: 3, ..Summary::default() };
        let view =
            SimulateView { since: "2026-05-04T08:00:00Z".into(), summary, differences: vec![difference] };
        let wanted = "\
AGENT   OP    TARGET  THEN     NOW     RULE     COUNT
coding  read  /srv/x  allowed  denied  secrets     12

40 operations since 2026-05-04T08:00:00Z: 12 newly denied, 0 newly would-deny, 0 newly allowed, 28 as before
3 are missing from the log, and could be anything
";
        assert_eq!(text(&view, None), wanted);
    }
}
