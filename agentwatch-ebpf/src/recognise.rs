//! Which session a process belongs to with its new program: the sessions that begin at exec.

use agentwatch_common::{
    kind::{Attribution, LossReason, RecordKind},
    limits::{MATCH_COMMAND_BYTES, NAME_BYTES, TAIL_BYTES},
    maps::{control, process_flag},
    record::{ExecBody, REFUSED_COMMAND, path_flag},
    rules::op,
};
use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{
            bpf_copy_from_user, bpf_probe_read_kernel_str, bpf_probe_read_user_str, bpf_send_signal,
        },
    },
    macros::lsm,
    programs::LsmContext,
};

use crate::{
    automaton::{GLANCE_BYTES, Matching, Text},
    bound,
    file::{Facts, begin},
    job,
    judge::{Court, Judgement, SIGKILL, bit},
    kernel::{Address, at_most, field, offset, pointer, repeat},
    known::KnownPlace,
    path,
    place::Place,
    process::{cgroup_entry, cgroup_id},
    record::{Record, count_loss, fill, part},
    session::{self, Beginning, Member, Task, control_word, current_task, process_start},
    user,
};

/// `fs/exec.c`, `begin_new_exec()`: `void bprm_committed_creds(struct linux_binprm *bprm)`, since 2.6.29;
/// `const` since 6.4.
///
/// The new memory is in place, with arguments and environment at the top of its stack, and there is no way back to
/// the old program. A thread that is not the leader has become it. This is a hook and not the tracepoint of
/// [`crate::exec`], since the kernel may skip tracing programs and never these. It may sleep (allowed here
/// since 5.11), so that arguments can always be read.
#[lsm(hook = "bprm_committed_creds", sleepable)]
pub fn process_recognise(ctx: LsmContext) -> i32 {
    let image = Incoming::read(ctx.arg(0));
    // Before it may become another session's: what a session starts it answers for.
    if is_refused(&image) {
        return 0;
    }
    attribute(&image);
    if control_word(control::ANY_JOBS) != 0 {
        job::on_program(image.task, image.args, image.len, image.count);
    }
    if let Some(member) = Member::current() {
        if member.flags & process_flag::EXECUTING != 0 {
            // The event of the exec before never came.
            count_loss(member.session, RecordKind::Exec, LossReason::Skipped);
        }
        member.set_flags(member.flags | process_flag::EXECUTING);
    }
    0
}

/// Whether the command line is refused, which is told then: the process ends before its first instruction, on some kernels before
/// the exec is through.
#[inline(never)]
fn is_refused(image: &Incoming) -> bool {
    let Some(member) = Member::current() else { return false };
    let mut found = Found { judgement: Judgement::NONE, end: 0 };
    let before = control_word(control::POLICY);
    judge_command(&member, image, &mut found);
    // It may have slept while another policy came into force, and a third was put where it read.
    if control_word(control::POLICY) != before {
        found = Found { judgement: Judgement::NONE, end: 0 };
        judge_command(&member, image, &mut found);
    }
    hold_command(&member, image, &mut found);
    note_command(&member, &found);
    if !found.judgement.refuses() {
        return false;
    }
    report_refusal(&member, image, &found);
    // SAFETY: a helper that takes a number.
    unsafe { bpf_send_signal(SIGKILL) };
    true
}

/// What was found out about a command line.
struct Found {
    judgement: Judgement,
    /// Bytes of the arguments that were read.
    end: u64,
}

/// Judges the command line. There is no way back to the old program: what is refused must end before its first
/// instruction.
#[inline(never)]
fn judge_command(member: &Member, image: &Incoming, found: &mut Found) {
    let Some(court) = Court::of(member, bit(op::RUN)) else { return };
    (found.judgement, found.end) = match Record::take::<ExecBody>(member, RecordKind::Exec) {
        Some(record) => {
            let found = command_judgement(&court, &record, image);
            record.release();
            found
        }
        None => (court.undecided(), 0),
    };
}

/// Judges it by what binds the session, where the policy refuses nothing.
#[inline(never)]
fn hold_command(member: &Member, image: &Incoming, found: &mut Found) {
    if found.judgement.refuses() || !bound::is_bound(member) {
        return;
    }
    let Some(record) = Record::take::<ExecBody>(member, RecordKind::Exec) else {
        found.judgement = bound::unseen(&None, member);
        return;
    };
    let len = copy_command(&record, image);
    // Only now, as copying may sleep: what is read from here on nobody fills meanwhile.
    let before = control_word(control::BOUND);
    bound::take_up(&record, member);
    match len {
        Some(len) => {
            // Behind both texts.
            path::set_used(record.walk(), (MATCH_COMMAND_BYTES * 2).into());
            let end = bound::on_command(&record, image.place(), len, image.count);
            found.end = if found.end == 0 { end } else { found.end };
        }
        None => bound::refuse_unknown(&record),
    }
    if control_word(control::BOUND) != before {
        bound::refuse_unknown(&record);
    }
    found.judgement = found.judgement.or_stricter(record.decided());
    record.release();
}

/// Keeps what was decided for the event of the exec; a refusal has an event of its own.
#[inline(always)]
fn note_command(member: &Member, found: &Found) {
    let noted = if found.judgement.refuses() {
        Judgement::NONE
    } else {
        member.exec_judgement().or_stricter(found.judgement)
    };
    member.note_exec(&noted);
}

/// Tells of a command line that was refused, with the arguments that were read.
#[inline(never)]
fn report_refusal(member: &Member, image: &Incoming, found: &Found) {
    let place = image.place();
    let facts = Facts { flags: REFUSED_COMMAND, ..Facts::NONE };
    let Some((record, body)) = begin(member, RecordKind::ExecRefused, place, facts) else { return };
    path::append(&record, place, part!(body, path), part!(body, path_fs));
    let at = path::used(record.walk());
    if at <= TAIL_BYTES as u64 - COMMAND_ROOM {
        // See `command_judgement`.
        let bytes = core::hint::black_box(found.end as u32) & (MATCH_COMMAND_BYTES * 2 - 1);
        // SAFETY: COMMAND_ROOM fits behind `at`, just checked, and is more than the mask lets through.
        let copied = unsafe {
            bpf_copy_from_user(record.tail().add(at as usize).cast(), bytes, image.args as *const _)
        };
        if copied == 0 {
            let desc = part!(body, path_to);
            fill!(desc, len: bytes, flags: path_flag::VERBATIM);
            path::set_used(record.walk(), at + u64::from(bytes));
        }
    }
    record.judged(&found.judgement);
    record.submit(member, RecordKind::ExecRefused, path::used(record.walk()));
    record.release();
}

/// Room in the tail for the part of a command line that is told.
const COMMAND_ROOM: u64 = MATCH_COMMAND_BYTES as u64 * 2;

/// The judgement on a command line, with a buffer.
#[inline(always)]
fn command_judgement(court: &Court, record: &Record, image: &Incoming) -> (Judgement, u64) {
    match copy_command(record, image) {
        Some(len) => court.on_command(record, len, image.count),
        None => (court.undecided(), 0),
    }
}

/// Puts the arguments and the program's name where they are judged: see [`crate::rule_text::Automaton::read_command`]. Gives
/// how many bytes the arguments have, or nothing where they cannot be read.
#[inline(always)]
fn copy_command(record: &Record, image: &Incoming) -> Option<u64> {
    let len = at_most(image.len, u64::from(MATCH_COMMAND_BYTES));
    // Once more, and as a mask: of the copy that the helper gets the verifier has seen no bound.
    let bytes = core::hint::black_box(len as u32) & (MATCH_COMMAND_BYTES * 2 - 1);
    let name = pointer(image.place().dentry, offset!(dentry_d_name) + offset!(qstr_name));
    // SAFETY: the tail has room for both texts, one behind the other.
    let (arguments, named) = unsafe {
        let behind = record.tail().add(MATCH_COMMAND_BYTES as usize);
        (
            bpf_copy_from_user(record.tail().cast(), bytes, image.args as *const _),
            bpf_probe_read_kernel_str(behind.cast(), NAME_BYTES as u32, name.cast()),
        )
    };
    if arguments != 0 || named <= 0 { None } else { Some(len) }
}

/// Finds out to which session the process belongs with its new program.
#[inline(never)]
fn attribute(image: &Incoming) {
    let matched = image.matching();
    let Some(member) = Member::current() else {
        attribute_outsider(image, matched, 0);
        return;
    };
    if member.is_caused() {
        // An agent is one also where a session wrote its program: in the other's session nobody would judge it.
        attribute_outsider(image, matched, member.session);
        return;
    }
    if stays(&member, image, matched) {
        let kept = member.flags & process_flag::LOW & !process_flag::LAUNCHING;
        member.set_flags(kept | matched << process_flag::MATCHED_SHIFT);
    } else {
        start(
            image,
            &Beginning {
                outer: member.agent,
                parent: member.session,
                matched,
                attribution: Attribution::MatchedExec,
                told_by_exec: BEGUN,
            },
        );
    }
}

/// The same of a process outside every session, or in the session `parent` that nobody judges.
#[inline(always)]
fn attribute_outsider(image: &Incoming, matched: u32, parent: u64) {
    if matched == 0 {
        join_quietly(image, parent);
        return;
    }
    let attribution = Attribution::MatchedExec;
    start(image, &Beginning { outer: 0, parent, matched, attribution, told_by_exec: BEGUN });
}

/// Whether a session's process stays what it is with a program that matches `matched` (index plus one, or 0);
/// else it becomes a session of its own, inside the other.
///
/// It stays where it is the first of its session (a wrapper, an interpreter starts its own program anew), where
/// an agent's program starts that same agent's program straight away (a launcher its native part), and where
/// the session's own agent's program goes by another name (some carry their tools in one file).
#[inline(always)]
fn stays(member: &Member, image: &Incoming, matched: u32) -> bool {
    matched == 0
        || member.flags & (process_flag::LAUNCHING | process_flag::ROOT) != 0
        || member.flags >> process_flag::MATCHED_SHIFT == matched
        || (session::agent_number(matched.wrapping_sub(1)) == session::own_agent(member)
            && !image.named_as_itself(matched))
}

/// Begins a session with the process that runs now.
#[inline(always)]
fn start(image: &Incoming, beginning: &Beginning) {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    session::begin(pid, process_start(image.task), beginning);
}

/// An outsider whose cgroup or user belongs to an agent (it was there before the daemon knew).
#[inline(always)]
fn join_quietly(image: &Incoming, parent: u64) {
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
            &Beginning {
                outer: 0,
                parent,
                matched,
                attribution: Attribution::MatchedUser,
                told_by_exec: BEGUN,
            },
        );
    }
}

const BEGUN: u32 = process_flag::BEGUN;

/// A program that is being put in place.
struct Incoming {
    task: Task,
    /// `struct file` of the program that runs: for a script its interpreter.
    file: Address,
    /// First byte of the arguments, in user memory. The environment follows them.
    args: u64,
    /// Bytes from there that are arguments or environment.
    len: u64,
    /// How many arguments there are.
    count: u32,
}

impl Incoming {
    #[inline(always)]
    fn read(bprm: Task) -> Self {
        let task = current_task();
        // SAFETY: a typed argument, and typed chains from the current task (see `field!`).
        unsafe {
            let mm = field!(task, task_mm, Task);
            let args = field!(bprm, binprm_p, u64);
            Self {
                task,
                file: field!(mm, mm_exe_file, Address),
                args,
                // The name of the file lies above the environment.
                len: field!(bprm, binprm_exec, u64).wrapping_sub(args),
                count: field!(bprm, binprm_argc, u32),
            }
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
        program.read_name(&name);
        command.read_name(&name);
    }

    /// Matches the whole path and the command line, with a scratch buffer: index of the agent, plus one, or 0.
    #[inline(never)]
    fn full_match(&self, mut command: Matching) -> u32 {
        let nobody = Member::nobody(self.task);
        let Some(record) = Record::take::<ExecBody>(&nobody, RecordKind::Exec) else { return 0 };
        let len = at_most(self.len, u64::from(MATCH_COMMAND_BYTES));
        // SAFETY: the tail has room for MATCH_COMMAND_BYTES. The helper brings in what was swapped out, and gives
        // zeros where there is no memory.
        unsafe { bpf_copy_from_user(record.tail().cast(), len as u32, self.args as *const _) };
        command.read_arguments(record.tail(), len, self.count);
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
        unsafe { bpf_probe_read_user_str(tail.cast(), GLANCE_BYTES as u32, self.args as *const _) };
        let given = base_name(&record);
        record.release();
        given.hash == own.hash || given.accepted == matched
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
    repeat(GLANCE_BYTES as u32, base_name_byte, &mut Name { tail: record.tail(), known, start });
    let mut end = start.at(known.state());
    end.step(0);
    BaseName { hash: known.hash(), accepted: end.accepted() }
}

/// A name that is being read by [`base_name`].
struct Name {
    tail: *mut u8,
    known: KnownPlace,
    start: Matching,
}

#[inline(never)]
extern "C" fn base_name_byte(index: u32, name: &mut Name) -> i64 {
    // SAFETY: inside the tail.
    let byte = unsafe { name.tail.add(index as usize & (GLANCE_BYTES - 1)).read_volatile() };
    if byte == 0 {
        return 1;
    }
    if byte == b'/' {
        name.known.set(0, name.start.state());
    } else {
        let mut here = name.start.at(name.known.state());
        here.step(byte);
        let hash = name.known.hash().wrapping_mul(31).wrapping_add(u64::from(byte));
        name.known.set(hash, here.state());
    }
    0
}

impl Member {
    /// Stands for a process outside any session where a buffer is needed.
    #[inline(always)]
    fn nobody(task: Task) -> Self {
        Self { session: 0, start_ns: 0, pid: 0, tid: 0, agent: 0, flags: 0, task }
    }
}
