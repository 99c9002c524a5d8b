//! Which session a process belongs to.

use agentwatch_common::{
    kind::{Attribution, LossReason, RecordKind},
    limits::{CAUSED_MOST, PROCESSES_MOST},
    maps::{NestedKey, ProcessEntry, SessionEntry, control, process_flag},
    rules::{SLOTS, ViewKey},
};
use aya_ebpf::{
    bindings::{BPF_EXIST, BPF_NOEXIST},
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_current_task_btf, bpf_ktime_get_boot_ns},
    },
};

use crate::{
    atomic, bound,
    judge::Judgement,
    kernel::field,
    maps::{AGENT_NUMBERS, CONTROL, NESTED, PROCESSES, SESSIONS, VIEWS},
    record::{ANY, count_loss},
};

/// A task as the verifier knows it.
pub type Task = *const u8;

/// Nanoseconds in a clock tick of `/proc/PID/stat` (`USER_HZ` is 100 on every supported architecture).
pub const NS_PER_TICK: u64 = 10_000_000;

/// A thread of a process that belongs to a session.
pub struct Member {
    /// The session's number.
    pub session: u64,
    /// When the process began.
    pub start_ns: u64,
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Number by which the process is judged: see [`ProcessEntry::agent`].
    pub agent: u32,
    /// [`process_flag`].
    pub flags: u32,
    /// The thread.
    pub task: Task,
}

impl Member {
    /// The thread that runs now, if its process belongs to a session. This is all that others pay for.
    #[inline(always)]
    pub fn current() -> Option<Self> {
        let pid_tgid = bpf_get_current_pid_tgid();
        let entry = PROCESSES.get_ptr_mut((pid_tgid >> 32) as u32)?;
        Self::verify(entry, pid_tgid)
    }

    /// Makes sure that the entry means this process and not an earlier one with the same number.
    #[inline(always)]
    fn verify(entry: *mut ProcessEntry, pid_tgid: u64) -> Option<Self> {
        let task = current_task();
        let start_ns = process_start(task);
        // SAFETY: a valid map value of this process; only this process and the daemon write it.
        let known = unsafe { *entry };
        if known.start_ns != start_ns {
            if known.start_ns != 0 || start_ns / NS_PER_TICK != known.start_ticks {
                return None;
            }
            // SAFETY: as above.
            unsafe { (&raw mut (*entry).start_ns).write(start_ns) };
        }
        Some(Self {
            session: known.session,
            start_ns,
            pid: (pid_tgid >> 32) as u32,
            tid: pid_tgid as u32,
            agent: known.agent,
            flags: known.flags,
            task,
        })
    }

    /// Whether it only uses what a session left behind: see [`process_flag::CAUSED`].
    #[inline(always)]
    pub fn is_caused(&self) -> bool {
        self.flags & process_flag::CAUSED != 0
    }

    /// Writes the flags of the process's entry.
    #[inline(always)]
    pub fn set_flags(&self, flags: u32) {
        if let Some(entry) = PROCESSES.get_ptr_mut(self.pid) {
            // SAFETY: a valid map value of this very process.
            unsafe { (&raw mut (*entry).flags).write(flags) };
        }
    }

    /// Notes what was decided about the exec that is under way, for its event.
    #[inline(always)]
    pub fn note_exec(&self, judgement: &Judgement) {
        if let Some(entry) = PROCESSES.get_ptr_mut(self.pid) {
            // SAFETY: a valid map value of this very process.
            unsafe {
                (&raw mut (*entry).policy).write(judgement.policy);
                (&raw mut (*entry).rule).write(judgement.rule);
                (&raw mut (*entry).verdict).write(judgement.verdict);
            }
        }
    }

    /// What was decided about the exec that is under way.
    #[inline(always)]
    pub fn exec_judgement(&self) -> Judgement {
        // SAFETY: a copy of plain data.
        match unsafe { PROCESSES.get(self.pid) } {
            Some(entry) => Judgement { policy: entry.policy, rule: entry.rule, verdict: entry.verdict },
            None => Judgement::NONE,
        }
    }

    /// Process id of the parent.
    #[inline(always)]
    pub fn ppid(&self) -> u32 {
        // SAFETY: a typed chain from the current task (see `field!`).
        unsafe {
            let parent = field!(self.task, task_real_parent, Task);
            field!(parent, task_tgid, u32)
        }
    }

    /// Effective user id.
    #[inline(always)]
    pub fn uid(&self) -> u32 {
        // SAFETY: as above.
        unsafe {
            let cred = field!(self.task, task_cred, Task);
            field!(cred, cred_euid, u32)
        }
    }
}

/// The thread that runs now.
#[inline(always)]
pub fn current_task() -> Task {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_current_task_btf() }.cast_const().cast()
}

/// When the process of a thread began, nanoseconds since boot.
#[inline(always)]
pub fn process_start(task: Task) -> u64 {
    // SAFETY: a typed chain from a task that the kernel gave (see `field!`).
    unsafe {
        let leader = field!(task, task_group_leader, Task);
        field!(leader, task_start_boottime, u64)
    }
}

/// A word of `CONTROL`, 0 where there is none.
#[inline(always)]
pub fn control_word(index: u32) -> u64 {
    CONTROL.get(index).copied().unwrap_or(0)
}

/// Number of an agent by its index in the automaton that finds agents; 0 where there is none.
#[inline(always)]
pub fn agent_number(index: u32) -> u32 {
    AGENT_NUMBERS.get(index).copied().unwrap_or(0)
}

/// A zero of which the verifier does not know that it is one: see [`crate::kernel::repeat`].
#[inline(always)]
pub fn zero() -> u32 {
    control_word(control::ZERO) as u32
}

/// The number of a session's own agent, by whatever number its processes are judged.
#[inline(always)]
pub fn own_agent(member: &Member) -> u32 {
    // SAFETY: a copy of plain data.
    unsafe { SESSIONS.get(member.session) }.map_or(member.agent, |session| session.agent)
}

/// The number by which a session of the agent `inner` is judged that begins where `outer` is: never less strictly than
/// that one was. 0 stands for nobody.
#[inline(always)]
fn judged_as(outer: u32, inner: u32) -> u32 {
    if outer == 0 || outer == inner {
        return inner;
    }
    // SAFETY: a copy of plain data.
    if let Some(both) = unsafe { NESTED.get(NestedKey { outer, inner }) } {
        return *both;
    }
    let slot = control_word(control::POLICY) as u32 & (SLOTS - 1);
    // SAFETY: nothing of it is read.
    if unsafe { VIEWS.get(ViewKey { agent: outer, slot }) }.is_some() { outer } else { inner }
}

/// What a new session begins with.
pub struct Beginning {
    /// Number by which the session is judged in which it begins, or 0.
    pub outer: u32,
    /// Session in which it begins, or 0.
    pub parent: u64,
    /// Index of its agent, plus one.
    pub matched: u32,
    /// How it was recognised.
    pub attribution: Attribution,
    /// [`process_flag::BEGUN`] where the exec that is under way tells of it, else 0.
    pub told_by_exec: u32,
}

/// Begins a session with the process `pid` as its first, and gives its number.
#[inline(always)]
pub fn begin(pid: u32, start_ns: u64, beginning: &Beginning) -> Option<u64> {
    let agent = agent_number(beginning.matched.wrapping_sub(1));
    let session = number(pid, beginning.parent, agent, beginning.attribution)?;
    if !bound::passes_on(beginning.parent, session) {
        return None;
    }
    let flags =
        process_flag::ROOT | beginning.told_by_exec | beginning.matched << process_flag::MATCHED_SHIFT;
    join(pid, start_ns, session, judged_as(beginning.outer, agent), flags).then_some(session)
}

/// Gives a new session its number, and keeps what a daemon must know that missed its beginning.
#[inline(always)]
fn number(pid: u32, parent: u64, agent: u32, by: Attribution) -> Option<u64> {
    let counter = CONTROL.get_ptr_mut(control::NEXT_SESSION)?;
    // SAFETY: a valid, aligned map value that is only changed atomically.
    let session = unsafe { atomic::fetch_add(counter, 1) };
    // SAFETY: a helper without arguments.
    let since_ns = unsafe { bpf_ktime_get_boot_ns() };
    let entry = SessionEntry { parent, since_ns, root_pid: pid, agent, attribution: by.raw(), pad: [0; 7] };
    // A full table costs a restarted daemon the session's parent, and not the session.
    let _ = SESSIONS.insert(session, entry, ANY);
    Some(session)
}

/// Begins a session with a process that uses what the session `writer` left behind, whose agent has the number `agent`.
/// Nobody judges it: a person may run what an agent wrote.
#[inline(always)]
pub fn begin_caused(pid: u32, start_ns: u64, writer: u64, agent: u32) -> Option<Member> {
    let session = number(pid, writer, agent, Attribution::Caused)?;
    let flags = process_flag::ROOT | process_flag::CAUSED;
    let member = Member { session, start_ns, pid, tid: pid, agent: 0, flags, task: current_task() };
    join(pid, start_ns, session, 0, flags).then_some(member)
}

/// Whether a child has no room in `PROCESSES`. What is left beyond is for those that were promised some, and for the
/// first processes of sessions.
#[inline(always)]
pub fn is_full() -> bool {
    processes() >= i64::from(PROCESSES_MOST)
}

/// Whether there is no room in `PROCESSES` for one that only uses what a session left behind.
#[inline(always)]
pub fn is_full_for_caused() -> bool {
    processes() >= i64::from(CAUSED_MOST)
}

/// Entries of `PROCESSES`.
#[inline(always)]
fn processes() -> i64 {
    let by_kernel = control_word(control::PROCESSES_BY_KERNEL);
    by_kernel.wrapping_add(control_word(control::PROCESSES_BY_DAEMON)) as i64
}

/// Counts an entry of `PROCESSES` that came (1) or went (-1).
#[inline(always)]
pub fn count_process(change: i64) {
    if let Some(word) = CONTROL.get_ptr_mut(control::PROCESSES_BY_KERNEL) {
        // SAFETY: a valid, aligned map value that is only changed atomically.
        unsafe { atomic::fetch_add(word, change as u64) };
    }
}

/// Counts a process that is not followed, since there is no room.
#[inline(always)]
pub fn count_unfollowed(session: u64) {
    count_loss(session, RecordKind::Fork, LossReason::ProcessTableFull);
}

/// Puts a process into a session; counts a loss where there is no room.
#[inline(always)]
pub fn join(pid: u32, start_ns: u64, session: u64, agent: u32, flags: u32) -> bool {
    let judged = Judgement::NONE;
    let (policy, rule, verdict) = (judged.policy, judged.rule, judged.verdict);
    let entry =
        ProcessEntry { session, start_ns, start_ticks: 0, agent, flags, policy, rule, verdict, pad: 0 };
    if PROCESSES.insert(pid, entry, BPF_NOEXIST.into()).is_ok() {
        count_process(1);
        return true;
    }
    let joined = PROCESSES.insert(pid, entry, BPF_EXIST.into()).is_ok();
    if !joined {
        count_unfollowed(session);
    }
    joined
}
