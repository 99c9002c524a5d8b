//! Every map, declared once. The daemon finds them by these names under the pin folder.

use agentwatch_common::{
    limits,
    maps::{Automaton, CgroupEntry, LossKey, ProcessEntry, SessionEntry, control},
    offsets::Offsets,
    rules::{self, Decision, DecisionKey, RuleAutomaton, View, WindowTime},
};
use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, RingBuf},
};

use crate::record::Scratch;

/// Offsets of fields in this kernel, filled in by the loader. Read with [`crate::kernel::offsets`].
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::UNKNOWN;
/// Scratch buffers that exist, filled in by the loader from the number of CPUs.
#[unsafe(no_mangle)]
pub static SCRATCH_SLOTS: u32 = 0;

/// Live processes in sessions, by process id.
#[map]
pub static PROCESSES: HashMap<u32, ProcessEntry> = HashMap::pinned(limits::PROCESSES, 0);
/// Sessions, by number.
#[map]
pub static SESSIONS: HashMap<u64, SessionEntry> = HashMap::pinned(limits::SESSIONS, 0);
/// Cgroups whose processes belong to a session, by cgroup id.
#[map]
pub static CGROUPS: HashMap<u64, CgroupEntry> = HashMap::pinned(limits::CGROUPS, 0);
/// Users whose processes become sessions: user id to index of the agent.
#[map]
pub static USERS: HashMap<u32, u32> = HashMap::pinned(limits::USERS, 0);
/// Losses that the daemon has not reported yet.
#[map]
pub static LOSSES: HashMap<LossKey, u64> = HashMap::pinned(limits::LOSS_KEYS, 0);
/// Single words that both sides read and write: see [`control`].
#[map]
pub static CONTROL: Array<u64> = Array::pinned(control::LEN, 0);
/// Records for the daemon.
#[map]
pub static EVENTS: RingBuf = RingBuf::pinned(limits::RING_BYTES, 0);
/// Where records are built. More entries are asked for by the loader, by the number of CPUs.
#[map]
pub static SCRATCH: Array<Scratch> = Array::pinned(limits::SCRATCH_PER_CPU, 0);
/// The automaton that finds agents.
#[map]
pub static AUTOMATON: Array<Automaton> = Array::pinned(1, 0);
/// The automata of the rules, one for each slot.
#[map]
pub static RULES: Array<RuleAutomaton> = Array::pinned(rules::SLOTS, 0);
/// How agents are judged, by slot and number.
#[map]
pub static VIEWS: Array<View> = Array::pinned(rules::SLOTS * rules::VIEWS, 0);
/// What sets of patterns mean.
#[map]
pub static DECISIONS: HashMap<DecisionKey, Decision> = HashMap::pinned(limits::DECISIONS, 0);
/// Times at which rules count, by slot and number.
#[map]
pub static WINDOWS: Array<WindowTime> = Array::pinned(rules::SLOTS * rules::WINDOWS, 0);
