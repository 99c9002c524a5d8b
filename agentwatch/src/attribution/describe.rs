//! From a record and what is known about its process to an event.

use std::sync::Arc;

use agentwatch_common::record::RecordHeader;

use super::{Host, Session, process::Process};
use crate::event::{self, Event, Kind, Op, Verdict};

/// An event with who and when, and nothing else yet.
#[must_use]
pub fn event(host: &Host, time_ns: u64, kind: Kind, op: Option<Op>) -> Event {
    Event {
        time: event::time::format_time(host.unix_ns(time_ns)),
        seq: 0,
        host: Arc::clone(&host.name),
        boot_id: Arc::clone(&host.boot_id),
        kind,
        op,
        agent: Arc::default(),
        owner: None,
        session: Arc::default(),
        parent_session: None,
        attribution: None,
        process: None,
        file: None,
        network: None,
        guard: None,
        cause: None,
        child: None,
        exit: None,
        loss: None,
        command: None,
        verdict: Verdict::Allowed,
        rule: None,
        reason: None,
        policy: None,
        intent: None,
        tool_call: None,
        prompt_id: None,
        prompt: None,
        outcome: None,
        span: None,
        context: None,
        errno: None,
        count: 1,
        time_last: None,
    }
}

/// Names the session in an event.
pub fn name_session(event: &mut Event, session: &Session) {
    event.agent = Arc::clone(&session.began.agent);
    event.owner.clone_from(&session.began.owner);
    event.session = Arc::clone(&session.id);
    event.parent_session.clone_from(&session.parent_id);
    event.attribution = Some(session.began.how);
}

/// The process of an event.
#[must_use]
pub fn process_of(header: &RecordHeader, process: &Process) -> event::Process {
    event::Process {
        tid: (header.tid != header.pid).then_some(header.tid),
        start_time: header.start_ns,
        ppid: Some(header.ppid),
        uid: Some(header.uid),
        ..known_process(header.pid, process)
    }
}

/// A process as it is known without a record.
#[must_use]
pub fn known_process(pid: u32, process: &Process) -> event::Process {
    let image = &process.image;
    event::Process {
        pid,
        tid: None,
        start_time: process.start_ns,
        ppid: process.ppid,
        executable_path: image.path.clone(),
        executable_path_encoding: image.path_encoding,
        command_args: Arc::clone(&image.args),
        command_args_encoding: image.args_encoding,
        command_args_truncated: image.args_truncated,
        uid: process.uid,
        cwd: process.cwd.text.clone(),
        cwd_encoding: process.cwd.encoding,
        container_id: process.container.clone(),
    }
}
