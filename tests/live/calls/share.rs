//! How much of what a real agent's tools do carries the right call: all of it, and what is not of a tool is listed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::iter;
use std::path::Path;

use agentwatch::event::{CallBy, Event, Kind, Op};
use anyhow::{Result, ensure};
use tests::compare::json;
use tests::model_server::{tool_use_id, tool_use_id_of};
use tests::session::SessionRun;

/// What an operation is of, by the processes' tree and command lines alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    /// A process that this call started.
    Tool(String),
    /// A file that the harness edits itself, for a call.
    Edit,
    /// A hook that the harness runs.
    Hook,
    /// A program that the harness runs of its own accord.
    Helper(String),
    /// The harness itself: its settings, transcripts, and the model.
    Harness,
}

/// What the commands of the script hold, and whose they are.
fn marks() -> Vec<(&'static str, String)> {
    vec![
        ("/a-copy", tool_use_id(0, 0)),
        ("/b-dir", tool_use_id(0, 1)),
        ("/late", tool_use_id(1, 1)),
        ("create_server", tool_use_id(1, 2)),
        ("/long", tool_use_id(1, 3)),
        ("/srv/aw-prod/f", tool_use_id(3, 0)),
        ("/errand", tool_use_id_of(0, 0, 0)),
    ]
}

/// The processes of a run.
#[derive(Default)]
struct Tree {
    /// Whose child each was first.
    parents: HashMap<u32, u32>,
    /// All that each was called with.
    commands: HashMap<u32, String>,
}

impl Tree {
    fn of(run: &SessionRun) -> Self {
        let mut tree = Self::default();
        for process in run.own().filter_map(|event| event.process.as_ref()) {
            if let Some(parent) = process.ppid {
                tree.parents.entry(process.pid).or_insert(parent);
            }
            let words: Vec<&str> = process.command_args.iter().map(|word| word.0.as_str()).collect();
            let command = tree.commands.entry(process.pid).or_default();
            let words = words.join(" ");
            if !command.ends_with(&words) {
                command.push('\n');
                command.push_str(&words);
            }
        }
        tree
    }

    /// A process and those that it comes from, up to the harness's own child.
    fn line(&self, harness: u32, pid: u32) -> Vec<u32> {
        let above = |pid: &u32| self.parents.get(pid).copied();
        iter::successors(Some(pid), above).take_while(|pid| *pid != harness).take(64).collect()
    }

    /// All that a process was called with.
    fn command(&self, pid: u32) -> &str {
        self.commands.get(&pid).map_or("", String::as_str)
    }
}

/// A path that the harness's own edits are of.
fn is_edited(dir: &Path, event: &Event) -> bool {
    let path = event.file.as_ref().map_or("", |file| file.path.0.as_str());
    path.starts_with(&*dir.join("written").to_string_lossy())
}

/// What an operation of a session is of.
fn of(tree: &Tree, harness: u32, dir: &Path, event: &Event) -> Of {
    let pid = event.process.as_ref().map_or(0, |process| process.pid);
    if pid == harness {
        return if is_edited(dir, event) { Of::Edit } else { Of::Harness };
    }
    let line = tree.line(harness, pid);
    let holds = |mark: &str| line.iter().any(|pid| tree.command(*pid).contains(mark));
    if holds("agentwatch hook") {
        return Of::Hook;
    }
    let tool = marks().into_iter().find(|(mark, _)| holds(mark));
    let top = || tree.command(line.last().copied().unwrap_or(pid)).trim().to_owned();
    tool.map_or_else(|| Of::Helper(top()), |(_, id)| Of::Tool(id))
}

/// Operations, those with a call, and those that say that it is the process's own or the target's.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    all: u64,
    with_call: u64,
    /// Known by more than that the call was the only one at the time.
    known: u64,
}

/// Every operation of a tool has its call. What has none is no tool's.
pub fn share(run: &SessionRun, dir: &Path) -> Result<()> {
    let tree = Tree::of(run);
    let mut all: BTreeMap<Of, Count> = BTreeMap::new();
    let mut wrong = Vec::new();
    for event in run.own().filter(|event| event.op.is_some() || event.kind.name().starts_with("process.")) {
        let of = of(&tree, run.pid, dir, event);
        let id = event.tool_call.as_ref().map(|call| &*call.id);
        let by = event.tool_call.as_ref().and_then(|call| call.by);
        let count = all.entry(of.clone()).or_default();
        count.all += 1;
        count.with_call += u64::from(id.is_some());
        count.known += u64::from(id.is_some() && by != Some(CallBy::Only));
        let is_right = match &of {
            Of::Tool(own) => id == Some(own) && by == Some(CallBy::Process),
            Of::Edit => is_right_edit(run, event),
            // The call that ran at the time may be named for what stands beside it, never as its own.
            Of::Hook | Of::Helper(_) | Of::Harness => id.is_none() || by == Some(CallBy::Only),
        };
        if !is_right {
            wrong.push(json(event));
        }
    }
    // Past the harness of the tests, which keeps what a passed test prints: the measure is for whoever reads its log.
    let _ = io::stderr().write_all(table(&all).as_bytes());
    ensure!(wrong.is_empty(), "{}{wrong:#?}", table(&all));
    let tools: Vec<&str> =
        all.keys().filter_map(|of| if let Of::Tool(id) = of { Some(id.as_str()) } else { None }).collect();
    let expected: BTreeSet<String> = marks().into_iter().map(|(_, id)| id).collect();
    ensure!(tools.iter().eq(expected.iter()), "{tools:?} in place of {expected:?}");
    // A program that is on neither list may be a tool's, and would have been counted as none.
    for of in all.keys() {
        let is_known = if let Of::Helper(command) = of { is_known_helper(command) } else { true };
        ensure!(is_known, "it is not known whose `{of:?}` is");
    }
    Ok(())
}

/// A program that the harness runs of its own accord.
fn is_known_helper(command: &str) -> bool {
    let is_git = command.contains("git") && command.contains(" ls-files");
    is_git || command.contains("SNAPSHOT_FILE") || command == "/bin/bash -c env"
}

/// An edit that the harness makes itself has the call that told of it, except what it reads of the file before it
/// tells of the call, or after.
fn is_right_edit(run: &SessionRun, event: &Event) -> bool {
    let calls = [tool_use_id(0, 2), tool_use_id(1, 0)];
    if let Some(call) = &event.tool_call {
        return calls.iter().any(|id| *call.id == **id);
    }
    let told = |kind: Kind, id: &str| {
        let is_of = |event: &&Event| event.tool_call.as_ref().is_some_and(|call| *call.id == *id);
        run.of_kind(kind).find(is_of).map(|event| event.seq)
    };
    let is_within = |id: &String| {
        let window = told(Kind::ToolStarted, id).zip(told(Kind::ToolEnded, id));
        window.is_none_or(|(start, end)| start < event.seq && event.seq < end)
    };
    event.op == Some(Op::Read) && !calls.iter().any(is_within)
}

/// One line for each that operations are of.
fn table(all: &BTreeMap<Of, Count>) -> String {
    let mut text = String::from("all, with a call, with a call that is known:\n");
    for (of, count) in all {
        let of: String = format!("{of:?}").chars().take(80).collect();
        let _ = writeln!(text, "{:6} {:6} {:6} {of}", count.all, count.with_call, count.known);
    }
    text
}
