//! Sessions by cgroup, and so by systemd unit.

use crate::{
    atomic,
    automaton::{Matching, Text},
    kernel::{Address, field, offset, pointer},
    maps::{CGROUPS, CONTROL, PROCESSES, SESSIONS},
    process::announce,
    record::{ANY, Record, count_loss},
    session::{self, Member, Task, control_word, current_task, process_start},
};
use agentwatch_common::{
    kind::{Attribution, LossReason, RecordKind},
    limits::MATCH_PATH_BYTES,
    maps::{CgroupEntry, SessionEntry, control, process_flag},
};
use aya_ebpf::{
    helpers::generated::{bpf_ktime_get_boot_ns, bpf_probe_read_kernel_str},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};

/// Id of a cgroup: the inode number of its folder.
#[inline(always)]
fn id_of(cgroup: Address) -> u64 {
    let node = pointer(cgroup, offset!(cgroup_kn));
    crate::kernel::read_field(node, offset!(kernfs_node_id))
}

/// `kernel/cgroup/cgroup.c`, `cgroup_mkdir()`, since 4.16: `TP_PROTO(struct cgroup *cgrp, const char *path)`.
///
/// A cgroup that matches is known before a process can be in it; one below another that belongs to a session
/// belongs to it too, as the pattern covers all below.
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_made(ctx: BtfTracePointContext) -> i32 {
    if control_word(control::MATCH_CGROUPS) == 0 {
        return 0;
    }
    let cgroup: Address = ctx.arg(0);
    let path: Address = ctx.arg(1);
    let task = current_task();
    if let Some(above) = parent_entry(cgroup) {
        cover(id_of(cgroup), &above);
        return 0;
    }
    let nobody = Member { session: 0, start_ns: 0, pid: 0, tid: 0, agent: 0, flags: 0, task };
    let Some(record) = Record::take::<[u64; 4]>(&nobody, RecordKind::Join) else { return 0 };
    // SAFETY: the helper writes at most the size given, which the tail has.
    let read = unsafe { bpf_probe_read_kernel_str(record.tail().cast(), MATCH_PATH_BYTES, path.cast()) };
    if let Some(mut matching) = Matching::begin(Text::Cgroup) {
        if read > 0 {
            matching.read_path(record.tail(), read as u64 - 1);
        }
        if let Some(agent) = matching.accepted().checked_sub(1) {
            begin(id_of(cgroup), session::agent_number(agent));
        }
    }
    record.release();
    0
}

/// Begins the session of a cgroup. It has no process yet.
#[inline(always)]
fn begin(id: u64, agent: u32) {
    let Some(counter) = CONTROL.get_ptr_mut(control::NEXT_SESSION) else { return };
    // SAFETY: a valid, aligned map value that is only changed atomically.
    let session = unsafe { atomic::fetch_add(counter, 1) };
    // SAFETY: a helper without arguments.
    let since_ns = unsafe { bpf_ktime_get_boot_ns() };
    let attribution = Attribution::MatchedCgroup.raw();
    let entry = SessionEntry { parent: 0, since_ns, root_pid: 0, agent, attribution, pad: [0; 7] };
    let _ = SESSIONS.insert(session, entry, ANY);
    cover(id, &CgroupEntry { session, agent, pad: 0 });
}

/// Notes that a cgroup belongs to a session.
#[inline(always)]
fn cover(id: u64, entry: &CgroupEntry) {
    if CGROUPS.insert(id, entry, ANY).is_err() {
        count_loss(entry.session, RecordKind::Join, LossReason::CgroupTableFull);
    }
}

/// The session of the cgroup above.
#[inline(always)]
fn parent_entry(cgroup: Address) -> Option<CgroupEntry> {
    let above = pointer(cgroup, offset!(cgroup_self_parent));
    if above.is_null() {
        return None;
    }
    // SAFETY: a copy of plain data.
    unsafe { CGROUPS.get(id_of(above.wrapping_sub(offset!(cgroup_self)))) }.copied()
}

/// `kernel/cgroup/cgroup.c`, `cgroup_rmdir()`, since 4.16: `TP_PROTO(struct cgroup *cgrp, const char *path)`.
#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_removed(ctx: BtfTracePointContext) -> i32 {
    if control_word(control::MATCH_CGROUPS) != 0 {
        let _ = CGROUPS.remove(id_of(ctx.arg(0)));
    }
    0
}

/// `kernel/cgroup/cgroup.c`, `cgroup_attach_task()`, since 4.16:
/// `TP_PROTO(struct cgroup *dst_cgrp, const char *path, struct task_struct *task, bool threadgroup)`.
#[btf_tracepoint(function = "cgroup_attach_task")]
pub fn cgroup_attach(ctx: BtfTracePointContext) -> i32 {
    if control_word(control::MATCH_CGROUPS) == 0 {
        return 0;
    }
    let id = id_of(ctx.arg(0));
    // SAFETY: a copy of plain data.
    let Some(found) = unsafe { CGROUPS.get(id) }.copied() else { return 0 };
    let task: Task = ctx.arg(2);
    // SAFETY: a typed argument (see `field!`).
    let pid = unsafe { field!(task, task_tgid, u32) };
    // SAFETY: a copy of plain data.
    if unsafe { PROCESSES.get(pid) }.is_some_and(|entry| entry.flags & process_flag::CAUSED == 0) {
        // A session's process that is moved stays in its session, but for one that only uses what a session left behind.
        return 0;
    }
    session::join(pid, process_start(task), found.session, found.agent, 0);
    announce(task, pid, found.session, &found, id);
    0
}
