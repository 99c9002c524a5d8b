//! Jobs: lines that sessions wrote into tables of cron, and units of systemd. Others run these later, and read a file for it
//! that is no program.
//!
//! What the daemon finds in such files it puts into `JOBS`. A line is known by its command, which cron has a shell run; a unit
//! by the cgroup of its name, into which systemd puts what it starts. Who is outside and begins such a program is a session of
//! its own from there on, as with a file that was left behind ([`crate::cause`]). Nothing is decided by it.

use agentwatch_common::{
    kind::{CauseBy, RecordKind},
    limits::{MATCH_COMMAND_BYTES, NAME_BYTES},
    maps::{control, job, source},
    record::CauseBody,
};
use aya_ebpf::helpers::generated::{bpf_copy_from_user, bpf_probe_read_kernel_str};

use crate::{
    cause::{self, Use, kind_of_program, nobody},
    kernel::{Address, at_most, field, kernel_loops, offset, pointer, repeat},
    known::KnownPlace,
    maps::JOBS,
    place::Place,
    record::Record,
    session::{Member, Task, control_word, current_task},
};

/// A process outside every session starts a program, perhaps as a part of a unit.
#[inline(never)]
pub fn on_start() {
    // Names are read in loops that the kernel runs.
    if control_word(control::ANY_JOBS) == 0 || !kernel_loops() || Member::current().is_some() {
        return;
    }
    let task = current_task();
    let Some(record) = Record::take::<CauseBody>(&nobody(task), RecordKind::Cause) else { return };
    let key = unit_of(&record, task);
    record.release();
    begin(task, key);
}

/// A process has a new program, with `count` arguments at `args` in user memory, which have `len` bytes with the environment
/// behind them. It may be a line that cron runs, outside every session.
#[inline(never)]
pub fn on_program(task: Task, args: u64, len: u64, count: u32) {
    if count != job::ARGUMENTS || !kernel_loops() || Member::current().is_some() {
        return;
    }
    // SAFETY: a typed chain from the current task (see `field!`).
    let parent = unsafe { field!(task, task_real_parent, Task) };
    if kind_of_program(parent) != source::CRON {
        return;
    }
    let Some(record) = Record::take::<CauseBody>(&nobody(task), RecordKind::Cause) else { return };
    let key = line_at(&record, args, len);
    record.release();
    begin(task, key);
}

/// Makes the process a session of its own where a session wrote its job.
#[inline(always)]
fn begin(task: Task, key: u64) {
    // SAFETY: a copy of plain data.
    if let Some(writer) = unsafe { JOBS.get(key) }.copied() {
        let used = Use { by: CauseBy::Job, writer, ino: key, generation: 0, asker: 0, others: 0 };
        cause::begin(Place::of_program(task), &used);
    }
}

/// The key of the unit that the process is in, by the name of its cgroup.
#[inline(never)]
fn unit_of(record: &Record, task: Task) -> u64 {
    // SAFETY: typed chains from the current task (see `field!`).
    let node = unsafe {
        let set = field!(task, task_cgroups, Task);
        let cgroup = field!(set, css_set_dfl_cgrp, Task);
        field!(cgroup, cgroup_kn, Address)
    };
    let (name, tail, known) = (pointer(node, offset!(kernfs_node_name)), record.tail(), record.known());
    // SAFETY: the tail has room for a name.
    unsafe { bpf_probe_read_kernel_str(tail.cast(), NAME_BYTES as u32, name.cast()) };
    known.set(job::UNIT, 0);
    repeat(NAME_BYTES as u32, unit_byte, &mut Text { tail, known });
    known.hash()
}

/// The key of the line that a shell is given as its third argument. One that is longer than what is looked at has none.
#[inline(never)]
fn line_at(record: &Record, args: u64, len: u64) -> u64 {
    let (tail, known) = (record.tail(), record.known());
    let len = at_most(len, u64::from(MATCH_COMMAND_BYTES));
    // SAFETY: the tail has room for MATCH_COMMAND_BYTES. Where it cannot be read all is zeros, and no line is empty.
    unsafe { bpf_copy_from_user(tail.cast(), len as u32, args as *const _) };
    known.set(job::LINE, 0);
    repeat(MATCH_COMMAND_BYTES, line_byte, &mut Text { tail, known });
    if known.state() == job::ARGUMENTS { known.hash() } else { 0 }
}

/// A text that is being read. The key and the arguments so far lie in the buffer, where the verifier does not follow them.
struct Text {
    tail: *mut u8,
    known: KnownPlace,
}

impl Text {
    #[inline(always)]
    fn byte(&self, index: u32) -> u8 {
        // SAFETY: inside the tail.
        unsafe { self.tail.add(index as usize & (MATCH_COMMAND_BYTES as usize - 1)).read_volatile() }
    }

    #[inline(always)]
    fn take(&self, byte: u8) {
        self.known.set_hash(source::with(self.known.hash(), byte));
    }
}

#[inline(never)]
extern "C" fn unit_byte(index: u32, text: &mut Text) -> i64 {
    let byte = text.byte(index);
    if byte == 0 {
        return 1;
    }
    text.take(byte);
    i64::from(byte == job::OF_TEMPLATE)
}

#[inline(never)]
extern "C" fn line_byte(index: u32, text: &mut Text) -> i64 {
    let byte = text.byte(index);
    if byte != 0 {
        text.take(byte);
        return 0;
    }
    let ended = text.known.state() + 1;
    if ended == job::ARGUMENTS {
        text.known.set(text.known.hash(), ended);
        return 1;
    }
    text.known.set(job::LINE, ended);
    0
}
