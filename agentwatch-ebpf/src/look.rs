//! Looking at a place: its path, for the record, and what the policy says of operations on it.
//!
//! What follows the first walk are global functions: the verifier looks at them once for each program, whatever its callers
//! know, and not anew from each place and state in which they are called. So they take a number alone, and find all else in the
//! buffer.

use agentwatch_common::record::PathDesc;

use crate::{
    judge::{Court, ONE_NAME, Ops},
    kernel::{Access, kernel_loops},
    path,
    place::Place,
    record::Record,
    rule_text::OfPolicy,
    session::zero,
};

/// The path of the process's namespace says too little: the record tells that within the file system too.
const ELSEWHERE: u32 = 1;
/// Somebody judges.
const JUDGED: u32 = 2;
/// The file has other names, and it is meant under those as well.
const OTHER_NAMES: u32 = 4;

/// All was done.
const DONE: u64 = 0;
/// It cannot be known what counts.
const NOT_DONE: u64 = 1;

/// Appends the path of a place, and notes what is decided about operations on it. For the second half of them the default does
/// not count.
#[inline(always)]
pub fn look<A: Access>(
    record: &Record,
    place: Place<A>,
    descs: [*mut PathDesc; 2],
    court: &Option<Court>,
    ops: [Ops; 2],
) {
    look_on(record, place, descs, court, ops, 0);
}

/// The same where the file is meant, and not its name alone: where it has other names, what rules refuse of those counts
/// as well.
#[inline(always)]
pub fn look_at_file<A: Access>(
    record: &Record,
    place: Place<A>,
    descs: [*mut PathDesc; 2],
    court: &Option<Court>,
    ops: [Ops; 2],
) {
    let names = if court.is_some() && place.has_other_names() { OTHER_NAMES } else { 0 };
    look_on(record, place, descs, court, ops, names);
}

/// Either of both.
#[inline(always)]
fn look_on<A: Access>(
    record: &Record,
    place: Place<A>,
    descs: [*mut PathDesc; 2],
    court: &Option<Court>,
    ops: [Ops; 2],
    names: u32,
) {
    let elsewhere = if path::append_whole(record, place, descs[0]) { ELSEWHERE } else { 0 };
    if elsewhere == 0 && court.is_none() {
        return;
    }
    let known = record.known();
    known.set_place(place.mnt, place.dentry);
    known.set_asked(ops);
    let mut flags = elsewhere | names;
    if let Some(court) = court {
        known.set_view(court);
        known.set_dev(place.dev());
        flags |= JUDGED;
    }
    known.set_sight(flags, record.offset_of(descs[1]), record.fixed());
    let outcome = agentwatch_look_on(record.slot());
    if let Some(court) = court
        && (outcome != DONE || agentwatch_decide_on(record.slot()) != DONE)
    {
        record.decide(&court.undecided());
    }
}

/// The rest of it, of what is kept in the buffer with this number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn agentwatch_look_on(slot: u32) -> u64 {
    let Some(record) = Record::looked_at(slot) else { return NOT_DONE };
    let place = record.known().place();
    let flags = record.known().sight_flags();
    if kernel_loops() && flags & JUDGED != 0 {
        return read(&record, place, flags & ELSEWHERE != 0);
    }
    if flags & ELSEWHERE != 0 {
        path::append_within(&record, place, record.within());
    }
    DONE
}

/// Decides by what was found. One after the other, and not one inside the other: the stack has little room.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn agentwatch_decide_on(slot: u32) -> u64 {
    let Some(record) = (if kernel_loops() { Record::untold_of(slot) } else { None }) else { return NOT_DONE };
    let known = record.known();
    let court = known.court();
    let [ops, explicit] = known.asked();
    record.decide(&court.on_sets(known.sets(), ops, explicit));
    if known.sight_flags() & OTHER_NAMES != 0 {
        record.decide(&court.on_other_names(known.place(), ops | explicit));
    }
    DONE
}

/// Reads the path of a place that was walked last, and where the initial namespace knows it by another, that too, which is
/// walked now. The states in which they end are kept in the buffer, 0 for a path that there is not, and the sets of patterns
/// that cover them.
#[inline(always)]
fn read(record: &Record, place: Place, elsewhere: bool) -> u64 {
    let known = record.known();
    known.set(0, zero());
    known.set_other(zero());
    let first = read_from(*record, AS_SEEN);
    if elsewhere {
        path::append_within(record, place, record.within());
    }
    if first == UNREAD {
        return NOT_DONE;
    }
    known.set(0, first as u32);
    known.set_sets([(first >> u32::BITS) as u32, ONE_NAME]);
    let Some(start) = known.court().other_start(known.dev(), place, elsewhere) else { return DONE };
    if !elsewhere {
        path::walk_within(record, place, record.within());
    }
    let second = read_from(*record, start);
    if second == UNREAD {
        return NOT_DONE;
    }
    known.set_other(second as u32);
    known.set_sets([(first >> u32::BITS) as u32, (second >> u32::BITS) as u32]);
    DONE
}

/// In the place of the state in which a path begins: that of what the process sees.
const AS_SEEN: u32 = u32::MAX;
/// The path is not whole, or too long.
const UNREAD: u64 = u64::MAX;

/// The state in which the path that was walked last ends if it begins in another one, and in the upper half what covers it.
#[inline(never)]
fn read_from(record: Record, start: u32) -> u64 {
    let known = record.known();
    let Some(automaton) = OfPolicy::of(known.court().slot()) else { return UNREAD };
    let elsewhere = known.sight_flags() & ELSEWHERE != 0;
    let start = if start == AS_SEEN { automaton.start_path(elsewhere) } else { start };
    match automaton.read_path(&record, start) {
        Some(state) => u64::from(automaton.set(state)) << u32::BITS | u64::from(state),
        None => UNREAD,
    }
}
