//! The compact form: time, session, process, operation, target, verdict, rule, alignment, tool call and prompt in one line.
//!
//! Two or more spaces stand between fields, and nowhere else: what could look like the end of a field is put
//! in quotes. So an observed text can forge neither a line nor a field of one.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Style;
use super::escape::{escape, escape_bytes};
use crate::calls::beginning;
use crate::event::bytes::decode;
use crate::event::{
    Alignment, Check, Encoding, Event, Exit, File, Guarded, Kind, Network, ObservedText, Process, Verdict,
};

const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[33m";
const MAGENTA: &str = "\x1b[35m";
const CYAN: &str = "\x1b[36m";
const RESET: &str = "\x1b[0m";

/// Characters of a prompt that are shown.
const PROMPT_CHARS: usize = 120;
/// What stands in a field that does not apply.
const NONE: &str = "-";

/// Adds the compact form of an event to `text`, without a newline.
pub fn show(event: &Event, style: &Style, text: &mut String) {
    let loss = (event.kind == Kind::Loss).then_some(RED);
    let session = if event.session.is_empty() { NONE.to_owned() } else { word(&event.session) };
    let process = event.process.as_ref().map_or_else(|| NONE.to_owned(), process);
    let verdict = if has_verdict(event.kind) { event.verdict.name() } else { NONE };
    let (alignment, call) = (alignment(event), call(event));
    let none_before = |behind: &[&String]| {
        let is_last = behind.iter().all(|text| text.is_empty());
        if is_last { String::new() } else { NONE.to_owned() }
    };
    let no_rule = none_before(&[&alignment, &call]);
    let alignment = if alignment.is_empty() { none_before(&[&call]) } else { alignment };
    // The least widths of the columns, in characters.
    let fields = [
        Field { text: local_time(&event.time, &style.zone), width: 29, colour: Some(DIM) },
        Field { text: session, width: 16, colour: loss.or(Some(CYAN)) },
        Field { text: process, width: 18, colour: loss },
        Field { text: operation(event).to_owned(), width: 8, colour: loss },
        Field { text: counted(event), width: 44, colour: loss },
        Field { text: verdict.to_owned(), width: 10, colour: loss.or(verdict_colour(event.verdict)) },
        Field { text: event.rule.as_deref().map_or(no_rule, phrase), width: 0, colour: loss },
        Field { text: alignment, width: 0, colour: alignment_colour(event) },
        Field { text: call, width: 0, colour: Some(DIM) },
    ];
    let last = fields.iter().rposition(|field| !field.text.is_empty()).unwrap_or(0);
    for (at, field) in fields.iter().enumerate().take(last + 1) {
        field.show(style.colour, at < last, text);
    }
}

/// What was declared of it, and how it relates to that; empty where nothing ever was.
fn alignment(event: &Event) -> String {
    let Some(intent) = &event.intent else { return String::new() };
    let alignment = intent.alignment.map(Alignment::name).or(intent.check.map(Check::name));
    let words: Vec<_> =
        alignment.map(str::to_owned).into_iter().chain(intent.id.as_deref().map(word)).collect();
    words.join(" ")
}

/// The tool call and the prompt that it belongs to; empty where no harness tells of these.
fn call(event: &Event) -> String {
    let call = event.tool_call.as_ref().map(|call| format!("{} {}", word(&call.name), word(&call.id)));
    let prompt = event.prompt_id.as_ref().map(|prompt| format!("prompt {}", word(prompt)));
    call.into_iter().chain(prompt).collect::<Vec<_>>().join(" ")
}

fn alignment_colour(event: &Event) -> Option<&'static str> {
    let intent = event.intent.as_ref()?;
    match (intent.alignment, intent.check) {
        (_, Some(Check::Failed)) => Some(RED),
        (Some(Alignment::Aligned), _) => Some(DIM),
        (Some(Alignment::Outside | Alignment::Expired), _) => Some(MAGENTA),
        _ => None,
    }
}

struct Field {
    text: String,
    width: usize,
    colour: Option<&'static str>,
}

impl Field {
    fn show(&self, coloured: bool, more: bool, line: &mut String) {
        let colour = self.colour.filter(|_| coloured);
        line.push_str(colour.unwrap_or_default());
        line.push_str(&self.text);
        line.push_str(colour.map_or("", |_| RESET));
        if more {
            let missing = self.width.saturating_sub(self.text.chars().count());
            line.extend(std::iter::repeat_n(' ', missing + 2));
        }
    }
}

fn local_time(stored: &str, zone: &TimeZone) -> String {
    stored.parse::<Timestamp>().map_or_else(
        |_| word(stored),
        |time| time.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string(),
    )
}

fn process(process: &Process) -> String {
    let path = shown(&process.executable_path, process.executable_path_encoding);
    // Of a process whose end alone is known, the program is not.
    let name = path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("?");
    format!("{}[{}]", quoted(name, true), process.pid)
}

const fn has_verdict(kind: Kind) -> bool {
    use Kind::{
        ContextRetrieved, DaemonStart, DaemonStop, IntentChecked, IntentClosed, IntentDeclared,
        IntentRefused, LogRecovered, LogRemoved, Loss, PolicyApplied, PolicyRefused, PromptEnded,
        PromptSubmitted, SelfTest, SessionEnd, SessionStart, SloSpike, ToolEnded, ToolRefused, ToolReported,
        ToolStarted,
    };
    !matches!(
        kind,
        DaemonStart
            | DaemonStop
            | PolicyApplied
            | PolicyRefused
            | IntentDeclared
            | IntentRefused
            | IntentClosed
            | IntentChecked
            | PromptSubmitted
            | PromptEnded
            | ToolStarted
            | ToolEnded
            | ToolReported
            | ToolRefused
            | ContextRetrieved
            | SloSpike
            | SelfTest
            | LogRecovered
            | LogRemoved
            | Loss
            | SessionStart
            | SessionEnd
    )
}

const fn verdict_colour(verdict: Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Allowed | Verdict::Logged => None,
        Verdict::WouldDeny => Some(YELLOW),
        Verdict::Held => Some(MAGENTA),
        Verdict::Denied | Verdict::Killed => Some(RED),
    }
}

/// The word for what was done: the kind's own, as it says more than the operation, but for an open.
fn operation(event: &Event) -> &'static str {
    match (event.kind, event.op) {
        (Kind::FileOpen, Some(op)) => op.name(),
        (Kind::Loss, _) => "LOSS",
        (Kind::SessionStart | Kind::SessionEnd | Kind::DaemonStart | Kind::DaemonStop, _) => {
            event.kind.name()
        }
        (
            Kind::LogRecovered
            | Kind::LogRemoved
            | Kind::PolicyApplied
            | Kind::PolicyRefused
            | Kind::IntentDeclared
            | Kind::IntentRefused
            | Kind::IntentClosed
            | Kind::IntentChecked
            | Kind::PromptSubmitted
            | Kind::PromptEnded
            | Kind::ToolStarted
            | Kind::ToolEnded
            | Kind::ToolReported
            | Kind::ToolRefused
            | Kind::ContextRetrieved
            | Kind::SloSpike
            | Kind::SelfTest,
            _,
        ) => event.kind.name(),
        (kind, _) => kind.name().rsplit('.').next().unwrap_or_default(),
    }
}

fn counted(event: &Event) -> String {
    let mut text = target(event);
    if event.count != 1 {
        text.push_str(&format!(" ×{}", event.count));
    }
    text
}

fn target(event: &Event) -> String {
    if let Some(loss) = &event.loss {
        return format!("lost: {} × {} ({})", loss.count, word(&loss.kind), word(&loss.reason));
    }
    if let Some(child) = &event.child {
        return format!("→ child {}", child.pid);
    }
    if let Some(exit) = &event.exit {
        return ended(exit);
    }
    if let Some(command) = &event.command {
        return phrase(&command.0);
    }
    if let Some(guarded) = &event.guard {
        return guard_target(guarded, event);
    }
    if let Some(file) = &event.file {
        return file_target(file);
    }
    if let Some(network) = &event.network {
        return network_target(network, event.kind);
    }
    if let Some(prompt) = &event.prompt {
        return phrase(&beginning(prompt, PROMPT_CHARS));
    }
    if event.kind == Kind::ProcessExec {
        let program = |process: &Process| path(&process.executable_path, process.executable_path_encoding);
        return event.process.as_ref().map_or_else(|| NONE.to_owned(), program);
    }
    event.reason.as_deref().map_or_else(|| NONE.to_owned(), phrase)
}

fn ended(exit: &Exit) -> String {
    match (exit.code, exit.signal) {
        (_, Some(signal)) => format!("signal {signal}"),
        (Some(code), None) => format!("status {code}"),
        (None, None) => NONE.to_owned(),
    }
}

fn file_target(file: &File) -> String {
    let mut text = if file.path_truncated { "…" } else { "" }.to_owned();
    text.push_str(&path(&file.path, file.path_encoding));
    if let Some(to) = &file.path_to {
        text.push_str(" → ");
        text.push_str(&path(to, file.path_to_encoding));
    }
    if let Some(argument) = &file.argument {
        text.push_str(" = ");
        text.push_str(&path(argument, file.argument_encoding));
    }
    if let Some(root) = &file.root {
        text.push_str(&format!(" (in {})", word(root)));
    }
    if file.deleted {
        text.push_str(" (deleted)");
    }
    text
}

/// What was tried, where the operation's word does not say it already, on what.
fn guard_target(guarded: &Guarded, event: &Event) -> String {
    let act = (guarded.act != operation(event)).then(|| word(&guarded.act));
    let detail = guarded.detail.as_deref().map(word);
    let pid = guarded.pid.map(|pid| format!("→ pid {pid}"));
    let file = event.file.as_ref().map(file_target);
    let parts: Vec<String> = [act, detail, pid, file].into_iter().flatten().collect();
    if parts.is_empty() { NONE.to_owned() } else { parts.join(" ") }
}

fn network_target(network: &Network, kind: Kind) -> String {
    let peer = endpoint(network.peer_address.as_ref(), network.peer_address_encoding, network.peer_port);
    let local = endpoint(network.local_address.as_ref(), network.local_address_encoding, network.local_port);
    let address = match (kind, peer, local) {
        (Kind::NetAccept, Some(peer), Some(local)) => format!("{local} ← {peer}"),
        (Kind::NetBind | Kind::NetListen, peer, local) => local.or(peer).unwrap_or_default(),
        (_, peer, local) => peer.or(local).unwrap_or_default(),
    };
    let transport = word(&network.transport);
    if address.is_empty() { transport } else { format!("{transport} {address}") }
}

fn endpoint(address: Option<&ObservedText>, encoding: Option<Encoding>, port: Option<u32>) -> Option<String> {
    let address = path(address?, encoding);
    Some(match port {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address,
    })
}

/// An observed text for a terminal. What was percent-encoded is shown by its bytes, so that it cannot be
/// taken for a text that holds percent signs.
fn shown(text: &ObservedText, encoding: Option<Encoding>) -> Cow<'_, str> {
    match decode(text, encoding.is_some()) {
        Ok(bytes) if encoding.is_some() => Cow::Owned(escape_bytes(&bytes)),
        _ => escape(&text.0),
    }
}

fn path(text: &ObservedText, encoding: Option<Encoding>) -> String {
    quoted(&shown(text, encoding), true)
}

/// A text that should be one word.
fn word(text: &str) -> String {
    quoted(&escape(text), true)
}

/// A text of several words.
fn phrase(text: &str) -> String {
    quoted(&escape(text), false)
}

/// An escaped text, in quotes where it could be taken for more than one field or word.
fn quoted(text: &str, is_word: bool) -> String {
    let marks = ['"', '→', '←', '×', '…'];
    let splits = if is_word { text.contains([' ', '(']) } else { text.contains("  ") };
    let edges = text.is_empty() || text == NONE || text.starts_with(' ') || text.ends_with(' ');
    if splits || edges || text.contains(marks) {
        // A backslash is already escaped, so that one before a quotation mark is the mark's own.
        format!("\"{}\"", text.replace('"', "\\\""))
    } else {
        text.to_owned()
    }
}
