//! Which processes belong to which tool calls, over a restart of the daemon.

use std::sync::Arc;

use super::{Attribution, Process};
use crate::{
    calls::{CallRef, Kept, KeptProcess},
    control::state::ProcessId,
};

impl Attribution {
    /// What a restart must know of tool calls.
    #[must_use]
    pub fn kept_calls(&self) -> Kept {
        let of_call = |(pid, process): (u32, &Process)| {
            let call = process.call.as_ref()?;
            let id = ProcessId { pid, start_time: process.start_ns };
            Some(KeptProcess {
                id,
                session: process.session,
                call: CallRef::clone(call),
                named: process.named,
            })
        };
        self.calls.kept(self.processes.all_living().filter_map(of_call).collect())
    }

    /// Takes up what an earlier daemon knew of tool calls, before any record is read.
    pub fn take_over_calls(&mut self, kept: Kept) {
        let processes = self.calls.restore(kept);
        self.kept_processes = processes.into_iter().map(|one| (one.id.pid, one)).collect();
    }

    /// Says of a process that was there before the daemon which call it belongs to.
    pub(super) fn recall(&mut self, pid: u32, process: &mut Process) {
        let Some(kept) = self.kept_processes.remove(&pid) else { return };
        if process.call.is_none() && process.began_at(kept.id.start_time) && process.session == kept.session {
            process.call = Some(Arc::new(kept.call));
            process.named = kept.named;
        }
    }
}
