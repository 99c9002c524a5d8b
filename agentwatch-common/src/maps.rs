//! Keys and values of the maps that both sides touch.

use core::mem::size_of;

use crate::limits::{AUTOMATON_ENTRIES, AUTOMATON_STATES};

/// A live process in a session: value of the map `PROCESSES`, whose key is the process id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessEntry {
    /// The session's number. Never 0.
    pub session: u64,
    /// When the process began, nanoseconds since boot. 0 where the daemon wrote the entry and knows only
    /// `start_ticks`: the kernel fills it in at the process's next act.
    pub start_ns: u64,
    /// The same in clock ticks of 10 ms, as `/proc/PID/stat` has it. Compared only while `start_ns` is 0.
    pub start_ticks: u64,
    /// Number by which the process is judged: that of its session's agent (see [`crate::rules::agent_number`]), and in a
    /// session inside another one that stands for both (see [`NestedKey`]).
    pub agent: u32,
    /// [`process_flag`].
    pub flags: u32,
    /// Version of the policy that judged the exec that is under way; 0 where none had anything to say.
    pub policy: u32,
    /// The rule that decided about it.
    pub rule: u16,
    /// [`crate::rules::Verdict`] on it.
    pub verdict: u8,
    /// Padding, zero.
    pub pad: u8,
}

/// Flags of a [`ProcessEntry`].
pub mod process_flag {
    /// First process of its session.
    pub const ROOT: u32 = 1;
    /// Registered by `agentwatch exec` and not yet the program itself: its next exec is no sub-agent.
    pub const LAUNCHING: u32 = 1 << 1;
    /// Its session began with the exec that is under way.
    pub const BEGUN: u32 = 1 << 2;
    /// Its new program was put in place and the exec's event is still to come.
    pub const EXECUTING: u32 = 1 << 3;
    /// Its session began with the use of what another one left behind: it is told of and never judged, and becomes a
    /// session of its own as if it were in none.
    pub const CAUSED: u32 = 1 << 4;
    /// The flags proper. Above them: the agent whose patterns the process's program matches, index plus one, or
    /// 0. A child has its maker's until its own exec.
    pub const LOW: u32 = 0xffff;
    /// Where that index is.
    pub const MATCHED_SHIFT: u32 = 16;
}

/// A session: value of the map `SESSIONS`, whose key is the session's number. Kept so that a daemon that
/// restarts, or that lost the record of its beginning, still knows it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionEntry {
    /// Number of the session in which it was begun, or 0.
    pub parent: u64,
    /// When it began, nanoseconds since boot.
    pub since_ns: u64,
    /// Process id of its first process.
    pub root_pid: u32,
    /// Number of its agent.
    pub agent: u32,
    /// [`crate::kind::Attribution`].
    pub attribution: u8,
    /// Padding, zero.
    pub pad: [u8; 7],
}

/// A cgroup whose processes belong to a session: value of the map `CGROUPS`, whose key is the cgroup's id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupEntry {
    /// The session's number.
    pub session: u64,
    /// Number of the agent.
    pub agent: u32,
    /// Padding, zero.
    pub pad: u32,
}

/// Key of the map `NESTED`, whose value is the number by which a session inside another is judged: by the rules of both.
/// Where a pair is not there, a session inside one that is judged is judged as that one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NestedKey {
    /// The number by which the outer one is judged.
    pub outer: u32,
    /// The number of the inner one's agent.
    pub inner: u32,
}

/// Key of the maps `LOSSES` and `LOSSES_TOLD`; the value counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LossKey {
    /// The session's number.
    pub session: u64,
    /// [`crate::kind::RecordKind`] of what was lost.
    pub kind: u16,
    /// [`crate::kind::LossReason`].
    pub reason: u16,
    /// Padding, zero.
    pub pad: u32,
}

/// A file, whatever its names: key of the map `WRITTEN`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey {
    /// Inode number.
    pub ino: u64,
    /// The file system, as the kernel encodes it: `MAJOR << 20 | MINOR`.
    pub dev: u32,
    /// Padding, zero.
    pub pad: u32,
}

/// Who wrote a file last: value of the map `WRITTEN`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WrittenEntry {
    /// The session's number; with [`SESSION_OF_PAST`] one of an earlier boot.
    pub session: u64,
    /// Generation of the inode (`i_generation`): with another one the number was used again, for another file.
    pub generation: u32,
    /// Padding, zero.
    pub pad: u32,
}

/// What a session said by a Unix socket: value of the map `ASKED`, by the address of the socket that it goes to, and of the map
/// `HEARD`, by the process that read it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AskedEntry {
    /// The session's number.
    pub session: u64,
    /// When it said so, nanoseconds since boot.
    pub at_ns: u64,
    /// When the process began that heard it, nanoseconds since boot; 0 in `ASKED`.
    pub start_ns: u64,
    /// Process of the session that said so.
    pub pid: u32,
    /// Delegates in between.
    pub hops: u16,
    /// [`asked_flag`].
    pub flags: u16,
}

/// Flags of an [`AskedEntry`].
pub mod asked_flag {
    /// Who heard it heard from others as well since.
    pub const OTHERS: u16 = 1;
    /// The process was made by one that heard it, and has not started a program yet.
    pub const MADE: u16 = 2;
    /// Who heard it does one thing after the other.
    pub const IN_TURN: u16 = 4;
    /// Nobody asks it but by a socket with a name: what comes by others are answers.
    pub const BY_NAME: u16 = 8;
}

/// What makes a key of the map `SOURCES` of a name: of interpreters the letters up to the first digit or dot, of files what
/// follows the last dot or all of it where there is none, and the whole name. The value says which kind it is.
pub mod source {
    /// Begins the key of an interpreter's name.
    pub const PROGRAM: u64 = 0xcbf2_9ce4_8422_2325;
    /// Begins the key of a file's ending.
    pub const ENDING: u64 = 0x9e37_79b9_7f4a_7c15;
    /// Begins the key of a file's whole name.
    pub const NAME: u64 = 0x2545_f491_4f6c_dd1d;
    /// Value of a shell: what it reads it runs, unless the ending says that it is data.
    pub const SHELL: u32 = 1;
    /// Value of any other interpreter: what it reads it runs where the ending says so.
    pub const INTERPRETER: u32 = 2;
    /// Value of the endings of programs' texts.
    pub const TEXT: u32 = 3;
    /// Value of the endings of data, and of whole names that are data.
    pub const DATA: u32 = 4;
    /// Value of a program that starts others for whoever asks it by a Unix socket, and does one thing after the other: what
    /// it does is for whom it heard last.
    pub const DELEGATE: u32 = 5;
    /// Value of one that does several things at once, and is asked by its own sockets alone.
    pub const ENGINE: u32 = 6;
    /// Value of a program that has a shell run the lines of tables: a cron.
    pub const CRON: u32 = 7;
    /// Value of one that does several things at once, and is asked over a bus as well, of which it is a client.
    pub const ON_BUS: u32 = 8;

    /// The key with one more byte (FNV-1a). That two names share one has no consequence but a wrong `caused`.
    #[inline(always)]
    #[must_use]
    pub const fn with(key: u64, byte: u8) -> u64 {
        (key ^ byte as u64).wrapping_mul(0x0100_0000_01b3)
    }

    /// Whether an interpreter's name ends before this byte.
    #[inline(always)]
    #[must_use]
    pub const fn ends_program(byte: u8) -> bool {
        byte == 0 || byte == b'.' || byte.is_ascii_digit()
    }
}

/// What makes a key of the map `JOBS`, by [`source::with`]: of a line of a table of cron its command, of a unit of systemd its
/// name, of one made from a template all to the `@`.
pub mod job {
    /// Begins the key of a command.
    pub const LINE: u64 = 0x8422_2325_cbf2_9ce4;
    /// Begins the key of a unit's name.
    pub const UNIT: u64 = 0x4f6c_dd1d_2545_f491;
    /// What the name of a unit that is made from a template has before its own part.
    pub const OF_TEMPLATE: u8 = b'@';
    /// Arguments of the shell that runs a command: its own name, `-c`, and the command.
    pub const ARGUMENTS: u32 = 3;
}

/// Indices into the array `CONTROL`.
pub mod control {
    /// By what the daemon wants to be woken: see [`super::wake`].
    pub const READER_WAITS: u32 = 0;
    /// Number that the next session begun by the kernel gets.
    pub const NEXT_SESSION: u32 = 1;
    /// Losses that had no room in `LOSSES`.
    pub const LOSSES_UNATTRIBUTED: u32 = 2;
    /// 1 where users are matched.
    pub const MATCH_USERS: u32 = 3;
    /// 1 where cgroups are matched.
    pub const MATCH_CGROUPS: u32 = 4;
    /// The policy in force: its version in the upper bits, above [`POLICY_SHIFT`], and its slot below. 0 where there
    /// are no rules.
    pub const POLICY: u32 = 5;
    /// Nanoseconds from boot's beginning to add for the time since 1970.
    pub const UNIX_OFFSET_NS: u32 = 6;
    /// Always 0.
    pub const ZERO: u32 = 7;
    /// 1 where the programs judge: they were loaded with loops that the kernel runs. For a daemon that takes over.
    pub const JUDGES: u32 = 8;
    /// Process id of the daemon.
    pub const DAEMON_PID: u32 = 9;
    /// When the daemon began, in clock ticks of 10 ms since boot, as `/proc/PID/stat` has it.
    pub const DAEMON_START_TICKS: u32 = 10;
    /// Entries that the kernel put into `PROCESSES`, less those that it took out. Only the kernel writes it.
    pub const PROCESSES_BY_KERNEL: u32 = 11;
    /// The same of the daemon, which alone writes it. Both together are how many entries there are.
    pub const PROCESSES_BY_DAEMON: u32 = 12;
    /// 1 where rules are about names, so that the answers are read that sessions receive.
    pub const LEARNS: u32 = 13;
    /// 1 once a file was put into `WRITTEN`: before, nobody looks there.
    pub const ANY_WRITTEN: u32 = 14;
    /// How many of [`LOSSES_UNATTRIBUTED`] a daemon told of. Only the daemon writes it.
    pub const LOSSES_UNATTRIBUTED_TOLD: u32 = 15;
    /// How far the version of a policy is shifted in [`POLICY`].
    pub const POLICY_SHIFT: u32 = 8;
    /// Changes whenever a session comes to be bound or is bound no longer; 0 while none is: see [`crate::bound`].
    pub const BOUND: u32 = 16;
    /// When a session last sent a message that is in `ASKED`, nanoseconds since boot; 0 before the first.
    pub const LAST_ASKED: u32 = 17;
    /// 1 while there is anything in `JOBS`: else nobody looks there.
    pub const ANY_JOBS: u32 = 18;
    /// Entries of the array.
    pub const LEN: u32 = 19;
}

/// By what the daemon is woken: values of [`control::READER_WAITS`]. Whoever wakes it sets it to [`wake::AWAKE`].
pub mod wake {
    /// By nothing: it is awake, or was woken and has not looked yet.
    pub const AWAKE: u64 = 0;
    /// By the next record.
    pub const BY_ANY: u64 = 1;
    /// By a record once [`crate::limits::RING_WAKE_BYTES`] wait: it comes by itself soon.
    pub const BY_MUCH: u64 = 2;
}

/// Set in the number of a session that the daemon began and not the kernel, so that the two never meet.
pub const SESSION_BY_DAEMON: u64 = 1 << 63;

/// Set in the number by which a session of an earlier boot is known in `WRITTEN`. The rest is made of its id.
pub const SESSION_OF_PAST: u64 = 1 << 62;

/// The session of the self-test. What it does is nobody's.
pub const SESSION_OF_SELF_TEST: u64 = u64::MAX;

/// The automaton that matches programs, command lines and cgroups: the only value of the map `AUTOMATON`. See
/// `agentwatch::matcher`.
///
/// `next[state * class_count + class[byte]]` is the next state. `accept[state]` is the index of the agent that
/// matches where the text ends in that state, plus one, or 0. State [`Automaton::DEAD`] has no way out.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Automaton {
    /// Byte classes: the stride of `next`.
    pub class_count: u32,
    /// Where programs' paths begin (names deepest first, each with a NUL), or [`Automaton::DEAD`].
    pub start_program: u32,
    /// Where command lines begin, or [`Automaton::DEAD`].
    pub start_command: u32,
    /// Where cgroups' paths begin, or [`Automaton::DEAD`].
    pub start_cgroup: u32,
    /// Class of each byte.
    pub class: [u8; 256],
    /// What each state accepts.
    pub accept: [u32; AUTOMATON_STATES as usize],
    /// Transitions.
    pub next: [u32; AUTOMATON_ENTRIES as usize],
}

impl Automaton {
    /// No way on from here, and no match.
    pub const DEAD: u32 = 0;
}

const _: () = {
    assert!(size_of::<ProcessEntry>() == 40);
    assert!(size_of::<SessionEntry>() == 32);
    assert!(size_of::<CgroupEntry>() == 16);
    assert!(size_of::<NestedKey>() == 8);
    assert!(size_of::<LossKey>() == 16);
    assert!(size_of::<FileKey>() == 16);
    assert!(size_of::<AskedEntry>() == 32);
    assert!(size_of::<WrittenEntry>() == 16);
    // Indices are masked in the kernel.
    assert!(AUTOMATON_STATES.is_power_of_two() && AUTOMATON_ENTRIES.is_power_of_two());
    assert!(size_of::<Automaton>() == 16 + 256 + 4 * (AUTOMATON_STATES + AUTOMATON_ENTRIES) as usize);
};
