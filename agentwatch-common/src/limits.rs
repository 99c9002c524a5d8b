//! Every bound of the kernel side, with its reason and what happens past it.

/// Path components that one walk follows. Linux itself has no limit; 128 is what the verifier accepts on
/// every supported kernel. Past it the record says [`crate::record::path_flag::TRUNCATED`].
pub const PATH_COMPONENTS: u32 = 128;
/// Bytes of one component, with its terminating NUL (`NAME_MAX` + 1).
pub const NAME_BYTES: usize = 256;
/// Bytes behind the fixed part of a record. Two paths of more than `PATH_MAX` fit. Past it the record
/// says [`crate::record::path_flag::TRUNCATED`].
pub const TAIL_BYTES: usize = 32 * 1024;
/// Bytes of arguments in one record; longer argument lists are continued in further records.
pub const ARGS_CHUNK_BYTES: usize = 16 * 1024;
/// Records that one argument list may fill: 2 MiB, the usual `ARG_MAX`. Past it the last record says
/// [`crate::record::args_flag::TRUNCATED`].
pub const ARGS_CHUNKS: u32 = 128;
/// Turns beyond those, for pieces that cannot be read at first. Past it the last record says
/// [`crate::record::args_flag::FAULT`].
pub const ARGS_RETRIES: u32 = 16;
/// Turns on kernels without `bpf_loop`, where the verifier follows each: 256 KiB. Past it the last record says
/// [`crate::record::args_flag::FAULT`].
pub const ARGS_WITHOUT_LOOPS: u32 = 16;
/// Bytes of a command line that are matched against `run` patterns at exec.
pub const MATCH_COMMAND_BYTES: u32 = 1024;
/// Bytes of a program's or a cgroup's path that are matched.
pub const MATCH_PATH_BYTES: u32 = 1024;
/// The same on kernels without `bpf_loop`, for paths and for command lines.
pub const MATCH_WITHOUT_LOOPS: u32 = 256;
/// Entries of the table of live processes in sessions.
pub const PROCESSES: u32 = 65_536;
/// Children of processes that are judged which can be in the making at once. Past it one more is refused.
pub const FORKS: u32 = 2_048;
/// Live processes in sessions. Past it a child of a process that is judged is refused, and any other is not followed and
/// counted as a loss. Below the table's end there is room for all that are in the making by then, and for as many again
/// that come otherwise: the first processes of sessions.
pub const PROCESSES_MOST: u32 = PROCESSES - 2 * FORKS;
/// Sessions, ended ones included until the daemon removes them. Past it a new one is begun all the same,
/// but a daemon that restarts will not know its parent.
pub const SESSIONS: u32 = 16_384;
/// Pairs of a session and one inside it for which there is a number of both. Past it the inner one is judged as the
/// outer one is.
pub const NESTED: u32 = 4096;
/// Cgroups that belong to a session. Past it a new cgroup is not followed and the loss is counted.
pub const CGROUPS: u32 = 8_192;
/// Agents that the matching automaton can name.
pub const AGENTS: u32 = 2_048;
/// Users whose processes become sessions.
pub const USERS: u32 = 1_024;
/// Pairs of session and operation with a loss that the daemon has not read yet. Past it losses are
/// counted without their session.
pub const LOSS_KEYS: u32 = 16_384;
/// Bytes of the ring buffer between kernel and daemon: most of a second at 50,000 file events a second.
pub const RING_BYTES: u32 = 8 * 1024 * 1024;
/// Bytes waiting in the ring at which the daemon is woken at once and not at its next turn.
pub const RING_WAKE_BYTES: u64 = 256 * 1024;
/// Scratch buffers a CPU, for programs that preempt each other there.
pub const SCRATCH_PER_CPU: u32 = 2;
/// Scratch buffers that a program tries before it counts a loss.
pub const SCRATCH_TRIES: u32 = 4;
/// Entries (states times byte classes) of the matching automaton.
pub const AUTOMATON_ENTRIES: u32 = 1 << 19;
/// States of the matching automaton.
pub const AUTOMATON_STATES: u32 = 1 << 15;
/// File systems that the initial namespace shows, of each policy that is held. A policy for a host with more is refused.
pub const DEVICES: u32 = 1 << 13;
/// Files that rules know by other names than some have, of each policy that is held. Of more, those that are found later
/// are judged by the name alone that is used, and the daemon says so.
pub const LINKED: u32 = 1 << 14;
/// Steps of the automaton of the rules: 4 MiB for each policy that is held.
pub const RULE_STEPS: u32 = 1 << 19;
/// States of the automaton of the rules: 4 MiB for each policy that is held.
pub const RULE_STATES: u32 = 1 << 18;
/// Bytes of a path that rules see. A longer one cannot be decided.
pub const RULE_PATH_BYTES: u32 = 8 * 1024;
/// Names that the policies are about which are held.
pub const NAMES: u32 = 1 << 15;
/// Addresses that sessions were given for such names. Past it a further one is not learned, and counted as a loss: no
/// session takes the place of what another one was given.
pub const LEARNED: u32 = 1 << 14;
/// Seconds that an address goes on counting as a name's after it was last seen to be: programs keep addresses longer
/// than they should, and servers with several give a few at a time.
pub const NAME_GRACE_S: u64 = 600;
/// Files that sessions wrote, for which whoever uses them later is attributed: 80 bytes each, in advance, and some 400 of the
/// daemon's. When three quarters are taken the daemon takes out those that are gone, and then the oldest of whoever wrote
/// most, so that no session washes away what another one left behind. What finds no room before that is not remembered, and
/// counted as a loss.
pub const WRITTEN: u32 = 32_768;
/// Entries of the table of processes past which no process is followed any more that only uses what a session left
/// behind: what a whole host uses (a library) must not take the room of sessions that are judged.
pub const CAUSED_MOST: u32 = PROCESSES / 2;
/// Unix sockets to which a message of a session is on its way, and processes that heard one: some 100 bytes each, in advance.
/// Past it the oldest is forgotten: none counts for longer than [`ASKED_NS`].
pub const ASKED: u32 = 4_096;
/// Nanoseconds for which a delegate does what a session asked of it, from when that was sent.
pub const ASKED_NS: u64 = 5_000_000_000;
/// Delegates that may ask one another for the same session, one behind the other.
pub const DELEGATES_MOST: u16 = 3;
/// Lines of tables of cron and units of systemd that sessions wrote: some 60 bytes each, in advance. What finds no room is told
/// as a loss.
pub const JOBS: u32 = 4_096;
/// Names of interpreters and endings of their files together.
pub const SOURCES: u32 = 1_024;
/// Decisions of the policies that are held.
pub const DECISIONS: u32 = 1 << 17;
