//! What relays in front of MCP servers tell.

use std::collections::HashSet;

use super::{Daemon, calls::Harness};
use crate::{
    attribution::Processes,
    control::{
        Caller,
        state::ProcessId,
        tool::{End, ToolCall, ToolView},
    },
};

/// Processes of one server that are looked at: the first, in the order in which they began.
const SERVER_MAX: usize = 256;

impl Daemon {
    /// A relay passes a call on.
    pub(super) fn relay_begin(
        &mut self,
        relay: Harness,
        caller: &Caller,
        call: ToolCall,
        harness_id: Option<&str>,
        ended: &[String],
    ) {
        let server = self.server_of(relay.session, caller);
        for id in ended {
            self.relay_end(relay, id);
        }
        let now_ns = self.state.host.unix_ns(relay.now);
        let new = self.state.calls.relay_begin(relay.session, server, &call, harness_id, now_ns);
        // Of a call that its harness has told of the log says so already.
        if let Some(whose) = new {
            self.tell_start(relay, &whose, &call);
        }
    }

    /// A relay passes the answer back.
    pub(super) fn relay_end(&mut self, relay: Harness, id: &str) -> ToolView {
        let now_ns = self.state.host.unix_ns(relay.now);
        let (untold, over) = self.state.calls.relay_end(relay.session, id, now_ns).unwrap_or_default();
        if let Some(ended) = over {
            self.tell_end(relay, &ended, &End::default());
        }
        untold.into()
    }

    /// The processes that a relay is in front of: what it started, with all below that is of no call.
    fn server_of(&self, session: u64, caller: &Caller) -> Vec<ProcessId> {
        let relay = caller.pid.and_then(|pid| Some((pid, self.state.processes.living(pid)?)));
        let Some((pid, relay)) = relay.filter(|(_, relay)| relay.session == session) else {
            return Vec::new();
        };
        below(&self.state.processes, ProcessId { pid, start_time: relay.start_ns }, session)
    }
}

fn below(processes: &Processes, root: ProcessId, session: u64) -> Vec<ProcessId> {
    let mut all: Vec<_> =
        processes.all_living().filter(|(_, one)| one.session == session && one.call.is_none()).collect();
    all.sort_by_key(|(_, process)| process.start_ns);
    // Who is there as number alone: so is the parent of a process that was there before the daemon.
    let (mut known, mut found) = (HashSet::from([root.pid]), Vec::new());
    for (pid, process) in all {
        let parent = process.parent.map(|parent| parent.pid).or(process.ppid);
        if found.len() < SERVER_MAX && pid != root.pid && parent.is_some_and(|parent| known.contains(&parent))
        {
            known.insert(pid);
            found.push(ProcessId { pid, start_time: process.start_ns });
        }
    }
    found
}
