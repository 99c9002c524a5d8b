//! `agentwatch agents`: every session on the host.

use clap::Args;

use super::print::{self, Format};
use super::table::{Column, Set, table};
use crate::control::Client;
use crate::control::state::{Confidence, SessionView, SessionsView};
use crate::event::How;
use crate::exit;
use crate::output::escape::escape;
use crate::paths::Paths;

/// List every agent session on this host, also of agents that nobody declared
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  agentwatch agents                 sessions that run now
  agentwatch agents --all           ended ones too
  agentwatch agents -o json         for programs
  agentwatch agents -o json | jq -r '.sessions[] | select(.denials > 0).id'

RECOGNISED says by what a session was found: a pattern of the policy, a pattern of the
built-in list, or `agentwatch exec` (launcher). MISSING counts events known to be lost.

Needs root and a running daemon. Exit codes: 0 done, 5 the daemon is not reachable,
6 no permission.")]
pub struct AgentsArgs {
    /// Show ended sessions too
    #[arg(long)]
    pub all: bool,
    /// How to write the answer
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

/// Runs the command; gives its exit code.
///
/// # Errors
/// The daemon cannot be asked, or the answer cannot be written.
pub fn run(args: &AgentsArgs, paths: &Paths) -> anyhow::Result<u8> {
    let view = Client::new(paths).sessions(args.all)?;
    let text = match args.output {
        Format::Json => print::json(&view, print::to_terminal())?,
        Format::Text => text(&view, args.all, print::terminal_width()),
    };
    print::print(&text)?;
    Ok(exit::DONE)
}

const COLUMNS: [Column; 10] = [
    Column { title: "AGENT", set: Set::Cut },
    Column { title: "SESSION", set: Set::Left },
    Column { title: "OWNER", set: Set::Cut },
    Column { title: "MODE", set: Set::Left },
    Column { title: "SINCE", set: Set::Left },
    Column { title: "RECOGNISED", set: Set::Cut },
    Column { title: "PROCESSES", set: Set::Right },
    Column { title: "EVENTS", set: Set::Right },
    Column { title: "DENIALS", set: Set::Right },
    Column { title: "MISSING", set: Set::Right },
];
const ENDED: Column = Column { title: "ENDED", set: Set::Left };

fn text(view: &SessionsView, all: bool, width: Option<usize>) -> String {
    if view.sessions.is_empty() {
        let none = if all {
            "no agent session has been seen on this host\n"
        } else {
            "no agent session runs: `agentwatch agents --all` shows ended ones\n"
        };
        return none.to_owned();
    }
    let mut columns = COLUMNS.to_vec();
    columns.extend(all.then_some(ENDED));
    let rows: Vec<_> = view.sessions.iter().map(|session| row(session, all)).collect();
    let mut text = table(&columns, &rows, width);
    for session in view.sessions.iter().filter(|session| session.confidence == Confidence::Partial) {
        let reason = session.confidence_reason.as_deref().unwrap_or("events may be missing");
        text.push_str(&format!("\n{} is not known in full: {}\n", escape(&session.id), escape(reason)));
    }
    text
}

fn row(session: &SessionView, all: bool) -> Vec<String> {
    let or_dash = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), |text| escape(text).into_owned());
    let mut cells = vec![
        escape(&session.agent).into_owned(),
        escape(&session.id).into_owned(),
        or_dash(session.owner.as_deref()),
        escape(&session.mode).into_owned(),
        escape(&session.since).into_owned(),
        recognised(session),
        session.processes.to_string(),
        session.events.to_string(),
        session.denials.to_string(),
        session.losses.to_string(),
    ];
    if all {
        cells.push(or_dash(session.ended.as_deref()));
    }
    cells
}

/// By what the session was recognised, in a few words.
pub(super) fn recognised(session: &SessionView) -> String {
    let by = &session.recognised;
    let mut text = by.by.word().to_owned();
    if let Some(pattern) = &by.pattern {
        text.push(' ');
        text.push_str(&escape(pattern));
    }
    if !by.declared && session.attribution != How::Caused {
        text.push_str(" (built-in list)");
    }
    if session.attribution == How::Adopted {
        text.push_str(", adopted");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::samples;

    #[test]
    fn the_table_of_living_sessions() {
        let sessions = samples::sessions().into_iter().filter(|one| one.ended.is_none()).collect();
        let wanted = "\
AGENT   SESSION        OWNER                           MODE     SINCE                 RECOGNISED      PROCESSES  EVENTS  DENIALS  MISSING
coding  coding-7f3k2q  developer-platform@example.com  observe  2026-05-04T08:00:00Z  exec **/claude          3    3021        0        0
coding  coding-9x8y7z  developer-platform@example.com  observe  2026-05-04T08:01:00Z  launcher                1       7        2        0
";
        assert_eq!(text(&SessionsView { sessions }, false, None), wanted);
    }

    #[test]
    fn the_table_of_all_sessions_on_a_terminal() {
        let shown = text(&SessionsView { sessions: samples::sessions() }, true, Some(120));
        let wanted = "\
AGENT      SESSION        OWNER       MODE     SINCE                 RECOGNISED  PROCESSES  EVENTS  DENIALS  MISSING  ENDED
ai\\x1bder  aider-aaaaaa   -           observe  2026-05-04T07:00:00Z  run pytho…          0  120000        0       14  2026-05-04T07:30:00Z
coding     coding-7f3k2q  developer…  observe  2026-05-04T08:00:00Z  exec **/c…          3    3021        0        0  -
coding     coding-9x8y7z  developer…  observe  2026-05-04T08:01:00Z  launcher            1       7        2        0  -

aider-aaaaaa is not known in full: it ran before the daemon did
";
        assert_eq!(shown, wanted);
    }

    #[test]
    fn how_a_session_was_recognised() {
        let words: Vec<_> = samples::sessions().iter().map(recognised).collect();
        assert_eq!(words, ["run python* -m aider* (built-in list), adopted", "exec **/claude", "launcher"]);
    }

    #[test]
    fn an_empty_host_says_so() {
        assert!(text(&SessionsView::default(), false, None).contains("agents --all"));
        assert!(text(&SessionsView::default(), true, None).starts_with("no agent session has been seen"));
    }
}
