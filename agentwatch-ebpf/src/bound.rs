//! What binds a session beside the policy: see [`agentwatch_common::bound`].
//!
//! It is asked after the policy, and only where that refuses nothing. What it does not cover is refused, and what cannot
//! be looked at whole as well. While nothing is bound this is a look at one word of `CONTROL`. What follows else are
//! subprograms, each with a piece of the stack that the others do not need.

use agentwatch_common::{
    bound::{BINDING_UNKNOWN, Binding, BoundEntry, LINES_SHIFT},
    limits::MATCH_COMMAND_BYTES,
    maps::control,
    rules::{DeviceKey, RULE_BOUND, Verdict},
};
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;

use crate::{
    judge::{Court, Judgement, Ops},
    kernel::{Access, Address, at_most, kernel_loops},
    maps::{BINDINGS, BOUND, BOUND_DEVICES},
    path,
    place::Place,
    record::{ANY, Record},
    rule_text::OfBinding,
    session::{Member, control_word},
};

/// Whether anything is bound on this host.
#[inline(always)]
fn is_any() -> bool {
    kernel_loops() && control_word(control::BOUND) != 0
}

/// What holds a session, where anything does.
#[inline(always)]
fn entry_of(session: u64) -> Option<&'static BoundEntry> {
    // SAFETY: entries are only read here; one that is replaced meanwhile says what was so until now.
    let entry = unsafe { BOUND.get(session) }?;
    // SAFETY: a helper without arguments.
    if unsafe { bpf_ktime_get_boot_ns() } < entry.until_ns { Some(entry) } else { None }
}

/// Has a session that begins inside another held by what holds that one. False where there is no room: then none may begin.
#[inline(always)]
pub fn passes_on(outer: u64, inner: u64) -> bool {
    outer == 0 || !is_any() || passes_on_entry(outer, inner)
}

/// The same where anything is bound.
#[inline(never)]
fn passes_on_entry(outer: u64, inner: u64) -> bool {
    match entry_of(outer) {
        Some(entry) => BOUND.insert(inner, *entry, ANY).is_ok(),
        None => true,
    }
}

/// Whether anything binds the session of a process.
#[inline(always)]
pub fn is_bound(member: &Member) -> bool {
    is_any() && held_and_told(member.session, 0) != 0
}

/// Something holds the session.
const HELD: u32 = 1;
/// Something does, and what that refuses is only told.
const HELD_IN_WORDS: u32 = 2;

/// Whether something holds a session.
#[inline(never)]
fn held_and_told(session: u64, agent: u32) -> u32 {
    match entry_of(session) {
        None => 0,
        Some(_) if Court::only_tells(agent) => HELD_IN_WORDS,
        Some(_) => HELD,
    }
}

/// What is decided where no buffer was free: what cannot be looked at is refused where it is judged.
#[inline(always)]
pub fn unseen(court: &Option<Court>, member: &Member) -> Judgement {
    match court {
        Some(court) => court.undecided(),
        None if !is_any() => Judgement::NONE,
        None => match held_and_told(member.session, member.agent) {
            HELD => refusal(BINDING_UNKNOWN, false),
            HELD_IN_WORDS => refusal(BINDING_UNKNOWN, true),
            _ => Judgement::NONE,
        },
    }
}

/// A refusal by a binding of this number.
#[inline(always)]
fn refusal(number: u32, only_told: bool) -> Judgement {
    let verdict = if only_told { Verdict::WouldDeny } else { Verdict::Denied };
    Judgement { policy: number, rule: RULE_BOUND, verdict: verdict.raw() }
}

/// What holds the session of whom a record tells: kept with the record.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Held {
    /// Index in `BINDINGS` plus one; 0 where nothing does.
    pub place: u32,
    /// See [`BoundEntry::number`].
    pub number: u32,
    /// 1 where what it refuses is only told.
    pub only_told: u32,
}

impl Held {
    /// Nothing does.
    pub const NOTHING: Self = Self { place: 0, number: 0, only_told: 0 };

    /// What it is.
    #[inline(always)]
    fn binding(self) -> Option<*const Binding> {
        BINDINGS.get_ptr(self.place.wrapping_sub(1))
    }

    /// What it refuses where it is not covered.
    #[inline(always)]
    fn narrowed(self) -> u32 {
        match self.binding() {
            // SAFETY: a valid map value.
            Some(binding) => unsafe { (&raw const (*binding).narrowed).read_volatile() },
            // It cannot be, and then all is refused.
            None => u32::MAX,
        }
    }
}

/// Notes what holds the session of a process, for the judgements on what the record tells.
#[inline(always)]
pub fn take_up(record: &Record, member: &Member) {
    if is_any() {
        take_up_entry(*record, member.session, member.agent);
    }
}

/// The same where anything is bound.
#[inline(never)]
fn take_up_entry(record: Record, session: u64, agent: u32) {
    let Some(entry) = entry_of(session) else { return };
    let only_told = u32::from(Court::only_tells(agent));
    record.known().set_held(Held { place: entry.slot + 1, number: entry.number, only_told });
}

/// Has what holds the session say nothing of what the record tells, or refuse it since it is not known what it is.
#[inline(always)]
pub fn let_go(record: &Record, unknown: bool) {
    if unknown {
        refuse_unknown(record);
    }
    record.known().set_held(Held::NOTHING);
}

/// Refuses what is not known, where anything holds the session.
#[inline(always)]
pub fn refuse_unknown(record: &Record) {
    if is_asked(record) {
        refuse(*record);
    }
}

/// Whether anything is left to be asked: what the policy refuses stays refused by it. Where the kernel runs no loops nothing is
/// bound, and the verifier must see that.
#[inline(always)]
pub fn is_asked(record: &Record) -> bool {
    kernel_loops() && record.known().held().place != 0 && !record.decided().refuses()
}

/// Refuses what the record tells.
#[inline(never)]
fn refuse(record: Record) {
    let held = record.known().held();
    record.decide(&refusal(held.number, held.only_told != 0));
}

/// Judges operations on a place, where something holds the session.
#[inline(always)]
pub fn on_place<A: Access>(record: &Record, place: Place<A>, ops: Ops) {
    if is_asked(record) && uncovered(record, place, ops) != 0 {
        refuse(*record);
    }
}

/// What is refused at a place of these bits of [`Binding::narrowed`], where something holds the session.
#[inline(always)]
fn uncovered<A: Access>(record: &Record, place: Place<A>, asked: u32) -> u32 {
    record.known().set_place(place.mnt, place.dentry);
    agentwatch_uncovered(record.slot(), asked) as u32
}

/// The same of the place that is kept in the buffer with this number.
///
/// A global function: the verifier looks at it once for each program, whatever its callers know, and not anew from each
/// place and state in which it is called. So it takes numbers alone, and no addresses of which the verifier knows the type.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn agentwatch_uncovered(slot: u32, asked: u32) -> u64 {
    let Some(record) = (if kernel_loops() { Record::untold_of(slot) } else { None }) else {
        return asked.into();
    };
    let asked = record.known().held().narrowed() & asked;
    let left = if asked == 0 { 0 } else { asked & !covered(record, record.known().place()) };
    left.into()
}

/// What is covered at a place, as bits of [`Binding::narrowed`]: by its path as the process sees it, and where the initial
/// namespace knows it by another, by that as well.
#[inline(always)]
fn covered(record: Record, place: Place) -> u32 {
    let held = record.known().held();
    let Some(binding) = held.binding() else { return 0 };
    let elsewhere = path::walk_untold(&record, place) != 0;
    let seen = covered_by_path(record, OfBinding::of(binding).start_path(elsewhere));
    match other_start(record, place.mnt, place.dentry, elsewhere) {
        NO_OTHER => seen,
        start => {
            path::walk_within(&record, place, record.known().desc());
            seen & covered_by_path(record, start as u32)
        }
    }
}

/// There is no other path.
const NO_OTHER: u64 = u64::MAX;

/// Where the path begins by which the initial namespace knows a place, where that is not the one that the process sees.
#[inline(never)]
fn other_start(record: Record, mnt: Address, dentry: Address, elsewhere: bool) -> u64 {
    let place = Place::new(mnt, dentry);
    let key = DeviceKey { dev: place.dev(), slot: record.known().held().place.wrapping_sub(1) };
    // SAFETY: entries are only read here; one that is taken out meanwhile belongs to another binding.
    match unsafe { BOUND_DEVICES.get(key) } {
        Some(device) if elsewhere || device.mount == 0 || device.mount != place.mount_id() => {
            device.start.into()
        }
        _ => NO_OTHER,
    }
}

/// What the path covers that was walked last and begins in this state; nothing where it is too long, or not whole.
#[inline(never)]
fn covered_by_path(record: Record, start: u32) -> u32 {
    let Some(binding) = record.known().held().binding() else { return 0 };
    let automaton = OfBinding::of(binding);
    match automaton.read_path(&record, start) {
        Some(state) => automaton.set(state),
        None => 0,
    }
}

/// Judges operations on a socket without a path, where something holds the session: `len` bytes of text at the beginning of
/// the tail of an untold record; 0 for what no text tells, which nothing covers.
#[inline(never)]
pub fn judge_text(record: Record, len: u32, ops: Ops) {
    let held = record.known().held();
    let covered = held.binding().map_or(0, |binding| OfBinding::of(binding).read_socket(&record, len));
    let asked = held.narrowed() & ops;
    if asked & !covered != 0 {
        refuse(record);
    }
}

/// Judges a command line, of which [`OfBinding::read_command`] tells the form, of the program at `place`: it may lie in the
/// tail up to what is used. A program that its path covers needs no command line that is covered. Gives how many bytes the
/// arguments have; 0 where they were not read.
#[inline(always)]
pub fn on_command(record: &Record, place: Place, len: u64, count: u32) -> u64 {
    if !is_asked(record) {
        return 0;
    }
    let left = uncovered(record, place, u32::MAX << LINES_SHIFT);
    if left == 0 {
        return 0;
    }
    let read = covered_by_command(*record, len, count);
    if left & !(read as u32) != 0 {
        refuse(*record);
    }
    read >> u32::BITS
}

/// What a command line covers, and in the upper half how many bytes its arguments have.
#[inline(never)]
fn covered_by_command(record: Record, len: u64, count: u32) -> u64 {
    let Some(binding) = record.known().held().binding() else { return 0 };
    let len = at_most(len, u64::from(MATCH_COMMAND_BYTES));
    let (accepted, end) = OfBinding::of(binding).read_command(&record, len, count);
    end << u32::BITS | u64::from(accepted)
}
