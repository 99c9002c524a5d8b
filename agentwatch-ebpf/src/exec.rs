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
    automaton::{GLANCE_BYTES, Matching, Text},
    kernel::{Address, at_most, field, offset, pointer},
    maps::{PROCESSES, SESSIONS},
    path::{self, Place, Walk},
    process::{cgroup_entry, cgroup_id},
    record::{Record, fill, part},
    session::{self, Beginning, Member, Task, control_word, current_task, process_start},
    user,
};

/// `fs/exec.c`, `exec_binprm()`, since 3.4:
/// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`.
///
/// The new image and its arguments are in place, and not an instruction of it has run. A thread that is not
/// the leader has become it by now, under the same process id.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(_ctx: BtfTracePointContext) -> i32 {
    let image = Image::current();
    attribute(&image);
    if let Some(member) = Member::current() {
        report(&member, &image);
    }
    0
}

/// Finds out to which session the process belongs with its new program.
#[inline(always)]
fn attribute(image: &Image) {
    let matched = image.matching();
    let Some(member) = Member::current() else {
        if matched == 0 {
            join_quietly(image);
        } else {
            start(
                image,
                &Beginning { parent: 0, matched, attribution: Attribution::MatchedExec, told_by_exec: BEGUN },
            );
        }
        return;
    };
    if stays(&member, image, matched) {
        let kept = member.flags & process_flag::LOW & !process_flag::LAUNCHING;
        set_flags(&member, kept | matched << process_flag::MATCHED_SHIFT);
    } else {
        start(
            image,
            &Beginning {
                parent: member.session,
                matched,
                attribution: Attribution::MatchedExec,
                told_by_exec: BEGUN,
            },
        );
    }
}

/// Whether a session's process stays what it is with a program that matches `matched` (index plus one, or 0);
/// else it becomes a session of its own, inside the other.
///
/// It stays where it is the first of its session (a wrapper, an interpreter starts its own program anew), where
/// an agent's program starts that same agent's program straight away (a launcher its native part), and where
/// the session's own agent's program goes by another name (some carry their tools in one file).
#[inline(always)]
fn stays(member: &Member, image: &Image, matched: u32) -> bool {
    matched == 0
        || member.flags & (process_flag::LAUNCHING | process_flag::ROOT) != 0
        || member.flags >> process_flag::MATCHED_SHIFT == matched
        || (matched == member.agent + 1 && !image.named_as_itself(matched))
}

/// Writes the flags of the process's entry.
#[inline(always)]
fn set_flags(member: &Member, flags: u32) {
    if let Some(entry) = PROCESSES.get_ptr_mut(member.pid) {
        // SAFETY: a valid map value of this very process.
        unsafe { (&raw mut (*entry).flags).write(flags) };
    }
}

/// Begins a session with the process that runs now.
#[inline(always)]
fn start(image: &Image, beginning: &Beginning) {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    session::begin(pid, process_start(image.task), beginning);
}

/// An outsider whose cgroup or user belongs to an agent (it was there before the daemon knew).
#[inline(always)]
fn join_quietly(image: &Image) {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if control_word(control::MATCH_CGROUPS) != 0
        && let Some(found) = cgroup_entry(image.task)
    {
        session::join(pid, process_start(image.task), found.session, found.agent, 0);
        crate::process::announce(image.task, pid, found.session, &found, cgroup_id(image.task));
    } else if let Some(agent) = user::agent_of(image.task) {
        let matched = agent + 1;
        start(
            image,
            &Beginning { parent: 0, matched, attribution: Attribution::MatchedUser, told_by_exec: BEGUN },
        );
    }
}

const BEGUN: u32 = process_flag::BEGUN;

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

    /// The agent whose patterns match: its index plus one, or 0.
    #[inline(always)]
    fn matching(&self) -> u32 {
        let (Some(mut program), Some(mut command)) =
            (Matching::begin(Text::Program), Matching::begin(Text::Command))
        else {
            return 0;
        };
        self.glance(&mut program, &mut command);
        if program.is_dead() && command.is_dead() { 0 } else { self.full_match(command) }
    }

    /// Reads the base name into both automata; that is where most programs leave. Of a longer name its
    /// beginning is read, and no pattern on command lines with a longer one matches.
    #[inline(never)]
    fn glance(&self, program: &mut Matching, command: &mut Matching) {
        let mut name = [0u8; GLANCE_BYTES];
        let text = pointer(self.place().dentry, offset!(dentry_d_name) + offset!(qstr_name));
        // SAFETY: the helper writes at most the size of the buffer.
        unsafe { bpf_probe_read_kernel_str(name.as_mut_ptr().cast(), GLANCE_BYTES as u32, text.cast()) };
        for byte in name {
            if byte == 0 {
                break;
            }
            program.step(byte);
            command.step(byte);
        }
    }

    /// Matches the whole path and the command line, with a scratch buffer: index of the agent, plus one, or 0.
    #[inline(never)]
    fn full_match(&self, mut command: Matching) -> u32 {
        let nobody = Member::nobody(self.task);
        let Some(record) = Record::take::<ExecBody>(&nobody, RecordKind::Exec) else { return 0 };
        let len = self.copy_args(record.tail(), 0, u64::from(MATCH_COMMAND_BYTES));
        command.read_arguments(record.tail(), len);
        let mut found = command.accepted();
        path::append_one(&record, self.place(), part!(record.body::<ExecBody>(), program));
        if let Some(mut program) = Matching::begin(Text::Program) {
            program.read_path(record.tail(), path::used(record.walk()));
            let other = program.accepted();
            if other != 0 && (found == 0 || other < found) {
                found = other;
            }
        }
        record.release();
        found
    }

    /// True where the process was started as the agent itself: the base name of its first argument is the
    /// program's own, or one by which the agent (`matched`: index plus one) is recognised.
    #[inline(never)]
    fn named_as_itself(&self, matched: u32) -> bool {
        let nobody = Member::nobody(self.task);
        let Some(record) = Record::take::<ExecBody>(&nobody, RecordKind::Exec) else { return false };
        let tail = record.tail();
        let text = pointer(self.place().dentry, offset!(dentry_d_name) + offset!(qstr_name));
        // SAFETY: the tail has room for both names.
        unsafe { bpf_probe_read_kernel_str(tail.cast(), GLANCE_BYTES as u32, text.cast()) };
        let own = base_name(&record);
        // SAFETY: as above.
        unsafe { bpf_probe_read_user(tail.cast(), GLANCE_BYTES as u32, self.args as *const _) };
        let given = base_name(&record);
        record.release();
        given.hash == own.hash || given.accepted == matched
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

/// What is known about a base name.
struct BaseName {
    /// Tells names apart. That two might share one makes a sub-agent of a tool, no more.
    hash: u64,
    /// The agent that a program of this name in no folder would be: index plus one, or 0.
    accepted: u32,
}

/// Reads the name at the beginning of a record's tail, from behind its last slash. What it knows so far lies in the
/// buffer, where the verifier does not follow it: see [`path::Walk`].
#[inline(never)]
fn base_name(record: &Record) -> BaseName {
    let Some(start) = Matching::begin(Text::Program) else { return BaseName { hash: 0, accepted: 0 } };
    let known = record.known();
    known.set(0, start.state());
    for index in 0..GLANCE_BYTES {
        // SAFETY: inside the tail.
        let byte = unsafe { record.tail().add(index).read_volatile() };
        if byte == 0 {
            break;
        }
        if byte == b'/' {
            known.set(0, start.state());
        } else {
            let mut here = start.at(known.state());
            here.step(byte);
            known.set(known.hash().wrapping_mul(31).wrapping_add(u64::from(byte)), here.state());
        }
    }
    let mut end = start.at(known.state());
    end.step(0);
    BaseName { hash: known.hash(), accepted: end.accepted() }
}

impl Member {
    /// Stands for a process outside any session where a buffer is needed.
    #[inline(always)]
    fn nobody(task: Task) -> Self {
        Self { session: 0, start_ns: 0, pid: 0, tid: 0, agent: 0, flags: 0, task }
    }
}

/// Puts the exec and all its arguments into the ring, and says whether a session begins with it. What it says
/// comes from tables and not from variables: each value that the verifier knew would cost it the whole again.
#[inline(never)]
fn report(member: &Member, image: &Image) {
    let Some(record) = Record::take::<ExecBody>(member, RecordKind::Exec) else { return };
    let body = record.body::<ExecBody>();
    let place = image.place();
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
    if member.flags & process_flag::BEGUN != 0 {
        set_flags(member, member.flags & !process_flag::BEGUN);
        // SAFETY: a copy of plain data.
        if let Some(session) = unsafe { SESSIONS.get(member.session) } {
            fill!(body, parent_session: session.parent, attribution: session.attribution);
        }
    }
    record.submit(member, RecordKind::Exec, at + args_len);
    record.release();
    if args_len < image.args_len {
        report_more_args(member, image, args_len);
    }
}

/// Continues a long list of arguments in records of its own.
#[inline(always)]
fn report_more_args(member: &Member, image: &Image, first: u64) {
    let Some(record) = Record::take::<ArgsBody>(member, RecordKind::ExecArgs) else { return };
    let body = record.body::<ArgsBody>();
    // The offset is kept in the buffer, where the verifier does not follow it: see `path::Walk`.
    path::set_used(record.walk(), first);
    for chunk in 0..ARGS_CHUNKS {
        if path::used(record.walk()) >= image.args_len {
            break;
        }
        let past = if chunk == ARGS_CHUNKS - 1 { args_flag::TRUNCATED } else { args_flag::MORE };
        copy_chunk(image, record.tail(), record.walk(), body, past);
        // SAFETY: the body is valid scratch memory. Read back, so that the verifier sees one way here.
        let len = unsafe { (&raw const (*body).args_len).read_volatile() };
        record.submit(member, RecordKind::ExecArgs, u64::from(len));
    }
    record.release();
}

/// Copies the next arguments and says so in the body; after a fault there is no next.
#[inline(never)]
fn copy_chunk(image: &Image, tail: *mut u8, walk: *mut Walk, body: *mut ArgsBody, past: u16) {
    let offset = path::used(walk);
    let len = image.copy_args(tail, offset, ARGS_CHUNK_BYTES as u64);
    let end = offset.wrapping_add(len);
    let args_flags = if len == 0 {
        args_flag::FAULT
    } else if end < image.args_len {
        past
    } else {
        0
    };
    fill!(body, offset: offset as u32, args_len: len as u32, args_flags: args_flags);
    path::set_used(walk, if len == 0 { u64::MAX } else { end });
}
