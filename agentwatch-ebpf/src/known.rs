//! Words that a program keeps in its scratch buffer: see [`crate::path::Walk`].

use core::ptr::NonNull;

use agentwatch_common::record::PathDesc;

use crate::{
    bound::Held,
    judge::{Court, Ops, VIEW_WORDS},
    kernel::Address,
    place::Place,
};

/// Words that a program keeps in the buffer and not in registers: see [`crate::path::Walk`].
#[repr(C)]
pub struct Known {
    hash: u64,
    state: u64,
    other: u64,
    asked: [Ops; 2],
    /// Number of the buffer.
    slot: u32,
    /// A place to be looked at: its mount and its name. What follows is said of it.
    place: [usize; 2],
    /// Who judges it.
    view: [u64; VIEW_WORDS],
    /// Its file system.
    dev: u32,
    /// See [`KnownPlace::set_sight`].
    flags: u32,
    within: u32,
    fixed: u32,
    /// What covers it by each of its names.
    sets: [u32; 2],
    /// See [`crate::bound`].
    held: Held,
    /// Of a walk that no record tells.
    desc: PathDesc,
}

/// Reads and writes a word in memory, each time.
macro_rules! word {
    ($known:expr, $field:ident) => {{
        // SAFETY: a scratch buffer in use, valid for the whole run of the program.
        unsafe { (&raw const (*$known.0).$field).read_volatile() }
    }};
    ($known:expr, $field:ident = $value:expr) => {{
        let value = $value;
        // SAFETY: a scratch buffer in use, valid for the whole run of the program.
        unsafe { (&raw mut (*$known.0).$field).write_volatile(value) }
    }};
}

/// Where [`Known`] lies.
#[derive(Clone, Copy)]
pub struct KnownPlace(*mut Known);

impl KnownPlace {
    /// By its address, which is inside a map value that is valid for the whole run of the program.
    #[inline(always)]
    pub fn of(known: *mut Known) -> Self {
        Self(known)
    }

    /// Keeps both.
    #[inline(always)]
    pub fn set(self, hash: u64, state: u32) {
        word!(self, hash = hash);
        word!(self, state = u64::from(state));
    }

    /// Keeps a hash alone.
    #[inline(always)]
    pub fn set_hash(self, hash: u64) {
        word!(self, hash = hash);
    }

    /// Keeps another state.
    #[inline(always)]
    pub fn set_other(self, state: u32) {
        word!(self, other = u64::from(state));
    }

    /// Both states.
    #[inline(always)]
    pub fn states(self) -> [u32; 2] {
        [self.state(), word!(self, other) as u32]
    }

    /// Keeps what holds the session.
    #[inline(always)]
    pub fn set_held(self, held: Held) {
        // One by one, as a copy of it would lie on the stack.
        // SAFETY: a scratch buffer in use, valid for the whole run of the program.
        unsafe {
            (&raw mut (*self.0).held.place).write_volatile(held.place);
            (&raw mut (*self.0).held.number).write_volatile(held.number);
            (&raw mut (*self.0).held.only_told).write_volatile(held.only_told);
        }
    }

    /// What holds the session.
    #[inline(always)]
    pub fn held(self) -> Held {
        // SAFETY: a scratch buffer in use, valid for the whole run of the program.
        unsafe {
            Held {
                place: (&raw const (*self.0).held.place).read_volatile(),
                number: (&raw const (*self.0).held.number).read_volatile(),
                only_told: (&raw const (*self.0).held.only_told).read_volatile(),
            }
        }
    }

    /// Keeps the number of the buffer.
    #[inline(always)]
    pub fn set_slot(self, slot: u32) {
        word!(self, slot = slot);
    }

    /// Number of the buffer.
    #[inline(always)]
    pub fn slot(self) -> u32 {
        word!(self, slot)
    }

    /// Keeps what is asked: for the second half the default does not count.
    #[inline(always)]
    pub fn set_asked(self, ops: [Ops; 2]) {
        word!(self, asked = ops);
    }

    /// What is asked.
    #[inline(always)]
    pub fn asked(self) -> [Ops; 2] {
        word!(self, asked)
    }

    /// Keeps who judges.
    #[inline(always)]
    pub fn set_view(self, court: &Court) {
        // SAFETY: a valid map value; one that is replaced meanwhile belongs to another policy.
        let words = unsafe { court.words().read_volatile() };
        word!(self, view = words);
    }

    /// Who judges.
    #[inline(always)]
    pub fn court(self) -> Court {
        // SAFETY: the field of a map value, whose address is not null.
        Court::by(unsafe { NonNull::new_unchecked(&raw mut (*self.0).view) })
    }

    /// Keeps the sets of patterns that cover the place.
    #[inline(always)]
    pub fn set_sets(self, sets: [u32; 2]) {
        word!(self, sets = sets);
    }

    /// Those sets.
    #[inline(always)]
    pub fn sets(self) -> [u32; 2] {
        word!(self, sets)
    }

    /// Keeps the file system of the place.
    #[inline(always)]
    pub fn set_dev(self, dev: u32) {
        word!(self, dev = dev);
    }

    /// The file system of the place.
    #[inline(always)]
    pub fn dev(self) -> u32 {
        word!(self, dev)
    }

    /// Keeps how the place is looked at: flags of [`crate::look`], where in the record the path within the file system is
    /// described, and how many bytes the record has before its tail.
    #[inline(always)]
    pub fn set_sight(self, flags: u32, within: u32, fixed: u32) {
        word!(self, flags = flags);
        word!(self, within = within);
        word!(self, fixed = fixed);
    }

    /// The flags of [`Self::set_sight`].
    #[inline(always)]
    pub fn sight_flags(self) -> u32 {
        word!(self, flags)
    }

    /// Where that description lies.
    #[inline(always)]
    pub fn sight_desc(self) -> u32 {
        word!(self, within)
    }

    /// How many bytes there are before the tail.
    #[inline(always)]
    pub fn sight_fixed(self) -> u32 {
        word!(self, fixed)
    }

    /// Keeps a place.
    #[inline(always)]
    pub fn set_place(self, mnt: Address, dentry: Address) {
        word!(self, place = [mnt as usize, dentry as usize]);
    }

    /// The place that was kept.
    #[inline(always)]
    pub fn place(self) -> Place {
        let [mnt, dentry] = word!(self, place);
        Place::new(mnt as Address, dentry as Address)
    }

    /// Room for what describes a path that no record tells.
    #[inline(always)]
    pub fn desc(self) -> *mut PathDesc {
        // SAFETY: a scratch buffer in use, valid for the whole run of the program; only an address is made.
        unsafe { &raw mut (*self.0).desc }
    }

    /// The hash.
    #[inline(always)]
    pub fn hash(self) -> u64 {
        word!(self, hash)
    }

    /// The state.
    #[inline(always)]
    pub fn state(self) -> u32 {
        word!(self, state) as u32
    }
}
