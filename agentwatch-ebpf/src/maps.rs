//! Every map, declared once. The daemon finds them by these names under the pin folder.

use agentwatch_common::{
    answer::{Asker, Learned, LearnedKey, NameKey},
    bound::{self, Binding, BoundEntry},
    limits,
    maps::{
        AskedEntry, Automaton, CgroupEntry, FileKey, LossKey, NestedKey, ProcessEntry, SessionEntry,
        WrittenEntry, control,
    },
    offsets::Offsets,
    rules::{
        self, Choice, Decision, DecisionKey, Device, DeviceKey, LinkedKey, NetRange, NetRow, PrefixKey,
        RuleAutomaton, RuleStates, RuleSteps, View, ViewKey, WindowTime,
    },
};
use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, LruHashMap, RingBuf},
};

use crate::record::Scratch;

/// Offsets of fields in this kernel, filled in by the loader. Read with [`crate::kernel::offsets`].
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::UNKNOWN;
/// Scratch buffers that exist, filled in by the loader from the number of CPUs.
#[unsafe(no_mangle)]
pub static SCRATCH_SLOTS: u32 = 0;

/// 1 where the kernel has `bpf_loop` (since 5.17), filled in by the loader.
#[unsafe(no_mangle)]
pub static KERNEL_LOOPS: u32 = 0;

/// Live processes in sessions, by process id.
#[map]
pub static PROCESSES: HashMap<u32, ProcessEntry> = HashMap::pinned(limits::PROCESSES, 0);
/// Threads that are making a process for which there is room, by thread id.
#[map]
pub static FORKS: HashMap<u32, u32> = HashMap::pinned(limits::FORKS, 0);
/// Sessions, by number.
#[map]
pub static SESSIONS: HashMap<u64, SessionEntry> = HashMap::pinned(limits::SESSIONS, 0);
/// Cgroups whose processes belong to a session, by cgroup id.
#[map]
pub static CGROUPS: HashMap<u64, CgroupEntry> = HashMap::pinned(limits::CGROUPS, 0);
/// By what a session inside another is judged.
#[map]
pub static NESTED: HashMap<NestedKey, u32> = HashMap::pinned(limits::NESTED, 0);
/// Users whose processes become sessions: user id to index of the agent.
#[map]
pub static USERS: HashMap<u32, u32> = HashMap::pinned(limits::USERS, 0);
/// Files that sessions wrote, with the last writer. Allocated in advance, so that a write is never slow, and never emptied
/// by what comes later.
#[map]
pub static WRITTEN: HashMap<FileKey, WrittenEntry> = HashMap::pinned(limits::WRITTEN, 0);
/// Interpreters and the endings of what they run: see [`agentwatch_common::maps::source`].
#[map]
pub static SOURCES: HashMap<u64, u32> = HashMap::pinned(limits::SOURCES, 0);
/// Lines of tables of cron, and units of systemd, that sessions wrote: see [`agentwatch_common::maps::job`]. The session's
/// number, as in [`WRITTEN`].
#[map]
pub static JOBS: HashMap<u64, u64> = HashMap::pinned(limits::JOBS, 0);
/// What sessions said by Unix sockets, by the address of the socket that it goes to.
#[map]
pub static ASKED: LruHashMap<u64, AskedEntry> = LruHashMap::pinned(limits::ASKED, 0);
/// What delegates heard of that, and processes that they made, by process id.
#[map]
pub static HEARD: LruHashMap<u32, AskedEntry> = LruHashMap::pinned(limits::ASKED, 0);
/// Losses that the daemon has not reported yet.
#[map]
pub static LOSSES: HashMap<LossKey, u64> = HashMap::pinned(limits::LOSS_KEYS, 0);
/// How much of each loss was told. The daemon's own: kept here, it lives as long as what it speaks of, and the next daemon
/// finds it whatever its state folder is.
#[map]
pub static LOSSES_TOLD: HashMap<LossKey, u64> = HashMap::pinned(limits::LOSS_KEYS, BPF_F_NO_PREALLOC);
/// Single words that both sides read and write: see [`control`].
#[map]
pub static CONTROL: Array<u64> = Array::pinned(control::LEN, 0);
/// Records for the daemon.
#[map]
pub static EVENTS: RingBuf = RingBuf::pinned(limits::RING_BYTES, 0);
/// Where records are built. More entries are asked for by the loader, by the number of CPUs.
#[map]
pub static SCRATCH: Array<Scratch> = Array::pinned(limits::SCRATCH_PER_CPU, 0);
/// Numbers of the agents that the automaton names by their index.
#[map]
pub static AGENT_NUMBERS: Array<u32> = Array::pinned(limits::AGENTS, 0);
/// The automaton that finds agents.
#[map]
pub static AUTOMATON: Array<Automaton> = Array::pinned(1, 0);
/// The automata of the rules, one for each slot.
#[map]
pub static RULES: Array<RuleAutomaton> = Array::pinned(rules::SLOTS, 0);
/// Their states.
#[map]
pub static RULE_STATES: Array<RuleStates> = Array::pinned(rules::SLOTS, 0);
/// Their steps.
#[map]
pub static RULE_STEPS: Array<RuleSteps> = Array::pinned(rules::SLOTS, 0);
/// Where paths within file systems begin.
#[map]
pub static DEVICES: HashMap<DeviceKey, Device> = HashMap::pinned(rules::SLOTS * limits::DEVICES, 0);
/// Sets of rules for files that these know by other names. Takes memory for those alone that there are: programs only
/// look.
#[map]
pub static LINKED: HashMap<LinkedKey, u32> =
    HashMap::pinned(rules::SLOTS * limits::LINKED, BPF_F_NO_PREALLOC);
/// How agents are judged.
#[map]
pub static VIEWS: HashMap<ViewKey, View> = HashMap::pinned(rules::SLOTS * rules::VIEWS, 0);
/// What sets of patterns mean.
#[map]
pub static DECISIONS: HashMap<DecisionKey, Decision> = HashMap::pinned(limits::DECISIONS, 0);
/// Times at which rules count, by slot and number.
#[map]
pub static WINDOWS: Array<WindowTime> = Array::pinned(rules::SLOTS * rules::WINDOWS, 0);
/// Networks of the rules. A trie cannot be allocated in advance.
#[map]
pub static PREFIXES: LpmTrie<PrefixKey, u32> =
    LpmTrie::pinned(rules::SLOTS * rules::PREFIXES, BPF_F_NO_PREALLOC);
/// Number of views of the policy in each slot.
#[map]
pub static NET_VIEWS: Array<u32> = Array::pinned(rules::SLOTS, 0);
/// Lists of ports by set of networks, view, operation and transport.
#[map]
pub static NET_ROWS: Array<NetRow> = Array::pinned(rules::SLOTS * rules::NET_ROWS, 0);
/// Ranges of ports, and what they mean.
#[map]
pub static NET_RANGES: Array<NetRange> = Array::pinned(rules::SLOTS * rules::NET_RANGES, 0);
/// What is decided about addresses where no rule matches.
#[map]
pub static NET_DEFAULTS: Array<Choice> = Array::pinned(rules::SLOTS * rules::NET_VIEWS * 2, 0);
/// Sets of the names that rules refuse.
#[map]
pub static NAMES: HashMap<NameKey, u32> = HashMap::pinned(rules::SLOTS * limits::NAMES, BPF_F_NO_PREALLOC);
/// What sessions were told that names stand for.
#[map]
pub static LEARNED: HashMap<LearnedKey, Learned> = HashMap::pinned(limits::LEARNED, 0);
/// Sessions that are bound, by their numbers. This and the next are allocated in advance, as programs that sleep need it.
#[map]
pub static BOUND: HashMap<u64, BoundEntry> = HashMap::pinned(bound::BOUND_SESSIONS, 0);
/// What they are bound to.
#[map]
pub static BINDINGS: Array<Binding> = Array::pinned(bound::BINDINGS, 0);
/// Where paths within file systems begin, for each binding: the slot of a key is its index.
#[map]
pub static BOUND_DEVICES: HashMap<DeviceKey, Device> = HashMap::pinned(bound::BOUND_DEVICES, 0);
/// Sessions that asked a name server by a socket: kept with the socket, and gone with it.
#[btf_map]
pub static ASKERS: SkStorage<Asker> = SkStorage::new();
