//! Processes of sessions, living and lately ended.

use std::{collections::VecDeque, sync::Arc};

use agentwatch_common::record::RecordHeader;

use super::ByNumber;

use crate::{
    calls::CallRef,
    control::state::{Counts, ProcessId, ProcessView},
    event::{self, Encoding, Exit, ObservedText},
};

/// Ended processes that are remembered for `tree`. The log has them all.
const ENDED_MAX: usize = 20_000;
/// Nanoseconds in a clock tick of `/proc/PID/stat`.
const NS_PER_TICK: u64 = 10_000_000;

/// What a process runs. Shared by a process and the children that it makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Path of the program.
    pub path: ObservedText,
    /// Whether the path is encoded.
    pub path_encoding: Option<Encoding>,
    /// The arguments.
    pub args: Arc<[ObservedText]>,
    /// Whether the arguments are encoded.
    pub args_encoding: Option<Encoding>,
    /// Whether arguments are missing.
    pub args_truncated: bool,
}

/// A text with the note whether it is encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// The text.
    pub text: ObservedText,
    /// Whether it is encoded.
    pub encoding: Option<Encoding>,
}

impl Text {
    /// Keeps observed bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_vec(bytes.to_vec())
    }

    /// As [`Text::of`], without a copy.
    #[must_use]
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        let (text, encoded) = event::bytes::encode_vec(bytes);
        Self { text, encoding: encoded.then_some(Encoding::Percent) }
    }
}

impl Image {
    /// Keeps an observed program with its arguments.
    #[must_use]
    pub fn of<'a>(path: &[u8], args: impl Iterator<Item = &'a [u8]> + Clone, args_truncated: bool) -> Self {
        let path = Text::of(path);
        // One mark for all of them: where one is not UTF-8, all are encoded.
        let encoded = args.clone().any(|arg| std::str::from_utf8(arg).is_err());
        let keep =
            |arg: &[u8]| if encoded { event::bytes::encode_always(arg) } else { event::bytes::encode(arg).0 };
        Self {
            path: path.text,
            path_encoding: path.encoding,
            args: args.map(keep).collect(),
            args_encoding: encoded.then_some(Encoding::Percent),
            args_truncated,
        }
    }
}

/// What the host says about a process that was not seen to begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessSeen {
    /// When it began, in clock ticks since boot.
    pub start_ticks: u64,
    /// Its parent.
    pub ppid: u32,
    /// Its user; unknown where it ended while it was looked at.
    pub uid: Option<u32>,
    /// Path of its program.
    pub exe: Vec<u8>,
    /// Its arguments.
    pub args: Vec<Vec<u8>>,
    /// Its working directory.
    pub cwd: Vec<u8>,
    /// Path of its cgroup.
    pub cgroup: Vec<u8>,
}

/// A process.
#[derive(Clone, Debug)]
pub struct Process {
    /// When it began, nanoseconds since boot; only to the tick until its first record.
    pub start_ns: u64,
    /// Whether `start_ns` is only right to the tick.
    coarse: bool,
    /// Number of its session.
    pub session: u64,
    /// Parent when it began, if known.
    pub ppid: Option<u32>,
    /// The process that made it, where that belongs to a session.
    pub parent: Option<ProcessId>,
    /// What it runs.
    pub image: Arc<Image>,
    /// Working directory.
    pub cwd: Arc<Text>,
    /// User, if known.
    pub uid: Option<u32>,
    /// Container.
    pub container: Option<Arc<str>>,
    /// The tool call that it belongs to: its children belong to it, too.
    pub call: Option<Arc<CallRef>>,
    /// What that call was told names its program, or that of one above it.
    pub named: bool,
    /// What it did.
    pub counts: Counts,
    /// When it ended, nanoseconds since boot.
    pub ended_ns: Option<u64>,
    /// How it ended.
    pub exit: Option<Exit>,
}

impl Process {
    /// One that the host tells of.
    #[must_use]
    pub fn seen(session: u64, seen: &ProcessSeen) -> Self {
        let container = super::container_of(&seen.cgroup).map(Arc::from);
        Self {
            start_ns: seen.start_ticks * NS_PER_TICK,
            coarse: true,
            session,
            ppid: Some(seen.ppid),
            parent: None,
            image: Arc::new(Image::of(&seen.exe, seen.args.iter().map(Vec::as_slice), false)),
            cwd: Arc::new(Text::of(&seen.cwd)),
            uid: seen.uid,
            container,
            call: None,
            named: false,
            counts: Counts::default(),
            ended_ns: None,
            exit: None,
        }
    }

    /// One of which nothing is known but that it was there.
    #[must_use]
    pub fn unknown(session: u64, start_ns: u64) -> Self {
        let nothing = Self::seen(session, &ProcessSeen::default());
        Self { start_ns, coarse: false, ppid: None, ..nothing }
    }

    /// One of which nothing is known but what a record of it says.
    #[must_use]
    pub fn of_record(header: &RecordHeader) -> Self {
        let nothing = Self::unknown(header.session, header.start_ns);
        Self { ppid: Some(header.ppid), uid: Some(header.uid), ..nothing }
    }

    /// A child of this one.
    #[must_use]
    pub fn child(&self, own: ProcessId, start_ns: u64, session: u64) -> Self {
        Self {
            start_ns,
            coarse: false,
            session,
            ppid: Some(own.pid),
            parent: Some(own),
            counts: Counts::default(),
            ended_ns: None,
            exit: None,
            ..self.clone()
        }
    }

    /// Whether this is the process that began then, as far as `/proc` can tell: to the tick.
    #[must_use]
    pub const fn began_at(&self, start_ns: u64) -> bool {
        self.start_ns / NS_PER_TICK == start_ns / NS_PER_TICK
    }

    /// Whether a process that began then is this one; learns the exact time.
    fn is(&mut self, start_ns: u64) -> bool {
        if self.start_ns == start_ns {
            return true;
        }
        let same = self.coarse && self.start_ns / NS_PER_TICK == start_ns / NS_PER_TICK;
        if same {
            self.start_ns = start_ns;
            self.coarse = false;
        }
        same
    }
}

/// All processes of sessions.
#[derive(Debug, Default)]
pub struct Processes {
    living: ByNumber<u32, Process>,
    ended: VecDeque<(u32, Process)>,
    /// Ended ones that were forgotten, by session.
    forgotten: ByNumber<u64, u64>,
}

impl Processes {
    /// The living process with this number that began then.
    pub fn get(&mut self, pid: u32, start_ns: u64) -> Option<&mut Process> {
        self.living.get_mut(&pid).and_then(|process| process.is(start_ns).then_some(process))
    }

    /// The living process with this number, whenever it began.
    #[must_use]
    pub fn living(&self, pid: u32) -> Option<&Process> {
        self.living.get(&pid)
    }

    /// The living process of a record's header; made up where there is none.
    pub fn living_mut(&mut self, pid: u32, header: &RecordHeader) -> &mut Process {
        self.living.entry(pid).or_insert_with(|| Process::of_record(header))
    }

    /// All living ones.
    pub fn all_living(&self) -> impl Iterator<Item = (u32, &Process)> {
        self.living.iter().map(|(pid, process)| (*pid, process))
    }

    /// Adds one. Gives back an earlier one with the same number, whose end was not seen.
    pub fn add(&mut self, pid: u32, process: Process) -> Option<Process> {
        self.living.insert(pid, process)
    }

    /// Ends one.
    pub fn end(&mut self, pid: u32, ended_ns: u64, exit: Option<Exit>) -> Option<u64> {
        let mut process = self.living.remove(&pid)?;
        let session = process.session;
        process.ended_ns = Some(ended_ns);
        process.exit = exit;
        self.keep_ended(pid, process);
        Some(session)
    }

    /// Remembers one that ended, as long as there is room.
    pub fn keep_ended(&mut self, pid: u32, process: Process) {
        self.ended.push_back((pid, process));
        if self.ended.len() > ENDED_MAX
            && let Some((_, oldest)) = self.ended.pop_front()
        {
            *self.forgotten.entry(oldest.session).or_default() += 1;
        }
    }

    /// The processes of a session in the order in which they began, and how many more were forgotten.
    pub fn view(&self, session: u64, time: impl Fn(u64) -> String) -> (Vec<ProcessView>, u64) {
        let ended = self.ended.iter().map(|(pid, process)| (*pid, process));
        let mut views: Vec<ProcessView> = ended
            .chain(self.all_living())
            .filter(|(_, process)| process.session == session)
            .map(|(pid, process)| view(pid, process, &time))
            .collect();
        views.sort_by_key(|view| (view.id.start_time, view.id.pid));
        (views, self.forgotten.get(&session).copied().unwrap_or(0))
    }
}

fn view(pid: u32, process: &Process, time: &impl Fn(u64) -> String) -> ProcessView {
    ProcessView {
        id: ProcessId { pid, start_time: process.start_ns },
        ppid: process.ppid,
        parent: process.parent,
        executable_path: process.image.path.clone(),
        executable_path_encoding: process.image.path_encoding,
        command_args: Arc::clone(&process.image.args),
        command_args_encoding: process.image.args_encoding,
        uid: process.uid,
        cwd: process.cwd.text.clone(),
        cwd_encoding: process.cwd.encoding,
        started: time(process.start_ns),
        ended: process.ended_ns.map(time),
        exit: process.exit.clone(),
        counts: process.counts,
    }
}
