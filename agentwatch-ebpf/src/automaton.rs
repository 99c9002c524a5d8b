//! Matching a text against the patterns of all agents in one pass.
//!
//! The daemon compiles the patterns into one automaton (`agentwatch::matcher`). Its dead state ends the
//! reading, so that a program that is no agent costs a few bytes.

use agentwatch_common::{
    limits::{
        AUTOMATON_ENTRIES, AUTOMATON_STATES, MATCH_COMMAND_BYTES, MATCH_PATH_BYTES, MATCH_WITHOUT_LOOPS,
    },
    maps::Automaton,
};

use crate::{
    kernel::{kernel_loops, repeat},
    maps::AUTOMATON,
    session::zero,
};

/// Bytes of a base name that are looked at where a cheap look must do.
pub const GLANCE_BYTES: usize = 64;

/// The text that is matched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// A program's path, names deepest first.
    Program,
    /// A command line.
    Command,
    /// A cgroup's path.
    Cgroup,
}

/// A match in progress.
#[derive(Clone, Copy)]
pub struct Matching {
    automaton: *const Automaton,
    state: u32,
}

impl Matching {
    /// Begins; dead where there are no patterns for such a text.
    #[inline(always)]
    pub fn begin(text: Text) -> Option<Self> {
        let automaton = AUTOMATON.get_ptr(0)?;
        // SAFETY: a valid map value.
        let state = unsafe {
            match text {
                Text::Program => (&raw const (*automaton).start_program).read_volatile(),
                Text::Command => (&raw const (*automaton).start_command).read_volatile(),
                Text::Cgroup => (&raw const (*automaton).start_cgroup).read_volatile(),
            }
        };
        Some(Self { automaton, state })
    }

    /// True where nothing can match any more.
    #[inline(always)]
    pub fn is_dead(self) -> bool {
        self.state == Automaton::DEAD
    }

    /// Reads one byte.
    #[inline(always)]
    pub fn step(&mut self, byte: u8) {
        // SAFETY: a valid map value; indices are masked to its arrays, and volatile reads keep the masks.
        unsafe {
            let class = (&raw const (*self.automaton).class).cast::<u8>().add(byte as usize).read_volatile();
            let classes = (&raw const (*self.automaton).class_count).read_volatile();
            let index = self.state.wrapping_mul(classes).wrapping_add(u32::from(class));
            let next = (&raw const (*self.automaton).next).cast::<u32>();
            self.state = next.add((index & (AUTOMATON_ENTRIES - 1)) as usize).read_volatile();
        }
    }

    /// Index of the agent that matches where the text ends here, plus one, or 0.
    #[inline(always)]
    pub fn accepted(self) -> u32 {
        let state = (self.state & (AUTOMATON_STATES - 1)) as usize;
        // SAFETY: as above.
        unsafe { (&raw const (*self.automaton).accept).cast::<u32>().add(state).read_volatile() }
    }

    /// The state, to be kept elsewhere.
    #[inline(always)]
    pub fn state(self) -> u32 {
        self.state
    }

    /// The same automaton in a state that was kept.
    #[inline(always)]
    pub fn at(self, state: u32) -> Self {
        Self { state, ..self }
    }

    /// Reads `len` bytes of a path from a buffer that has at least [`MATCH_PATH_BYTES`].
    #[inline(always)]
    pub fn read_path(&mut self, text: *const u8, len: u64) {
        self.read(text, len, MATCH_PATH_BYTES, path_byte);
    }

    /// Reads a name that ends with a NUL, of which it takes [`GLANCE_BYTES`] at most.
    #[inline(always)]
    pub fn read_name(&mut self, text: &[u8; GLANCE_BYTES]) {
        self.read(text.as_ptr(), GLANCE_BYTES as u64, GLANCE_BYTES as u32, name_byte);
    }

    /// Reads `count` arguments from `text`, each ended by a NUL, without the first: a space before each, and none
    /// for the NUL that ends the last. Of what goes beyond `len` nothing is read.
    #[inline(always)]
    pub fn read_arguments(&mut self, text: *const u8, len: u64, count: u32) {
        let mut reading = Reading { matching: *self, text, len, left: count, behind_first: zero() };
        repeat(bounded(MATCH_COMMAND_BYTES), argument_byte, &mut reading);
        *self = reading.matching;
    }

    #[inline(always)]
    fn read(&mut self, text: *const u8, len: u64, most: u32, step: extern "C" fn(u32, &mut Reading) -> i64) {
        let mut reading = Reading { matching: *self, text, len, left: 0, behind_first: zero() };
        repeat(bounded(most), step, &mut reading);
        *self = reading.matching;
    }
}

/// What the verifier can follow turn by turn, where it must: it gives up at 8,192 branches.
#[inline(always)]
fn bounded(most: u32) -> u32 {
    if kernel_loops() || most < MATCH_WITHOUT_LOOPS { most } else { MATCH_WITHOUT_LOOPS }
}

/// A text that is being read.
struct Reading {
    matching: Matching,
    text: *const u8,
    len: u64,
    /// Arguments that have not ended.
    left: u32,
    /// 1 when the first argument has ended.
    behind_first: u32,
}

// The buffers are at least as long as the masks, whose sizes are powers of two.
const _: () = assert!(
    MATCH_PATH_BYTES.is_power_of_two()
        && MATCH_COMMAND_BYTES.is_power_of_two()
        && GLANCE_BYTES.is_power_of_two()
);

#[inline(never)]
extern "C" fn path_byte(index: u32, reading: &mut Reading) -> i64 {
    if u64::from(index) >= reading.len || reading.matching.is_dead() {
        return 1;
    }
    // SAFETY: the caller's buffer has at least MATCH_PATH_BYTES, and the verifier checks it.
    let byte = unsafe { *reading.text.add((index & (MATCH_PATH_BYTES - 1)) as usize) };
    reading.matching.step(byte);
    0
}

#[inline(never)]
extern "C" fn name_byte(index: u32, reading: &mut Reading) -> i64 {
    // SAFETY: as above, with GLANCE_BYTES.
    let byte = unsafe { *reading.text.add(index as usize & (GLANCE_BYTES - 1)) };
    if byte == 0 {
        return 1;
    }
    reading.matching.step(byte);
    0
}

#[inline(never)]
extern "C" fn argument_byte(index: u32, reading: &mut Reading) -> i64 {
    if u64::from(index) + 1 >= reading.len || reading.matching.is_dead() {
        return 1;
    }
    // SAFETY: as above, with MATCH_COMMAND_BYTES.
    let byte = unsafe { *reading.text.add((index & (MATCH_COMMAND_BYTES - 1)) as usize) };
    reading.left = reading.left.wrapping_sub(u32::from(byte == 0));
    if reading.left == 0 {
        return 1;
    }
    reading.behind_first |= u32::from(byte == 0);
    if reading.behind_first != 0 {
        reading.matching.step(if byte == 0 { b' ' } else { byte });
    }
    0
}
