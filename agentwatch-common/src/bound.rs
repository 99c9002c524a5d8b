//! What operators' intents bind a session to, beside the policy.
//!
//! `BOUND` says by a session's number which value of `BINDINGS` holds it: the daemon fills one that nobody reads and then
//! puts the entry into `BOUND`, which is one store. A value is what all intents leave that hold a session: its own and those
//! of the sessions around it. A session that begins inside another takes that one's entry with it. Each entry counts up to
//! a moment that the kernel itself looks at, whether there is a daemon or not.

use core::mem::size_of;

use crate::rules::{RuleAutomaton, RuleState, RuleStep, op};

/// Values of `BINDINGS`.
pub const BINDINGS: u32 = 64;
/// Values in force at once. The rest is for those that take another's place, and for those that a program may still read.
pub const BINDINGS_MOST: u32 = 48;
/// Entries of `BOUND`: sessions that are bound at once, those inside them included.
pub const BOUND_SESSIONS: u32 = 1 << 12;
/// States of the automaton of one value.
pub const BOUND_STATES: u32 = 1 << 10;
/// Steps of the automaton of one value.
pub const BOUND_STEPS: u32 = 1 << 11;
/// File systems of all values: each has its own beginnings of paths.
pub const BOUND_DEVICES: u32 = 1 << 13;
/// Intents that hold one session at once. Past it a further one is refused.
pub const HELD_MOST: usize = 8;
/// How far the bits of [`Binding::narrowed`] for command lines are shifted: one for each intent that speaks of them.
pub const LINES_SHIFT: u32 = op::COUNT;

/// Number of a binding in an event where it is not known which one decided.
pub const BINDING_UNKNOWN: u32 = u32::MAX;

/// A session that is bound: value of the map `BOUND`, whose key is the session's number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BoundEntry {
    /// The first moment at which it is not any more, nanoseconds since boot.
    pub until_ns: u64,
    /// Index in `BINDINGS`.
    pub slot: u32,
    /// The number of the innermost intent that holds it, which events carry. Never 0.
    pub number: u32,
}

/// What holds sessions: value of the array `BINDINGS`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// How the automaton reads. What it accepts is what is covered, as bits of `narrowed`.
    pub head: RuleAutomaton,
    /// What is refused where it is not covered: operations as bits (see [`op`]), and from [`LINES_SHIFT`] on one bit for each
    /// intent that speaks of command lines, which a program's path covers or its command line.
    pub narrowed: u32,
    /// Padding, zero.
    pub pad: [u32; 3],
    /// States by their numbers.
    pub states: [RuleState; BOUND_STATES as usize],
    /// Steps of all states.
    pub steps: [RuleStep; BOUND_STEPS as usize],
}

const _: () = {
    assert!(size_of::<BoundEntry>() == 16);
    let fixed = size_of::<RuleAutomaton>() + 16;
    let texts = 16 * BOUND_STATES as usize + 8 * BOUND_STEPS as usize;
    assert!(size_of::<Binding>() == fixed + texts);
    // Indices are masked in the kernel.
    assert!(BOUND_STATES.is_power_of_two() && BOUND_STEPS.is_power_of_two());
    assert!(BINDINGS_MOST < BINDINGS && LINES_SHIFT as usize + HELD_MOST <= 32);
};
