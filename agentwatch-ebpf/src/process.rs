//! The life of processes but for exec: fork and exit.

use agentwatch_common::{
    kind::{Attribution, RecordKind},
    maps::{CgroupEntry, control, process_flag},
    record::{ExitBody, ForkBody, JoinBody},
};
use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{
    kernel::{field, offset, read_field},
    maps::{CGROUPS, PROCESSES},
    record::{Record, fill},
    session::{self, Member, Task, control_word, process_start},
};

/// `signal_struct.flags`: the whole group ends with `group_exit_code`.
const SIGNAL_GROUP_EXIT: u32 = 4;

/// `kernel/fork.c`, `kernel_clone()`, since 2.6: `TP_PROTO(struct task_struct *parent, struct task_struct *child)`.
///
/// The child exists and has not run. `parent` is the task that made it, whatever `CLONE_PARENT` makes of the
/// child's parent. Threads share their process's entry and need nothing.
///
/// Attached four times, as is [`on_exit`]: the kernel skips a tracing program that was preempted on this CPU and is
/// not through yet, and since 7.0 tracepoints can be preempted. Whoever comes first does the work.
#[inline(always)]
fn on_fork(ctx: &BtfTracePointContext) -> i32 {
    let child: Task = ctx.arg(1);
    // SAFETY: a typed argument (see `field!`).
    let (child_pid, child_tid) = unsafe { (field!(child, task_tgid, u32), field!(child, task_pid, u32)) };
    if child_pid != child_tid {
        return 0;
    }
    match Member::current() {
        Some(parent) => follow(&parent, child, child_pid),
        None => join_by_cgroup(child, child_pid),
    }
    0
}

/// Puts the child into its maker's session.
#[inline(always)]
fn follow(parent: &Member, child: Task, child_pid: u32) {
    let child_start_ns = process_start(child);
    // SAFETY: a copy of plain data.
    let known = unsafe { PROCESSES.get(child_pid) }.is_some_and(|entry| entry.start_ns == child_start_ns);
    if known {
        return;
    }
    let flags = parent.flags & !process_flag::LOW;
    session::join(child_pid, child_start_ns, parent.session, parent.agent, flags);
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
#[inline(always)]
fn on_exit(_ctx: &BtfTracePointContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    // SAFETY: typed chains from the current task (see `field!`).
    let (live, code) = unsafe {
        let signal = field!(member.task, task_signal, Task);
        let leader = field!(member.task, task_group_leader, Task);
        let code = if field!(signal, signal_flags, u32) & SIGNAL_GROUP_EXIT == 0 {
            field!(leader, task_exit_code, u32)
        } else {
            field!(signal, signal_group_exit_code, u32)
        };
        (field!(signal, signal_live, i32), code)
    };
    if live != 0 || PROCESSES.remove(member.pid).is_err() {
        return 0;
    }
    let Some(record) = Record::take::<ExitBody>(&member, RecordKind::Exit) else { return 0 };
    fill!(record.body::<ExitBody>(), code: code);
    record.submit(&member, RecordKind::Exit, 0);
    record.release();
    0
}

/// The same program under several names.
macro_rules! attached_as {
    ($hook:literal, $run:expr, $($name:ident)+) => {$(
        #[btf_tracepoint(function = $hook)]
        pub fn $name(ctx: BtfTracePointContext) -> i32 {
            $run(&ctx)
        }
    )+};
}

attached_as!("sched_process_fork", on_fork, process_fork process_fork_2 process_fork_3 process_fork_4);
attached_as!(
    "sched_process_exit",
    on_exit,
    process_exit process_exit_2 process_exit_3 process_exit_4
);
