//! The answers for people.

use jiff::tz::TimeZone;

use crate::blame::{FileBlame, ProcessBlame, SocketBlame, Step, Writer};
use crate::event::bytes::decode;
use crate::event::{Cause, Encoding, Event, Kind, ObservedText, UsedBy};
use crate::output::escape::{escape, escape_bytes};
use crate::output::{Form, Style, compact};

/// Characters of a command that are shown of each process.
const COMMAND_CHARS: usize = 100;

/// Who caused a file.
pub(super) fn file(blame: &FileBlame, zone: &TimeZone) -> String {
    let path = shown(&blame.path, blame.path_encoding);
    let mut text = String::new();
    match &blame.writer {
        Some(writer) => {
            text.push_str(&format!("{path} was written last by {}\n", wrote(writer)));
            details(&mut text, writer);
            if let Some(cause) = &writer.cause {
                chain(&mut text, cause);
            }
        }
        None => text.push_str(&format!("no session is known to have written {path}; what is known of it:\n")),
    }
    if blame.replaced {
        text.push_str(
            "The file that is there now is another one: somebody outside every session put it there since.\n",
        );
    }
    if !blame.caused.is_empty() {
        text.push_str("What it caused, the latest first:\n");
        for start in &blame.caused {
            let reason = start.reason.as_deref().unwrap_or("it was used");
            text.push_str(&format!(
                "  {}  session {}: {}\n",
                start.time,
                escape(&start.session),
                escape(reason)
            ));
        }
        more(&mut text, blame.more_caused);
    }
    acts(&mut text, &blame.acts, blame.more_acts, zone);
    text.push_str(&format!("({})\n", blame.looked_through.sentence()));
    text
}

/// Whose a process is.
pub(super) fn process(blame: &ProcessBlame, runs: bool) -> String {
    let last = &blame.last;
    let state = match (runs, last.kind) {
        (true, _) => "is",
        (false, Kind::ProcessExit) => "ended, and was",
        (false, _) => "does not run any more, and was",
    };
    let mut text = format!(
        "process {} {state} in session {} of the agent {}{}\n",
        blame.pid,
        escape(&last.session),
        escape(&last.agent),
        owner(last.owner.as_deref()),
    );
    if let Some(start) = &blame.session_start {
        if let Some(reason) = &start.reason {
            text.push_str(&format!("  since      {}: {}\n", start.time, escape(reason)));
        }
        match (&start.cause, &start.parent_session) {
            (Some(cause), _) => chain(&mut text, cause),
            (None, Some(parent)) => text.push_str(&format!("  inside     session {}\n", escape(parent))),
            (None, None) => {}
        }
    } else {
        text.push_str("  since      the log does not have the beginning of the session any more\n");
    }
    if let Some(call) = &last.tool_call {
        text.push_str(&format!("  tool call  {} ({})\n", escape(&call.id), escape(&call.name)));
    }
    if let Some(prompt) = &last.prompt_id {
        text.push_str(&format!("  prompt     {}\n", escape(prompt)));
    }
    for (depth, step) in blame.processes.iter().enumerate() {
        let label = if depth == 0 { "processes" } else { "" };
        text.push_str(&format!(
            "  {label:<9}  {}{} {}\n",
            "  ".repeat(depth.min(20)),
            step.pid,
            command(step)
        ));
    }
    text.push_str(&format!("({})\n", blame.looked_through.sentence()));
    text
}

/// Who used an address.
pub(super) fn socket(blame: &SocketBlame, zone: &TimeZone) -> String {
    let mut text = String::new();
    if let Some(last) = blame.acts.first() {
        let does = match last.kind {
            Kind::NetConnect => "connected there",
            Kind::NetSend => "sent there",
            Kind::NetBind => "took it as its own address",
            Kind::NetListen => "listened there",
            Kind::NetAccept => "accepted a connection there",
            _ => "got a socket that was connected there",
        };
        let refused =
            last.errno.as_ref().map(|errno| format!(", and was refused it ({errno})")).unwrap_or_default();
        text.push_str(&format!("last {does}{refused}: {}\n", who(last)));
        details(&mut text, &Writer::of_event(last));
    }
    acts(&mut text, &blame.acts, blame.more_acts, zone);
    text.push_str(&format!("({})\n", blame.looked_through.sentence()));
    text
}

fn who(event: &Event) -> String {
    format!(
        "session {} of the agent {}{}, at {} (event {})",
        escape(&event.session),
        escape(&event.agent),
        owner(event.owner.as_deref()),
        event.time,
        event.seq
    )
}

fn wrote(writer: &Writer) -> String {
    format!(
        "session {} of the agent {}{}, at {} (event {})",
        escape(&writer.session),
        escape(&writer.agent),
        owner(writer.owner.as_deref()),
        writer.time,
        writer.seq
    )
}

fn owner(owner: Option<&str>) -> String {
    owner.map(|owner| format!(" (owner {})", escape(owner))).unwrap_or_default()
}

/// By which call, for which prompt, by what right.
fn details(text: &mut String, writer: &Writer) {
    let call = writer.tool_call.as_ref().map(|call| format!("{} ({})", call.id, call.name));
    let none = || "none is known: no harness told of one".to_owned();
    let policy = writer.policy.as_ref().map(|policy| format!("version {} ({})", policy.version, policy.hash));
    let lines = [
        ("tool call", Some(call.unwrap_or_else(none))),
        ("prompt", writer.prompt_id.as_deref().map(str::to_owned)),
        ("intent", writer.intent.as_deref().map(str::to_owned)),
        ("policy", Some(policy.unwrap_or_else(|| "none had anything to say of it".to_owned()))),
        ("rule", writer.rule.as_deref().map(str::to_owned)),
    ];
    for (label, value) in lines {
        if let Some(value) = value {
            text.push_str(&format!("  {label:<9}  {}\n", escape(&value)));
        }
    }
}

/// The chain of causes, back to a session that nobody caused.
fn chain(text: &mut String, cause: &Cause) {
    for cause in std::iter::successors(Some(cause), |cause| cause.cause.as_deref()) {
        let does = match cause.by {
            UsedBy::Exec => "because a process started",
            UsedBy::Read => "because an interpreter read",
            UsedBy::Load => "because a process loaded",
            UsedBy::Asked => "because it was started by",
            UsedBy::Job => "because it is a job of",
        };
        text.push_str(&format!("{does} {}\n", shown(&cause.path, cause.path_encoding)));
        let writer = Writer::of_cause(cause);
        let when = match (&cause.time, cause.seq) {
            (Some(time), Some(seq)) => format!(", at {time} (event {seq})"),
            _ => "; the event of that is missing".to_owned(),
        };
        text.push_str(&format!(
            "which was {} by session {} of the agent {}{}{when}\n",
            if cause.by == UsedBy::Asked { "asked" } else { "written" },
            escape(&cause.session),
            escape(&cause.agent),
            owner(cause.owner.as_deref())
        ));
        if cause.others {
            text.push_str("  and it was asked by others too in those seconds: this may be theirs\n");
        }
        details(text, &writer);
    }
}

fn acts(text: &mut String, acts: &[Event], others: u64, zone: &TimeZone) {
    if acts.is_empty() {
        return;
    }
    text.push_str("What sessions did, the latest first:\n");
    let style = Style { form: Form::Compact, terminal: true, colour: false, zone: zone.clone() };
    for event in acts {
        text.push_str("  ");
        compact::show(event, &style, text);
        text.push('\n');
    }
    more(text, others);
}

fn more(text: &mut String, count: u64) {
    if count > 0 {
        text.push_str(&format!("  and {count} more: `--limit` shows them\n"));
    }
}

fn command(step: &Step) -> String {
    let words: Vec<&str> = step.command_args.iter().map(|word| word.0.as_str()).collect();
    let whole = match words.as_slice() {
        [] if step.executable_path.0.is_empty() => "?".to_owned(),
        [] => step.executable_path.0.clone(),
        words => words.join(" "),
    };
    let short: String = whole.chars().take(COMMAND_CHARS).collect();
    let cut = if short.len() < whole.len() { "…" } else { "" };
    format!("{}{cut}", escape(&short))
}

/// An observed path for a terminal.
fn shown(text: &ObservedText, encoding: Option<Encoding>) -> String {
    match decode(text, encoding.is_some()) {
        Ok(bytes) => format!("`{}`", escape_bytes(&bytes)),
        Err(_) => format!("`{}`", escape(&text.0)),
    }
}
