//! Matching a text against the patterns of all agents in one pass.
//!
//! The daemon compiles the patterns into one automaton (`agentwatch::matcher`). Its dead state ends the
//! reading, so that a program that is no agent costs a few bytes.

use agentwatch_common::{
    limits::{MATCH_COMMAND_BYTES, MATCH_COMPONENTS},
    maps::{automaton::DEAD, control},
};

use crate::{
    maps::{ACCEPT, AUTOMATON, CLASSES},
    session::control_word,
};

/// Bytes of a program's path that are matched.
const PROGRAM_BYTES: u32 = MATCH_COMPONENTS * 64;

/// A match in progress.
#[derive(Clone, Copy)]
pub struct Matching {
    state: u32,
    classes: u32,
}

impl Matching {
    /// Begins in the state of `CONTROL` that `start` names; dead where there are no such patterns.
    #[inline(always)]
    pub fn begin(start: u32) -> Self {
        Self { state: control_word(start) as u32, classes: control_word(control::CLASSES) as u32 }
    }

    /// True where nothing can match any more.
    #[inline(always)]
    pub fn is_dead(self) -> bool {
        self.state == DEAD
    }

    /// Reads one byte.
    #[inline(always)]
    pub fn step(&mut self, byte: u8) {
        let class = match CLASSES.get(0) {
            Some(classes) => u32::from(classes[byte as usize]),
            None => 0,
        };
        self.state = AUTOMATON.get(self.state * self.classes + class).copied().unwrap_or(DEAD);
    }

    /// Index of the agent that matches where the text ends here.
    #[inline(always)]
    pub fn agent(self) -> Option<u32> {
        match ACCEPT.get(self.state).copied().unwrap_or(0) {
            0 => None,
            agent => Some(agent - 1),
        }
    }

    /// Reads `len` bytes of a program's path, as a walk puts them.
    #[inline(never)]
    pub fn read_path(&mut self, text: *const u8, len: u64) {
        for index in 0..PROGRAM_BYTES {
            if u64::from(index) >= len || self.is_dead() {
                return;
            }
            // SAFETY: the caller's buffer has at least PROGRAM_BYTES, and the verifier checks it.
            self.step(unsafe { *text.add(index as usize) });
        }
    }

    /// Reads arguments from `text`, each ended by a NUL, without the first: a space before each, and none
    /// for the NUL that ends the last.
    #[inline(never)]
    pub fn read_arguments(&mut self, text: *const u8, len: u64) {
        let mut behind_first = false;
        for index in 0..MATCH_COMMAND_BYTES {
            if u64::from(index) + 1 >= len || self.is_dead() {
                return;
            }
            // SAFETY: as above.
            let byte = unsafe { *text.add(index as usize) };
            behind_first |= byte == 0;
            if behind_first {
                self.step(if byte == 0 { b' ' } else { byte });
            }
        }
    }
}
