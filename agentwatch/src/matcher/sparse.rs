//! An automaton without what its states have in common: of each state the most frequent next state is kept once, and
//! only the others lie in a table that all states share.
//!
//! Most states stand for a place inside a name and lead somewhere else by one or two bytes. So ten thousand patterns
//! need some hundred thousand steps, where a row for each state would need millions.

use std::collections::HashMap;

use agentwatch_common::rules::RuleAutomaton;

use super::DeterministicAutomaton;
use super::rows::{Rows, Step};

/// A state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SparseState {
    /// Where its steps lie: that of a class at this index plus the class.
    pub base: u32,
    /// The next state where no step of its own lies there.
    pub default: u32,
    /// The number in which a text ends that ends here.
    pub accept: u32,
}

/// A step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SparseStep {
    /// The state whose step it is; 0 where it is nobody's.
    pub owner: u32,
    /// The next state.
    pub next: u32,
}

/// A deterministic automaton over bytes. State 0 is dead: nothing matches whatever follows. The number of a state says
/// also whether it is settled: see [`RuleAutomaton::SETTLED`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseAutomaton {
    /// The class of each byte.
    pub class: [u8; 256],
    /// The states.
    pub states: Vec<SparseState>,
    /// The steps of all states. A class reaches past the end where nothing lies there.
    pub steps: Vec<SparseStep>,
    /// Where texts begin, by kind.
    pub starts: Vec<u32>,
}

impl SparseAutomaton {
    /// The same automaton, as the kernel reads it.
    #[must_use]
    pub fn new(automaton: &DeterministicAutomaton) -> Self {
        let rows = automaton.rows();
        // The ones with most steps first: they need room in one piece, and the others fill what they leave.

        let mut order: Vec<u32> = rows.states().collect();
        order.sort_by_key(|&state| std::cmp::Reverse(rows.steps(state).len()));
        let settled = Settled::of(automaton);
        let mut states: Vec<SparseState> = (rows.states().zip(&rows.accept))
            .map(|(state, &accept)| {
                let default = settled.number(rows.default_of(state));
                SparseState { base: 0, default, accept }
            })
            .collect();
        let mut table = Table { settled, ..Table::default() };
        for number in order {
            let base = table.insert(number, rows.steps(number));
            if let Some(state) = states.get_mut(number as usize) {
                state.base = base;
            }
        }
        table.steps.shrink_to_fit();
        let starts = rows.starts.iter().map(|&start| table.settled.number(start)).collect();
        Self { class: automaton.class, states, steps: table.steps, starts }
    }

    /// The number in which a text of a kind ends.
    pub fn run<'a>(&self, kind: usize, bytes: impl IntoIterator<Item = &'a u8>) -> u32 {
        self.accept(self.state(kind, bytes))
    }

    /// The number in which a text ends that ends in a state.
    #[must_use]
    pub fn accept(&self, state: u32) -> u32 {
        self.states.get(index(state)).map_or(0, |state| state.accept)
    }

    /// The state behind a text of a kind.
    pub fn state<'a>(&self, kind: usize, bytes: impl IntoIterator<Item = &'a u8>) -> u32 {
        let start = self.starts.get(kind).copied().unwrap_or(0);
        bytes.into_iter().fold(start, |state, &byte| self.next(state, byte))
    }

    /// The state behind another one and a byte.
    #[must_use]
    pub fn next(&self, state: u32, byte: u8) -> u32 {
        let Some(here) = self.states.get(index(state)) else { return 0 };
        let class = self.class.get(usize::from(byte)).copied().unwrap_or(0);
        match self.steps.get(here.base as usize + usize::from(class)) {
            Some(step) if step.owner == state => step.next,
            _ => here.default,
        }
    }
}

/// Where a state lies.
fn index(state: u32) -> usize {
    (state & !RuleAutomaton::SETTLED) as usize
}

/// Which states are settled.
#[derive(Default)]
struct Settled(Vec<bool>);

impl Settled {
    fn of(automaton: &DeterministicAutomaton) -> Self {
        // Names have neither a slash nor a NUL. A class can be that of other bytes as well.
        let mut in_names = vec![false; automaton.rows().classes];
        for (byte, &class) in (0_u8..=u8::MAX).zip(&automaton.class) {
            if let Some(seen) = in_names.get_mut(usize::from(class)) {
                *seen |= byte != 0 && byte != b'/';
            }
        }
        let rows = automaton.rows();
        Self(
            rows.states()
                .map(|state| state != RuleAutomaton::DEAD && stays(rows, state, &in_names))
                .collect(),
        )
    }

    /// The number of a state, as it is told.
    fn number(&self, state: u32) -> u32 {
        let is_settled = self.0.get(state as usize).is_some_and(|settled| *settled);
        if is_settled { state | RuleAutomaton::SETTLED } else { state }
    }
}

/// Whether every byte of names leads from a state back to it.
fn stays(rows: &Rows, state: u32, in_names: &[bool]) -> bool {
    let steps = rows.steps(state).iter().filter(|step| in_names.get(step.class() as usize) == Some(&true));
    if rows.default_of(state) == state {
        return steps.into_iter().all(|step| step.next() == state);
    }
    let back = steps.filter(|step| step.next() == state).count();
    back == in_names.iter().filter(|in_names| **in_names).count()
}

/// The table that all states share.
#[derive(Default)]
struct Table {
    steps: Vec<SparseStep>,
    /// Where a row with steps of these classes can lie at the earliest: right behind the last such, as what had no room
    /// for that one has none for the next. Without it, each row would be tried all over again in every gap.
    earliest: HashMap<Vec<u32>, usize>,
    settled: Settled,
}

impl Table {
    /// Puts the steps of a state where all of them have room; gives their base.
    fn insert(&mut self, state: u32, row: &[Step]) -> u32 {
        if row.is_empty() {
            return 0;
        }
        let shape: Vec<u32> = row.iter().map(|step| step.class()).collect();
        let from = self.earliest.get(&shape).copied().unwrap_or(0);
        let fits = |base: usize| shape.iter().all(|class| self.is_free(base + *class as usize));
        let base = (from..).find(|&base| fits(base)).unwrap_or(from);
        self.earliest.insert(shape, base + 1);
        for step in row {
            let at = base + step.class() as usize;
            if self.steps.len() <= at {
                self.steps.resize(at + 1, SparseStep::default());
            }
            if let Some(place) = self.steps.get_mut(at) {
                let [owner, next] = [state, step.next()].map(|state| self.settled.number(state));
                *place = SparseStep { owner, next };
            }
        }
        u32::try_from(base).unwrap_or(u32::MAX)
    }

    /// The dead state has no steps, so that its number stands for nobody.
    fn is_free(&self, at: usize) -> bool {
        self.steps.get(at).is_none_or(|step| step.owner == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::{Mark, PathGlob, Patterns};

    #[test]
    fn a_state_is_settled_where_the_rest_of_a_name_changes_nothing() {
        let mut patterns = Patterns::new(1);
        for text in ["**/.env", "/srv/a/*.key"] {
            patterns.insert_path(0, &PathGlob::parse(text).unwrap(), Mark { class: 0, rank: 0 });
        }
        let automaton = SparseAutomaton::new(&patterns.build(1 << 16).unwrap().smallest(&[0, 1]));
        let is_settled = |text: &str| automaton.state(0, text.as_bytes()) & RuleAutomaton::SETTLED != 0;
        for text in ["/home/x", "/home/x/main.rs", "/home/.envs", "/srv/b"] {
            assert!(is_settled(text), "{text}");
        }
        for text in ["", "/", "/home/", "/home/.en", "/home/.env", "/srv", "/srv/a/x"] {
            assert!(!is_settled(text), "{text}");
        }
        assert_eq!(automaton.run(0, b"/home/.env"), 1);
        assert_eq!(automaton.run(0, b"/home/x/.env"), 1);
        assert_eq!(automaton.run(0, b"/home/x.env"), 0);
    }
}
