//! What did not reach the daemon: losses that the kernel counted, and ends of processes that it did not tell of.

use agentwatch_common::{kind::RecordKind, maps::LossKey};

use super::{Attribution, Process, describe};
use crate::event::{self, Event, Kind};

/// Said in place of a status.
const REASON: &str = "its end was not seen: when and with what status it ended is not known";

impl Attribution {
    /// The exit of a process whose own record is missing. Its session must still be there.
    pub(super) fn unseen_end(&mut self, pid: u32, process: &Process, time_ns: u64) -> Event {
        let mut event = describe::event(&self.host, time_ns, Kind::ProcessExit, None);
        if let Some(session) = self.sessions.get_mut(process.session) {
            session.events += 1;
            describe::name_session(&mut event, session);
        }
        event.process = Some(describe::known_process(pid, process));
        event.reason = Some(REASON.to_owned());
        event
    }

    /// A process that the kernel's table names, and that neither runs nor is known here: it ended while nobody
    /// looked. `start_ns` is when it began, nanoseconds since boot.
    pub fn was_there(&mut self, pid: u32, session: u64, start_ns: u64, now_ns: u64, out: &mut Vec<Event>) {
        self.add_process(pid, Process::unknown(session, start_ns), now_ns, out);
        self.end_unseen(pid, now_ns, out);
    }

    /// Ends a process whose own end was not seen.
    pub fn end_unseen(&mut self, pid: u32, now_ns: u64, out: &mut Vec<Event>) {
        let Some(process) = self.processes.living(pid).cloned() else { return };
        out.push(self.unseen_end(pid, &process, now_ns));
        if let Some(session) = self.processes.end(pid, now_ns, None) {
            self.left(session, now_ns, out);
        }
    }

    /// An event about something lost.
    pub fn loss(&mut self, key: LossKey, count: u64, reason: &str, time_ns: u64) -> Event {
        let kind = loss_kind(RecordKind::from_raw(key.kind));
        let mut event = describe::event(&self.host, time_ns, Kind::Loss, None);
        if let Some(session) = self.sessions.get_mut(key.session) {
            session.losses += count;
            describe::name_session(&mut event, session);
        }
        event.loss = Some(event::Loss { kind: kind.to_owned(), reason: reason.to_owned(), count });
        event
    }
}

/// The kind of event that a record of this kind would have become.
fn loss_kind(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Fork | RecordKind::ForkRefused => "process.fork",
        RecordKind::Exec | RecordKind::ExecArgs | RecordKind::ExecRefused => "process.exec",
        RecordKind::Exit => "process.exit",
        RecordKind::Cwd => "process.cwd",
        RecordKind::Join | RecordKind::Cause => "session.start",
        RecordKind::FileOpen => "file.open",
        RecordKind::FileCreate => "file.create",
        RecordKind::FileDelete => "file.delete",
        RecordKind::FileRename => "file.rename",
        RecordKind::FileLink => "file.link",
        RecordKind::FileSymlink => "file.symlink",
        RecordKind::FileTruncate => "file.truncate",
        RecordKind::FileMode => "file.mode",
        RecordKind::FileOwner => "file.owner",
        RecordKind::FileXattr => "file.xattr",
        RecordKind::FileTimes => "file.times",
        RecordKind::FileFlags => "file.flags",
        RecordKind::FileMkdir => "file.mkdir",
        RecordKind::FileRmdir => "file.rmdir",
        RecordKind::FileMap => "file.map",
        RecordKind::FileReceive => "file.receive",
        RecordKind::Mount => "mount",
        RecordKind::Unmount => "unmount",
        RecordKind::NetConnect => "net.connect",
        RecordKind::NetSend => "net.send",
        RecordKind::NetBind => "net.bind",
        RecordKind::NetListen => "net.listen",
        RecordKind::NetAccept => "net.accept",
        RecordKind::NetReceive => "net.receive",
        RecordKind::Guard => "guard",
        RecordKind::Unknown(_) => "unknown",
    }
}
