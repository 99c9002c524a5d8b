//! Calls of MCP servers, as the relay in front of one tells of them, and what of a server's doings is theirs.
//!
//! A server runs for long and serves several calls at once. A call owns the processes that the server starts for it, as a
//! harness's call does, and what the server's own processes do to a file that it was told, or at all while it is alone.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Call, CallRef, Calls, Ended, OfSession, Untold, short, text};
use crate::{
    control::{
        state::ProcessId,
        tool::{Begin, ToolCall},
    },
    event::{CallBy, Event},
};

/// Nanoseconds to which the start of a process that was there before the daemon is known.
const TICK_NS: u64 = 10_000_000;
/// Processes of a server.
const PROCESSES_MAX: usize = 256;

/// How a call is served.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Served {
    /// Its id, as the relay told it.
    id: Arc<str>,
    /// The relay alone told of the call.
    alone: bool,
    /// The server's processes that are of no call.
    processes: Vec<ProcessId>,
    began_ns: u64,
    ended_ns: Option<u64>,
    /// What was refused and told to the relay: how many of the kept, and how many in all.
    told: (usize, u64),
}

impl Call {
    /// Whether a process is of the server that works for it at a moment.
    fn is_served_by(&self, process: ProcessId, at_ns: u64) -> bool {
        let same = |one: &ProcessId| {
            one.pid == process.pid && one.start_time / TICK_NS == process.start_time / TICK_NS
        };
        self.served.as_ref().is_some_and(|served| {
            served.began_ns <= at_ns
                && served.ended_ns.is_none_or(|ended| at_ns <= ended)
                && served.processes.iter().any(same)
        }) && self.is_open(at_ns)
    }

    fn by(&self, by: CallBy) -> CallRef {
        CallRef { by, ..(*self.whose).clone() }
    }

    /// What was refused, without what a relay has put into the result already.
    pub(super) fn untold(&self) -> Untold {
        let (kept, all) = self.served.as_ref().map_or((0, 0), |served| served.told);
        let refused = self.seen.refused.iter().skip(kept).cloned().collect();
        Untold { refused, refusals: self.seen.denied.saturating_sub(all) }
    }
}

impl Calls {
    /// A relay passes a call on. Where the harness has told of the same one, it is that; else it is given.
    pub fn relay_begin(
        &mut self,
        session: u64,
        server: Vec<ProcessId>,
        call: &ToolCall,
        harness_id: Option<&str>,
        now_ns: u64,
    ) -> Option<Arc<CallRef>> {
        let known = self.by_session.get(&session).and_then(|of| of.told_by_harness(call, harness_id));
        let id = known.clone().unwrap_or_else(|| short(harness_id.unwrap_or(&call.id)));
        let mut new = None;
        if known.is_none() {
            let tool = ToolCall { id: id.to_string(), ..call.clone() };
            // No process is a harness that makes it.
            let nobody = ProcessId { pid: 0, start_time: 0 };
            new = Some(self.begin(session, nobody, &Begin { tool, ..Begin::default() }, now_ns));
        }
        let calls = self.by_session.get_mut(&session).into_iter().flat_map(|of| &mut of.calls);
        let one = calls.into_iter().find(|one| one.whose.id == id)?;
        let input = text::of_arguments(&call.input);
        one.command = one.command.take().or(input.command);
        one.paths.extend(input.paths);
        one.served = Some(Served {
            id: short(&call.id),
            alone: known.is_none(),
            processes: server,
            began_ns: now_ns,
            ended_ns: None,
            told: (0, 0),
        });
        new
    }

    /// A server has answered a call. Gives what was refused to it, which the relay puts into the answer, and the call
    /// where it is over with that.
    pub fn relay_end(&mut self, session: u64, id: &str, now_ns: u64) -> Option<(Untold, Option<Ended>)> {
        let id = short(id);
        let calls = &mut self.by_session.get_mut(&session)?.calls;
        let of_relay = |served: &Served| served.id == id && served.ended_ns.is_none();
        let call = calls.iter_mut().find(|one| one.served.as_ref().is_some_and(of_relay))?;
        let ended = call.ended();
        let told = (call.seen.refused.len(), call.seen.denied);
        let served = call.served.as_mut()?;
        (served.ended_ns, served.told) = (Some(now_ns), told);
        let is_over = served.alone && call.ended_ns.is_none();
        if is_over {
            call.ended_ns = Some(now_ns);
        }
        Some((ended.untold.clone(), is_over.then_some(ended)))
    }

    /// A process has made another: one of a server makes one of that server.
    pub fn forked(&mut self, session: u64, parent: ProcessId, child: ProcessId) {
        let Some(of) = self.by_session.get_mut(&session) else { return };
        for call in of.calls.iter_mut().filter(|call| call.ended_ns.is_none()) {
            if let Some(served) = &mut call.served
                && served.ended_ns.is_none()
                && served.processes.len() < PROCESSES_MAX
                && served.processes.contains(&parent)
            {
                served.processes.push(child);
            }
        }
    }

    /// Says of an event whose file is known by now what that says of its call.
    pub fn aim(&self, session: u64, event: &mut Event, at_ns: u64) {
        if event.tool_call.as_ref().is_some_and(|call| call.by != Some(CallBy::Only)) {
            return;
        }
        let before = (event.tool_call.take(), event.prompt_id.take());
        self.describe(session, None, event, at_ns);
        if event.tool_call.is_none() {
            (event.tool_call, event.prompt_id) = before;
        }
    }
}

impl OfSession {
    /// The id of the open call that a harness told of and a relay tells of now: by the harness's own id, or else the one of
    /// the same tool and input that waits longest.
    fn told_by_harness(&self, call: &ToolCall, harness_id: Option<&str>) -> Option<Arc<str>> {
        let mut open = self.calls.iter().filter(|one| one.ended_ns.is_none() && one.served.is_none());
        if let Some(id) = harness_id.map(short) {
            return open.find(|one| one.whose.id == id).map(|one| Arc::clone(&one.whose.id));
        }
        // `mcp__SERVER__TOOL`, or with one line each: what the server is called is the harness's own affair.
        let tool = call.name.rsplit("__").next().unwrap_or_default();
        let same = |one: &&Call| {
            one.whose.name.starts_with("mcp")
                && one.whose.name.strip_suffix(tool).is_some_and(|rest| rest.ends_with('_'))
                && one.digest.is_some()
                && one.digest == call.digest
        };
        open.find(same).map(|one| Arc::clone(&one.whose.id))
    }

    /// The call for which a server has just started a process.
    pub(super) fn claim_served(
        &mut self,
        parent: ProcessId,
        command: &str,
        at_ns: u64,
    ) -> Option<Arc<CallRef>> {
        let mut open: Vec<&mut Call> =
            self.calls.iter_mut().filter(|call| call.is_served_by(parent, at_ns)).collect();
        let squeezed = text::squeezed(command);
        let told =
            |call: &&&mut Call| call.command.as_ref().is_some_and(|told| squeezed.contains(told.as_str()));
        // Of several the one that says most, of the same one that has none yet, the one that waits longest.
        let first = |call: &&mut &mut Call| (call.command.as_ref().map_or(0, String::len), !call.started);
        if let Some(call) = open.iter_mut().rev().filter(|call| told(&&**call)).max_by_key(first) {
            call.started = true;
            return Some(Arc::clone(&call.whose));
        }
        let of_file = open.iter().filter(|call| call.paths.iter().any(|path| text::names(command, path)));
        if let Some(call) = alone(of_file) {
            return Some(Arc::clone(&call.whose));
        }
        alone(open.iter()).map(|call| Arc::new(call.by(CallBy::Only)))
    }

    /// The call for which a server's own process did something.
    pub(super) fn by_server(&self, event: &Event, at_ns: u64) -> Option<CallRef> {
        let process = event.process.as_ref()?;
        let own = ProcessId { pid: process.pid, start_time: process.start_time };
        let open: Vec<&Call> = self.calls.iter().filter(|call| call.is_served_by(own, at_ns)).collect();
        let names = event.file.iter().flat_map(|file| [Some(&file.path), file.path_to.as_ref()]);
        let names: Vec<&str> = names.flatten().map(|name| name.0.as_str()).collect();
        // Of a folder and a file in it the file says more; of two that were told the same nobody knows.
        let said = |call: &Call| {
            let told = call.paths.iter().filter(|path| names.iter().any(|name| text::is_about(name, path)));
            told.map(String::len).max()
        };
        let most = open.iter().filter_map(|call| said(call)).max();
        if most.is_some() {
            return alone(open.iter().filter(|call| said(call) == most)).map(|call| call.by(CallBy::Target));
        }
        alone(open.iter()).map(|call| call.by(CallBy::Only))
    }
}

/// The one of a list that has no other.
fn alone<T>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let one = all.next()?;
    all.next().is_none().then_some(one)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        control::tool::{End, digest},
        event::{File, ObservedText, Process, Verdict},
        log::testing,
    };

    const HARNESS: ProcessId = ProcessId { pid: 10, start_time: 1 };
    const SERVER: ProcessId = ProcessId { pid: 20, start_time: 2 };

    fn call(id: &str, name: &str, input: Value) -> ToolCall {
        ToolCall {
            id: id.into(),
            name: name.into(),
            digest: Some(digest(&input)),
            input,
            ..ToolCall::default()
        }
    }

    fn begin(tool: &ToolCall) -> Begin {
        Begin { tool: tool.clone(), prompt_id: Some("p-1".into()), subagent: None }
    }

    fn end(id: &str) -> End {
        End { id: id.into(), ..End::default() }
    }

    fn relayed(calls: &mut Calls, id: &str, input: Value, at_ns: u64) {
        calls.relay_begin(1, vec![SERVER], &call(id, "mcp__toy__write", input), None, at_ns);
    }

    /// Whose what a process does is.
    fn whose(calls: &Calls, process: ProcessId, path: Option<&str>, at_ns: u64) -> Option<(String, CallBy)> {
        let mut event = testing::event(0, "test-1");
        event.process =
            Some(Process { pid: process.pid, start_time: process.start_time, ..Process::default() });
        event.file = path.map(|path| File { path: ObservedText(path.into()), ..File::default() });
        calls.aim(1, &mut event, at_ns);
        event.tool_call.map(|call| (call.id.to_string(), call.by.unwrap()))
    }

    fn claimed(calls: &mut Calls, command: &str, at_ns: u64) -> Option<(String, CallBy)> {
        calls.claim(1, Some(SERVER), command, at_ns).map(|call| (call.id.to_string(), call.by))
    }

    fn is(id: &str, by: CallBy) -> Option<(String, CallBy)> {
        Some((id.to_owned(), by))
    }

    #[test]
    fn a_lonely_call_owns_what_its_server_does_and_only_then() {
        let mut calls = Calls::default();
        assert_eq!(whose(&calls, SERVER, Some("/srv/x"), 5), None);
        relayed(&mut calls, "m-1", json!({"path": "/srv/a"}), 10);
        assert_eq!(whose(&calls, SERVER, Some("/srv/a"), 11), is("m-1", CallBy::Target));
        assert_eq!(whose(&calls, SERVER, Some("/srv/x"), 11), is("m-1", CallBy::Only));
        assert_eq!(whose(&calls, SERVER, None, 11), is("m-1", CallBy::Only));
        assert_eq!(whose(&calls, SERVER, None, 9), None, "before it began");
        assert_eq!(whose(&calls, HARNESS, Some("/srv/a"), 11), None, "another's process");
        assert_eq!(claimed(&mut calls, "git status", 12), is("m-1", CallBy::Only));
        assert_eq!(claimed(&mut calls, "git diff", 12), is("m-1", CallBy::Only), "as many as it likes");
        let (untold, ended) = calls.relay_end(1, "m-1", 20).unwrap();
        assert_eq!(
            (untold, ended.map(|ended| ended.whose.id.to_string())),
            (Untold::default(), Some("m-1".into()))
        );
        assert_eq!(calls.relay_end(1, "m-1", 20), None, "once");
        assert_eq!(whose(&calls, SERVER, None, 21), None);
        assert_eq!(whose(&calls, SERVER, None, 19), is("m-1", CallBy::Only), "told late");
    }

    #[test]
    fn calls_at_once_are_told_apart_by_what_they_were_told() {
        let mut calls = Calls::default();
        relayed(&mut calls, "m-1", json!({"target": {"files": ["file:///srv/a", "b"]}}), 10);
        relayed(&mut calls, "m-2", json!({"command": "make", "args": ["all", "-j 2"], "where": "/srv"}), 10);
        assert_eq!(
            whose(&calls, SERVER, Some("/srv/a"), 11),
            is("m-1", CallBy::Target),
            "the file says more"
        );
        assert_eq!(whose(&calls, SERVER, Some("/srv/c"), 11), is("m-2", CallBy::Target));
        assert_eq!(whose(&calls, SERVER, Some("/etc/x"), 11), None, "nobody knows");
        assert_eq!(whose(&calls, SERVER, None, 11), None);
        assert_eq!(claimed(&mut calls, "sh -c make all '-j 2'", 11), is("m-2", CallBy::Process));
        assert_eq!(claimed(&mut calls, "cat '/srv/a'", 11), None, "both were told of it");
        assert_eq!(claimed(&mut calls, "id", 11), None);
        calls.relay_end(1, "m-2", 12);
        assert_eq!(claimed(&mut calls, "cat '/srv/a'", 13), is("m-1", CallBy::Process));
        relayed(&mut calls, "m-3", json!({"path": "/srv/a"}), 14);
        assert_eq!(whose(&calls, SERVER, Some("/srv/a"), 15), None, "two were told the same");
    }

    #[test]
    fn the_harnesss_own_id_counts() {
        let mut calls = Calls::default();
        let input = json!({"path": "/srv/a", "content": "x"});
        let mut told = call("toolu_1", "mcp__own-name__write", input.clone());
        told.input = json!({});
        calls.begin(1, HARNESS, &begin(&told), 5);
        told.id = "toolu_2".into();
        calls.begin(1, HARNESS, &begin(&told), 6);
        relayed(&mut calls, "m-1", input.clone(), 10);
        assert_eq!(whose(&calls, SERVER, Some("/srv/a"), 11), is("toolu_1", CallBy::Target));
        relayed(&mut calls, "m-2", json!({"path": "/srv/b"}), 10);
        assert_eq!(whose(&calls, SERVER, Some("/srv/b"), 11), is("m-2", CallBy::Target), "another input");
        // It names the harness's id.
        let named = call("m-3", "mcp__toy__write", input);
        calls.relay_begin(1, vec![SERVER], &named, Some("toolu_2"), 12);
        calls.relay_end(1, "m-1", 13);
        calls.relay_end(1, "m-2", 13);
        assert_eq!(whose(&calls, SERVER, None, 14), is("toolu_2", CallBy::Only));
        // One that no hook has told of.
        calls.relay_begin(1, vec![SERVER], &named, Some("toolu_9"), 15);
        calls.relay_end(1, "m-3", 16);
        assert_eq!(whose(&calls, SERVER, None, 15), None, "two at once");
        calls.end(1, &end("toolu_2"), 17);
        assert_eq!(whose(&calls, SERVER, None, 18), is("toolu_9", CallBy::Only));
    }

    #[test]
    fn what_was_refused_is_told_once() {
        let mut calls = Calls::default();
        let input = json!({"path": "/srv/a"});
        calls.begin(1, HARNESS, &begin(&call("toolu_1", "mcp__toy__write", input.clone())), 5);
        relayed(&mut calls, "m-1", input, 6);
        let refuse = |calls: &mut Calls| {
            let mut event = testing::event(0, "test-1");
            event.process = Some(Process { pid: 20, start_time: 2, ..Process::default() });
            event.file = None;
            event.verdict = Verdict::Denied;
            calls.aim(1, &mut event, 7);
            calls.count(1, &event, 5);
        };
        refuse(&mut calls);
        let (untold, ended) = calls.relay_end(1, "m-1", 8).unwrap();
        assert_eq!((untold.refused.len(), ended), (1, None), "the harness's call goes on");
        refuse(&mut calls);
        let left = calls.end(1, &end("toolu_1"), 9).unwrap().untold;
        assert_eq!((left.refused.len(), left.refusals), (1, 1));
    }

    #[test]
    fn what_a_server_forks_is_the_server() {
        let mut calls = Calls::default();
        relayed(&mut calls, "m-1", json!({}), 10);
        let worker = ProcessId { pid: 21, start_time: 3 };
        calls.forked(1, HARNESS, ProcessId { pid: 11, start_time: 3 });
        calls.forked(1, SERVER, worker);
        assert_eq!(whose(&calls, worker, None, 11), is("m-1", CallBy::Only));
        assert_eq!(whose(&calls, ProcessId { pid: 11, start_time: 3 }, None, 11), None);
    }
}
