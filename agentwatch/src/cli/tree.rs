//! `agentwatch tree`: the processes of one session.

use std::collections::{HashMap, HashSet};

use clap::Args;
use unicode_width::UnicodeWidthStr as _;

use super::agents::recognised;
use super::print::{self, Format};
use super::table::cut;
use crate::control::Client;
use crate::control::state::{Confidence, Counts, ProcessId, ProcessView, TreeView};
use crate::event::Exit;
use crate::exit;
use crate::output::escape::escape;
use crate::paths::Paths;

/// Show the processes of a session as a tree, living and ended, with what each did
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  agentwatch tree coding-7f3k2q         one session
  agentwatch tree coding-7f             the same, where no other begins like this
  agentwatch tree coding-7f -o json     for programs

Each line: process id, command line, how it ended if it did, and how often it did what.
`agentwatch agents` lists the sessions.

Needs root and a running daemon. Exit codes: 0 done, 2 no such session,
5 the daemon is not reachable, 6 no permission.")]
pub struct TreeArgs {
    /// Id of the session, or a beginning of it that no other has
    #[arg(value_name = "SESSION")]
    pub session: String,
    /// How to write the answer
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

/// Runs the command; gives its exit code.
///
/// # Errors
/// The daemon cannot be asked, or the answer cannot be written.
pub fn run(args: &TreeArgs, paths: &Paths) -> anyhow::Result<u8> {
    let view = Client::new(paths).tree(&args.session)?;
    let text = match args.output {
        Format::Json => print::json(&view, print::to_terminal())?,
        Format::Text => text(&view, print::terminal_width()),
    };
    print::print(&text)?;
    Ok(exit::DONE)
}

/// Levels whose lines are drawn; deeper processes name their level. A chain of 10,000 forks would
/// otherwise take 300 MB of lines.
const DRAWN_LEVELS: usize = 40;
/// On a terminal a command keeps at least this many columns, and the line wraps.
const LEAST_COMMAND: usize = 12;

fn text(view: &TreeView, width: Option<usize>) -> String {
    let mut text = heading(view);
    for (process, level, prefix) in arrange(&view.processes) {
        let prefix = if level > DRAWN_LEVELS { format!("{prefix}[level {level}] ") } else { prefix };
        let start = format!("{prefix}{} ", process.id.pid);
        let end = format!("{}{}", fate(process), doings(&process.counts));
        let mut command = command(process);
        if let Some(width) = width {
            command = cut(&command, width.saturating_sub(start.width() + end.width()).max(LEAST_COMMAND));
        }
        text.push_str(&format!("{start}{command}{end}\n"));
    }
    if view.processes_omitted > 0 {
        text.push_str(&format!(
            "and {} that ended earlier: `agentwatch events --session {}` has them\n",
            view.processes_omitted,
            escape(&view.session.id)
        ));
    }
    text
}

fn heading(view: &TreeView) -> String {
    let session = &view.session;
    let mut text = format!("session {}: agent {}", escape(&session.id), escape(&session.agent));
    if let Some(owner) = &session.owner {
        text.push_str(&format!(" of {}", escape(owner)));
    }
    if let Some(parent) = &session.parent {
        text.push_str(&format!(", started in {}", escape(parent)));
    }
    text.push_str(&format!(
        ", {}, recognised by {}\nsince {}",
        escape(&session.mode),
        recognised(session),
        escape(&session.since)
    ));
    if let Some(ended) = &session.ended {
        text.push_str(&format!(" until {}", escape(ended)));
    }
    text.push_str(&format!(
        ": {} of {} processes living; {} events, {} denied, {} missing\n",
        session.processes, session.processes_total, session.events, session.denials, session.losses
    ));
    if session.confidence == Confidence::Partial {
        let reason = session.confidence_reason.as_deref().unwrap_or("events may be missing");
        text.push_str(&format!("not known in full: {}\n", escape(reason)));
    }
    text.push('\n');
    text
}

/// The processes in the order of their lines, each with its level and what stands before it. One whose
/// parent is not among them begins a tree of its own, so that none is left out whatever the daemon says.
fn arrange(processes: &[ProcessView]) -> Vec<(&ProcessView, usize, String)> {
    let age = |id: ProcessId| (id.start_time, id.pid);
    let known: HashSet<ProcessId> = processes.iter().map(|process| process.id).collect();
    let mut children: HashMap<Option<ProcessId>, Vec<&ProcessView>> = HashMap::new();
    for process in processes {
        // Only an older one: then no circle can be drawn.
        let older = |parent: &ProcessId| known.contains(parent) && age(*parent) < age(process.id);
        children.entry(process.parent.filter(older)).or_default().push(process);
    }
    // The youngest first: the stack below gives back the oldest first.
    for siblings in children.values_mut() {
        siblings.sort_by_key(|process| std::cmp::Reverse(age(process.id)));
    }
    let mut lines = Vec::with_capacity(processes.len());
    let roots = children.remove(&None).unwrap_or_default();
    let mut stack: Vec<_> = roots.into_iter().map(|root| (root, 0, String::new(), String::new())).collect();
    while let Some((process, level, before, below)) = stack.pop() {
        for (index, child) in children.remove(&Some(process.id)).unwrap_or_default().into_iter().enumerate() {
            let (branch, rest) = if index == 0 { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            let under = if level < DRAWN_LEVELS { format!("{below}{rest}") } else { below.clone() };
            stack.push((child, level + 1, format!("{below}{branch}"), under));
        }
        lines.push((process, level, before));
    }
    lines
}

/// The command line, safe for a terminal; arguments with spaces or of no length in quotes.
fn command(process: &ProcessView) -> String {
    if process.command_args.is_empty() {
        if process.executable_path.0.is_empty() {
            return "?".to_owned();
        }
        return escape(&process.executable_path.0).into_owned();
    }
    let word = |text: &str| {
        let safe = escape(text);
        if safe.is_empty() || safe.contains([' ', '\'', '"']) {
            format!("'{}'", safe.replace('\'', "'\\''"))
        } else {
            safe.into_owned()
        }
    };
    process.command_args.iter().map(|argument| word(&argument.0)).collect::<Vec<_>>().join(" ")
}

/// How a process ended, nothing where it lives.
fn fate(process: &ProcessView) -> String {
    match &process.exit {
        Some(Exit { signal: Some(signal), .. }) => format!("  killed by signal {signal}"),
        Some(Exit { code: Some(code), .. }) => format!("  exited {code}"),
        Some(_) => "  ended".to_owned(),
        None if process.ended.is_some() => "  ended".to_owned(),
        None => String::new(),
    }
}

/// What a process did: only what it did at all.
fn doings(counts: &Counts) -> String {
    let done = counts.named().into_iter().filter(|&(_, count)| count > 0);
    let words: Vec<_> = done.map(|(name, count)| format!("{name} {count}")).collect();
    if words.is_empty() { String::new() } else { format!("  [{}]", words.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::samples;

    #[test]
    fn the_tree_of_a_session() {
        let wanted = "\
session coding-7f3k2q: agent coding of developer-platform@example.com, observe, recognised by exec **/claude
since 2026-05-04T08:00:00Z: 3 of 5 processes living; 3021 events, 0 denied, 0 missing

1200 claude --resume  [exec 1, read 120, write 4, connect 2]
├─ 1201 bash -c 'make all; rm -rf build\\n\\x1b[2J'
│  ├─ 1202 make all  exited 2  [exec 1, read 40, write 12, delete 3]
│  └─ 1203 rm %FF  killed by signal 9
└─ 1210 python3 -m http.server  [exec 1, listen 1]
and 6 that ended earlier: `agentwatch events --session coding-7f3k2q` has them
";
        assert_eq!(text(&samples::tree("coding-7f3k2q"), None), wanted);
    }

    #[test]
    fn on_a_narrow_terminal_commands_are_cut_and_what_was_done_is_not() {
        let shown = text(&samples::tree("coding-7f3k2q"), Some(40));
        assert!(shown.contains("\n├─ 1201 bash -c 'make all; rm -rf build…\n"), "{shown}");
        assert!(shown.contains("python3 -m …  [exec 1, listen 1]\n"), "{shown}");
    }

    #[test]
    fn an_ended_session_in_part() {
        let view = TreeView { processes: vec![], processes_omitted: 4, ..samples::tree("aider-aaaaaa") };
        let wanted = "\
session aider-aaaaaa: agent ai\\x1bder, observe, recognised by run python* -m aider* (built-in list), adopted
since 2026-05-04T07:00:00Z until 2026-05-04T07:30:00Z: 0 of 4 processes living; 120000 events, 0 denied, 14 missing
not known in full: it ran before the daemon did

and 4 that ended earlier: `agentwatch events --session aider-aaaaaa` has them
";
        assert_eq!(text(&view, None), wanted);
        let inner = TreeView { processes_omitted: 0, processes: vec![], ..samples::tree("coding-9x8y7z") };
        assert!(text(&inner, None).contains(", started in coding-7f3k2q, "));
    }

    #[test]
    fn no_process_is_left_out_whatever_the_parents_are() {
        let id = |pid: u32| Some(ProcessId { pid, start_time: u64::from(pid) * 1_000 });
        let parents = [(1, id(2)), (2, id(1)), (3, id(3)), (4, id(99)), (5, id(4)), (6, None)];
        let mut processes: Vec<_> = parents.map(|(pid, parent)| samples::process(pid, parent, &["x"])).into();
        let reused =
            ProcessView { id: ProcessId { pid: 5, start_time: 9_000 }, ..samples::process(5, id(5), &["y"]) };
        processes.insert(0, reused);
        let drawn: Vec<_> =
            arrange(&processes).into_iter().map(|(one, level, before)| (one.id.pid, level, before)).collect();
        let line = |pid, level, before: &str| (pid, level, before.to_owned());
        let wanted = [
            line(1, 0, ""),
            line(2, 1, "└─ "),
            line(3, 0, ""),
            line(4, 0, ""),
            line(5, 1, "└─ "),
            line(5, 2, "   └─ "),
            line(6, 0, ""),
        ];
        assert_eq!(drawn, wanted);
    }

    #[test]
    fn a_chain_of_ten_thousand_forks_stays_readable() {
        let parent =
            |pid: u32| (pid > 1).then(|| ProcessId { pid: pid - 1, start_time: u64::from(pid - 1) * 1_000 });
        let processes: Vec<_> = (1..=10_000).map(|pid| samples::process(pid, parent(pid), &["sh"])).collect();
        let view = TreeView { processes, ..samples::tree("coding-7f3k2q") };
        let shown = text(&view, None);
        assert!(shown.contains("└─ [level 9999] 10000 sh\n"));
        assert!(shown.lines().all(|line| line.chars().count() < 200));
    }
}
