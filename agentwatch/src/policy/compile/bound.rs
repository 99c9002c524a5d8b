//! The scope of an intent that binds as tables of its own: see [`agentwatch_common::bound`].
//!
//! A policy's tables are worked out anew for each policy, which takes as long as it has rules. A scope is small, and what
//! its automaton ends in is already what the kernel wants to know: the operations that are covered.

use agentwatch_common::bound::{BOUND_STATES, BOUND_STEPS, Binding, HELD_MOST, LINES_SHIFT};
use agentwatch_common::rules::{Device, RuleAutomaton, RuleState, RuleStep, op};

use super::op_number;
use super::texts::{COMMANDS, KINDS, KNOWN, PATHS, SOCKETS, insert_networks, insert_socket, write_over};
use crate::event::Op;
use crate::matcher::{ByteSet, Follow, Mark, Patterns as Marked, Piece, SparseAutomaton};
use crate::places::Places;
use crate::policy::address::AddressKind;
use crate::policy::{Entry, Patterns, SINKS, Scope, TERMINALS, What};

/// States before equal ones are merged. Past it the scope is refused.
const STATES_MAX: usize = 1 << 14;

/// Why a scope cannot bind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BoundError {
    /// Too large an automaton.
    #[error(
        "its patterns, and those of what else binds the session, need more than the {BOUND_STATES} states and {BOUND_STEPS} steps that the kernel's table of one \
         has for them: name folders and networks, or what they have in common, and use fewer `*` in the middle of a pattern"
    )]
    TooLarge,
    /// Sessions in one another that are all bound.
    #[error(
        "{HELD_MOST} intents hold the session already, with those of the sessions around it: more cannot at once"
    )]
    TooMany,
}

/// Scopes as tables: what all of them cover.
#[derive(Clone, Debug)]
pub struct Bound {
    /// It ends in what is covered, as bits of [`Binding::narrowed`].
    automaton: SparseAutomaton,
    /// See [`Binding::narrowed`].
    narrowed: u32,
    /// Where the paths within the file systems begin that the initial namespace shows.
    pub devices: Vec<(u32, Device)>,
}

/// An operation as a bit.
const fn bit(op: Op) -> u32 {
    1 << op_number(op)
}

/// The bit of one of the scopes that speaks of command lines.
const fn line_bit(index: usize) -> u32 {
    1 << (LINES_SHIFT as usize + index)
}

impl Bound {
    /// Compiles scopes without names and resources, for a host on which things have these names.
    ///
    /// # Errors
    /// See [`BoundError`].
    pub fn new(scopes: &[&Scope], places: &Places) -> Result<Self, BoundError> {
        if scopes.len() > HELD_MOST {
            return Err(BoundError::TooMany);
        }
        let mut patterns = Marked::new(KINDS);
        patterns.set_aliases(PATHS, places.aliases.clone());
        // What is covered is so by other names alone that mean nothing else, and that no agent can make.
        patterns.follow(Follow::Trusted);
        let below = [Piece::One(ByteSet::of(b'/')), Piece::Many(ByteSet::ALL)];
        for (index, scope) in scopes.iter().enumerate() {
            Op::ALL.iter().for_each(|&op| insert(&mut patterns, scope, op, mark(index, op)));
            let write = mark(index, Op::Write);
            patterns.insert(PATHS, &[literal(TERMINALS).as_slice(), &below].concat(), write);
            SINKS.iter().for_each(|file| patterns.insert(PATHS, &literal(file), write));
        }
        let built = patterns.build(STATES_MAX).map_err(|_| BoundError::TooLarge)?;
        let covered: Vec<u32> = built.sets().map(|set| covered(scopes, set)).collect();
        let automaton = SparseAutomaton::new(&built.smallest(&covered));
        if automaton.states.len() > BOUND_STATES as usize || automaton.steps.len() > BOUND_STEPS as usize {
            return Err(BoundError::TooLarge);
        }
        let devices = places.devices.iter().map(|root| {
            let start = automaton.state(KNOWN, &root.text);
            (root.dev, Device { start, mount: root.mount })
        });
        Ok(Self { devices: devices.collect(), automaton, narrowed: narrowed_by_any(scopes) })
    }

    /// Writes it as the kernel has it, over whatever was there.
    pub fn write(&self, to: &mut Binding) {
        let start = |kind: usize| self.automaton.starts.get(kind).copied().unwrap_or(RuleAutomaton::DEAD);
        to.head = RuleAutomaton {
            start_path: start(PATHS),
            start_known: start(KNOWN),
            start_command: start(COMMANDS),
            start_socket: start(SOCKETS),
            class: self.automaton.class,
        };
        to.narrowed = self.narrowed;
        let states = self.automaton.states.iter();
        let states =
            states.map(|one| RuleState { base: one.base, default: one.default, accept: one.accept, pad: 0 });
        write_over(&mut to.states, states, RuleState { base: 0, default: 0, accept: 0, pad: 0 });
        let steps = self.automaton.steps.iter().map(|one| RuleStep { owner: one.owner, next: one.next });
        write_over(&mut to.steps, steps, RuleStep { owner: 0, next: 0 });
    }
}

/// What one scope refuses where it is not covered. No program runs without reading, so that counts only where it is spoken
/// of; a program is covered by its path or by its command line, and where nothing is said of these its path alone is looked
/// at.
fn narrowed(index: usize, scope: &Scope) -> u32 {
    let starts = if scope.has(Op::Run) { line_bit(index) } else { bit(Op::Exec) };
    let reads = if scope.has(Op::Read) { bit(Op::Read) } else { 0 };
    starts
        | reads
        | [Op::Write, Op::Delete, Op::Connect, Op::Listen].into_iter().fold(0, |bits, op| bits | bit(op))
}

fn narrowed_by_any(scopes: &[&Scope]) -> u32 {
    scopes.iter().enumerate().fold(0, |bits, (index, scope)| bits | narrowed(index, scope))
}

/// What all scopes cover where these marks match.
fn covered(scopes: &[&Scope], set: &[Mark]) -> u32 {
    let missing = scopes.iter().enumerate().fold(0, |missing, (index, scope)| {
        let has = |op| set.contains(&mark(index, op));
        let ops = Op::ALL.iter().filter(|op| has(**op)).fold(0, |bits, op| bits | bit(*op));
        let starts = if has(Op::Exec) || has(Op::Run) { line_bit(index) } else { 0 };
        missing | narrowed(index, scope) & !(ops | starts)
    });
    narrowed_by_any(scopes) & !missing
}

/// What the patterns of one scope for an operation are marked with.
fn mark(index: usize, op: Op) -> Mark {
    Mark { class: index as u32 * op::COUNT + u32::from(op_number(op)), rank: 0 }
}

fn literal(text: &str) -> Vec<Piece> {
    text.bytes().map(|byte| Piece::One(ByteSet::of(byte))).collect()
}

/// Marks what a scope says of an operation.
fn insert(patterns: &mut Marked, scope: &Scope, op: Op, mark: Mark) {
    match scope.patterns(op) {
        Patterns::Paths(entries) => flat(entries).for_each(|glob| patterns.insert_path(PATHS, glob, mark)),
        Patterns::Commands(entries) => {
            flat(entries).for_each(|glob| patterns.insert_command(COMMANDS, glob, mark));
        }
        Patterns::Addresses(entries) => {
            for pattern in flat(entries) {
                match pattern.kind() {
                    AddressKind::UnixPath(glob) => patterns.insert_path(PATHS, glob, mark),
                    AddressKind::Ip { .. } => insert_networks(patterns, pattern, mark),
                    _ => insert_socket(patterns, pattern, mark),
                }
            }
        }
    }
}

/// The patterns; a scope that was read has no resources: they stand in it as patterns.
fn flat<T>(entries: &[Entry<T>]) -> impl Iterator<Item = &T> {
    entries.iter().filter_map(|entry| match &entry.what {
        What::Pattern(pattern) => Some(pattern),
        What::Resource(_) => None,
    })
}

const _: () = assert!(op::COUNT <= 8);
