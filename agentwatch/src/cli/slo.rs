//! `agentwatch slo`: how agents keep to what was declared and to the policy.

use std::path::Path;

use clap::Args;
use jiff::Zoned;
use serde::Serialize;

use super::events::code_of;
use super::failure;
use super::print::{self, Format};
use super::table::{Column, Set, table};
use crate::event::time::{format_time, parse_time};
use crate::exit;
use crate::log::{Item, Reader, Start};
use crate::output::escape::escape;
use crate::paths::Paths;
use crate::policy::seconds;
use crate::query::parse_when;
use crate::slo::{Counter, Row};

/// Nanoseconds that are looked at where nothing is said of it: a day.
const DAY_NS: u64 = 24 * 3_600 * 1_000_000_000;
/// Spans that can be told apart: each has rows of its own.
const SPANS_MAX: u64 = 1_000;

/// Show how agents keep to what was declared and to the policy: shares and rates from the log
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Examples:
  agentwatch slo                                    each agent, over the last day
  agentwatch slo --agent coding --since 7d --every 1d
  agentwatch slo --by session --since 1h -o json | jq '.rows[] | select(.denied_percent > 1)'

ALIGNED and OUTSIDE are shares of the operations of sessions for which something was declared; DENIED is
one of all operations. CHECKS counts those that failed, of all (`agentwatch intent check`). LOST counts
operations that are missing in the log: the figures are without them. -o json has all numbers.

Containment and approvals are not measured yet.

Works while no daemon runs, too. Exit codes: 0 done, 1 failed, 2 usage, 5 there is no log, 6 no
permission to read it.")]
pub struct SloArgs {
    /// Only of this agent
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub agent: Vec<String>,
    /// Figures for each agent, or for each session
    #[arg(long, value_enum, value_name = "WHOM", default_value_t)]
    pub by: By,
    /// From this time on; a day ago without
    #[arg(long, value_name = "T", value_parser = when)]
    pub since: Option<u64>,
    /// Up to this time; now without
    #[arg(long, value_name = "T", value_parser = when)]
    pub until: Option<u64>,
    /// In spans of this length, such as 1h or 1d: rows for each
    #[arg(long, value_name = "DURATION", value_parser = length)]
    pub every: Option<u64>,
    /// How to write the answer
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

/// Whom a row is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// An agent
    #[default]
    Agent,
    /// A session
    Session,
}

fn when(text: &str) -> Result<u64, String> {
    parse_when(text, &Zoned::now())
}

/// A duration in nanoseconds.
fn length(text: &str) -> Result<u64, String> {
    let length = seconds(text).filter(|seconds| *seconds > 0).and_then(|one| one.checked_mul(1_000_000_000));
    length.ok_or_else(|| format!("`{text}` is no duration: write `1h`, `30m` or `1d`"))
}

/// The answer for programs.
#[derive(Serialize)]
struct SloView<'a> {
    since: String,
    until: String,
    rows: &'a [Row],
}

/// Runs the command; gives its exit code.
///
/// # Errors
/// The answer cannot be written.
pub fn run(args: &SloArgs, paths: &Paths) -> anyhow::Result<u8> {
    let now = u64::try_from(Zoned::now().timestamp().as_nanosecond()).unwrap_or_default();
    let until = args.until.unwrap_or(now);
    let since = args.since.unwrap_or(until.saturating_sub(DAY_NS));
    let usage = |problem: &str| {
        let _ = failure::report(&anyhow::anyhow!("{problem}"));
        Ok(exit::USAGE)
    };
    if since >= until {
        return usage("`--since` is not before `--until`: there is nothing between them");
    }
    if args.every.is_some_and(|every| (until - since) / every >= SPANS_MAX) {
        return usage("`--every` gives more than 1000 spans: write a longer one, or a later `--since`");
    }
    let rows = match count(args, &paths.state, since, until) {
        Ok(rows) => rows,
        Err(error) => match code_of(&error) {
            exit::FAILED => return Err(error),
            code => {
                let _ = failure::report(&error);
                return Ok(code);
            }
        },
    };
    let text = match args.output {
        Format::Json => {
            let view = SloView { since: format_time(since), until: format_time(until), rows: &rows };
            print::json(&view, print::to_terminal())?
        }
        Format::Text => text(&rows, args, print::terminal_width()),
    };
    print::print(&text)?;
    Ok(exit::DONE)
}

fn count(args: &SloArgs, state: &Path, since: u64, until: u64) -> anyhow::Result<Vec<Row>> {
    let mut counter = Counter::new(since, until, args.every.unwrap_or(u64::MAX), args.by == By::Session);
    let mut reader = Reader::open(state, Start::Time(since))?;
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Line(line) => {
                let wanted = args.agent.is_empty() || args.agent.iter().any(|name| *name == line.head.agent);
                if wanted && let Some(time) = parse_time(&line.head.time) {
                    counter.count(&line, time);
                }
            }
            Item::Damaged { .. } => counter.unreadable += 1,
            Item::Missing { first, last } => {
                eprintln!("agentwatch: events {first} to {last} are missing from the log");
            }
        }
    }
    if counter.unreadable > 0 {
        eprintln!("agentwatch: {} places of the log cannot be read, and do not count", counter.unreadable);
    }
    Ok(counter.rows())
}

const COLUMNS: [Column; 9] = [
    Column { title: "FROM", set: Set::Left },
    Column { title: "AGENT", set: Set::Left },
    Column { title: "SESSION", set: Set::Left },
    Column { title: "OPERATIONS", set: Set::Right },
    Column { title: "ALIGNED", set: Set::Right },
    Column { title: "OUTSIDE", set: Set::Right },
    Column { title: "DENIED", set: Set::Right },
    Column { title: "CHECKS", set: Set::Right },
    Column { title: "LOST", set: Set::Right },
];

fn text(rows: &[Row], args: &SloArgs, width: Option<usize>) -> String {
    if rows.is_empty() {
        return "no agent did anything in that time\n".to_owned();
    }
    let percent = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{share:.1} %"));
    let cells = |row: &Row| {
        let (figures, checks) = (&row.figures, row.figures.checks_passed + row.figures.checks_failed);
        vec![
            row.from.clone(),
            escape(&row.whom.agent).into_owned(),
            row.whom.session.as_deref().map(|session| escape(session).into_owned()).unwrap_or_default(),
            figures.operations.to_string(),
            percent(row.alignment_percent),
            percent(row.outside_percent),
            format!("{} ({})", figures.denied, percent(row.denied_percent)),
            if checks == 0 { "-".to_owned() } else { format!("{} of {checks}", figures.checks_failed) },
            figures.lost.to_string(),
        ]
    };
    // What is the same in all rows is left out.
    let shown = [args.every.is_some(), true, args.by == By::Session];
    let keep = |index: usize| shown.get(index).copied().unwrap_or(true);
    let columns: Vec<Column> =
        COLUMNS.iter().enumerate().filter(|(index, _)| keep(*index)).map(|(_, column)| *column).collect();
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            cells(row)
                .into_iter()
                .enumerate()
                .filter(|(index, _)| keep(*index))
                .map(|(_, cell)| cell)
                .collect()
        })
        .collect();
    table(&columns, &rows, width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slo::{Figures, Whom};

    fn row(agent: &str, figures: Figures) -> Row {
        Row {
            from: "2026-11-21T00:00:00Z".into(),
            to: "2026-11-22T00:00:00Z".into(),
            whom: Whom { agent: agent.into(), session: Some("coding-7f3k2q".into()) },
            alignment_percent: figures.alignment(),
            outside_percent: figures.outside_rate(),
            denied_percent: figures.denied_rate(),
            figures,
        }
    }

    #[test]
    fn a_row_is_about_an_agent_or_a_session() {
        let figures = Figures {
            operations: 400,
            aligned: 150,
            outside: 50,
            denied: 2,
            checks_failed: 1,
            checks_passed: 3,
            lost: 9,
            ..Figures::default()
        };
        let rows =
            [row("cod\x1bing", figures), row("quiet", Figures { operations: 1, ..Figures::default() })];
        let shown = text(&rows, &SloArgs::default(), None);
        assert_eq!(
            shown,
            "AGENT       OPERATIONS  ALIGNED  OUTSIDE     DENIED  CHECKS  LOST\n\
             cod\\x1bing         400   75.0 %   25.0 %  2 (0.5 %)  1 of 4     9\n\
             quiet                1        -        -  0 (0.0 %)       -     0\n"
        );
        let all = SloArgs { by: By::Session, every: Some(1), ..SloArgs::default() };
        let shown = text(&rows, &all, None);
        assert!(shown.starts_with("FROM                  AGENT       SESSION        OPERATIONS"), "{shown}");
        assert!(text(&[], &all, None).contains("no agent did anything"));
    }

    #[test]
    fn spans_are_durations() {
        assert_eq!(length("1h30m"), Ok(5_400_000_000_000));
        for bad in ["", "0s", "-1h", "1", "soon"] {
            assert!(length(bad).is_err(), "{bad}");
        }
    }
}
