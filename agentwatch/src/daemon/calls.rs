//! What harnesses tell of their agents' tools.

use super::Daemon;
use crate::{
    attribution::{known_process, name_session},
    calls::{CallRef, Ended, Untold, beginning, in_short},
    control::{
        Caller, Refusal,
        state::ProcessId,
        tool::{Begin, End, Reported, ToolBody, ToolCall, ToolView},
    },
    event::{Event, Kind},
};

/// Programs that harnesses start their hooks by.
const SHELLS: [&str; 8] = ["sh", "bash", "dash", "zsh", "ksh", "fish", "busybox", "env"];
/// Processes between a harness and its hook.
const BETWEEN_MAX: usize = 4;
/// Characters of a prompt that its event tells.
const PROMPT_CHARS: usize = 4_096;
/// Characters of what a tool is told that the reason of its event tells.
const TOLD_CHARS: usize = 200;

/// Who tells something.
#[derive(Clone, Copy)]
pub(super) struct Harness {
    pub session: u64,
    pub process: ProcessId,
    pub now: u64,
}

impl From<Untold> for ToolView {
    fn from(untold: Untold) -> Self {
        Self { refused: untold.refused, refusals: untold.refusals }
    }
}

impl Daemon {
    /// Takes up what a harness's hook tells: of its own session alone, which the kernel says.
    pub(super) fn tool(&mut self, body: ToolBody, caller: &Caller, now: u64) -> Result<ToolView, Refusal> {
        let session = self.session_of(caller).ok_or(Refusal::NotInSession)?;
        // What was done before belongs to what was told before.
        self.pipeline.drain(&mut self.maps.events, &mut self.state, &mut self.log);
        self.pipeline.flush(&mut self.state, &mut self.log);
        let harness = Harness { session, process: self.harness_of(caller), now };
        match body {
            ToolBody::Prompt { prompt_id, text } => self.prompt_given(harness, prompt_id.as_deref(), text),
            ToolBody::Begin(begin) => self.tool_begins(harness, begin),
            ToolBody::End(end) => return Ok(self.tool_ends(harness, end)),
            ToolBody::Done { text, subagent, prompt_id } => {
                if subagent.is_none() {
                    self.end_untold(harness, prompt_id.as_deref());
                }
                self.agent_is_done(harness, text.as_deref(), subagent);
            }
            ToolBody::RelayBegin { tool, harness_id, ended } => {
                self.relay_begin(harness, caller, tool, harness_id.as_deref(), &ended);
            }
            ToolBody::RelayEnd { id } => return Ok(self.relay_end(harness, &id)),
            ToolBody::Over {} => self.state.calls.over(session, self.state.host.unix_ns(now)),
        }
        Ok(ToolView::default())
    }

    fn prompt_given(&mut self, harness: Harness, id: Option<&str>, text: Option<String>) {
        let id = self.state.calls.prompt(harness.session, id);
        let mut event = self.harness_event(Kind::PromptSubmitted, harness);
        event.prompt_id = id;
        event.prompt = text.map(|text| beginning(&text, PROMPT_CHARS));
        self.log.append(&mut event);
    }

    fn tool_begins(&mut self, harness: Harness, mut begin: Begin) {
        let now_ns = self.state.host.unix_ns(harness.now);
        self.state.calls.number(harness.session, &mut begin.tool);
        let whose = self.state.calls.begin(harness.session, harness.process, &begin, now_ns);
        self.tell_start(harness, &whose, &begin.tool);
    }

    /// Says in the log that a call begins.
    pub(super) fn tell_start(&mut self, harness: Harness, whose: &CallRef, tool: &ToolCall) {
        let mut event = self.call_event(Kind::ToolStarted, harness, whose);
        if let Some(call) = &mut event.tool_call {
            call.input = in_short(&tool.input);
        }
        event.reason = Some(told(tool));
        self.log.append(&mut event);
    }

    fn tool_ends(&mut self, harness: Harness, mut end: End) -> ToolView {
        let now_ns = self.state.host.unix_ns(harness.now);
        end.id = self.state.calls.counted(harness.session, end.id);
        let Some(ended) = self.state.calls.end(harness.session, &end, now_ns) else {
            return ToolView::default();
        };
        self.tell_end(harness, &ended, &end);
        ended.untold.into()
    }

    /// Says in the log what came of a call.
    pub(super) fn tell_end(&mut self, harness: Harness, ended: &Ended, end: &End) {
        let mut event = self.call_event(Kind::ToolEnded, harness, &ended.whose);
        event.outcome = Some(ended.seen.outcome(end.reported, end.output.as_deref()));
        event.reason = Some(ended.seen.sentence(end.reported, ended.writes));
        self.log.append(&mut event);
    }

    fn end_untold(&mut self, harness: Harness, prompt: Option<&str>) {
        let now_ns = self.state.host.unix_ns(harness.now);
        for ended in self.state.calls.end_untold(harness.session, prompt, now_ns) {
            self.tell_end(harness, &ended, &End::default());
        }
    }

    fn agent_is_done(&mut self, harness: Harness, text: Option<&str>, subagent: Option<String>) {
        let (prompt, seen) = self.state.calls.done(harness.session);
        let mut event = self.harness_event(Kind::PromptEnded, harness);
        event.prompt_id = prompt;
        let sentence = match subagent {
            // What its calls did is told with each of them.
            Some(agent) => format!("the sub-agent `{}` reported done", beginning(&agent, TOLD_CHARS)),
            None => {
                event.outcome = Some(seen.outcome(Some(Reported::Done), text));
                seen.sentence(Some(Reported::Done), false)
            }
        };
        event.reason = Some(sentence);
        self.log.append(&mut event);
    }

    pub(super) fn call_event(&self, kind: Kind, harness: Harness, whose: &CallRef) -> Event {
        let mut event = self.harness_event(kind, harness);
        event.prompt_id.clone_from(&whose.prompt);
        event.tool_call = Some(whose.in_its_own_event());
        event
    }

    /// An event about what a harness told.
    pub(super) fn harness_event(&self, kind: Kind, harness: Harness) -> Event {
        let mut event = self.state.host_event(kind, harness.now, None);
        if let Some(session) = self.state.sessions.get(harness.session) {
            name_session(&mut event, session);
        }
        let ProcessId { pid, start_time } = harness.process;
        let process = self.state.processes.living(pid).filter(|one| one.start_ns == start_time);
        event.process = process.map(|process| known_process(pid, process));
        event
    }

    /// The process that called a hook: its parent, but for the shell between. One that nobody is where that is not known.
    fn harness_of(&self, caller: &Caller) -> ProcessId {
        let mut found = ProcessId { pid: 0, start_time: 0 };
        let mut hook = caller.pid.and_then(|pid| self.state.processes.living(pid));
        for _ in 0..BETWEEN_MAX {
            let Some(parent) = hook.and_then(|hook| hook.parent) else { break };
            found = parent;
            let process =
                self.state.processes.living(parent.pid).filter(|one| one.start_ns == parent.start_time);
            let is_shell = |path: &str| SHELLS.contains(&path.rsplit('/').next().unwrap_or_default());
            if !process.is_some_and(|process| is_shell(&process.image.path.0)) {
                break;
            }
            hook = process;
        }
        found
    }
}

/// A call in one line.
fn told(tool: &ToolCall) -> String {
    let texts = tool.input.as_object().into_iter().flatten().filter_map(|(_, value)| value.as_str());
    let input: Vec<&str> = texts.collect();
    let name = beginning(&tool.name, TOLD_CHARS);
    if input.is_empty() { name } else { format!("{name}: {}", beginning(&input.join(" "), TOLD_CHARS)) }
}
