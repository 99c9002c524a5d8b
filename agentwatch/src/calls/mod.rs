//! Tool calls that harnesses tell of, and what of a session's doings is theirs.
//!
//! A call owns the processes that it starts, from their exec to their end, with all that these start: the first is known
//! by its command line, which holds what the tool was told to run, and its descendants by their parents. What a tool does
//! within the harness's own process (file edits) is known by the file that it was told.

mod counted;
mod kept;
mod outcome;
mod served;
mod spans;
mod text;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

pub use self::kept::{Kept, KeptProcess};
use self::outcome::Tally;
pub use self::spans::Spanned;
pub use self::text::{beginning, in_short, is_writer};
use crate::{
    control::{
        state::ProcessId,
        tool::{Begin, End, RefusedView},
    },
    event::{Alignment, CallBy, Event, IntentRef, ObservedText, Op, ToolCallRef},
};

/// Calls of one session that are kept, those that are over included.
const KEPT_MAX: usize = 256;
/// Sub-agents of one session that are kept.
const SUBAGENTS_MAX: usize = 64;
/// Bytes of an id or a name that are kept.
const NAME_BYTES: usize = 256;
/// Arguments that can tell what an interpreter runs.
const NAMED_BY: usize = 3;
/// Tools by which an agent hands something to a sub-agent.
const DELEGATES: [&str; 2] = ["Agent", "Task"];

/// A call, as events name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRef {
    /// Its id, as the harness gives it.
    pub id: Arc<str>,
    /// Name of the tool.
    pub name: Arc<str>,
    /// The call of the agent above whose sub-agent makes it.
    pub parent: Option<Arc<str>>,
    /// Id of the prompt that led to it.
    pub prompt: Option<Arc<str>>,
    /// The process that makes calls.
    pub harness: ProcessId,
    /// How its processes are known.
    pub by: CallBy,
}

impl CallRef {
    /// As an event of something that it did names it.
    #[must_use]
    pub fn in_event(&self) -> ToolCallRef {
        ToolCallRef { by: Some(self.by), ..self.in_its_own_event() }
    }

    /// As an event about the call itself names it.
    #[must_use]
    pub fn in_its_own_event(&self) -> ToolCallRef {
        let Self { id, name, parent, .. } = self.clone();
        ToolCallRef { id, name, parent, by: None, input: None }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Call {
    whose: Arc<CallRef>,
    /// The tool is there to write.
    writes: bool,
    /// What it was told to run, as [`text::squeezed`] has it.
    command: Option<String>,
    /// The words of that, see [`text::Input::words`].
    words: HashSet<String>,
    /// Files that it was told.
    paths: Vec<String>,
    /// Of all that it was told.
    digest: Option<String>,
    began_ns: u64,
    ended_ns: Option<u64>,
    /// Its first process was found.
    started: bool,
    /// It started a sub-agent that is known.
    has_subagent: bool,
    seen: Tally,
    /// The MCP server that it was passed on to.
    served: Option<served::Served>,
}

impl Call {
    /// Whether it was on its way at a moment.
    fn is_open(&self, at_ns: u64) -> bool {
        self.began_ns <= at_ns && self.ended_ns.is_none_or(|ended| at_ns <= ended)
    }

    fn ended(&self) -> Ended {
        let whose = Arc::clone(&self.whose);
        Ended { whose, writes: self.writes, seen: self.seen.clone(), untold: self.untold() }
    }
}

/// A prompt, and what was done for it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Prompt {
    id: Option<Arc<str>>,
    seen: Tally,
}

/// What is known of the calls of one session.
#[derive(Debug, Default, Serialize, Deserialize)]
struct OfSession {
    prompt: Prompt,
    calls: VecDeque<Call>,
    /// The calls that started sub-agents, by the harness's ids of these; the latest last.
    subagents: VecDeque<(Arc<str>, Arc<str>)>,
    /// Calls that have a count as a part of their id.
    counted: u64,
}

/// The calls of all sessions.
#[derive(Debug, Default)]
pub struct Calls {
    by_session: HashMap<u64, OfSession>,
    times: spans::AllTimes,
}

/// A call that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub whose: Arc<CallRef>,
    /// The tool is there to write.
    pub writes: bool,
    /// What the kernel saw of it.
    pub seen: Tally,
    /// What was refused, as far as nobody has put it into the tool's result already.
    pub untold: Untold,
}

/// What was refused, and is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Untold {
    /// The first of it.
    pub refused: Vec<RefusedView>,
    /// How much in all.
    pub refusals: u64,
}

impl Calls {
    /// A prompt was given: what follows is for it. Gives the id as it is kept.
    pub fn prompt(&mut self, session: u64, id: Option<&str>) -> Option<Arc<str>> {
        let id = id.map(short);
        self.by_session.entry(session).or_default().turn_to(id.clone());
        id
    }

    /// The agent, or a sub-agent, says that it is done with what it was asked.
    #[must_use]
    pub fn done(&self, session: u64) -> (Option<Arc<str>>, Tally) {
        let prompt = self.by_session.get(&session).map(|of| &of.prompt);
        prompt.map_or_else(Default::default, |prompt| (prompt.id.clone(), prompt.seen.clone()))
    }

    /// Ends the agent's own calls for a prompt, or else for the latest one, whose end was not told: some harnesses tell none
    /// of what failed. Not those of sub-agents, which may go on.
    pub fn end_untold(&mut self, session: u64, prompt: Option<&str>, now_ns: u64) -> Vec<Ended> {
        let Some(of) = self.by_session.get_mut(&session) else { return Vec::new() };
        let prompt = prompt.map(short).or_else(|| of.prompt.id.clone());
        let is_over = |call: &&mut Call| {
            let whose = &call.whose;
            whose.prompt == prompt
                && whose.parent.is_none()
                && call.ended_ns.is_none()
                && call.served.is_none()
        };
        let end = |call: &mut Call| {
            call.ended_ns = Some(now_ns);
            call.ended()
        };
        of.calls.iter_mut().filter(is_over).map(end).collect()
    }

    /// A call begins. One of the same id takes the place of the one before.
    pub fn begin(&mut self, session: u64, harness: ProcessId, begin: &Begin, now_ns: u64) -> Arc<CallRef> {
        let of = self.by_session.entry(session).or_default();
        if begin.prompt_id.is_some() {
            of.turn_to(begin.prompt_id.as_deref().map(short));
        }
        let tool = &begin.tool;
        let id = short(&tool.id);
        of.calls.retain(|one| one.whose.id != id);
        if of.calls.len() >= KEPT_MAX {
            of.calls.pop_front();
        }
        let input = text::of_input(&tool.input);
        let whose = Arc::new(CallRef {
            id,
            name: short(&tool.name),
            parent: begin.subagent.as_deref().and_then(|agent| of.parent_of(agent, now_ns)),
            prompt: of.prompt.id.clone(),
            harness,
            by: CallBy::Process,
        });
        of.calls.push_back(Call {
            whose: Arc::clone(&whose),
            writes: is_writer(&tool.name),
            command: input.command,
            words: input.words,
            paths: input.paths,
            digest: tool.digest.clone(),
            began_ns: now_ns,
            ended_ns: None,
            started: false,
            has_subagent: false,
            seen: Tally::default(),
            served: None,
        });
        whose
    }

    /// A call is over. What its processes go on to do is still its own. Nothing where it is not known, or was over before.
    pub fn end(&mut self, session: u64, end: &End, now_ns: u64) -> Option<Ended> {
        let of = self.by_session.get_mut(&session)?;
        let id = short(&end.id);
        let call = of.calls.iter_mut().find(|one| one.whose.id == id && one.ended_ns.is_none())?;
        call.ended_ns = Some(now_ns);
        let ended = call.ended();
        if let Some(agent) = &end.subagent {
            let id = Arc::clone(&ended.whose.id);
            of.knows(short(agent), id);
        }
        Some(ended)
    }

    /// The harness's own session is over: nothing of it is on its way any more.
    pub fn over(&mut self, session: u64, now_ns: u64) {
        let Some(of) = self.by_session.get_mut(&session) else { return };
        for call in &mut of.calls {
            call.ended_ns.get_or_insert(now_ns);
        }
        of.prompt = Prompt::default();
    }

    /// The call to which a process belongs that the harness just started, by its command line.
    pub fn claim(
        &mut self,
        session: u64,
        parent: Option<ProcessId>,
        command: &str,
        at_ns: u64,
    ) -> Option<Arc<CallRef>> {
        let of = self.by_session.get_mut(&session)?;
        let squeezed = text::squeezed(command);
        // The harness's own, unless it is a tool that was told to run that.
        let runs_hook = |call: &Call| call.command.as_deref().is_some_and(text::is_hook);
        if text::is_hook(&squeezed) && !of.calls.iter().any(|call| call.is_open(at_ns) && runs_hook(call)) {
            return None;
        }
        if let Some(call) = parent.and_then(|parent| of.claim_served(parent, command, at_ns)) {
            return Some(call);
        }
        let calls = &mut of.calls;
        let of_harness =
            |call: &&mut Call| Some(call.whose.harness) == parent && call.is_open(at_ns) && !call.started;
        let told =
            |call: &&mut Call| call.command.as_ref().is_some_and(|told| squeezed.contains(told.as_str()));
        // Of several the one that says most, and of the same the one that waits longest.
        let longest = |call: &&mut Call| call.command.as_ref().map_or(0, String::len);
        let found = calls.iter_mut().filter(of_harness).filter(told).rev().max_by_key(longest);
        if let Some(call) = found {
            call.started = true;
            return Some(Arc::clone(&call.whose));
        }
        let mut open = calls.iter_mut().filter(of_harness);
        // A tool that runs something of its own accord: certain only where no other call is on its way.
        let (call, None) = (open.next()?, open.next()) else { return None };
        Some(Arc::new(CallRef { by: CallBy::Only, ..(*call.whose).clone() }))
    }

    /// Whether the command of a call names a program, by its own name or by one of its first arguments: a script, or what
    /// it was started as.
    #[must_use]
    pub fn names(&self, session: u64, call: &CallRef, program: &str, args: &[ObservedText]) -> bool {
        let Some(call) = self.call(session, &call.id) else { return false };
        let first = args.iter().take(NAMED_BY).map(|arg| arg.0.as_str());
        std::iter::once(program).chain(first).any(|name| call.words.contains(text::base_name(name)))
    }

    /// What an event is beside what its call was told, where that says anything of it: a tool that is told a file is
    /// about that file, and one that is told a command starts what this names. `named`: a process of the event is that, or
    /// was started by one.
    #[must_use]
    pub fn align(&self, session: u64, event: &Event, named: bool) -> Option<IntentRef> {
        let told = event.tool_call.as_ref()?;
        let alignment = match (told.by?, event.op?) {
            (CallBy::Target, _) => Alignment::Aligned,
            (CallBy::Process, Op::Exec) if named => Alignment::Aligned,
            (CallBy::Process, Op::Exec) => Alignment::Outside,
            _ => return None,
        };
        let call = self.call(session, &told.id)?;
        Some(IntentRef::of(&call.whose.id, alignment))
    }

    fn call(&self, session: u64, id: &str) -> Option<&Call> {
        // The latest are last.
        self.by_session.get(&session)?.calls.iter().rfind(|one| *one.whose.id == *id)
    }

    /// Says in an event which call and prompt it belongs to. `own` is the call of its process, where that has one.
    pub fn describe(&self, session: u64, own: Option<&CallRef>, event: &mut Event, at_ns: u64) {
        let Some(of) = self.by_session.get(&session) else { return };
        let call = own.cloned().or_else(|| of.by_target(event, at_ns));
        let call = call.or_else(|| of.by_server(event, at_ns));
        event.prompt_id = match &call {
            Some(call) => call.prompt.clone(),
            None => of.prompt.id.clone(),
        };
        event.tool_call = call.map(|call| call.in_event());
    }

    /// Counts an event for its call and its prompt, and for the time in which it happened.
    pub fn count(&mut self, session: u64, event: &Event, at_ns: u64) {
        self.tallies(session, event, |tally| tally.add(event));
        self.times.note(session, event, event.count, at_ns);
    }

    /// Counts repeats of one.
    pub fn count_more(&mut self, session: u64, event: &Event, more: u64, at_ns: u64) {
        self.tallies(session, event, |tally| tally.add_more(event, more));
        self.times.note(session, event, more, at_ns);
    }

    fn tallies(&mut self, session: u64, event: &Event, add: impl Fn(&mut Tally)) {
        let Some(of) = self.by_session.get_mut(&session) else { return };
        if event.prompt_id == of.prompt.id {
            add(&mut of.prompt.seen);
        }
        let Some(call) = event.tool_call.as_ref() else { return };
        // The latest are last.
        if let Some(call) = of.calls.iter_mut().rfind(|one| one.whose.id == call.id) {
            add(&mut call.seen);
        }
    }

    /// Forgets a session that is over.
    pub fn forget(&mut self, session: u64) {
        self.by_session.remove(&session);
        self.times.forget(session);
    }
}

impl OfSession {
    fn turn_to(&mut self, prompt: Option<Arc<str>>) {
        if prompt.is_none() || prompt != self.prompt.id {
            self.prompt = Prompt { id: prompt, seen: Tally::default() };
        }
    }

    /// The call that started a sub-agent. Where that has not said so yet, it is the one that hands something on and has
    /// no other sub-agent, if there is but one.
    fn parent_of(&mut self, agent: &str, now_ns: u64) -> Option<Arc<str>> {
        if let Some((_, call)) = self.subagents.iter().rfind(|(known, _)| **known == *agent) {
            return Some(Arc::clone(call));
        }
        let hands_on = |call: &&Call| DELEGATES.contains(&&*call.whose.name);
        let mut waiting =
            self.calls.iter().filter(hands_on).filter(|call| call.is_open(now_ns) && !call.has_subagent);
        let (call, None) = (waiting.next()?, waiting.next()) else { return None };
        let id = Arc::clone(&call.whose.id);
        self.knows(short(agent), Arc::clone(&id));
        Some(id)
    }

    fn knows(&mut self, agent: Arc<str>, call: Arc<str>) {
        if let Some(call) = self.calls.iter_mut().find(|one| one.whose.id == call) {
            call.has_subagent = true;
        }
        self.subagents.retain(|(known, _)| *known != agent);
        if self.subagents.len() >= SUBAGENTS_MAX {
            self.subagents.pop_front();
        }
        self.subagents.push_back((agent, call));
    }

    /// The open call that was told the file of an event of the harness's own process.
    fn by_target(&self, event: &Event, at_ns: u64) -> Option<CallRef> {
        let (process, file) = (event.process.as_ref()?, event.file.as_ref()?);
        let own = ProcessId { pid: process.pid, start_time: process.start_time };
        let names = [Some(&file.path), file.path_to.as_ref()].into_iter().flatten();
        let names: Vec<&str> = names.map(|name| name.0.as_str()).collect();
        let told =
            |call: &&Call| call.paths.iter().any(|path| names.iter().any(|name| text::is_about(name, path)));
        let mut calls = self.calls.iter().rev();
        let call = calls.find(|call| call.whose.harness == own && call.is_open(at_ns) && told(call))?;
        Some(CallRef { by: CallBy::Target, ..(*call.whose).clone() })
    }
}

fn short(text: &str) -> Arc<str> {
    let end = (0..=NAME_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    Arc::from(text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests;
