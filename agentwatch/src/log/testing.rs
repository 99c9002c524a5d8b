//! What the tests of the log share.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::storage::{Disk, Storage};
use super::{Item, Limits, Reader, Start, format_time, segment};
use crate::event::{Event, File as EventFile, Kind, ObservedText, Op, Process, Verdict};

/// The second at which tests begin.
pub const T0: u64 = 1_790_000_000_000_000_000;
pub const SECOND: u64 = 1_000_000_000;

pub const WIDE: Limits = Limits {
    segment_bytes: u64::MAX,
    segment_age: Duration::from_hours(24 * 365),
    total_bytes: u64::MAX,
    max_age: Duration::from_hours(24 * 3650),
};

/// An ordinary event, `offset` nanoseconds after [`T0`].
pub fn event(offset: u64, session: &str) -> Event {
    Event {
        time: format_time(T0 + offset),
        seq: 0,
        host: "build-7".into(),
        boot_id: "1e0f4f0e-7d3c-4b1e-9f4f-6d5b3e9d2c11".into(),
        kind: Kind::FileOpen,
        op: Some(Op::Read),
        agent: "coding".into(),
        owner: None,
        session: session.into(),
        parent_session: None,
        attribution: None,
        process: Some(Process {
            pid: 4242,
            start_time: 8_123_456_789,
            ppid: Some(4200),
            executable_path: ObservedText("/usr/bin/python3.13".into()),
            command_args: ["python3", "-m", "pytest", "-q", "tests/unit"]
                .map(|arg| ObservedText(arg.into()))
                .into(),
            uid: Some(1000),
            cwd: ObservedText("/home/ada/work/payments".into()),
            ..Process::default()
        }),
        file: Some(EventFile {
            path: ObservedText("/home/ada/work/payments/tests/unit/test_ledger.py".into()),
            device: "259:2".into(),
            inode: Some(1_311_234),
            flags: Some("O_RDONLY|O_CLOEXEC".into()),
            ..EventFile::default()
        }),
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

/// All events of a log, which must be whole and without gaps.
pub fn read_all(state: &Path, start: Start) -> Vec<Event> {
    let mut reader = Reader::open(state, start).unwrap();
    let mut events = Vec::new();
    while let Some(item) = reader.next_item().unwrap() {
        match item {
            Item::Line(line) => events.push(line.event().unwrap()),
            other => panic!("{other:?} after {} events", events.len()),
        }
    }
    events
}

pub fn seqs(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.seq).collect()
}

pub fn segments(state: &Path) -> Vec<PathBuf> {
    segment::list(&super::folder(state)).unwrap().into_iter().map(|segment| segment.path).collect()
}

/// What goes wrong on a [`Faulty`] disk.
#[derive(Default)]
pub struct Plan {
    /// Bytes that can still be written; no limit where absent.
    pub room: Option<usize>,
    pub create_fails: bool,
    pub truncate_fails: bool,
    pub remove_fails: bool,
    /// Kind of a failed write.
    pub error: Option<io::ErrorKind>,
}

/// A disk on which things go wrong as planned.
#[derive(Clone, Default)]
pub struct Faulty(Arc<Mutex<Plan>>);

impl Faulty {
    pub fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap()
    }
}

fn unless(fails: bool) -> io::Result<()> {
    if fails { Err(io::Error::other("planned")) } else { Ok(()) }
}

impl Storage for Faulty {
    fn create(&mut self, path: &Path) -> io::Result<File> {
        unless(self.plan().create_fails)?;
        Disk.create(path)
    }

    fn write(&mut self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        let mut plan = self.plan();
        let Some(room) = plan.room else { return Disk.write(file, bytes) };
        if room == 0 {
            return Err(plan.error.unwrap_or(io::ErrorKind::StorageFull).into());
        }
        let written = Disk.write(file, &bytes[..room.min(bytes.len())])?;
        plan.room = Some(room - written);
        Ok(written)
    }

    fn truncate(&mut self, file: &File, length: u64) -> io::Result<()> {
        unless(self.plan().truncate_fails)?;
        Disk.truncate(file, length)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        unless(self.plan().remove_fails)?;
        Disk.remove(path)
    }
}
