//! The fields of an event, in the order in which they are written.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Cause, Context, How, IntentRef, Kind, ObservedText, Op, Outcome, SpanRef, ToolCallRef, Verdict};

/// One thing that the kernel did or refused for a session's process, or a loss, or a change of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When the kernel saw it: RFC 3339 in UTC with nanoseconds.
    pub time: String,
    /// Number of the event on this host; no gaps. Given when the event is written to the log.
    pub seq: u64,
    /// Host name.
    pub host: Arc<str>,
    /// Id of this boot (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: Arc<str>,
    /// What happened, such as `file.open`: see [`Kind`].
    pub kind: Kind,
    /// The operation of the contract that this is, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<Op>,
    /// The agent's name. Empty only in events about the host itself.
    #[serde(default, skip_serializing_if = "str_is_empty")]
    pub agent: Arc<str>,
    /// The agent's owner, where the policy names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Arc<str>>,
    /// The session's id. Empty only in events about the host itself, or about an agent (`slo.spike`).
    #[serde(default, skip_serializing_if = "str_is_empty")]
    pub session: Arc<str>,
    /// The session in which this one was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_session: Option<Arc<str>>,
    /// How the process came to its session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribution: Option<How>,
    /// Who did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The file that it was done to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<File>,
    /// The peer or local address that it was done to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// What was tried that a guard is about (`guard.ptrace` …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guarded>,
    /// What made a process outside every session one of its own (`session.start` of a caused session).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Arc<Cause>>,
    /// The process that was made (`process.fork`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<Child>,
    /// How the process ended (`process.exit`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// What was lost (`loss`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// The command line (`process.exec`): program's base name and arguments joined by spaces, as `run` rules see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<ObservedText>,
    /// The verdict.
    pub verdict: Verdict,
    /// The rule that gave the verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<str>>,
    /// Why, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The policy that judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyVersion>,
    /// What was declared of it: see [`IntentRef`]. Absent where nothing ever was for its session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<IntentRef>,
    /// The tool call that it belongs to, where a harness tells of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call: Option<ToolCallRef>,
    /// Id of the prompt that led to it, where a harness tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_id: Option<Arc<str>>,
    /// The prompt (`prompt.submitted`), or its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// What came of it (`tool.ended`, `tool.reported`, `prompt.ended`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The span that told of it (`tool.reported`, `context.retrieved`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Box<SpanRef>>,
    /// What was retrieved for a model (`context.retrieved`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Box<Context>>,
    /// What the program got for it, where agentwatch made the call fail: `EPERM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<Arc<str>>,
    /// How often this happened, where equal events were folded into this one; absent for 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u64,
    /// When the last of the folded events happened; absent where `count` is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_last: Option<String>,
}

/// Who did it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Process id in the initial namespace.
    pub pid: u32,
    /// Thread id, where it is not the process id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tid: Option<u32>,
    /// When it began, nanoseconds since boot. With `pid` the identity of a process within a boot.
    pub start_time: u64,
    /// Process id of the parent at that moment. Absent where nobody saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ppid: Option<u32>,
    /// Path of the program that it runs. Absent where nobody saw it.
    #[serde(rename = "executable.path", default, skip_serializing_if = "text_is_empty")]
    pub executable_path: ObservedText,
    /// `percent` where `executable.path` is not UTF-8 and is percent-encoded.
    #[serde(rename = "executable.path_encoding", default, skip_serializing_if = "Option::is_none")]
    pub executable_path_encoding: Option<Encoding>,
    /// Arguments since its last exec, the name it was given first. Absent where nobody saw them.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub command_args: Arc<[ObservedText]>,
    /// `percent` where an argument is not UTF-8: then all are percent-encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_args_encoding: Option<Encoding>,
    /// Set where arguments are missing at the end.
    #[serde(default, skip_serializing_if = "is_false")]
    pub command_args_truncated: bool,
    /// User id in the initial namespace. Absent where nobody saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Working directory.
    #[serde(default, skip_serializing_if = "text_is_empty")]
    pub cwd: ObservedText,
    /// `percent` where `cwd` is not UTF-8 and is percent-encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd_encoding: Option<Encoding>,
    /// The container that it is in, from its cgroup.
    #[serde(rename = "container.id", default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<Arc<str>>,
}

/// A file and what was asked of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct File {
    /// Absolute path in the initial namespace, else within the root that `root` names.
    pub path: ObservedText,
    /// `percent` where `path` is not UTF-8 and is percent-encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_encoding: Option<Encoding>,
    /// Set where names are missing at the front of `path`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub path_truncated: bool,
    /// The root that `path` is relative to, where that is not the initial one: `mnt:[4026532301]` for a
    /// container's mount namespace, `dev:8:1` for a file system that is mounted nowhere in sight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// The path as the process in its container sees it, where that differs from `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_path: Option<ObservedText>,
    /// `percent` where `container_path` is not UTF-8 and is percent-encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_path_encoding: Option<Encoding>,
    /// Second path of a rename or link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_to: Option<ObservedText>,
    /// `percent` where `path_to` is not UTF-8 and is percent-encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_to_encoding: Option<Encoding>,
    /// Text of a symbolic link, name of an attribute, source of a mount, as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argument: Option<ObservedText>,
    /// `percent` where `argument` is not UTF-8 and is percent-encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argument_encoding: Option<Encoding>,
    /// Set where the file has no name any more or never had one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub deleted: bool,
    /// Device, `MAJOR:MINOR`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device: String,
    /// Inode number; absent where the file did not exist yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
    /// What was asked: `O_RDONLY`, `O_RDWR|O_CREAT` … for an open, `RENAME_EXCHANGE` … for a rename.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<String>,
    /// Permission bits given, in octal (`0644`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Owner given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Length given to a truncate, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// An address and how it was used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// `tcp`, `udp`, `unix`, `vsock`, `sctp`, `raw` …
    pub transport: String,
    /// `ipv4`, `ipv6`, `unix`, `vsock`, or `family-N`.
    #[serde(rename = "type")]
    pub family: String,
    /// IP address, path of a Unix socket, `@name` of an abstract one, context id of a vsock.
    #[serde(rename = "peer.address", default, skip_serializing_if = "Option::is_none")]
    pub peer_address: Option<ObservedText>,
    /// `percent` where `peer.address` is not UTF-8 and is percent-encoded.
    #[serde(rename = "peer.address_encoding", default, skip_serializing_if = "Option::is_none")]
    pub peer_address_encoding: Option<Encoding>,
    /// Port of the peer.
    #[serde(rename = "peer.port", default, skip_serializing_if = "Option::is_none")]
    pub peer_port: Option<u32>,
    /// A name of the peer by which a rule of the policy covers it, where one is known.
    #[serde(rename = "peer.name", default, skip_serializing_if = "Option::is_none")]
    pub peer_name: Option<Arc<str>>,
    /// Local address, as `peer.address`.
    #[serde(rename = "local.address", default, skip_serializing_if = "Option::is_none")]
    pub local_address: Option<ObservedText>,
    /// `percent` where `local.address` is not UTF-8 and is percent-encoded.
    #[serde(rename = "local.address_encoding", default, skip_serializing_if = "Option::is_none")]
    pub local_address_encoding: Option<Encoding>,
    /// Local port.
    #[serde(rename = "local.port", default, skip_serializing_if = "Option::is_none")]
    pub local_port: Option<u32>,
}

/// Something that a guard is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guarded {
    /// What was tried: `attach`, `signal`, `limit`, `schedule`, `user-namespace`, `pivot-root`, `chroot`, `load`,
    /// `bpf`, `raw-socket`, `keys`.
    pub act: String,
    /// More about it: the signal's number, the limit's name, the command of `bpf` or `ioctl`, the kind of packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Process id of the process that it was done to, in the initial namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// When that process began, nanoseconds since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<u64>,
}

/// The process that a `process.fork` made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// Its process id in the initial namespace.
    pub pid: u32,
    /// When it began, nanoseconds since boot.
    pub start_time: u64,
    /// Its process id in its own namespace, where that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_pid: Option<u32>,
}

/// How a process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit status, where it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// Number of the signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<u8>,
}

/// A policy that was in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyVersion {
    /// Counts up on this host with every policy that comes into force.
    pub version: u32,
    /// SHA-256 of its files.
    pub hash: Arc<str>,
}

/// What was lost, counted where it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Kind of the events that are missing.
    pub kind: String,
    /// Why: `ring_full`, `scratch_busy`, `process_table_full`, `cgroup_table_full`, `skipped`, `learned_table_full` and
    /// `answer_unread` (of the addresses that names stand for), `written_table_full` and `written_dropped` (of the
    /// files whose writers are remembered), `program_skipped` (the kind is then the kernel program's
    /// name), `undecodable`, `disk_full`, `log_unwritable`.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// `percent`: the text next to it is percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Each byte that is not printable ASCII, and `%`, is `%XX`.
    Percent,
}

const fn one() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_one(count: &u64) -> bool {
    *count == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

fn str_is_empty(text: &Arc<str>) -> bool {
    text.is_empty()
}

const fn text_is_empty(text: &ObservedText) -> bool {
    text.0.is_empty()
}
