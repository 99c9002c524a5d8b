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
    automaton::{Matching, Text},
    kernel::{Address, at_most, field, offset, pointer},
    maps::{PROCESSES, SESSIONS},
    path::{self, Place, Walk},
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
    attribute(&image);
    if let Some(member) = Member::current() {
        report(&member, &image);
    }
    0
}

/// Finds out to which session the process belongs with its new program.
#[inline(always)]
fn attribute(image: &Image) {
    let Some(member) = Member::current() else {
        return match image.agent() {
            Some(beginning) => start(image, &beginning),
            None => join_quietly(image),
        };
    };
    if member.flags & process_flag::LAUNCHING != 0 {
        clear_flags(&member, process_flag::LAUNCHING);
    } else if let Some(beginning) = image.sub_agent(&member) {
        start(image, &beginning);
    }
}

/// Takes flags from the process's entry.
#[inline(always)]
fn clear_flags(member: &Member, flags: u32) {
    if let Some(entry) = PROCESSES.get_ptr_mut(member.pid) {
        // SAFETY: a valid map value of this very process.
        unsafe { (&raw mut (*entry).flags).write(member.flags & !flags) };
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
        let mut program = Matching::begin(Text::Program)?;
        let mut command = Matching::begin(Text::Command)?;
        self.glance(&mut program, &mut command);
        if program.is_dead() && command.is_dead() {
            return None;
        }
        self.full_match(command).checked_sub(1)
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

    /// True where the first argument's base name is the program's own: it was started as itself.
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
        base_name_hash(&given) == base_name_hash(&own)
    }

    /// Copies up to `most` bytes of arguments from `offset`; gives how many, or 0 on a fault.
    #[inline(always)]
    fn copy_args(&self, to: *mut u8, offset: u64, most: u64) -> u64 {
        let len = at_most(self.args_len.wrapping_sub(offset), most);
        // SAFETY: the caller's buffer has room for `most`, which is at most ARGS_CHUNK_BYTES.
        let status = unsafe {
            bpf_probe_read_user(to.cast(), len as u32, self.args.wrapping_add(offset) as *const _)
        };
        if status == 0 { len } else { 0 }
    }
}

/// Hashes what stands behind the last slash. By masks and not by branches: with those the verifier's work would
/// grow with the square of the length. That two names might share a hash makes a sub-agent of a tool, no more.
#[inline(always)]
fn base_name_hash(text: &[u8; GLANCE_BYTES]) -> u32 {
    /// All ones where the byte is zero.
    const fn zero_mask(byte: u8) -> u32 {
        ((byte as u32).wrapping_sub(1) as i32 >> 31) as u32
    }
    let mut hash = 0u32;
    let mut live = u32::MAX;
    for byte in text {
        live &= !zero_mask(*byte);
        let longer = hash.wrapping_mul(31).wrapping_add(u32::from(*byte)) & !zero_mask(*byte ^ b'/');
        hash = (hash & !live) | (longer & live);
    }
    hash
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
        clear_flags(member, process_flag::BEGUN);
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
