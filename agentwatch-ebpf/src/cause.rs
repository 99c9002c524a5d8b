//! What sessions leave behind, and who uses it: a script that cron runs an hour later, a hook of git, a library.
//!
//! What a session opens for writing is remembered by its inode. Who is outside every session and starts such a file, maps
//! it as code or interprets it is a session of its own from there on, which is told of and never judged. Nothing is decided
//! by what is remembered here.

use agentwatch_common::{
    kind::{CauseBy, LossReason, RecordKind},
    limits::NAME_BYTES,
    maps::{SESSION_OF_SELF_TEST, WrittenEntry, control, source},
    record::CauseBody,
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_probe_read_kernel_str};

use crate::{
    file::FMODE_EXEC,
    kernel::{Access, Address, field, kernel_loops, offset, pointer, repeat},
    known::KnownPlace,
    maps::{CONTROL, SESSIONS, SOURCES, WRITTEN},
    path,
    place::Place,
    record::{ANY, Record, count_loss, fill, part},
    session::{self, Member, Task, control_word, current_task, process_start},
};

/// Remembers that a session writes a file. Where there is no room that is counted, and nothing else changes.
#[inline(always)]
pub fn note_written<A: Access>(member: &Member, place: Place<A>) {
    if member.session == SESSION_OF_SELF_TEST || !place.keeps_programs() {
        return;
    }
    let (key, generation) = (place.key(), place.generation());
    let entry = WrittenEntry { session: member.session, generation, pad: 0 };
    // SAFETY: a copy of plain data.
    if let Some(known) = unsafe { WRITTEN.get(key) }
        && known.session == entry.session
        && known.generation == entry.generation
    {
        return;
    }
    if WRITTEN.insert(key, entry, ANY).is_err() {
        count_loss(member.session, RecordKind::Cause, LossReason::WrittenTableFull);
    } else if control_word(control::ANY_WRITTEN) == 0
        && let Some(word) = CONTROL.get_ptr_mut(control::ANY_WRITTEN)
    {
        // SAFETY: a valid, aligned map value, to which nobody writes anything else.
        unsafe { word.write_volatile(1) };
    }
}

/// Who is outside starts a program: once for the file that was named, and once more for each interpreter that it leads
/// to, so that a script's own process is found here. Where the kernel then finds that it is no program, whoever asked
/// interprets it.
#[inline(never)]
pub fn on_start(bprm: Task) {
    if control_word(control::ANY_WRITTEN) != 0 {
        // SAFETY: a typed argument (see `field!`).
        let file = unsafe { field!(bprm, binprm_file, Task) };
        look(Place::of_file(file), CauseBy::Exec);
    }
}

/// Who is outside maps code.
#[inline(never)]
pub fn on_map(file: Address) {
    if control_word(control::ANY_WRITTEN) != 0 {
        look(Place::read(file.wrapping_add(offset!(file_f_path))), CauseBy::Load);
    }
}

/// Who is outside opens a file: what an interpreter opens to read it, it may run. What sessions open to write is remembered
/// by [`note_written`].
#[inline(never)]
pub fn on_open(file: Task) {
    const O_ACCMODE: u32 = 3;
    if control_word(control::ANY_WRITTEN) == 0 {
        return;
    }
    // SAFETY: a typed argument (see `field!`).
    let flags = unsafe { field!(file, file_f_flags, u32) };
    if flags & (FMODE_EXEC | O_ACCMODE) == 0 {
        look(Place::of_file(file), CauseBy::Read);
    }
}

/// Looks whether a session left a file behind that is used now. This is all that most pay for.
#[inline(always)]
fn look<A: Access>(place: Place<A>, by: CauseBy) {
    // SAFETY: a copy of plain data.
    let Some(written) = unsafe { WRITTEN.get(place.key()) }.copied() else { return };
    if written.generation == place.generation() {
        let place = Place::new(place.mnt, place.dentry);
        use_of(place, &written, by);
    }
}

/// A process outside uses what a session left behind.
#[inline(never)]
fn use_of(place: Place, written: &WrittenEntry, by: CauseBy) {
    if by.raw() == CauseBy::Read.raw() && !interprets(current_task(), place) {
        return;
    }
    let (writer, generation) = (written.session, written.generation);
    begin(place, &Use { by, writer, ino: place.ino(), generation, asker: 0, others: 0 });
}

/// How a process outside comes to act for a session: what is told of it, as in [`CauseBody`].
pub struct Use {
    /// How.
    pub by: CauseBy,
    /// The session.
    pub writer: u64,
    /// The file, or the key of the job.
    pub ino: u64,
    /// Its generation.
    pub generation: u32,
    /// Who asked.
    pub asker: u32,
    /// Whether it may have been others.
    pub others: u8,
}

/// Makes the process that runs a session of its own. Process 1 makes all others, and is never anybody's.
#[inline(always)]
pub fn begin(place: Place, used: &Use) {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if pid <= 1 {
        return;
    }
    if session::is_full_for_caused() {
        count_loss(used.writer, RecordKind::Cause, LossReason::ProcessTableFull);
        return;
    }
    // SAFETY: a copy of plain data.
    let agent = unsafe { SESSIONS.get(used.writer) }.map_or(0, |session| session.agent);
    let begun = session::begin_caused(pid, process_start(current_task()), used.writer, agent);
    if let Some(member) = begun {
        tell(&member, place, used, agent);
    }
}

/// Tells the daemon how it came to that.
#[inline(always)]
fn tell(member: &Member, place: Place, used: &Use, agent: u32) {
    let Some(record) = Record::take::<CauseBody>(member, RecordKind::Cause) else { return };
    let body = record.body::<CauseBody>();
    fill!(
        body,
        ino: used.ino,
        writer: used.writer,
        generation: used.generation,
        agent: agent,
        by: used.by.raw(),
        others: used.others,
        asker: used.asker,
    );
    path::append(&record, place, part!(body, path), part!(body, path_fs));
    record.submit(member, RecordKind::Cause, path::used(record.walk()));
    record.release();
}

/// Whether a process is an interpreter of such files, by the name of its program and the end of the file's.
#[inline(never)]
fn interprets(task: Task, place: Place) -> bool {
    // Names are read in loops that the kernel runs.
    if !kernel_loops() {
        return false;
    }
    let Some(record) = Record::take::<CauseBody>(&nobody(task), RecordKind::Cause) else { return false };
    let program = kind_of_name(&record, Place::of_program(task), source::PROGRAM);
    let ending = kind_of_name(&record, place, source::ENDING);
    let whole = kind_of_name(&record, place, source::NAME);
    record.release();
    program == source::SHELL && ending != source::DATA && whole != source::DATA
        || program == source::INTERPRETER && ending == source::TEXT
}

/// A thread of no session, for whom a buffer is taken.
#[inline(always)]
pub const fn nobody(task: Task) -> Member {
    Member { session: 0, start_ns: 0, pid: 0, tid: 0, agent: 0, flags: 0, task }
}

/// What the name of a process's program stands for: one of [`source`], or 0.
#[inline(never)]
pub fn kind_of_program(task: Task) -> u32 {
    // Names are read in loops that the kernel runs.
    if !kernel_loops() {
        return 0;
    }
    let Some(record) = Record::take::<CauseBody>(&nobody(task), RecordKind::Cause) else { return 0 };
    let kind = kind_of_name(&record, Place::of_program(task), source::PROGRAM);
    record.release();
    kind
}

/// What a program's name, the end of a file's or all of it stands for: one of [`source`], or 0. `begin` says which.
#[inline(never)]
fn kind_of_name(record: &Record, place: Place, begin: u64) -> u32 {
    let text = pointer(place.dentry, offset!(dentry_d_name) + offset!(qstr_name));
    let (tail, known) = (record.tail(), record.known());
    // SAFETY: the tail has room for a name.
    unsafe { bpf_probe_read_kernel_str(tail.cast(), NAME_BYTES as u32, text.cast()) };
    let mut name = Name { tail, known };
    known.set_hash(begin);
    match begin {
        source::PROGRAM => repeat(NAME_BYTES as u32, program_byte, &mut name),
        source::ENDING => repeat(NAME_BYTES as u32, ending_byte, &mut name),
        _ => repeat(NAME_BYTES as u32, whole_byte, &mut name),
    }
    // SAFETY: a copy of plain data.
    unsafe { SOURCES.get(known.hash()) }.copied().unwrap_or(0)
}

/// A name that is being read. The key so far lies in the buffer, where the verifier does not follow it.
struct Name {
    tail: *mut u8,
    known: KnownPlace,
}

impl Name {
    #[inline(always)]
    fn byte(&self, index: u32) -> u8 {
        // SAFETY: inside the tail.
        unsafe { self.tail.add(index as usize & (NAME_BYTES - 1)).read_volatile() }
    }

    #[inline(always)]
    fn take(&self, byte: u8) {
        self.known.set_hash(source::with(self.known.hash(), byte));
    }
}

#[inline(never)]
extern "C" fn program_byte(index: u32, name: &mut Name) -> i64 {
    let byte = name.byte(index);
    if source::ends_program(byte) {
        return 1;
    }
    name.take(byte);
    0
}

#[inline(never)]
extern "C" fn whole_byte(index: u32, name: &mut Name) -> i64 {
    let byte = name.byte(index);
    if byte != 0 {
        name.take(byte);
    }
    i64::from(byte == 0)
}

#[inline(never)]
extern "C" fn ending_byte(index: u32, name: &mut Name) -> i64 {
    let byte = name.byte(index);
    if byte == 0 {
        return 1;
    }
    if byte == b'.' {
        name.known.set_hash(source::ENDING);
    } else {
        name.take(byte);
    }
    0
}
