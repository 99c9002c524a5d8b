//! Programs started: the event.

use agentwatch_common::{
    kind::RecordKind,
    limits::{ARGS_CHUNK_BYTES, ARGS_CHUNKS, ARGS_RETRIES, ARGS_WITHOUT_LOOPS},
    maps::process_flag,
    record::{ArgsBody, ExecBody, args_flag},
};
use aya_ebpf::{
    helpers::generated::bpf_probe_read_user, macros::btf_tracepoint, programs::BtfTracePointContext,
};

use crate::{
    judge::Judgement,
    kernel::{Address, at_most, field, kernel_loops, offset, repeat},
    maps::SESSIONS,
    path::{self, Walk},
    place::Place,
    process::cgroup_id,
    record::{Record, fill, part},
    session::{Member, Task, current_task},
};

/// `fs/exec.c`, `exec_binprm()`, since 3.4:
/// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`.
///
/// The new image and its arguments are in place, and not an instruction of it has run. A thread that is not
/// the leader has become it by now, under the same process id. To which session it belongs is decided before:
/// see [`crate::recognise`].
#[inline(always)]
fn on_exec(_ctx: &BtfTracePointContext) -> i32 {
    if let Some(member) = Member::current()
        && member.flags & process_flag::EXECUTING != 0
    {
        report(&member, &Image::current());
    }
    0
}

// Twice, for the kernel skips a tracing program that was preempted on this CPU and is not through yet, and since
// 7.0 tracepoints can be preempted. The first clears the flag. Where both are skipped the flag stays, and is
// counted as a loss.
attached_as!("sched_process_exec", on_exec, process_exec process_exec_2);

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

    /// Copies up to `most` bytes of arguments from `offset`; gives how many, or 0 on a fault.
    #[inline(always)]
    fn copy_args(&self, to: *mut u8, offset: u64, most: u64) -> u64 {
        let len = at_most(self.args_len.wrapping_sub(offset), most);
        // SAFETY: the caller's buffer has room for `most`, which is at most ARGS_CHUNK_BYTES.
        let status =
            unsafe { bpf_probe_read_user(to.cast(), len as u32, self.args.wrapping_add(offset) as *const _) };
        if status == 0 { len } else { 0 }
    }
}

/// Puts the exec and all its arguments into the ring, and says whether a session begins with it. What it says
/// comes from tables and not from variables: each value that the verifier knew would cost it the whole again.
#[inline(never)]
fn report(member: &Member, image: &Image) {
    let Some(record) = Record::take::<ExecBody>(member, RecordKind::Exec) else { return };
    let body = record.body::<ExecBody>();
    let place = Place::read(image.file.wrapping_add(offset!(file_f_path)));
    path::append(&record, place, part!(body, program), part!(body, program_fs));
    // SAFETY: a typed chain from the current task (see `field!`).
    let fs = unsafe { field!(image.task, task_fs, Address) };
    path::append_one(&record, Place::read(fs.wrapping_add(offset!(fs_pwd))), part!(body, cwd));
    let at = path::used(record.walk());
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
        args_total: image.args_len as u32,
        args_len: args_len as u32,
        args_flags: args_flags,
        agent: member.agent,
        cgroup: cgroup_id(image.task),
    );
    member.set_flags(member.flags & !(process_flag::BEGUN | process_flag::EXECUTING));
    record.judged(&member.exec_judgement());
    member.note_exec(&Judgement::NONE);
    if member.flags & process_flag::BEGUN != 0 {
        // SAFETY: a copy of plain data.
        if let Some(session) = unsafe { SESSIONS.get(member.session) } {
            fill!(
                body,
                agent: session.agent,
                parent_session: session.parent,
                attribution: session.attribution,
            );
        }
    }
    record.submit(member, RecordKind::Exec, at + args_len);
    record.release();
    if args_len < image.args_len {
        report_more_args(member, image, args_len);
    }
}

/// Continues a long list of arguments in records of its own.
///
/// A page that the kernel moves at this moment cannot be read: the same bytes are tried again, as long as there are
/// turns.
#[inline(always)]
fn report_more_args(member: &Member, image: &Image, first: u64) {
    let Some(record) = Record::take::<ArgsBody>(member, RecordKind::ExecArgs) else { return };
    let body = record.body::<ArgsBody>();
    // The offset is kept in the buffer, where the verifier does not follow it: see `path::Walk`.
    path::set_used(record.walk(), first);
    let mut rest = Rest { record: &record, member, image, body };
    let turns = if kernel_loops() { ARGS_CHUNKS + ARGS_RETRIES } else { ARGS_WITHOUT_LOOPS };
    repeat(turns, more_args, &mut rest);
    if path::used(record.walk()) < at_most(image.args_len, ARGS_MOST) {
        fill!(body, offset: path::used(record.walk()) as u32, args_len: 0, args_flags: args_flag::FAULT);
        record.submit(member, RecordKind::ExecArgs, 0);
    }
    record.release();
}

/// A list of arguments that is being copied.
struct Rest<'a> {
    record: &'a Record,
    member: &'a Member,
    image: &'a Image,
    body: *mut ArgsBody,
}

/// One record more.
#[inline(never)]
extern "C" fn more_args(_index: u32, rest: &mut Rest<'_>) -> i64 {
    let record = rest.record;
    if path::used(record.walk()) >= at_most(rest.image.args_len, ARGS_MOST) {
        return 1;
    }
    copy_chunk(rest.image, record.tail(), record.walk(), rest.body);
    // SAFETY: the body is valid scratch memory. Read back, so that the verifier sees one way here.
    let len = unsafe { (&raw const (*rest.body).args_len).read_volatile() };
    if len != 0 {
        record.submit(rest.member, RecordKind::ExecArgs, u64::from(len));
    }
    0
}

/// Bytes of arguments in all records of one exec.
const ARGS_MOST: u64 = ARGS_CHUNKS as u64 * ARGS_CHUNK_BYTES as u64;

/// Copies the next arguments and says so in the body: none where they cannot be read now.
#[inline(never)]
fn copy_chunk(image: &Image, tail: *mut u8, walk: *mut Walk, body: *mut ArgsBody) {
    let offset = path::used(walk);
    let len = image.copy_args(tail, offset, ARGS_CHUNK_BYTES as u64);
    let end = offset.wrapping_add(len);
    let args_flags = if end >= image.args_len {
        0
    } else if end >= ARGS_MOST {
        args_flag::TRUNCATED
    } else {
        args_flag::MORE
    };
    fill!(body, offset: offset as u32, args_len: len as u32, args_flags: args_flags);
    path::set_used(walk, end);
}
