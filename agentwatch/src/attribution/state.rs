//! The state that records change, and the events that they give.

use std::{collections::HashMap, fmt, net::IpAddr, sync::Arc};

use agentwatch_common::{
    kind::{Attribution as By, RecordKind},
    maps::SessionEntry,
    record::{ForkBody, JoinBody, RecordHeader, args_flag},
};

use super::{
    ByNumber, Judges, Process, ProcessSeen, Processes, Sessions, describe,
    exec::{self, Pending},
    file, guard,
    judged::{describe_bound, is_bound},
    network,
    process::{Image, Text},
};
use crate::places::Mounts;
use crate::{
    agents::AgentTable,
    calls::{CallRef, Calls, KeptProcess},
    control::state::ProcessId,
    decode::{Body, Exec, FileAct, GuardRecord, NetAct, PathText, Record, decode},
    event::{self, Event, Exit, Kind, Op},
    intent::{self, Intents},
    written::{Asked, Jobs, Written},
};

/// Why a child is refused.
const NO_ROOM: &str =
    "the table of processes in sessions is full, and a child that cannot be followed is refused";

/// This host in this boot.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name.
    pub name: Arc<str>,
    /// The boot.
    pub boot_id: Arc<str>,
    /// Nanoseconds between 1970 and the boot, by the clock of today.
    pub boot_unix_ns: u64,
}

impl Host {
    /// A time since boot as a time since 1970.
    #[must_use]
    pub const fn unix_ns(&self, boot_ns: u64) -> u64 {
        self.boot_unix_ns.saturating_add(boot_ns)
    }
}

/// What must be asked of the host where the records do not say it.
pub trait HostFacts: fmt::Debug {
    /// A process that was not seen to begin.
    fn process(&mut self, pid: u32) -> Option<ProcessSeen>;
    /// A session whose beginning was not seen.
    fn session(&mut self, number: u64) -> Option<SessionEntry>;
    /// Path of the cgroup of a process.
    fn cgroup_of(&mut self, pid: u32) -> Option<Vec<u8>>;
    /// The mounts of the initial namespace, if they changed since the last call.
    fn mounts(&mut self) -> Option<Mounts>;
}

/// Sessions and processes.
#[derive(Debug)]
pub struct Attribution {
    /// This host.
    pub host: Host,
    /// All agents.
    pub table: Arc<AgentTable>,
    /// The policies that judge.
    pub judges: Judges,
    /// Names that addresses are known by.
    pub peer_names: HashMap<IpAddr, Arc<str>>,
    /// All sessions.
    pub sessions: Sessions,
    /// What was declared for them.
    pub intents: Intents,
    /// The tool calls that their harnesses tell of.
    pub calls: Calls,
    /// What they left behind.
    pub written: Written,
    /// Whom they may have asked.
    pub asked: Asked,
    /// What others run for them later.
    pub jobs: Jobs,
    /// Caused sessions that ended since somebody looked: what the kernel has of them is of no use.
    pub caused_over: Vec<u64>,
    /// Their processes.
    pub processes: Processes,
    pub(super) facts: Box<dyn HostFacts>,
    pub(super) mounts: Mounts,
    /// Containers by cgroup id.
    containers: ByNumber<u64, Option<Arc<str>>>,
    /// Execs that wait for more arguments, by process id.
    pending: ByNumber<u32, Pending>,
    /// Not all living processes are known yet: see [`Attribution::settle`].
    pub(super) settling: bool,
    /// Processes of tool calls that an earlier daemon knew and that are not known here yet.
    pub(super) kept_processes: HashMap<u32, KeptProcess>,
}

impl Attribution {
    /// Knows no session yet.
    #[must_use]
    pub fn new(host: Host, table: Arc<AgentTable>, facts: Box<dyn HostFacts>) -> Self {
        let sessions = Sessions::new(Arc::clone(&host.boot_id));
        Self {
            host,
            table,
            judges: Judges::default(),
            peer_names: HashMap::new(),
            sessions,
            intents: Intents::default(),
            calls: Calls::default(),
            written: Written::default(),
            asked: Asked::default(),
            jobs: Jobs::default(),
            caused_over: Vec::new(),
            processes: Processes::default(),
            facts,
            mounts: Mounts::default(),
            containers: ByNumber::default(),
            pending: ByNumber::default(),
            settling: false,
            kept_processes: HashMap::new(),
        }
    }

    /// Takes a record and puts the events that it gives into `out`.
    pub fn apply(&mut self, record: &Record<'_>, raw: &[u8], out: &mut Vec<Event>) {
        self.finish_waiting(record, out);
        match &record.body {
            Body::Fork(_) if record.kind == RecordKind::ForkRefused => self.refused_fork(&record.header, out),
            Body::Fork(fork) => self.fork(&record.header, fork, out),
            Body::Exec(exec) if exec.args.flags & args_flag::MORE != 0 => {
                self.pending.insert(record.header.pid, Pending::new(raw, &exec.args));
            }
            Body::Exec(exec) => {
                let truncated = exec.args.flags & args_flag::FAULT != 0;
                self.exec(&record.header, exec, exec.args.bytes, truncated, out);
            }
            Body::Args(more) => {
                let last = self.pending.get_mut(&record.header.pid).is_some_and(|pending| pending.take(more));
                if last {
                    self.finish_exec(record.header.pid, out);
                }
            }
            Body::Exit(exit) => self.exit(&record.header, exit.code, out),
            Body::Join(join) => self.join(&record.header, join, out),
            Body::File(act) if record.kind == RecordKind::Cwd => self.change_cwd(&record.header, act, out),
            Body::File(act) => self.file(record, act, out),
            Body::Net(act) => self.net(record, act, out),
            Body::Guard(act) => self.guard(&record.header, act, out),
            Body::Cause(act) => self.cause(&record.header, act, out),
        }
    }

    /// Where a process goes on though arguments of its exec are missing, they were lost.
    fn finish_waiting(&mut self, record: &Record<'_>, out: &mut Vec<Event>) {
        if matches!(record.body, Body::Args(_)) {
            return;
        }
        if let Some(pending) = self.pending.get_mut(&record.header.pid) {
            pending.truncated = true;
            self.finish_exec(record.header.pid, out);
        }
    }

    fn finish_exec(&mut self, pid: u32, out: &mut Vec<Event>) {
        let Some(pending) = self.pending.remove(&pid) else { return };
        // It was read once already.
        if let Ok(Record { header, body: Body::Exec(exec), .. }) = decode(&pending.record) {
            self.exec(&header, &exec, &pending.args, pending.truncated, out);
        }
    }

    fn fork(&mut self, header: &RecordHeader, fork: &ForkBody, out: &mut Vec<Event>) {
        let own = ProcessId { pid: header.pid, start_time: header.start_ns };
        let child = self.process(header, out).child(own, fork.child_start_ns, header.session);
        let made = ProcessId { pid: fork.child_pid, start_time: fork.child_start_ns };
        self.calls.forked(header.session, own, made);
        match self.processes.get(fork.child_pid, fork.child_start_ns) {
            // Found in the kernel's table before this record came.
            Some(known) => known.parent = Some(own),
            None => self.add_process(fork.child_pid, child, header.time_ns, out),
        }
        let mut event = self.event(header, Kind::ProcessFork, None, out);
        let namespace_pid = (fork.child_ns_pid != fork.child_pid).then_some(fork.child_ns_pid);
        event.child =
            Some(event::Child { pid: fork.child_pid, start_time: fork.child_start_ns, namespace_pid });
        out.push(event);
    }

    /// A child for which there was no room: it was not made.
    fn refused_fork(&mut self, header: &RecordHeader, out: &mut Vec<Event>) {
        let mut event = self.event(header, Kind::ProcessFork, None, out);
        self.judge(header, &mut event, false);
        event.reason = Some(NO_ROOM.to_owned());
        out.push(event);
    }

    fn exec(
        &mut self,
        header: &RecordHeader,
        exec: &Exec<'_>,
        args: &[u8],
        truncated: bool,
        out: &mut Vec<Event>,
    ) {
        self.refresh_mounts(&[&exec.program]);
        let program = file::locate(&exec.program, &exec.program_fs, &self.mounts).path;
        let image = Arc::new(Image::of(&program, exec::split(args), truncated));
        let cwd = Arc::new(Text::from_vec(exec.cwd.path()));
        let container = self.container(exec.cgroup, header.pid);
        if exec.attribution != 0 && self.sessions.get(header.session).is_none() {
            let agent = self.table.with_number(exec.agent);
            let why = self.why_exec(agent, &program, args);
            let parent = (exec.parent_session != 0).then_some(exec.parent_session);
            let by = By::from_raw(exec.attribution);
            self.begin(header.session, header.pid, header.time_ns, agent, by, parent, why);
        }
        let command = exec::command_line(&program, args);
        let named = self.claim(header, &command, &image);
        let process = self.process(header, out);
        process.image = image;
        process.cwd = cwd;
        process.container = container;
        process.counts.add(Op::Exec, 1);
        if exec.attribution != 0 {
            out.push(self.session_begun(header));
        }
        let mut event = self.event(header, Kind::ProcessExec, Some(Op::Exec), out);
        event.command = Some(Text::from_vec(command).text);
        self.judge(header, &mut event, named);
        out.push(event);
    }

    /// Finds the tool call that a process belongs to which a harness has just started, and whether what that was told names
    /// the program that it runs now. The first process of a call is the call itself.
    fn claim(&mut self, header: &RecordHeader, command: &[u8], image: &Image) -> bool {
        let at_ns = self.host.unix_ns(header.time_ns);
        let Some(process) = self.processes.get(header.pid, header.start_ns) else { return false };
        // A call that came from above gives way to one of a harness that runs within it.
        let is_own = |call: &Arc<CallRef>| Some(call.harness) == process.parent;
        if !process.call.as_ref().is_some_and(is_own) {
            let command = String::from_utf8_lossy(command);
            if let Some(call) = self.calls.claim(header.session, process.parent, &command, at_ns) {
                process.call = Some(call);
                // What another call named has no say in this one.
                process.named = false;
                return true;
            }
        }
        let Some(call) = &process.call else { return false };
        process.named |= self.calls.names(header.session, call, &image.path.0, &image.args);
        process.named
    }

    /// Says in an event what was decided and what was declared of it, and counts it. `named`: the start of a program that
    /// its tool call was told, or of one that such a program starts.
    fn judge(&mut self, header: &RecordHeader, event: &mut Event, named: bool) {
        let told = self.calls.align(header.session, event, named);
        if is_bound(header) {
            // The one that refused it is named, which may be that of a session around this one.
            let around = self.sessions.around(header.session);
            let refusing = self.intents.refusing(around, event, self.host.unix_ns(header.time_ns));
            let number = refusing.unwrap_or(header.policy);
            describe_bound(header.verdict, self.intents.by_number(number), event);
            self.intents.count_refused(number, event.count);
        } else {
            self.judges.describe(header, event);
            let declared = self.intents.align(header.session, event, self.host.unix_ns(header.time_ns));
            event.intent = intent::narrower(declared, told);
        }
        self.calls.count(header.session, event, self.host.unix_ns(header.time_ns));
        if is_refusal(event.verdict)
            && let Some(session) = self.sessions.get_mut(header.session)
        {
            session.denials += 1;
        }
    }

    fn exit(&mut self, header: &RecordHeader, code: u32, out: &mut Vec<Event>) {
        let mut event = self.event(header, Kind::ProcessExit, None, out);
        let signal = u8::try_from(code & 0x7f).ok().filter(|signal| *signal != 0);
        let status = u8::try_from(code >> 8 & 0xff).ok().filter(|_| signal.is_none());
        let exit = Exit { code: status, signal };
        event.exit = Some(exit.clone());
        out.push(event);
        if let Some(session) = self.processes.end(header.pid, header.time_ns, Some(exit)) {
            self.left(session, header.time_ns, out);
        }
    }

    fn join(&mut self, header: &RecordHeader, join: &JoinBody, out: &mut Vec<Event>) {
        if self.sessions.get(header.session).is_none() {
            let cgroup = self.facts.cgroup_of(header.pid);
            let agent = self.table.with_number(join.agent);
            let found = match (By::from_raw(join.attribution), &cgroup) {
                (By::MatchedUser, _) => self.table.why_user(agent, header.uid),
                (_, Some(path)) => self.table.why_cgroup(agent, path),
                _ => None,
            };
            let why = found.map(|found| self.recognised(agent, found));
            let by = By::from_raw(join.attribution);
            self.begin(header.session, header.pid, header.time_ns, agent, by, None, why);
        }
        self.process(header, out);
        out.push(self.session_begun(header));
    }

    fn change_cwd(&mut self, header: &RecordHeader, act: &FileAct<'_>, out: &mut Vec<Event>) {
        let cwd = Arc::new(Text::from_vec(act.path.path()));
        self.process(header, out).cwd = cwd;
    }

    fn file(&mut self, record: &Record<'_>, act: &FileAct<'_>, out: &mut Vec<Event>) {
        let Some((kind, op)) = file::kind_of(record.kind, act) else { return };
        self.refresh_mounts(&[&act.path, &act.path_to]);
        let file = file::file_of(record.kind, act, &self.mounts);
        let mut event = self.event(&record.header, kind, op, out);
        if kind == Kind::ProcessExec && op == Some(Op::Run) {
            let program = file::locate(&act.path, &act.path_fs, &self.mounts).path;
            event.command = Some(Text::of(&exec::command_line(&program, act.path_to.text())).text);
        }
        event.file = Some(file);
        self.calls.aim(record.header.session, &mut event, self.host.unix_ns(record.header.time_ns));
        let named = self.names_target(&record.header, &event);
        self.judge(&record.header, &mut event, named);
        out.push(event);
    }

    /// Whether the call of a process was told the program that it was kept from starting.
    fn names_target(&mut self, header: &RecordHeader, event: &Event) -> bool {
        let Some(file) = event.file.as_ref().filter(|_| event.kind == Kind::ProcessExec) else {
            return false;
        };
        let Some(process) = self.processes.get(header.pid, header.start_ns) else { return false };
        let named = |call: &Arc<_>| self.calls.names(header.session, call, &file.path.0, &[]);
        process.named || process.call.as_ref().is_some_and(named)
    }

    fn net(&mut self, record: &Record<'_>, act: &NetAct<'_>, out: &mut Vec<Event>) {
        let Some((kind, op)) = network::kind_of(record.kind) else { return };
        self.refresh_mounts(&[&act.path]);
        let cwd = Arc::clone(&self.process(&record.header, out).cwd);
        let mut network = network::network_of(record.kind, act, &cwd.text, &self.mounts);
        network.peer_name = network::peer_of(&network).and_then(|peer| self.peer_names.get(&peer)).cloned();
        let mut event = self.event(&record.header, kind, op, out);
        event.network = Some(network);
        self.judge(&record.header, &mut event, false);
        out.push(event);
    }

    fn guard(&mut self, header: &RecordHeader, act: &GuardRecord<'_>, out: &mut Vec<Event>) {
        let Some(kind) = guard::kind_of(act) else { return };
        self.refresh_mounts(&[&act.path]);
        let file = guard::file_of(act, &self.mounts);
        let mut event = self.event(header, kind, None, out);
        event.guard = Some(guard::describe(act));
        event.file = file;
        self.judge(header, &mut event, false);
        if event.errno.is_some() && guard::is_by_proc(act) {
            event.errno = Some(Arc::from("EACCES"));
        }
        out.push(event);
    }

    /// Looks whether mounts changed, where that matters to a path: asking the kernel costs more than all else here.
    pub(super) fn refresh_mounts(&mut self, paths: &[&PathText<'_>]) {
        if paths.iter().any(|path| file::needs_mounts(path))
            && let Some(mounts) = self.facts.mounts()
        {
            self.mounts = mounts;
        }
    }

    /// An event of a process, counted for it and its session.
    pub(super) fn event(
        &mut self,
        header: &RecordHeader,
        kind: Kind,
        op: Option<Op>,
        out: &mut Vec<Event>,
    ) -> Event {
        let process = self.process(header, out);
        if let Some(op) = op.filter(|op| *op != Op::Exec) {
            process.counts.add(op, 1);
        }
        let (described, call) = (describe::process_of(header, process), process.call.clone());
        let mut event = describe::event(&self.host, header.time_ns, kind, op);
        let Some(session) = self.sessions.get_mut(header.session) else { return event };
        session.events += 1;
        describe::name_session(&mut event, session);
        event.process = Some(described);
        let at_ns = self.host.unix_ns(header.time_ns);
        self.calls.describe(header.session, call.as_deref(), &mut event, at_ns);
        event
    }

    /// The process of a record; one that was not seen to begin is asked of the host.
    pub(super) fn process(&mut self, header: &RecordHeader, out: &mut Vec<Event>) -> &mut Process {
        if self.processes.get(header.pid, header.start_ns).is_none() {
            let seen = self.facts.process(header.pid).filter(|seen| same_start(seen, header.start_ns));
            let mut process = match &seen {
                Some(seen) => Process::seen(header.session, seen),
                None => Process::of_record(header),
            };
            process.start_ns = header.start_ns;
            self.add_process(header.pid, process, header.time_ns, out);
        }
        let before =
            self.processes.get(header.pid, header.start_ns).map_or(header.session, |one| one.session);
        let moves = before != header.session && !self.began_behind(before, header);
        if moves {
            self.entered(header.session, header.pid);
            self.left(before, header.time_ns, out);
        }
        let process = self.processes.living_mut(header.pid, header);
        if moves {
            process.session = header.session;
        }
        process
    }

    /// Whether a session began behind a record: the daemon makes a process one that asks for it, and what that process did
    /// before as another's may still wait to be read.
    fn began_behind(&self, session: u64, header: &RecordHeader) -> bool {
        let told_ns = self.host.unix_ns(header.time_ns);
        self.sessions.get(session).is_some_and(|session| session.began.since_ns > told_ns)
    }

    /// Counts repeats that were folded into an event; the event itself counted one already.
    pub fn count_repeats(&mut self, event: &Event, header: &RecordHeader, count: u64) {
        let (session, more) = (header.session, count.saturating_sub(1));
        if let Some(intent) = &event.intent {
            self.intents.count_more(session, intent, more);
        }
        self.calls.count_more(session, event, more, self.host.unix_ns(header.time_ns));
        if let Some(session) = self.sessions.get_mut(session) {
            session.events += more;
            if is_refusal(event.verdict) {
                session.denials += more;
            }
        }
        let process = event.process.as_ref().and_then(|one| self.processes.get(one.pid, one.start_time));
        if let (Some(process), Some(op)) = (process, event.op) {
            process.counts.add(op, more);
        }
    }

    /// An event about the host itself.
    #[must_use]
    pub fn host_event(&self, kind: Kind, time_ns: u64, reason: Option<String>) -> Event {
        let mut event = describe::event(&self.host, time_ns, kind, None);
        event.reason = reason;
        event
    }

    fn container(&mut self, cgroup: u64, pid: u32) -> Option<Arc<str>> {
        /// Cgroups whose containers are remembered; then all are asked for anew.
        const KNOWN_MAX: usize = 4096;
        if let Some(known) = self.containers.get(&cgroup) {
            return known.clone();
        }
        let path = self.facts.cgroup_of(pid)?;
        let container = super::container_of(&path).map(Arc::from);
        if self.containers.len() >= KNOWN_MAX {
            self.containers.clear();
        }
        self.containers.insert(cgroup, container.clone());
        container
    }
}

/// Whether the operation did not happen.
fn is_refusal(verdict: event::Verdict) -> bool {
    matches!(verdict, event::Verdict::Held | event::Verdict::Denied | event::Verdict::Killed)
}

/// Whether what the host says is about the process that began then.
fn same_start(seen: &ProcessSeen, start_ns: u64) -> bool {
    const NS_PER_TICK: u64 = 10_000_000;
    seen.start_ticks == start_ns / NS_PER_TICK
}
