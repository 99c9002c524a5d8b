//! In which session a process is, and how it came there.

use std::{collections::HashMap, path::Path, sync::Arc};

use serde::Serialize;

use super::{LookedThrough, look_through};
use crate::{
    event::{Event, Kind, ObservedText, Process},
    log::LogError,
};

/// Processes of a chain that are told.
const CHAIN_MAX: usize = 64;

/// Process id and when it began: the identity of a process within a boot.
type Id = (u32, u64);

/// Who caused a process.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProcessBlame {
    /// Its process id.
    pub pid: u32,
    /// When it began, nanoseconds since boot.
    pub start_time: u64,
    /// The boot.
    pub boot_id: Arc<str>,
    /// The last event that tells of it.
    pub last: Event,
    /// The beginning of its session, where the log has it.
    pub session_start: Option<Event>,
    /// The processes of its session that led to it, the oldest first, itself last.
    pub processes: Vec<Step>,
    /// What this rests on.
    pub looked_through: LookedThrough,
}

/// A process on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Process id.
    pub pid: u32,
    /// When it began, nanoseconds since boot.
    pub start_time: u64,
    /// Its program.
    pub executable_path: ObservedText,
    /// Its arguments.
    pub command_args: Arc<[ObservedText]>,
}

impl Step {
    fn of(id: Id, process: Option<&Process>) -> Self {
        Self {
            pid: id.0,
            start_time: id.1,
            executable_path: process.map(|one| one.executable_path.clone()).unwrap_or_default(),
            command_args: process.map(|one| Arc::clone(&one.command_args)).unwrap_or_default(),
        }
    }
}

/// In which session the latest process of this number is or was; nothing where no session had one.
///
/// # Errors
/// The log cannot be read.
pub fn of_process(state: &Path, pid: u32) -> Result<(Option<ProcessBlame>, LookedThrough), LogError> {
    let needles = [format!("\"pid\":{pid},"), format!("\"pid\":{pid}}}")];
    let mut last: Option<(Id, Event)> = None;
    let may_hold = |line: &str| needles.iter().any(|needle| line.contains(needle));
    let looked_through = look_through(state, may_hold, |event| {
        let child =
            event.child.as_ref().filter(|child| child.pid == pid).map(|child| (pid, child.start_time));
        let own =
            event.process.as_ref().filter(|process| process.pid == pid).map(|one| (pid, one.start_time));
        if let Some(id) = child.or(own).filter(|_| !event.session.is_empty()) {
            last = Some((id, event));
        }
    })?;
    let Some((id, last)) = last else { return Ok((None, looked_through)) };
    let mut session = Session::default();
    let name = format!("\"session\":\"{}\"", last.session);
    let boot = Arc::clone(&last.boot_id);
    look_through(
        state,
        |line| line.contains(&name),
        |event| {
            if event.session == last.session && event.boot_id == boot {
                session.take(event);
            }
        },
    )?;
    let processes = session.chain(id);
    let blame = ProcessBlame {
        pid,
        start_time: id.1,
        boot_id: boot,
        session_start: session.start,
        processes,
        last,
        looked_through: looked_through.clone(),
    };
    Ok((Some(blame), looked_through))
}

/// The processes of a session.
#[derive(Default)]
struct Session {
    start: Option<Event>,
    parents: HashMap<Id, Id>,
    known: HashMap<Id, Process>,
}

impl Session {
    fn take(&mut self, event: Event) {
        let is_of_processes =
            matches!(event.kind, Kind::ProcessFork | Kind::ProcessExec | Kind::SessionStart);
        if !is_of_processes {
            return;
        }
        if let Some(process) = &event.process {
            let own = (process.pid, process.start_time);
            self.known.insert(own, process.clone());
            if let Some(child) = &event.child {
                let child = (child.pid, child.start_time);
                self.parents.insert(child, own);
                self.known.insert(child, process.clone());
            }
        }
        if event.kind == Kind::SessionStart && self.start.is_none() {
            self.start = Some(event);
        }
    }

    /// The processes from the session's first to this one.
    fn chain(&self, mut id: Id) -> Vec<Step> {
        let mut chain = vec![Step::of(id, self.known.get(&id))];
        while let Some(&parent) = self.parents.get(&id) {
            // Only an older one: then there is no circle.
            if chain.len() == CHAIN_MAX || parent.1 > id.1 || parent == id {
                break;
            }
            id = parent;
            chain.push(Step::of(id, self.known.get(&id)));
        }
        chain.reverse();
        chain
    }
}
