//! What the kernel decides by: the compiled policy.
//!
//! Every table holds two policies, one in each [`SLOTS`] half: the daemon fills the half that is not in force and
//! then moves [`crate::maps::control::POLICY`], which each program reads once. Texts run through one automaton
//! ([`RuleAutomaton`]), which ends in the number of a set of patterns. What that set means for an agent and an
//! operation was worked out when the policy was compiled, and is looked up in `DECISIONS`.

use core::mem::size_of;

use crate::kind::numbered;
use crate::limits::{RULE_STATES, RULE_STEPS};

/// Policies that the tables hold: the one in force and the next.
pub const SLOTS: u32 = 2;

/// Operations by number: bits of masks, and part of keys.
pub mod op {
    /// Start a program file.
    pub const EXEC: u32 = 0;
    /// Start a program with a command line.
    pub const RUN: u32 = 1;
    /// Open for reading.
    pub const READ: u32 = 2;
    /// Change, create.
    pub const WRITE: u32 = 3;
    /// Remove, rename away, empty.
    pub const DELETE: u32 = 4;
    /// Connect or send.
    pub const CONNECT: u32 = 5;
    /// Bind and listen.
    pub const LISTEN: u32 = 6;
    /// Move a folder away from above something: no operation of a policy, but what rules that refuse come to for the
    /// folders above what they cover.
    pub const MOVE_ABOVE: u32 = 7;
    /// How many there are.
    pub const COUNT: u32 = 8;
}

/// Guards by number: bits of [`View::guards`], and part of the numbers of rules that events carry.
pub mod guard {
    /// Processes outside the session are not looked into.
    pub const PTRACE: u32 = 0;
    /// agentwatch gets no signals.
    pub const SIGNAL: u32 = 1;
    /// Nothing is mounted.
    pub const MOUNT: u32 = 2;
    /// No user namespaces, no other root.
    pub const NAMESPACE: u32 = 3;
    /// No kernel modules.
    pub const MODULE: u32 = 4;
    /// No programs for the kernel.
    pub const BPF: u32 = 5;
    /// No devices that are memory or whole disks.
    pub const RAW_DEVICE: u32 = 6;
    /// No raw packets.
    pub const RAW_SOCKET: u32 = 7;
    /// Nobody outside the session is asked to act.
    pub const DELEGATE: u32 = 8;
    /// agentwatch's own files, its control socket, and the clock that it goes by, for every agent that is judged.
    pub const OWN: u32 = 9;
    /// How many there are.
    pub const COUNT: u32 = 10;
}

numbered! {
    /// What is done about an operation. Of several the greatest number is the strictest.
    Verdict: u8 {
        /// Nothing.
        Allowed = 1,
        /// It is allowed, and a rule wants it in the log.
        Logged = 2,
        /// It would be refused: the agent's mode enforces nothing.
        WouldDeny = 3,
        /// It waits for a human.
        Held = 4,
        /// The system call fails.
        Denied = 5,
        /// The system call fails and the process ends.
        Killed = 6,
    }
}

/// Number of a rule in an event where no rule decided but the agent's default.
pub const RULE_DEFAULT: u16 = u16::MAX;
/// Number of a rule in an event where nothing could be decided: refused, where rules are enforced.
pub const RULE_UNDECIDED: u16 = u16::MAX - 1;
/// Number of a rule in an event where an intent decided that binds the session: the event has its number in the place of the
/// policy's version, see [`crate::bound`].
pub const RULE_BOUND: u16 = u16::MAX - 2;
/// Number of a rule in an event where none had a say. Rules themselves are numbered from 1 in the order of the policy.
pub const RULE_NONE: u16 = 0;
/// Numbers of rules in events where a guard decided: this plus the guard's own, see [`guard`].
pub const RULE_GUARDS: u16 = 0xff00;
/// Rules of one policy.
pub const RULES_MAX: u16 = 10_000;

/// Number of an agent: made of its name, so that it is the same in every policy and after every restart. Never 0.
#[must_use]
pub fn agent_number(name: &str) -> u32 {
    // FNV-1a. Two names of one policy with the same number are refused when it is read.
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    if hash == 0 { 1 } else { hash }
}

/// Key of the map `VIEWS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ViewKey {
    /// The agent's number: see [`agent_number`].
    pub agent: u32,
    /// Which half of the tables.
    pub slot: u32,
}

/// How one agent is judged: value of the map `VIEWS`. Agents that are not there are not judged.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Number of the view: agents for which the same rules and defaults hold share it.
    pub view: u16,
    /// Operations about which there is a rule or a default, as bits (see [`op`]). All others are allowed.
    pub ops: u8,
    /// 1 where refusals are carried out, 0 where they are only told (`recommend`).
    pub enforce: u8,
    /// Guards that are on, as bits: see [`guard`].
    pub guards: u16,
    /// Operations about which something is decided where no pattern covers the target, as bits.
    pub bare: u8,
    /// Padding, zero.
    pub pad: u8,
    /// Version of the policy.
    pub policy: u32,
    /// Which half of the tables.
    pub slot: u32,
}

/// Key of the map `DECISIONS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DecisionKey {
    /// Number of the set of patterns that cover the target; 0 where none does.
    pub set: u32,
    /// Number of the view.
    pub view: u16,
    /// The operation.
    pub op: u8,
    /// Which half of the tables: 0 or 1.
    pub slot: u8,
}

/// What can be decided, the strictest first: the first whose window is open counts. Not in the map: allowed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The choices; an empty one ends them.
    pub choices: [Choice; CHOICES],
}

/// Choices of one decision. A policy that needs more, by rules of many windows on one target, is refused.
pub const CHOICES: usize = 4;

/// One choice.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The rule: its number from 1, or [`RULE_DEFAULT`].
    pub rule: u16,
    /// [`Verdict`] as the policy says it, whatever the agent's mode; 0 ends the list.
    pub verdict: u8,
    /// Number of the window in which it counts, from 1; 0 for always.
    pub window: u8,
}

/// A time at which rules count: value of the array `WINDOWS` at `slot * WINDOWS + number - 1`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowTime {
    /// First moment, nanoseconds since 1970.
    pub from_ns: u64,
    /// First moment after it.
    pub to_ns: u64,
}

/// Key of the map `DEVICES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeviceKey {
    /// The file system, as the kernel encodes it: `MAJOR << 20 | MINOR`.
    pub dev: u32,
    /// Which half of the tables.
    pub slot: u32,
}

/// How the paths within a file system are read that the initial namespace shows. One that is not in the map is shown
/// nowhere there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// The state of the automaton in which such a path begins.
    pub start: u32,
    /// Id of the mount below which the path in the initial namespace reads the same as that; 0 where there is none.
    pub mount: u32,
}

/// Key of the map `LINKED`, of files with several names of which rules cover some: its value is the number of a set, of
/// rules alone, for what is done to such a file by whatever name.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LinkedKey {
    /// Inode number.
    pub ino: u64,
    /// The file system, as the kernel encodes it: `MAJOR << 20 | MINOR`.
    pub dev: u32,
    /// Which half of the tables.
    pub slot: u32,
}

/// Key of the trie `PREFIXES`; its value is the number of a set of networks. The length counts the bytes before the
/// address, too: [`PREFIX_FIXED_BITS`] more than the bits of the network.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixKey {
    /// Which half of the tables.
    pub slot: u8,
    /// 4 or 6.
    pub family: u8,
    /// Padding, zero.
    pub pad: [u8; 2],
    /// The address in network order; for IPv4 its first four bytes.
    pub address: [u8; 16],
}

/// Bits of a [`PrefixKey`] before the address.
pub const PREFIX_FIXED_BITS: u32 = 32;
/// Set of the patterns for any host: looked at for every address.
pub const NET_ANY_HOST: u32 = 0;
/// Transports that ranges of ports tell apart: TCP, UDP, others.
pub const TRANSPORTS: u32 = 3;
/// Prefixes of both families in one policy.
pub const PREFIXES: u32 = 1 << 16;
/// Rows of one policy: value of `NET_ROWS` at `slot * NET_ROWS + row`, with
/// `row = ((set * views + view) * 2 + listens) * TRANSPORTS + transport`. Room for 10,000 networks that are all judged
/// differently, for two groups of agents, the self-test and those that are not judged; both slots take 4 MiB.
pub const NET_ROWS: u32 = 1 << 18;
/// Ranges of ports of one policy: value of `NET_RANGES` at `slot * NET_RANGES + index`. Room for 10,000 rules, each on
/// other ports; both slots take 2.5 MiB.
pub const NET_RANGES: u32 = 1 << 16;
/// Views for which there are defaults on addresses: value of `NET_DEFAULTS` at
/// `(slot * NET_VIEWS + view) * 2 + listens`.
pub const NET_VIEWS: u32 = 1_024;

/// A list of ranges of ports. The last range reaches to port 65535.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetRow {
    /// Index of its first range.
    pub first: u32,
    /// Number of its ranges; 0 where there is no rule.
    pub count: u32,
}

/// The ports after those of the range before, up to and with `last`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetRange {
    /// The last port.
    pub last: u16,
    /// Padding, zero.
    pub pad: u16,
    /// What is decided.
    pub decision: Decision,
}

/// Windows of one policy.
pub const WINDOWS: u32 = 64;
/// Agents that have a view in one policy.
pub const VIEWS: u32 = 2_048;

/// How the automaton of the rules reads: one value for each slot.
///
/// Paths are read as they are written, from the root down, with a slash before each name (`/` alone is the empty
/// text). Command lines are read as [`crate::maps::Automaton`] reads them. Sockets without a path are read as
/// [`SOCKET_ABSTRACT`] or [`SOCKET_VSOCK`] and what is said there. From a state of [`RuleStates`] and a byte the
/// next state is that of the step at `base + class[byte]` of [`RuleSteps`] where the step is that state's own, else the
/// state's `default`. State [`RuleAutomaton::DEAD`] has no way out and accepts the set 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RuleAutomaton {
    /// Where paths begin that are not those of the initial namespace.
    pub start_path: u32,
    /// Where those of the initial namespace begin.
    pub start_known: u32,
    /// Where command lines begin.
    pub start_command: u32,
    /// Where sockets without a path begin.
    pub start_socket: u32,
    /// Class of each byte.
    pub class: [u8; 256],
}

/// What the text of an abstract Unix socket begins with; its name follows.
pub const SOCKET_ABSTRACT: u8 = 0;
/// What the text of a vsock address begins with; context id and port follow, four bytes each in network order.
pub const SOCKET_VSOCK: u8 = 1;
/// What the text of an IPv4 address begins with; the number of the transport follows (see [`TRANSPORTS`]), the address, and
/// the port, four bytes each in network order. Only bindings have them: a policy's addresses are in tables of their own.
pub const SOCKET_IPV4: u8 = 2;
/// The same of an IPv6 address, of 16 bytes.
pub const SOCKET_IPV6: u8 = 3;
/// Bytes of such a text at most: that of the longest abstract name, whose NUL byte in front is the first.
pub const SOCKET_TEXT_BYTES: u32 = 108;

impl RuleAutomaton {
    /// No way on from here, and no match.
    pub const DEAD: u32 = 0;
    /// Set in the number of a state, wherever it is told, that each byte leads back to but a slash: the rest of a name
    /// need not be read. [`RuleAutomaton::DEAD`] does without.
    pub const SETTLED: u32 = 1 << 31;
}

/// A state of a [`RuleAutomaton`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleState {
    /// Where its steps lie.
    pub base: u32,
    /// The next state where none of its steps leads on.
    pub default: u32,
    /// Number of the set of patterns that match where the text ends here, or 0.
    pub accept: u32,
    /// Padding, zero.
    pub pad: u32,
}

/// The states of a [`RuleAutomaton`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RuleStates {
    /// By their numbers.
    pub states: [RuleState; RULE_STATES as usize],
}

/// A step of a [`RuleAutomaton`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleStep {
    /// The state whose step it is, or 0.
    pub owner: u32,
    /// The next state.
    pub next: u32,
}

/// The steps of a [`RuleAutomaton`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RuleSteps {
    /// Of all states.
    pub steps: [RuleStep; RULE_STEPS as usize],
}

const _: () = {
    // Before 5.18 a value of a map has 4 MiB at most.
    assert!(size_of::<RuleSteps>() <= 4 << 20 && size_of::<RuleStates>() <= 4 << 20);
    assert!(size_of::<View>() == 16);
    assert!(
        guard::COUNT <= 16 && RULES_MAX < RULE_GUARDS && RULE_GUARDS + (guard::COUNT as u16) < RULE_BOUND
    );
    assert!(size_of::<ViewKey>() == 8);
    assert!(size_of::<DeviceKey>() == 8 && size_of::<Device>() == 8);
    assert!(size_of::<LinkedKey>() == 16);
    assert!(size_of::<DecisionKey>() == 8);
    assert!(size_of::<Choice>() == 4);
    assert!(size_of::<Decision>() == 16);
    assert!(size_of::<WindowTime>() == 16);
    assert!(size_of::<PrefixKey>() == 20);
    assert!(size_of::<NetRow>() == 8);
    assert!(size_of::<NetRange>() == 20);
    assert!(RULE_STATES.is_power_of_two() && RULE_STEPS.is_power_of_two());
    assert!(RULE_STATES <= RuleAutomaton::SETTLED);
};
