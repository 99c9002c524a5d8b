//! Putting processes into sessions from user space: agents that already run, and `agentwatch exec`.

use std::{
    collections::HashMap,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use agentwatch_common::{
    kind::Attribution as By,
    maps::{CgroupEntry, ProcessEntry, SESSION_BY_DAEMON, SessionEntry, process_flag},
};

use super::facts;
use crate::{
    adopt::{self, Adoption, Enclosing, ProcId, ProcSnapshot, Root},
    agents::AgentTable,
    attribution::{Attribution, Process},
    control::state::Recognised,
    event::Event,
    kernel::{
        bound::pass_on,
        maps::{Maps, Shared},
    },
    policy::Mode,
};

/// Where the unified hierarchy is mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Rounds of adoption. Each catches what was forked during the one before; a fork bomb is followed by the kernel
/// as soon as one of its ancestors is marked, so few are needed.
const ROUNDS_MAX: u32 = 64;
/// Nanoseconds in a clock tick.
pub const NS_PER_TICK: u64 = 10_000_000;

/// Numbers for sessions that the daemon begins.
#[derive(Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// Goes on behind all that are known.
    #[must_use]
    pub fn after(known: impl Iterator<Item = u64>) -> Self {
        let own = known.filter(|number| number & SESSION_BY_DAEMON != 0).max().unwrap_or(SESSION_BY_DAEMON);
        Self(own + 1)
    }

    fn next(&mut self) -> u64 {
        let number = self.0;
        self.0 += 1;
        number
    }
}

/// Adopts agents that already run, until a look at all processes finds nothing new. Gives how many processes
/// joined.
pub fn adopt_running(
    maps: &mut Maps,
    state: &mut Attribution,
    numbers: &mut Numbers,
    now_ns: u64,
    out: &mut Vec<Event>,
) -> usize {
    let mut cgroups = known_cgroups(maps, state);
    let mut joined = 0;
    for _ in 0..ROUNDS_MAX {
        let Ok(snapshot) = ProcSnapshot::read() else { break };
        let marked: HashMap<u32, ProcessEntry> = maps
            .processes
            .iter()
            .flatten()
            .map(|(pid, Shared(entry))| (pid, entry))
            .filter(is_followed)
            .collect();
        let session_of = |id: ProcId| marked.get(&id.pid).filter(|entry| is_process(entry, id));
        let table = std::sync::Arc::clone(&state.table);
        let plan =
            adopt::plan(&snapshot, &table, &|id| session_of(id).map(|entry| own_agent(maps, &table, entry)));
        if plan.is_empty() {
            break;
        }
        let mut begun: Vec<Judged> = Vec::new();
        for adoption in &plan.adoptions {
            let parent = match adoption.parent {
                Some(Enclosing::Adoption(index)) => begun.get(index).copied(),
                Some(Enclosing::SessionOf(id)) => session_of(id).map(Judged::of),
                None => None,
            };
            let number = begin(maps, state, numbers, adoption, parent, &mut cgroups, now_ns, out);
            let judged = Judged { session: number, agent: judged_as(maps, state, parent, adoption.agent) };
            begun.push(judged);
            for member in &adoption.members {
                let root = adoption.root == Root::Process(*member);
                joined += usize::from(mark(maps, state, *member, judged, root, now_ns, out));
            }
        }
        for join in &plan.joins {
            if let Some(entry) = session_of(join.session_of) {
                let judged = Judged::of(entry);
                joined += usize::from(mark(maps, state, join.process, judged, false, now_ns, out));
            }
        }
    }
    joined
}

/// Whether a process is a session's own. One that only uses what a session left behind is an agent where it matches, as an
/// outsider is.
fn is_followed((_, entry): &(u32, ProcessEntry)) -> bool {
    entry.flags & process_flag::CAUSED == 0
}

/// A session, and the number by which its processes are judged.
#[derive(Clone, Copy, Debug)]
struct Judged {
    session: u64,
    agent: u32,
}

impl Judged {
    const fn of(entry: &ProcessEntry) -> Self {
        Self { session: entry.session, agent: entry.agent }
    }
}

/// The number by which a session of an agent is judged that begins inside another, as the kernel has it: never less
/// strictly than that one is.
fn judged_as(maps: &Maps, state: &Attribution, outer: Option<Judged>, agent: u32) -> u32 {
    let inner = state.table.number_of(agent);
    // A caused session is judged by nobody: its number is 0.
    let is_judged = |outer: &Judged| outer.agent != 0 && outer.agent != inner;
    let Some(Judged { agent: outer, .. }) = outer.filter(is_judged) else { return inner };
    if let Some(both) = maps.nested(outer, inner) {
        return both;
    }
    // A number that is no agent's stands for several.
    let known = state.table.get(state.table.with_number(outer));
    if known.is_none_or(|agent| agent.mode != Mode::Observe) { outer } else { inner }
}

/// The session's own agent, by whatever number its processes are judged.
fn own_agent(maps: &Maps, table: &AgentTable, entry: &ProcessEntry) -> u32 {
    let session = maps.sessions.get(&entry.session, 0).ok();
    table.with_number(session.map_or(entry.agent, |Shared(session)| session.agent))
}

/// An entry for a process that the daemon puts into a session; `agent` is the number by which it is judged.
fn process_entry(session: u64, id: ProcId, agent: u32, flags: u32) -> ProcessEntry {
    ProcessEntry { session, start_ticks: id.start_ticks, agent, flags, ..ProcessEntry::default() }
}

/// Whether an entry of the kernel means this process.
fn is_process(entry: &ProcessEntry, id: ProcId) -> bool {
    is_start(entry, id.start_ticks)
}

/// Whether the process of an entry began at this clock tick.
#[must_use]
pub const fn is_start(entry: &ProcessEntry, start_ticks: u64) -> bool {
    start_of(entry) / NS_PER_TICK == start_ticks
}

/// When the process of an entry began, nanoseconds since boot, to the tick where nothing better is known.
#[must_use]
pub const fn start_of(entry: &ProcessEntry) -> u64 {
    if entry.start_ns == 0 { entry.start_ticks * NS_PER_TICK } else { entry.start_ns }
}

/// Begins an adopted session, or finds that of a cgroup which has one.
#[expect(clippy::too_many_arguments, reason = "the parts of the daemon that it changes")]
fn begin(
    maps: &mut Maps,
    state: &mut Attribution,
    numbers: &mut Numbers,
    adoption: &Adoption,
    parent: Option<Judged>,
    cgroups: &mut HashMap<Vec<u8>, u64>,
    now_ns: u64,
    out: &mut Vec<Event>,
) -> u64 {
    if let Root::Cgroup(path) = &adoption.root
        && let Some(number) = cgroups.get(path)
    {
        return *number;
    }
    let number = numbers.next();
    let root_pid = match &adoption.root {
        Root::Process(id) => id.pid,
        Root::Cgroup(_) => adoption.members.first().map_or(0, |id| id.pid),
    };
    let why = why(state, adoption);
    let parent = parent.map(|parent| parent.session);
    state.begin(number, root_pid, now_ns, adoption.agent, By::Adopted, parent, why);
    keep(maps, state, number, adoption.agent, By::Adopted);
    if let Root::Cgroup(path) = &adoption.root {
        cover_cgroup(maps, path, number, state.table.number_of(adoption.agent));
        cgroups.insert(path.clone(), number);
    }
    out.extend(state.session_started(number, now_ns));
    number
}

/// By what an adopted session was recognised.
fn why(state: &Attribution, adoption: &Adoption) -> Option<Recognised> {
    let found = match &adoption.root {
        Root::Process(id) => {
            let seen = facts::process(id.pid)?;
            let args = seen.args.iter().map(Vec::as_slice);
            let by_program = state.table.why_program(adoption.agent, &seen.exe, args);
            by_program.or_else(|| state.table.why_user(adoption.agent, seen.uid?))
        }
        Root::Cgroup(path) => state.table.why_cgroup(adoption.agent, path),
    };
    found.map(|found| state.recognised(adoption.agent, found))
}

/// Keeps a session in the kernel's table, for a daemon that comes after this one.
pub fn keep(maps: &mut Maps, state: &Attribution, number: u64, agent: u32, by: By) {
    let Some(session) = state.sessions.get(number) else { return };
    let entry = SessionEntry {
        parent: session.began.parent.unwrap_or(0),
        since_ns: session.began.since_ns.saturating_sub(state.host.boot_unix_ns),
        root_pid: session.began.root_pid,
        agent: state.table.number_of(agent),
        attribution: by.raw(),
        pad: [0; 7],
    };
    if let Err(error) = maps.sessions.insert(number, Shared(entry), 0) {
        tracing::warn!(%error, "the kernel's table of sessions is full: a restart may forget parents");
    }
}

/// Marks a process as a session's. True where it is, from its next act on.
fn mark(
    maps: &mut Maps,
    state: &mut Attribution,
    id: ProcId,
    judged: Judged,
    root: bool,
    now_ns: u64,
    out: &mut Vec<Event>,
) -> bool {
    let flags = if root { process_flag::ROOT } else { 0 };
    let entry = process_entry(judged.session, id, judged.agent, flags);
    if let Err(error) = maps.processes.insert(id.pid, entry) {
        tracing::warn!(pid = id.pid, %error, "cannot follow a process of a session");
        return false;
    }
    // It may have ended before the mark, and then nothing would take the mark away.
    let Some(seen) = facts::process(id.pid).filter(|seen| seen.start_ticks == id.start_ticks) else {
        let _ = maps.processes.remove(id.pid);
        return false;
    };
    state.add_process(id.pid, Process::seen(judged.session, &seen), now_ns, out);
    true
}

/// A process that asked by `agentwatch exec` to be a session.
pub fn launch(
    maps: &mut Maps,
    state: &mut Attribution,
    numbers: &mut Numbers,
    id: ProcId,
    agent: u32,
    now_ns: u64,
    out: &mut Vec<Event>,
) -> Option<u64> {
    let number = numbers.next();
    let before = maps.processes.get(id.pid).filter(|entry| is_process(entry, id));
    let before = before.as_ref().map(Judged::of);
    let parent = before.map(|before| before.session);
    // What binds the session around it holds it as well.
    if let Some(parent) = parent
        && let Err(error) = pass_on(&mut maps.bound_sessions, parent, number)
    {
        tracing::warn!(%error, "no session is begun inside another that is bound");
        return None;
    }
    let flags = process_flag::ROOT | process_flag::LAUNCHING;
    let entry = process_entry(number, id, judged_as(maps, state, before, agent), flags);
    state.begin(number, id.pid, now_ns, agent, By::Launched, parent, None);
    keep(maps, state, number, agent, By::Launched);
    maps.processes.insert(id.pid, entry).ok()?;
    let Some(seen) = facts::process(id.pid).filter(|seen| seen.start_ticks == id.start_ticks) else {
        let _ = maps.processes.remove(id.pid);
        return None;
    };
    out.extend(state.session_started(number, now_ns));
    state.add_process(id.pid, Process::seen(number, &seen), now_ns, out);
    Some(number)
}

/// Tells the kernel of cgroups that match and are there already, so that who is put into them is followed.
pub fn cover_cgroups(maps: &mut Maps, state: &mut Attribution, numbers: &mut Numbers, now_ns: u64) {
    let (found, whole) = adopt::matching_cgroups(Path::new(CGROUPS), &state.table);
    if !whole {
        tracing::warn!(
            "this host has more cgroups than agentwatch looks at: agents in the others are found at exec"
        );
    }
    let known = known_cgroups(maps, state);
    for (path, agent) in found {
        if known.contains_key(&path) {
            continue;
        }
        let number = numbers.next();
        let why = state.table.why_cgroup(agent, &path).map(|found| state.recognised(agent, found));
        state.begin(number, 0, now_ns, agent, By::MatchedCgroup, None, why);
        keep(maps, state, number, agent, By::MatchedCgroup);
        cover_cgroup(maps, &path, number, state.table.number_of(agent));
    }
}

/// Sessions of cgroups, by path.
fn known_cgroups(maps: &Maps, state: &Attribution) -> HashMap<Vec<u8>, u64> {
    let by_id: HashMap<u64, u64> =
        maps.cgroups.iter().flatten().map(|(id, Shared(entry))| (id, entry.session)).collect();
    let (found, _) = adopt::matching_cgroups(Path::new(CGROUPS), &state.table);
    let number_of = |path: &[u8]| by_id.get(&std::fs::metadata(folder_of(path)).ok()?.ino()).copied();
    found
        .into_iter()
        .filter_map(|(path, _)| Some((number_of(&path)?, path)))
        .map(|(number, path)| (path, number))
        .collect()
}

/// Folder of a cgroup.
fn folder_of(path: &[u8]) -> PathBuf {
    let below = path.strip_prefix(b"/").unwrap_or(path);
    Path::new(CGROUPS).join(std::ffi::OsStr::from_bytes(below))
}

/// Notes a cgroup and all below it; `agent` is the agent's number.
fn cover_cgroup(maps: &mut Maps, path: &[u8], session: u64, agent: u32) {
    let mut folders = vec![folder_of(path)];
    while let Some(folder) = folders.pop() {
        let Ok(found) = std::fs::metadata(&folder) else { continue };
        if let Err(error) =
            maps.cgroups.insert(found.ino(), Shared(CgroupEntry { session, agent, pad: 0 }), 0)
        {
            tracing::warn!(cgroup = %folder.display(), %error, "cannot follow a cgroup");
        }
        let below = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(
            below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
        );
    }
}
