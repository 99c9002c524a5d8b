//! Building a record and putting it into the ring; counting what could not be.

use agentwatch_common::{
    ABI,
    kind::{LossReason, RecordKind},
    limits::{NAME_BYTES, RING_WAKE_BYTES, SCRATCH_PER_CPU, SCRATCH_TRIES, TAIL_BYTES},
    maps::{LossKey, control, wake},
    record::{PathDesc, RecordHeader},
};
use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{
        bpf_get_smp_processor_id,
        generated::{bpf_ktime_get_boot_ns, bpf_ringbuf_output},
    },
};

use crate::{
    atomic,
    bound::Held,
    judge::{Judgement, Ops},
    kernel::{at_most, constant},
    known::{Known, KnownPlace},
    maps::{CONTROL, EVENTS, LOSSES, SCRATCH, SCRATCH_SLOTS},
    mounted::Search,
    path::{self, Walk},
    session::Member,
};

/// Room for the header and the largest fixed part: a power of two.
pub const FIXED_BYTES: usize = 256;
/// Bytes of a scratch record. The last name may start at the very end of the tail.
pub const RECORD_BYTES: usize = FIXED_BYTES + TAIL_BYTES + NAME_BYTES;

/// A buffer in which one program builds one record.
///
/// Programs can be preempted, and others then run on the same CPU, so a buffer a CPU is not enough:
/// whoever uses one marks it.
#[repr(C)]
pub struct Scratch {
    busy: u64,
    walk: Walk,
    known: Known,
    search: Search,
    record: [u8; RECORD_BYTES],
}

/// A scratch buffer in use, with the place of the tail's end. Given by value, which takes registers and no stack.
#[derive(Clone, Copy)]
pub struct Record {
    scratch: *mut Scratch,
    /// Bytes of header and fixed part.
    fixed: usize,
}

impl Record {
    /// Takes a free buffer for a record with a fixed part of `B`; counts a loss where there is none.
    #[inline(always)]
    pub fn take<B>(member: &Member, kind: RecordKind) -> Option<Self> {
        let Some(scratch) = free_scratch() else {
            count_loss(member.session, kind, LossReason::ScratchBusy);
            return None;
        };
        let record = Self { scratch, fixed: size_of::<RecordHeader>() + size_of::<B>() };
        path::set_used(record.walk(), 0);
        record.judged(&Judgement::NONE);
        record.known().set_held(Held::NOTHING);
        Some(record)
    }

    /// Notes what was decided about what the record tells.
    #[inline(always)]
    pub fn judged(&self, judgement: &Judgement) {
        let header = self.start().cast::<RecordHeader>();
        // SAFETY: the record starts with room for a header, aligned to 8.
        unsafe {
            (&raw mut (*header).policy).write(judgement.policy);
            (&raw mut (*header).rule).write(judgement.rule);
            (&raw mut (*header).verdict).write(judgement.verdict);
            (&raw mut (*header).pad).write(0);
        }
    }

    /// Notes what was decided, unless something stricter is noted already: as [`Judgement::or_stricter`].
    ///
    /// Decisions meet in memory: by whichever way one was come to, it looks alike to the verifier from here on, which
    /// would else follow all that comes behind anew for each.
    #[inline(always)]
    pub fn decide(&self, judgement: &Judgement) {
        let before = self.decided();
        if judgement.verdict > before.verdict || before.policy == 0 {
            self.judged(judgement);
        }
    }

    /// What was noted last.
    #[inline(always)]
    pub fn decided(&self) -> Judgement {
        let header = self.start().cast::<RecordHeader>();
        // SAFETY: as above.
        unsafe {
            Judgement {
                policy: (&raw const (*header).policy).read_volatile(),
                rule: (&raw const (*header).rule).read_volatile(),
                verdict: (&raw const (*header).verdict).read_volatile(),
            }
        }
    }

    /// Gives back what is asked about as it is in memory: see [`Self::decide`].
    #[inline(always)]
    pub fn asked(&self, ops: [Ops; 2]) -> [Ops; 2] {
        self.known().set_asked(ops);
        self.known().asked()
    }

    /// The same buffer for texts that are looked at and not told: they begin behind the largest fixed part, wherever the
    /// record's own tail does. Whoever takes only such buffers has a place less to keep on the stack.
    #[inline(always)]
    pub fn untold(&self) -> Self {
        Self { scratch: self.scratch, fixed: FIXED_BYTES }
    }

    /// Number of the buffer: for a function that takes numbers alone.
    #[inline(always)]
    pub fn slot(&self) -> u32 {
        self.known().slot()
    }

    /// Bytes of header and fixed part.
    #[inline(always)]
    pub fn fixed(&self) -> u32 {
        self.fixed as u32
    }

    /// How far behind the record's beginning something of its fixed part lies.
    #[inline(always)]
    pub fn offset_of<T>(&self, part: *mut T) -> u32 {
        (part as usize).wrapping_sub(self.start() as usize) as u32
    }

    /// The buffer in use with this number, as by [`Self::untold`]; nothing where there is no such buffer.
    #[inline(always)]
    pub fn untold_of(slot: u32) -> Option<Self> {
        Some(Self { scratch: SCRATCH.get_ptr_mut(slot)?, fixed: FIXED_BYTES })
    }

    /// The buffer in use with this number, by what [`crate::known::KnownPlace::set_sight`] says of its record; nothing
    /// where there is no such buffer.
    #[inline(always)]
    pub fn looked_at(slot: u32) -> Option<Self> {
        let scratch = SCRATCH.get_ptr_mut(slot)?;
        let this = Self { scratch, fixed: 0 };
        Some(Self { scratch, fixed: at_most(this.known().sight_fixed().into(), FIXED_BYTES as u64) as usize })
    }

    /// What describes the path within the file system, by the same.
    #[inline(always)]
    pub fn within(&self) -> *mut PathDesc {
        let offset = self.known().sight_desc() as usize & (FIXED_BYTES - 1);
        // SAFETY: inside the record, masked to its fixed part, behind which there is the tail.
        unsafe { self.start().add(offset) }.cast()
    }

    /// First byte of the record.
    #[inline(always)]
    fn start(&self) -> *mut u8 {
        // SAFETY: the field of a map value that is valid for the whole run of the program.
        unsafe { (&raw mut (*self.scratch).record).cast() }
    }

    /// Some words of the buffer.
    #[inline(always)]
    pub fn known(&self) -> KnownPlace {
        // SAFETY: as above.
        KnownPlace::of(unsafe { &raw mut (*self.scratch).known })
    }

    /// Where the search for a mount stands.
    #[inline(always)]
    pub fn search(&self) -> *mut Search {
        // SAFETY: the field of a map value that is valid for the whole run of the program.
        unsafe { &raw mut (*self.scratch).search }
    }

    /// Where the walk that appends to the tail stands.
    #[inline(always)]
    pub fn walk(&self) -> *mut Walk {
        // SAFETY: as above.
        unsafe { &raw mut (*self.scratch).walk }
    }

    /// First byte of the tail. [`TAIL_BYTES`] and one name more may be written there.
    #[inline(always)]
    pub fn tail(&self) -> *mut u8 {
        // SAFETY: header and fixed part have at most FIXED_BYTES, asserted in `body`.
        unsafe { self.start().add(self.fixed) }
    }

    /// The fixed part, all zero, to be filled in where it lies: the stack has no room for a copy.
    #[inline(always)]
    pub fn body<B: Copy>(&self) -> *mut B {
        const WORD: usize = size_of::<u64>();
        const { assert!(size_of::<RecordHeader>() + size_of::<B>() <= FIXED_BYTES) };
        const { assert!(size_of::<RecordHeader>().is_multiple_of(WORD) && size_of::<B>().is_multiple_of(WORD)) };
        // SAFETY: inside the record (see above), and aligned: header and scratch are multiples of 8.
        let body = unsafe { self.start().add(size_of::<RecordHeader>()) }.cast::<B>();
        // Word by word and each for itself: the compiler would call a function that writes byte by byte.
        for word in 0..size_of::<B>() / WORD {
            // SAFETY: as above; zeros are a value of every fixed part.
            unsafe { body.cast::<u64>().add(word).write_volatile(0) };
        }
        body
    }

    /// Puts the record with `tail` bytes of texts into the ring, or counts it as lost.
    #[inline(always)]
    pub fn submit(&self, member: &Member, kind: RecordKind, tail: u64) {
        let len = self.fixed as u64 + tail;
        let header = self.start().cast::<RecordHeader>();
        // SAFETY: the record starts with room for a header, aligned to 8. Field by field, to spare the stack.
        unsafe {
            (&raw mut (*header).len).write(len as u32);
            (&raw mut (*header).kind).write(kind.raw());
            (&raw mut (*header).abi).write(ABI);
            (&raw mut (*header).time_ns).write(bpf_ktime_get_boot_ns());
            (&raw mut (*header).session).write(member.session);
            (&raw mut (*header).start_ns).write(member.start_ns);
            (&raw mut (*header).pid).write(member.pid);
            (&raw mut (*header).tid).write(member.tid);
            (&raw mut (*header).ppid).write(member.ppid());
            (&raw mut (*header).uid).write(member.uid());
        }
        let wake = wake_flag();
        let len = at_most(len, (FIXED_BYTES + TAIL_BYTES) as u64);
        // SAFETY: `len` bytes of the record are initialised: header, fixed part and the tail that the
        // caller wrote. Scratch memory began as zeros and holds nothing but earlier records.
        let status = unsafe { bpf_ringbuf_output(EVENTS_PTR!(), self.start().cast(), len, wake) };
        if status != 0 {
            count_loss(member.session, kind, LossReason::RingFull);
        }
    }

    /// Submits the record with the texts that were appended, gives the buffer back, and carries out what was decided:
    /// what the hook returns.
    #[inline(always)]
    pub fn finish(self, member: &Member, kind: RecordKind) -> i32 {
        let judgement = self.decided();
        self.submit(member, kind, path::used(self.walk()));
        self.release();
        judgement.carry_out()
    }

    /// Gives the buffer back.
    #[inline(always)]
    pub fn release(self) {
        // SAFETY: the map value is valid, and this program marked it.
        unsafe { (&raw mut (*self.scratch).busy).write_volatile(0) };
    }
}

/// The ring as helpers want it.
macro_rules! EVENTS_PTR {
    () => {
        (&raw const EVENTS).cast_mut().cast::<core::ffi::c_void>()
    };
}
use EVENTS_PTR;

/// A buffer that nobody uses, marked as used.
#[inline(always)]
fn free_scratch() -> Option<*mut Scratch> {
    let slots = constant(&SCRATCH_SLOTS);
    // SAFETY: a helper without arguments.
    let first = unsafe { bpf_get_smp_processor_id() } * SCRATCH_PER_CPU;
    for try_number in 0..SCRATCH_TRIES {
        let mut slot = first + try_number;
        if slot >= slots {
            slot -= slots;
        }
        let scratch = SCRATCH.get_ptr_mut(slot)?;
        // SAFETY: the map value is valid; the field is only touched atomically.
        if unsafe { atomic::swap(&raw mut (*scratch).busy, 1) } == 0 {
            // SAFETY: as above; the buffer is this program's now.
            KnownPlace::of(unsafe { &raw mut (*scratch).known }).set_slot(slot);
            return Some(scratch);
        }
    }
    None
}

/// Wakes the daemon when it sleeps without a deadline or much waits for it, and else lets it come by itself: a wake-up
/// for each record would cost more than the record. It is woken once for each time that it waits.
#[inline(always)]
fn wake_flag() -> u64 {
    const NOT: u64 = BPF_RB_NO_WAKEUP as u64;
    let Some(waits) = CONTROL.get_ptr_mut(control::READER_WAITS) else { return NOT };
    // SAFETY: the map value is valid and an aligned word.
    let by = unsafe { core::ptr::read_volatile(waits) };
    if by == wake::AWAKE || by == wake::BY_MUCH && EVENTS.query(0) < RING_WAKE_BYTES {
        return NOT;
    }
    // SAFETY: as above.
    unsafe { core::ptr::write_volatile(waits, wake::AWAKE) };
    BPF_RB_FORCE_WAKEUP.into()
}

/// Counts something that did not reach the daemon, for its session and kind.
#[inline(never)]
pub fn count_loss(session: u64, kind: RecordKind, reason: LossReason) {
    let key = LossKey { session, kind: kind.raw(), reason: reason.raw(), pad: 0 };
    if add_one(LOSSES.get_ptr_mut(key)) || LOSSES.insert(key, 1u64, BPF_NOEXIST.into()).is_ok() {
        return;
    }
    // Another CPU inserted it in between, or the table is full.
    if !add_one(LOSSES.get_ptr_mut(key)) {
        add_one(CONTROL.get_ptr_mut(control::LOSSES_UNATTRIBUTED));
    }
}

/// Adds one to a counter in a map, if it is there.
#[inline(always)]
fn add_one(counter: Option<*mut u64>) -> bool {
    let Some(counter) = counter else { return false };
    // SAFETY: a valid, aligned map value that is only changed atomically.
    unsafe { atomic::fetch_add(counter, 1) };
    true
}

/// Replaces or adds an entry: the flag under its name.
pub const ANY: u64 = BPF_ANY as u64;

/// Sets fields of a fixed part in place: `fill!(body, field: value, …)`.
macro_rules! fill {
    ($body:expr, $($field:ident: $value:expr),+ $(,)?) => {{
        let body = $body;
        $({
            let value = $value;
            // SAFETY: the body is valid scratch memory of a record in use.
            unsafe { (&raw mut (*body).$field).write(value) };
        })+
    }};
}
pub(crate) use fill;

/// Address of a field of a fixed part: `part!(body, field)`.
macro_rules! part {
    ($body:expr, $field:ident) => {{
        let body = $body;
        // SAFETY: the body is valid scratch memory of a record in use; only an address is made.
        unsafe { &raw mut (*body).$field }
    }};
}
pub(crate) use part;
