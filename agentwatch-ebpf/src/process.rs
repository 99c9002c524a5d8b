//! The life of processes but for exec: fork and exit.

use agentwatch_common::{
    kind::{Attribution, LossReason, RecordKind},
    maps::{CgroupEntry, control, process_flag},
    record::{ExitBody, ForkBody, JoinBody},
};
use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::{btf_tracepoint, lsm},
    programs::{BtfTracePointContext, LsmContext},
};

use crate::{
    delegate,
    judge::Court,
    kernel::{field, offset, read_field},
    maps::{CGROUPS, FORKS, PROCESSES},
    record::{ANY, Record, count_loss, fill},
    session::{self, Member, Task, control_word, process_start},
};

/// `signal_struct.flags`: the whole group ends with `group_exit_code`.
const SIGNAL_GROUP_EXIT: u32 = 4;
/// `task_struct.exit_state`: ended, and waited for by whoever had to.
const EXIT_DEAD: u32 = 0x10;

/// `kernel/fork.c`, `copy_process()`: `int task_alloc(struct task_struct *task, unsigned long clone_flags)`, since 2.6.
///
/// A child that is not followed would be outside every session. So a process whose rules are enforced makes none unless
/// there is room for it, which is promised here: [`process_fork`] keeps the promise, or [`process_gone`] takes it back
/// where the child cannot be made.
#[lsm(hook = "task_alloc")]
pub fn process_room(ctx: LsmContext) -> i32 {
    const CLONE_THREAD: u64 = 0x1_0000;
    let Some(maker) = Member::current() else { return 0 };
    if ctx.arg::<u64>(1) & CLONE_THREAD != 0 {
        return 0;
    }
    let Some(judgement) = Court::on_unfollowed(&maker) else { return 0 };
    // The promise first: so no more can be kept beyond the bound than there is room for in `FORKS`.
    if FORKS.insert(maker.tid, 0u32, ANY).is_ok() {
        if !session::is_full() {
            return 0;
        }
        let _ = FORKS.remove(maker.tid);
    }
    let Some(record) = Record::take::<ForkBody>(&maker, RecordKind::ForkRefused) else {
        return judgement.carry_out();
    };
    record.body::<ForkBody>();
    record.decide(&judgement);
    record.finish(&maker, RecordKind::ForkRefused)
}

/// `kernel/sched/core.c`, `wake_up_new_task()`, since 3.x: `TP_PROTO(struct task_struct *p)`.
///
/// The child exists and has not run; the task that made it runs, whatever `CLONE_PARENT` makes of the child's
/// parent. Threads share their process's entry and need nothing.
///
/// This tracepoint and not `sched_process_fork`: here the run queue is locked and interrupts are off, so that the
/// program cannot be preempted. The kernel skips a tracing program that was preempted on this CPU and is not
/// through yet, and since 7.0 tracepoints can be preempted: a child would escape.
#[btf_tracepoint(function = "sched_wakeup_new")]
pub fn process_fork(ctx: BtfTracePointContext) -> i32 {
    let child: Task = ctx.arg(0);
    // SAFETY: a typed argument (see `field!`).
    let (child_pid, child_tid) = unsafe { (field!(child, task_tgid, u32), field!(child, task_pid, u32)) };
    if child_pid != child_tid {
        return 0;
    }
    match Member::current() {
        Some(parent) => {
            follow(&parent, child, child_pid);
            // Put straight into a cgroup of sessions, it belongs there, as an outsider's child would.
            if parent.is_caused() {
                join_by_cgroup(child, child_pid);
            }
        }
        None => {
            join_by_cgroup(child, child_pid);
            delegate::on_made(child, child_pid);
        }
    }
    0
}

/// Puts the child into its maker's session.
#[inline(always)]
fn follow(parent: &Member, child: Task, child_pid: u32) {
    let child_start_ns = process_start(child);
    let flags = parent.flags & (!process_flag::LOW | process_flag::CAUSED);
    let has_room = if parent.is_caused() {
        !session::is_full_for_caused()
    } else {
        FORKS.remove(parent.tid).is_ok() || !session::is_full()
    };
    if has_room {
        session::join(child_pid, child_start_ns, parent.session, parent.agent, flags);
    } else {
        session::count_unfollowed(parent.session);
    }
    let Some(record) = Record::take::<ForkBody>(parent, RecordKind::Fork) else { return };
    let body = record.body::<ForkBody>();
    fill!(body, child_start_ns: child_start_ns, child_pid: child_pid, child_ns_pid: namespace_pid(child));
    record.submit(parent, RecordKind::Fork, 0);
    record.release();
}

/// The number that a process has in its innermost namespace.
#[inline(always)]
fn namespace_pid(task: Task) -> u32 {
    // SAFETY: a typed chain (see `field!`).
    let pid = unsafe { field!(task, task_thread_pid, Task) };
    let level = read_field::<u32>(pid, offset!(pid_level)) as usize;
    // `struct upid { int nr; struct pid_namespace *ns; }`: the kernel nests at most 32 deep.
    read_field::<u32>(pid, offset!(pid_numbers) + (level & 31) * 16)
}

/// A child made straight into a cgroup that matches (`CLONE_INTO_CGROUP`) passes no `cgroup_attach_task`.
#[inline(always)]
fn join_by_cgroup(child: Task, child_pid: u32) {
    if control_word(control::MATCH_CGROUPS) == 0 {
        return;
    }
    let Some(found) = cgroup_entry(child) else { return };
    session::join(child_pid, process_start(child), found.session, found.agent, 0);
    announce(child, child_pid, found.session, &found, cgroup_id(child));
}

/// Id of the cgroup of a task.
#[inline(always)]
pub fn cgroup_id(task: Task) -> u64 {
    // SAFETY: a typed chain (see `field!`).
    unsafe {
        let set = field!(task, task_cgroups, Task);
        let cgroup = field!(set, css_set_dfl_cgrp, Task);
        let node = field!(cgroup, cgroup_kn, Task);
        field!(node, kernfs_node_id, u64)
    }
}

/// The session of the cgroup of a task.
#[inline(always)]
pub fn cgroup_entry(task: Task) -> Option<CgroupEntry> {
    let id = cgroup_id(task);
    // SAFETY: a copy of plain data; an entry that is removed meanwhile is still memory of the map.
    unsafe { CGROUPS.get(id) }.copied()
}

/// Tells the daemon of a process that joined a session without an exec.
#[inline(always)]
pub fn announce(task: Task, pid: u32, session: u64, found: &CgroupEntry, cgroup: u64) {
    let member = Member {
        session,
        start_ns: process_start(task),
        pid,
        tid: pid,
        agent: found.agent,
        flags: process_flag::ROOT,
        task,
    };
    let attribution = if cgroup == 0 { Attribution::MatchedUser } else { Attribution::MatchedCgroup };
    let Some(record) = Record::take::<JoinBody>(&member, RecordKind::Join) else { return };
    let body = record.body::<JoinBody>();
    fill!(body, cgroup: cgroup, agent: found.agent, attribution: attribution.raw());
    record.submit(&member, RecordKind::Join, 0);
    record.release();
}

/// `kernel/exit.c`, `do_exit()`, since 2.6: `TP_PROTO(struct task_struct *p)`, with `bool group_dead` since 6.16.
///
/// Runs for each thread. `signal->live` is already lowered, so the last thread, and only it, sees 0; two
/// that end together may both see it, and the removal tells which of them reports.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(_ctx: BtfTracePointContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    // SAFETY: typed chains from the current task (see `field!`).
    let (leader, live) = unsafe {
        let signal = field!(member.task, task_signal, Task);
        (field!(member.task, task_group_leader, Task), field!(signal, signal_live, i32))
    };
    if live == 0 {
        end(&member, leader);
    }
    0
}

/// `kernel/fork.c`, `__put_task_struct()`: `void task_free(struct task_struct *task)`, since 2.6.
///
/// The end of the first thread's memory, after the process was waited for. Almost always its exit was reported long
/// ago; not where the kernel skipped [`process_exit`], which can be preempted since 7.0 (see [`process_fork`]).
/// Hooks of security modules are never skipped.
#[lsm(hook = "task_free")]
pub fn process_gone(ctx: LsmContext) -> i32 {
    let task: Task = ctx.arg(0);
    // SAFETY: a typed argument (see `field!`).
    let (pid, tid) = unsafe { (field!(task, task_tgid, u32), field!(task, task_pid, u32)) };
    // SAFETY: as above.
    let (start_ns, state) =
        unsafe { (field!(task, task_start_boottime, u64), field!(task, task_exit_state, u32)) };
    if state & EXIT_DEAD == 0 {
        // A child that could not be made comes here too, as a copy of its maker, which runs: it never ended.
        let _ = FORKS.remove(bpf_get_current_pid_tgid() as u32);
        return 0;
    }
    if pid != tid {
        return 0;
    }
    // SAFETY: a copy of plain data.
    let Some(entry) = unsafe { PROCESSES.get(pid) }.copied() else { return 0 };
    if entry.start_ns != start_ns {
        return 0;
    }
    let member =
        Member { session: entry.session, start_ns, pid, tid, agent: entry.agent, flags: entry.flags, task };
    end(&member, task);
    0
}

/// Forgets a process whose last thread ended, and reports it unless somebody else did.
#[inline(always)]
fn end(member: &Member, leader: Task) {
    // SAFETY: typed chains from a thread of the process (see `field!`). Both codes are read, since the compiler would
    // make one load of two through pointers of two types, which the verifier refuses.
    let (flags, own_code, group_code) = unsafe {
        let signal = field!(member.task, task_signal, Task);
        (
            field!(signal, signal_flags, u32),
            field!(leader, task_exit_code, u32),
            field!(signal, signal_group_exit_code, u32),
        )
    };
    let code = if flags & SIGNAL_GROUP_EXIT == 0 { own_code } else { group_code };
    if PROCESSES.remove(member.pid).is_err() {
        return;
    }
    session::count_process(-1);
    if member.flags & process_flag::EXECUTING != 0 {
        // The event of its last exec never came.
        count_loss(member.session, RecordKind::Exec, LossReason::Skipped);
    }
    let Some(record) = Record::take::<ExitBody>(member, RecordKind::Exit) else { return };
    fill!(record.body::<ExitBody>(), code: code);
    record.submit(member, RecordKind::Exit, 0);
    record.release();
}
