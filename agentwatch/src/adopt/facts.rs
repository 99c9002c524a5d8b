//! What follows from a snapshot before anybody is adopted: who descends from whom, who matches what.

use std::collections::HashMap;

use super::{ProcInfo, ProcSnapshot};
use crate::agents::{AgentTable, Match};
use crate::matcher::AgentIndex;

/// Index of a process in the snapshot.
pub(super) type Index = usize;

/// For each process, by its index, the process that it descends from.
///
/// That is its parent, but for one whose parents have ended and that was given to another (process 1, or a
/// subreaper): it descends from the living leader of its process group or its terminal session. A process
/// leaves its terminal session only by beginning one of its own, so one in another's terminal session whose
/// parent is not in it was given away.
pub(super) fn parents(snapshot: &ProcSnapshot) -> Vec<Option<Index>> {
    let by_pid: HashMap<u32, Index> =
        snapshot.processes.iter().enumerate().map(|(index, info)| (info.id.pid, index)).collect();
    let find = |pid: u32| by_pid.get(&pid).and_then(|&index| Some((index, snapshot.processes.get(index)?)));
    let parent = |info: &ProcInfo| {
        let parent = find(info.ppid).filter(|(_, parent)| is_older(parent, info));
        let given_away = info.sid != info.id.pid && parent.is_none_or(|(_, parent)| parent.sid != info.sid);
        if given_away {
            let leads = |(_, leader): &(Index, &ProcInfo)| {
                leader.id != info.id && leader.id.start_ticks <= info.id.start_ticks
            };
            let leader = find(info.pgid).filter(leads).or_else(|| find(info.sid).filter(leads));
            if let Some((leader, _)) = leader {
                return Some(leader);
            }
        }
        parent.map(|(index, _)| index)
    };
    snapshot.processes.iter().map(parent).collect()
}

/// A parent is older than its child, whatever `/proc` said while processes came and went.
fn is_older(one: &ProcInfo, other: &ProcInfo) -> bool {
    one.id.start_ticks < other.id.start_ticks
        || (one.id.start_ticks == other.id.start_ticks && one.id != other.id && other.ppid == one.id.pid)
}

/// The agent whose program or command line this is.
pub(super) fn program_of(info: &ProcInfo, table: &AgentTable) -> Option<AgentIndex> {
    if info.exe.is_empty() {
        return None;
    }
    table.of_program(&info.exe, info.arguments.iter().map(Vec::as_slice))
}

/// The agent whose cgroup this process is in, and the topmost cgroup that matches.
pub(super) fn cgroup_of<'a>(info: &'a ProcInfo, table: &AgentTable) -> Option<(AgentIndex, &'a [u8])> {
    if table.matcher().start_cgroup == 0 {
        return None;
    }
    let path = info.cgroup.as_slice();
    let ends = (1..=path.len()).filter(|&end| path.get(end).is_none_or(|&byte| byte == b'/'));
    ends.filter_map(|end| path.get(..end)).find_map(|above| Some((table.matcher().run_cgroup(above)?, above)))
}

/// Whether the process uses the agent's program under a name that is not the agent's, as some carry their
/// tools in one file (`rg` that is really `claude`). The kernel asks the same at exec.
pub(super) fn is_helper(info: &ProcInfo, agent: AgentIndex, table: &AgentTable) -> bool {
    let given = base_name(info.arguments.first().map_or(&[][..], Vec::as_slice));
    if given.is_empty() || given == base_name(&info.exe) {
        return false;
    }
    table.matcher().run_program(&[b"/", given].concat()) != Some(agent)
}

/// Whether `child`, which runs the same agent's program as its parent, is the parent over again: its fork, or
/// what a launcher started in its place (node for a native program, node with more memory), with the same
/// arguments for the agent.
pub(super) fn is_relaunch(
    parent: &ProcInfo,
    child: &ProcInfo,
    agent: AgentIndex,
    table: &AgentTable,
) -> bool {
    agents_arguments(parent, agent, table) == agents_arguments(child, agent, table)
}

/// The arguments that are the agent's own: those behind its program, or behind its script.
fn agents_arguments<'a>(info: &'a ProcInfo, agent: AgentIndex, table: &AgentTable) -> &'a [Vec<u8>] {
    let behind = info.arguments.get(1..).unwrap_or_default();
    let arguments = info.arguments.iter().map(Vec::as_slice);
    if !matches!(table.why_program(agent, &info.exe, arguments), Some(Match::Script(_))) {
        return behind;
    }
    // After the interpreter's options and its subcommand (`bun run`) comes the script.
    let is_script = |word: &Vec<u8>| !word.starts_with(b"-") && word != b"run";
    let script = behind.iter().position(is_script);
    script.and_then(|script| behind.get(script + 1..)).unwrap_or_default()
}

fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}
