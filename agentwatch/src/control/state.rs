//! What the daemon tells of itself: the JSON of the control API.
//!
//! Texts from observed processes are kept as they are (see [`ObservedText`]); whoever shows them on a
//! terminal escapes them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{Encoding, Exit, How, ObservedText, Op};

/// Answer of `GET /v1/sessions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionsView {
    /// In the order in which they began.
    pub sessions: Vec<SessionView>,
}

/// One session: a running or ended instance of an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionView {
    /// Id, the same across restarts of the daemon, such as `coding-7f3k2q`.
    pub id: Arc<str>,
    /// The agent's name.
    pub agent: Arc<str>,
    /// The agent's owner, where the policy names one.
    pub owner: Option<Arc<str>>,
    /// `observe`, `recommend`, `approve`, `enforce` or `plan`.
    pub mode: Arc<str>,
    /// Id of the session in which this one was started.
    pub parent: Option<Arc<str>>,
    /// When it began: RFC 3339 in UTC.
    pub since: String,
    /// When its last process ended; absent while one lives.
    pub ended: Option<String>,
    /// How its first process came to it.
    pub attribution: How,
    /// By what it was recognised.
    pub recognised: Recognised,
    /// Process id of its first process.
    pub root_pid: u32,
    /// Living processes.
    pub processes: u64,
    /// Processes since it began, the living included.
    pub processes_total: u64,
    /// Events since it began, folded ones counted each.
    pub events: u64,
    /// Operations refused since it began.
    pub denials: u64,
    /// Events known to be missing.
    pub losses: u64,
    /// Whether all of its doings could be seen.
    pub confidence: Confidence,
    /// Why `confidence` is not `full`, in one sentence.
    pub confidence_reason: Option<String>,
}

/// By what a session was recognised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recognised {
    /// The kind of match.
    pub by: RecognisedBy,
    /// The pattern of the match, the user's name, or the file of the cause; absent for the launcher.
    pub pattern: Option<Arc<str>>,
    /// Whether the policy names the agent; else it was found by the built-in list.
    pub declared: bool,
}

/// Kinds of match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecognisedBy {
    /// The program's path.
    Exec,
    /// The command line.
    Run,
    /// The cgroup's path.
    Cgroup,
    /// The systemd unit.
    Unit,
    /// The user.
    User,
    /// `agentwatch exec`.
    Launcher,
    /// A file that another session left behind.
    Cause,
}

impl RecognisedBy {
    /// The word used in the JSON and in tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Run => "run",
            Self::Cgroup => "cgroup",
            Self::Unit => "unit",
            Self::User => "user",
            Self::Launcher => "launcher",
            Self::Cause => "cause",
        }
    }
}

/// Whether all of a session's doings could be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// Followed from its first instruction.
    Full,
    /// Something may be missing: it ran before the daemon did, or events were lost.
    Partial,
}

/// Answer of `GET /v1/sessions/{id}/tree`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TreeView {
    /// The session.
    pub session: SessionView,
    /// Its processes, in the order in which they began.
    pub processes: Vec<ProcessView>,
    /// Ended processes that the daemon no longer remembers; the log still has them.
    pub processes_omitted: u64,
}

/// Identity of a process within a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id in the initial namespace.
    pub pid: u32,
    /// When it began, nanoseconds since boot.
    pub start_time: u64,
}

/// One process of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessView {
    /// Which process.
    #[serde(flatten)]
    pub id: ProcessId,
    /// Process id of its parent when it began, where that was seen.
    pub ppid: Option<u32>,
    /// The process that made it, where that belongs to the session too.
    pub parent: Option<ProcessId>,
    /// Path of the program that it runs or ran last.
    #[serde(rename = "executable.path")]
    pub executable_path: ObservedText,
    /// `percent` where `executable.path` is not UTF-8 and is percent-encoded.
    #[serde(rename = "executable.path_encoding")]
    pub executable_path_encoding: Option<Encoding>,
    /// Arguments since its last exec, the name it was given first.
    pub command_args: Arc<[ObservedText]>,
    /// `percent` where an argument is not UTF-8: then all are percent-encoded.
    pub command_args_encoding: Option<Encoding>,
    /// User id in the initial namespace, where that was seen.
    pub uid: Option<u32>,
    /// Working directory.
    pub cwd: ObservedText,
    /// `percent` where `cwd` is not UTF-8 and is percent-encoded.
    pub cwd_encoding: Option<Encoding>,
    /// When it began: RFC 3339 in UTC.
    pub started: String,
    /// When it ended; absent while it lives.
    pub ended: Option<String>,
    /// How it ended, where that was seen.
    pub exit: Option<Exit>,
    /// What it did.
    pub counts: Counts,
}

/// How often each operation was done or tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the contract's own words")]
pub struct Counts {
    pub exec: u64,
    pub run: u64,
    pub read: u64,
    pub write: u64,
    pub delete: u64,
    pub connect: u64,
    pub listen: u64,
}

impl Counts {
    /// Adds `times` of an operation; stops at the largest number.
    pub const fn add(&mut self, op: Op, times: u64) {
        let count = match op {
            Op::Exec => &mut self.exec,
            Op::Run => &mut self.run,
            Op::Read => &mut self.read,
            Op::Write => &mut self.write,
            Op::Delete => &mut self.delete,
            Op::Connect => &mut self.connect,
            Op::Listen => &mut self.listen,
        };
        *count = count.saturating_add(times);
    }

    /// Name and number of each operation, in the contract's order.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, u64); 7] {
        [
            ("exec", self.exec),
            ("run", self.run),
            ("read", self.read),
            ("write", self.write),
            ("delete", self.delete),
            ("connect", self.connect),
            ("listen", self.listen),
        ]
    }
}

/// Answer of `GET /v1/status`: the daemon itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DaemonView {
    /// Its version.
    pub version: Arc<str>,
    /// Its process id.
    pub pid: u32,
    /// When it began: RFC 3339 in UTC.
    pub since: String,
    /// Id of this boot.
    pub boot_id: Arc<str>,
    /// Release of the running kernel.
    pub kernel: Arc<str>,
    /// Where the log is.
    pub log: LogView,
    /// Events known to be missing, of all sessions.
    pub losses: u64,
    /// What this kernel lets it do.
    pub abilities: Vec<AbilityView>,
}

/// Where the attribution log is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogView {
    /// Number of the last event written; absent while there is none.
    pub last_seq: Option<u64>,
    /// Name of the segment that is written to.
    pub segment: String,
}

/// One thing that a kernel may or may not let the daemon do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbilityView {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it is there.
    pub state: AbilityState,
    /// Why it is not there in full, in one sentence.
    pub reason: Option<String>,
}

/// Whether an ability is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AbilityState {
    /// As promised.
    Full,
    /// With the gap that the reason names.
    Degraded,
    /// Not at all.
    Absent,
}

/// Body of `POST /v1/launch`: the caller asks to become a session. Who it is, the kernel says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchBody {
    /// Name of the agent.
    pub agent: String,
}

/// Answer of `POST /v1/launch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchView {
    /// Id of the session that the caller now is.
    pub session: Arc<str>,
}

/// Answer of every call that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// What happened and what to do next, in one sentence.
    pub error: String,
    /// The same for programs: a stable word.
    pub code: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_has_its_own_count() {
        let ops = [Op::Exec, Op::Run, Op::Read, Op::Write, Op::Delete, Op::Connect, Op::Listen];
        for (position, op) in ops.into_iter().enumerate() {
            let mut counts = Counts::default();
            counts.add(op, 3);
            let name = serde_json::to_value(op).unwrap();
            for (place, (word, count)) in counts.named().into_iter().enumerate() {
                assert_eq!(count, if place == position { 3 } else { 0 });
                assert_eq!(place == position, name == word);
            }
        }
    }
}
