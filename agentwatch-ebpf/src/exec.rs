//! Programs started: the event, and the sessions that begin here.

use agentwatch_common::{
    kind::{Attribution, RecordKind},
    limits::{ARGS_CHUNK_BYTES, ARGS_CHUNKS, MATCH_COMMAND_BYTES},
    maps::{control, process_flag},
    record::{ArgsBody, ExecBody, args_flag},
};
use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_probe_read_kernel_str, bpf_probe_read_user},
    },
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};

use crate::{
    automaton::Matching,
    kernel::{Address, field, offset, pointer},
    maps::PROCESSES,
    path::{self, Place},
    process::{cgroup_entry, cgroup_id},
    record::{Record, fill, part},
    session::{self, Beginning, Member, Task, control_word, current_task, process_start},
    user,
};

/// Bytes of a program's base name that the first, cheap look reads. A longer name gets the full look.
const GLANCE_BYTES: usize = 64;

/// `fs/exec.c`, `exec_binprm()`, since 3.4:
/// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`.
///
/// The new image and its arguments are in place, and not an instruction of it has run. A thread that is not
/// the leader has become it by now, under the same process id.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(_ctx: BtfTracePointContext) -> i32 {
    let image = Image::current();
    if let Some(member) = Member::current() {
        if member.flags & process_flag::LAUNCHING != 0 {
            launched(&member);
            report(&member, &image, None);
            return 0;
        }
        match image.sub_agent(&member) {
            Some(beginning) => start(&image, &beginning),
            None => report(&member, &image, None),
        }
    } else if let Some(beginning) = image.agent() {
        start(&image, &beginning);
    } else {
        join_quietly(&image);
    }
    0
}

/// The program that `agentwatch exec` was asked for is in place: from here on it is like any other.
#[inline(always)]
fn launched(member: &Member) {
    if let Some(entry) = PROCESSES.get_ptr_mut(member.pid) {
        // SAFETY: a valid map value of this very process.
        unsafe { (&raw mut (*entry).flags).write(member.flags & !process_flag::LAUNCHING) };
    }
}

/// Begins a session with the process that runs now.
#[inline(always)]
fn start(image: &Image, beginning: &Beginning) {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if session::begin(pid, process_start(image.task), beginning).is_none() {
        return;
    }
    if let Some(member) = Member::current() {
        report(&member, image, Some(beginning));
    }
}

/// An outsider whose cgroup or user belongs to an agent (it was there before the daemon knew).
#[inline(always)]
fn join_quietly(image: &Image) {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if control_word(control::MATCH_CGROUPS) != 0
        && let Some(found) = cgroup_entry(image.task)
    {
        session::join(pid, process_start(image.task), found.session, found.agent, 0);
        if let Some(member) = Member::current() {
            crate::process::announce(image.task, pid, found.session, &found, cgroup_id(image.task));
            report(&member, image, None);
        }
        return;
    }
    if let Some(agent) = user::agent_of(image.task) {
        start(image, &Beginning { parent: 0, agent, attribution: Attribution::MatchedUser });
    }
}

/// A program that has just been put in place.
struct Image {
    task: Task,
    /// `struct file` of the program.
    file: Address,
    /// First byte of the arguments, in user memory.
    args: u64,
    /// Bytes of all arguments.
    args_len: u64,
}

impl Image {
    #[inline(always)]
    fn current() -> Self {
        let task = current_task();
        // SAFETY: typed chains from the current task (see `field!`).
        unsafe {
            let mm = field!(task, task_mm, Task);
            let args = field!(mm, mm_arg_start, u64);
            let end = field!(mm, mm_arg_end, u64);
            Self { task, file: field!(mm, mm_exe_file, Address), args, args_len: end.wrapping_sub(args) }
        }
    }

    /// Where the program is.
    #[inline(always)]
    fn place(&self) -> Place {
        Place::read(self.file.wrapping_add(offset!(file_f_path)))
    }

    /// The agent that an outsider becomes by this program.
    #[inline(always)]
    fn agent(&self) -> Option<Beginning> {
        let agent = self.matching()?;
        Some(Beginning { parent: 0, agent, attribution: Attribution::MatchedExec })
    }

    /// The agent that a session's process becomes by this program: a session of its own, in the other.
    ///
    /// The first process of a session that starts its own program anew (a wrapper, an interpreter) stays
    /// what it is; so does one that uses an agent's program under another name, as some carry their tools in
    /// one file.
    #[inline(always)]
    fn sub_agent(&self, member: &Member) -> Option<Beginning> {
        let agent = self.matching()?;
        let is_root = member.flags & process_flag::ROOT != 0;
        if agent == member.agent && (is_root || !self.named_as_itself()) {
            return None;
        }
        Some(Beginning { parent: member.session, agent, attribution: Attribution::MatchedExec })
    }

    /// Index of the agent whose patterns match.
    #[inline(always)]
    fn matching(&self) -> Option<u32> {
        let mut program = Matching::begin(control::START_PROGRAM);
        let mut command = Matching::begin(control::START_COMMAND);
        let by_name = self.glance(&mut program, &mut command);
        if program.is_dead() && command.is_dead() {
            return None;
        }
        self.full_match(by_name, program.is_dead(), command)
    }

    /// Reads the base name into both automata; that is where most programs leave. True where it was whole.
    #[inline(never)]
    fn glance(&self, program: &mut Matching, command: &mut Matching) -> bool {
        let mut name = [0u8; GLANCE_BYTES];
        let text = pointer(self.place().dentry, offset!(dentry_d_name) + offset!(qstr_name));
        // SAFETY: the helper writes at most the size of the buffer.
        let read = unsafe {
            bpf_probe_read_kernel_str(name.as_mut_ptr().cast(), GLANCE_BYTES as u32, text.cast())
        };
        for byte in name {
            if byte == 0 || (program.is_dead() && command.is_dead()) {
                break;
            }
            program.step(byte);
            command.step(byte);
        }
        read < GLANCE_BYTES as i64
    }

    /// Matches the whole path and the command line, with a scratch buffer.
    #[inline(always)]
    fn full_match(&self, name_was_whole: bool, program_is_dead: bool, command: Matching) -> Option<u32> {
        let nobody = Member::nobody(self.task);
        let record = Record::take::<ExecBody>(&nobody, RecordKind::Exec)?;
        let mut found = None;
        if !program_is_dead {
            let mut at = 0;
            path::walk(record.tail(), &mut at, &self.place(), part!(record.body::<ExecBody>(), program));
            let mut program = Matching::begin(control::START_PROGRAM);
            program.read_path(record.tail(), at);
            found = program.agent();
        }
        if name_was_whole && !command.is_dead() {
            let mut command = command;
            let len = self.copy_args(record.tail(), 0, u64::from(MATCH_COMMAND_BYTES));
            command.read_arguments(record.tail(), len);
            found = match (found, command.agent()) {
                (Some(one), Some(other)) => Some(if one < other { one } else { other }),
                (one, other) => one.or(other),
            };
        }
        record.release();
        found
    }

    /// True where the first argument's base name begins like the program's own: it was started as itself.
    #[inline(never)]
    fn named_as_itself(&self) -> bool {
        let mut given = [0u8; GLANCE_BYTES];
        let mut own = [0u8; GLANCE_BYTES];
        let text = pointer(self.place().dentry, offset!(dentry_d_name) + offset!(qstr_name));
        // SAFETY: the helpers write at most the size of each buffer.
        unsafe {
            bpf_probe_read_kernel_str(own.as_mut_ptr().cast(), GLANCE_BYTES as u32, text.cast());
            bpf_probe_read_user(given.as_mut_ptr().cast(), GLANCE_BYTES as u32, self.args as *const _);
        }
        let mut same = true;
        let mut at = 0usize;
        for byte in given {
            if byte == 0 {
                break;
            }
            if byte == b'/' {
                at = 0;
                same = true;
            } else {
                same &= own[at & (GLANCE_BYTES - 1)] == byte;
                at += 1;
            }
        }
        same && own[at & (GLANCE_BYTES - 1)] == 0
    }

    /// Copies up to `most` bytes of arguments from `offset`; gives how many, or 0 on a fault.
    #[inline(always)]
    fn copy_args(&self, to: *mut u8, offset: u64, most: u64) -> u64 {
        let left = self.args_len.wrapping_sub(offset);
        let len = if left > most { most } else { left };
        if len == 0 || len > ARGS_CHUNK_BYTES as u64 {
            return 0;
        }
        // SAFETY: the caller's buffer has room for `most`, which is at most ARGS_CHUNK_BYTES.
        let status = unsafe {
            bpf_probe_read_user(to.cast(), len as u32, self.args.wrapping_add(offset) as *const _)
        };
        if status == 0 { len } else { 0 }
    }
}

impl Member {
    /// Stands for a process outside any session where a buffer is needed.
    #[inline(always)]
    fn nobody(task: Task) -> Self {
        Self { session: 0, start_ns: 0, pid: 0, tid: 0, agent: 0, flags: 0, task }
    }
}

/// Puts the exec and all its arguments into the ring.
#[inline(always)]
fn report(member: &Member, image: &Image, beginning: Option<&Beginning>) {
    let Some(record) = Record::take::<ExecBody>(member, RecordKind::Exec) else { return };
    let body = record.body::<ExecBody>();
    let place = image.place();
    let mut at = 0;
    path::append(record.tail(), &mut at, place, part!(body, program), part!(body, program_fs));
    // SAFETY: a typed chain from the current task (see `field!`).
    let fs = unsafe { field!(image.task, task_fs, Address) };
    path::walk(record.tail(), &mut at, &Place::read(fs.wrapping_add(offset!(fs_pwd))), part!(body, cwd));

    let mut args_len = 0;
    if at <= (agentwatch_common::limits::TAIL_BYTES - ARGS_CHUNK_BYTES) as u64 {
        // SAFETY: ARGS_CHUNK_BYTES fit behind `at`, just checked.
        args_len = image.copy_args(unsafe { record.tail().add(at as usize) }, 0, ARGS_CHUNK_BYTES as u64);
    }
    let mut args_flags = if args_len < image.args_len { args_flag::MORE } else { 0 };
    if args_len == 0 && image.args_len != 0 {
        args_flags |= args_flag::FAULT;
    }
    fill!(
        body,
        ino: place.ino(),
        parent_session: beginning.map_or(0, |beginning| beginning.parent),
        args_total: image.args_len as u32,
        args_len: args_len as u32,
        args_flags: args_flags,
        attribution: beginning.map_or(0, |beginning| beginning.attribution.raw()),
        agent: member.agent,
        cgroup: cgroup_id(image.task),
    );
    record.submit(member, RecordKind::Exec, at + args_len);
    record.release();
    if args_len < image.args_len {
        report_more_args(member, image, args_len);
    }
}

/// Continues a long list of arguments in records of its own.
#[inline(always)]
fn report_more_args(member: &Member, image: &Image, first: u64) {
    let mut offset = first;
    for chunk in 0..ARGS_CHUNKS {
        if offset >= image.args_len {
            return;
        }
        let Some(record) = Record::take::<ArgsBody>(member, RecordKind::ExecArgs) else { return };
        let len = image.copy_args(record.tail(), offset, ARGS_CHUNK_BYTES as u64);
        let mut args_flags = if offset + len < image.args_len { args_flag::MORE } else { 0 };
        if len == 0 {
            args_flags = args_flag::FAULT;
        } else if chunk == ARGS_CHUNKS - 1 && args_flags != 0 {
            args_flags = args_flag::TRUNCATED;
        }
        let body = record.body::<ArgsBody>();
        fill!(body, offset: offset as u32, args_len: len as u32, args_flags: args_flags);
        record.submit(member, RecordKind::ExecArgs, len);
        record.release();
        if len == 0 {
            return;
        }
        offset += len;
    }
}
