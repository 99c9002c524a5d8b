//! Which processes of sessions connected to Unix sockets: what people ask of what a delegate did.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::Write;
use crate::event::{Cause, Event, Kind, Verdict};

/// Processes that are remembered. A delegate does at once what it is asked, so the latest are enough.
const MOST: usize = 4_096;

/// The last connection of each process of a session to a Unix socket.
#[derive(Debug, Default)]
pub struct Asked {
    /// By the session's number, and the process.
    latest: HashMap<(u64, u32), Write>,
    /// The same, the oldest first.
    order: VecDeque<(u64, u32)>,
}

impl Asked {
    /// Takes up what an event says.
    pub fn note(&mut self, event: &Event, session: u64, cause: impl FnOnce() -> Option<Arc<Cause>>) {
        let is_unix = event.network.as_ref().is_some_and(|network| network.family == "unix");
        if event.kind != Kind::NetConnect || !is_unix {
            return;
        }
        if matches!(event.verdict, Verdict::Held | Verdict::Denied | Verdict::Killed) {
            return;
        }
        let Some(process) = &event.process else { return };
        let key = (session, process.pid);
        if self.latest.insert(key, Write::of_event(event, session, cause())).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.latest.remove(&oldest);
        }
    }

    /// What is known of a process of a session that asked a delegate.
    #[must_use]
    pub fn by(&self, session: u64, pid: u32) -> Option<&Write> {
        self.latest.get(&(session, pid))
    }
}
