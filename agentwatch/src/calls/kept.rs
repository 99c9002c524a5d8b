//! Tool calls over a restart of the daemon.

use std::{collections::HashSet, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{CallRef, Calls, OfSession};
use crate::control::state::ProcessId;

/// What a restart must know of tool calls.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Kept {
    /// Those of each session, by its number.
    calls: Vec<(u64, OfSession)>,
    /// The processes that belong to one.
    processes: Vec<KeptProcess>,
}

/// A process that belongs to a tool call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptProcess {
    /// Which.
    pub id: ProcessId,
    /// Number of its session.
    pub session: u64,
    /// Its call.
    pub call: CallRef,
    /// What the call was told names its program, or that of one above it.
    pub named: bool,
}

impl Calls {
    /// What a restart must know, with the processes that live: a call that is over and has none of them is left out.
    #[must_use]
    pub fn kept(&self, processes: Vec<KeptProcess>) -> Kept {
        let owners: HashSet<(u64, &str)> = processes.iter().map(|one| (one.session, &*one.call.id)).collect();
        let of_session = |(session, of): (&u64, &OfSession)| {
            let goes_on = |id: &Arc<str>| owners.contains(&(*session, &**id));
            let calls = of.calls.iter().filter(|call| call.ended_ns.is_none() || goes_on(&call.whose.id));
            let kept = OfSession {
                prompt: of.prompt.clone(),
                calls: calls.cloned().collect(),
                subagents: of.subagents.clone(),
                counted: of.counted,
            };
            (*session, kept)
        };
        Kept { calls: self.by_session.iter().map(of_session).collect(), processes }
    }

    /// Takes up what an earlier daemon knew. Gives the processes that belong to calls.
    pub fn restore(&mut self, kept: Kept) -> Vec<KeptProcess> {
        self.by_session.extend(kept.calls);
        kept.processes
    }
}
