//! `agentwatch policy explain --event`: why something was decided that happened, from the log alone.

use std::collections::HashMap;
use std::path::Path;

use anyhow::bail;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::explain::EventName;
use crate::cli::events::seq_of_last;
use crate::event::{Event, Kind, Process, Verdict};
use crate::kernel::hooks_of;
use crate::log::{Item, Line, Reader, Start};
use crate::output::{Form, Style, compact, escape::escape};
use crate::query::{Filter, SessionName};

/// Ancestors that are told: a chain of forks can be as long as a session likes.
const CHAIN_MAX: usize = 64;

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct EventView {
    event: Event,
    /// The kernel's hooks at which such a thing is decided.
    hooks: Vec<&'static str>,
    /// When the session began; absent where the log has that no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_began: Option<String>,
    /// What made its first process an agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    recognised: Option<String>,
    /// The processes from the session's first one, as far as the log has them, to the one that did it.
    ancestry: Vec<AncestorView>,
}

impl EventView {
    /// What was decided.
    pub(super) const fn verdict(&self) -> Verdict {
        self.event.verdict
    }
}

/// A process of the ancestry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct AncestorView {
    pid: u32,
    start_time: u64,
    /// Its program or command line, as the log tells it last before.
    command: String,
}

/// Identity of a process within a boot.
type Id = (u32, u64);

/// Explains an event of the log.
///
/// # Errors
/// There is no log, no such event, or it is none that was decided about.
pub(super) fn explain(state: &Path, name: EventName, session: Option<&str>) -> anyhow::Result<EventView> {
    let seq = match name {
        EventName::Number(seq) => seq,
        EventName::Last => {
            let verdicts = vec![Verdict::WouldDeny, Verdict::Held, Verdict::Denied, Verdict::Killed];
            let sessions = session.map(|id| SessionName::Begins(id.to_owned())).into_iter().collect();
            seq_of_last(state, &Filter { verdicts, sessions, ..Filter::default() }, 1)?
        }
    };
    let Some(event) = event_of(state, seq)? else {
        match name {
            EventName::Number(seq) => {
                bail!("the log has no event {seq}: `agentwatch events -o json` shows the numbers (`seq`)")
            }
            EventName::Last => bail!("nothing was refused that the log knows of"),
        }
    };
    let Some(process) = event.process.clone() else {
        bail!("event {seq} is of no process: nothing was decided about it");
    };
    let lineage = Lineage::read(state, &event)?;
    let is_unix = event.network.as_ref().is_some_and(|network| network.transport == "unix");
    Ok(EventView {
        hooks: hooks_of(event.kind, event.op, is_unix),
        session_began: lineage.start.as_ref().map(|start| start.time.clone()),
        recognised: lineage.start.as_ref().and_then(|start| start.reason.clone()),
        ancestry: lineage.chain(&process),
        event,
    })
}

fn event_of(state: &Path, seq: u64) -> anyhow::Result<Option<Event>> {
    let mut reader = Reader::open(state, Start::Seq(seq))?;
    while let Some(item) = reader.next_item()? {
        if let Item::Line(line) = item {
            return Ok(if line.head.seq == seq { Some(line.event()?) } else { None });
        }
    }
    Ok(None)
}

/// What the log says of where the processes of a session come from.
#[derive(Debug, Default)]
struct Lineage {
    start: Option<Event>,
    parents: HashMap<Id, Id>,
    commands: HashMap<Id, String>,
}

impl Lineage {
    /// From all events of the session up to this one.
    fn read(state: &Path, until: &Event) -> anyhow::Result<Self> {
        let mut lineage = Self::default();
        let mut reader = Reader::open(state, Start::Oldest)?;
        while let Some(item) = reader.next_item()? {
            let Item::Line(line) = item else { continue };
            if line.head.seq > until.seq {
                break;
            }
            if *line.head.session == *until.session {
                lineage.take(&line);
            }
        }
        Ok(lineage)
    }

    fn take(&mut self, line: &Line<'_>) {
        let is = |kind: Kind| line.head.kind == kind.name();
        if !(is(Kind::SessionStart) || is(Kind::ProcessFork) || is(Kind::ProcessExec)) {
            return;
        }
        // One of another version tells nothing.
        let Ok(event) = line.event() else { return };
        if let Some(process) = &event.process {
            self.commands.insert((process.pid, process.start_time), command(process));
            if let Some(child) = &event.child {
                let (own, child) = ((process.pid, process.start_time), (child.pid, child.start_time));
                self.parents.insert(child, own);
                self.commands.insert(child, command(process));
            }
        }
        if event.kind == Kind::SessionStart && self.start.is_none() {
            self.start = Some(event);
        }
    }

    /// The ancestors of a process and itself, the oldest first.
    fn chain(&self, process: &Process) -> Vec<AncestorView> {
        let view = |id: Id, command: String| AncestorView { pid: id.0, start_time: id.1, command };
        let mut id = (process.pid, process.start_time);
        let mut chain = vec![view(id, command(process))];
        while let Some(&parent) = self.parents.get(&id) {
            // Only an older one: then there is no circle.
            if chain.len() == CHAIN_MAX || parent.1 > id.1 || parent == id {
                break;
            }
            id = parent;
            chain.push(view(id, self.commands.get(&id).cloned().unwrap_or_else(|| "?".to_owned())));
        }
        chain.reverse();
        chain
    }
}

/// What a process runs, for people.
fn command(process: &Process) -> String {
    let words: Vec<&str> = process.command_args.iter().map(|word| word.0.as_str()).collect();
    match words.as_slice() {
        [] if process.executable_path.0.is_empty() => "?".to_owned(),
        [] => process.executable_path.0.clone(),
        words => words.join(" "),
    }
}

/// Characters of a command that are shown of each ancestor.
const COMMAND_CHARS: usize = 60;

/// The answer for people, beginning with the event as `agentwatch events` shows it.
pub(super) fn text(view: &EventView, zone: &TimeZone) -> String {
    let event = &view.event;
    let style = Style { form: Form::Compact, terminal: true, colour: false, zone: zone.clone() };
    let mut text = String::new();
    compact::show(event, &style, &mut text);
    text.push('\n');
    let mut line = |label: &str, value: &str| text.push_str(&format!("  {label:<9} {}\n", escape(value)));
    if let Some(reason) = &event.reason {
        line("because", reason);
    }
    if let Some(rule) = &event.rule {
        let policy = event.policy.as_ref().map(|one| format!(" (version {} of the policy)", one.version));
        line("rule", &format!("{rule}{}", policy.unwrap_or_default()));
    }
    if !view.hooks.is_empty() {
        line("hook", &view.hooks.join(", "));
    }
    let owner = event.owner.as_deref().map(|owner| format!(" of {owner}")).unwrap_or_default();
    let parent = event.parent_session.as_deref().map(|one| format!(", inside {one}")).unwrap_or_default();
    line("agent", &format!("{}{owner}, session {}{parent}", event.agent, event.session));
    match (&view.recognised, &view.session_began) {
        (Some(why), Some(began)) => line("since", &format!("{began}: {why}")),
        _ => line("since", "the log does not have the beginning of the session any more"),
    }
    for (depth, ancestor) in view.ancestry.iter().enumerate() {
        let label = if depth == 0 { "ancestry" } else { "" };
        let command: String = ancestor.command.chars().take(COMMAND_CHARS).collect();
        let cut = if command.len() < ancestor.command.len() { "…" } else { "" };
        line(label, &format!("{}{} {command}{cut}", "  ".repeat(depth.min(20)), ancestor.pid));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::log::{Limits, Log};

    fn process(pid: u32, words: &[&str]) -> Value {
        let path = format!("/usr/bin/{}", words[0]);
        json!({"pid": pid, "start_time": u64::from(pid) * 10, "executable.path": path, "command_args": words})
    }

    fn append(log: &mut Log, kind: &str, session: &str, rest: Value) {
        let mut event = json!({
            "time": "2026-11-21T03:37:12.000000001Z", "seq": 0, "host": "h", "boot_id": "b", "kind": kind,
            "agent": "coding", "owner": "dev@example.com", "session": session, "verdict": "allowed",
        });
        event.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        log.append(&mut serde_json::from_value(event).unwrap());
    }

    fn forked(parent: u32, words: &[&str], child: u32) -> Value {
        json!({"process": process(parent, words), "child": {"pid": child, "start_time": u64::from(child) * 10}})
    }

    /// An agent whose shell was refused something, beside another session.
    fn written() -> tempfile::TempDir {
        let state = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(state.path(), Limits::default()).unwrap();
        let (claude, sh, rm) = (["claude", "--resume"], ["bash", "-c", "rm x"], ["rm", "x\u{1b}[2J"]);
        let why = "process 1200 was recognised by `exec` `**/claude` of the built-in list";
        let own = "coding-7f3k2q";
        append(&mut log, "session.start", own, json!({"process": process(1200, &claude), "reason": why}));
        append(&mut log, "process.fork", own, forked(1200, &claude, 1201));
        append(&mut log, "process.fork", "ops-a1b2c3", forked(1300, &["ops"], 1202));
        append(&mut log, "process.exec", own, json!({"op": "exec", "process": process(1201, &sh)}));
        append(&mut log, "process.fork", own, forked(1201, &sh, 1202));
        append(&mut log, "process.exec", own, json!({"op": "exec", "process": process(1202, &rm)}));
        let denied = json!({
            "op": "delete", "process": process(1202, &rm), "file": {"path": "/srv/x", "device": "8:1"}, "verdict": "denied",
            "rule": "keep x", "reason": "the rule `keep x` covers it", "policy": {"version": 7, "hash": "0a"},
        });
        append(&mut log, "file.delete", own, denied);
        append(&mut log, "file.open", own, json!({"op": "read", "process": process(1200, &claude)}));
        append(&mut log, "daemon.stop", "", json!({}));
        log.flush().unwrap();
        state
    }

    #[test]
    fn a_refusal_is_explained_by_its_rule_its_hook_and_its_ancestors() {
        let state = written();
        let view = explain(state.path(), EventName::Last, Some("coding")).unwrap();
        let shown = text(&view, &TimeZone::UTC);
        let (first, rest) = shown.split_once('\n').unwrap();
        assert!(
            first.contains("rm[1202]") && first.contains("/srv/x") && first.ends_with("keep x"),
            "{first}"
        );
        assert_eq!(
            rest,
            "  because   the rule `keep x` covers it\n  \
               rule      keep x (version 7 of the policy)\n  \
               hook      path_unlink\n  \
               agent     coding of dev@example.com, session coding-7f3k2q\n  \
               since     2026-11-21T03:37:12.000000001Z: process 1200 was recognised by `exec` `**/claude` of the \
             built-in list\n  \
               ancestry  1200 claude --resume\n              \
                           1201 bash -c rm x\n                \
                             1202 rm x\\x1b[2J\n"
        );
        assert_eq!(view.verdict(), Verdict::Denied);
        let same = explain(state.path(), EventName::Number(view.event.seq), None).unwrap();
        assert_eq!(same.ancestry, view.ancestry);
        let pids: Vec<u32> = view.ancestry.iter().map(|one| one.pid).collect();
        assert_eq!(pids, [1200, 1201, 1202], "those of its own session alone");
    }

    #[test]
    fn what_cannot_be_explained_is_said() {
        let state = written();
        let problem = |name, session| explain(state.path(), name, session).unwrap_err().to_string();
        assert!(problem(EventName::Number(99), None).contains("has no event 99"));
        assert!(problem(EventName::Number(9), None).contains("of no process"));
        assert!(problem(EventName::Last, Some("ops")).contains("nothing was refused"));
        let gone = tempfile::tempdir().unwrap();
        assert!(explain(gone.path(), EventName::Last, None).is_err());
    }

    #[test]
    fn where_the_log_has_no_beginning_that_is_said() {
        let state = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(state.path(), Limits::default()).unwrap();
        append(&mut log, "guard.ptrace", "a", json!({"process": process(7, &["gdb"]), "verdict": "denied"}));
        log.flush().unwrap();
        let view = explain(state.path(), EventName::Last, None).unwrap();
        let shown = text(&view, &TimeZone::UTC);
        assert!(shown.contains("hook      ptrace_access_check"), "{shown}");
        assert!(
            shown.contains("does not have the beginning") && shown.contains("ancestry  7 gdb"),
            "{shown}"
        );
    }
}
