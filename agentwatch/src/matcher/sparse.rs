//! An automaton without what its states have in common: of each state the most frequent next state is kept once, and
//! only the others lie in a table that all states share.
//!
//! Most states stand for a place inside a name and lead somewhere else by one or two bytes. So ten thousand patterns
//! need some hundred thousand steps, where a row for each state would need millions.

use std::collections::HashMap;

use super::DeterministicAutomaton;

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

/// A deterministic automaton over bytes. State 0 is dead: nothing matches whatever follows.
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
    /// The same automaton, with less room.
    #[must_use]
    pub fn new(dense: &DeterministicAutomaton) -> Self {
        let width = dense.class_count.max(1) as usize;
        let mut rows: Vec<Row> =
            (0..).zip(dense.table.chunks(width)).map(|(state, row)| Row::new(state, row)).collect();
        // The ones with most steps first: they need room in one piece, and the others fill what they leave.
        rows.sort_by_key(|row| std::cmp::Reverse(row.steps.len()));
        let mut states: Vec<SparseState> =
            dense.accept.iter().map(|&accept| SparseState { accept, ..SparseState::default() }).collect();
        let mut table = Table::default();
        for row in rows {
            let base = table.insert(&row);
            if let Some(state) = states.get_mut(row.state as usize) {
                (state.base, state.default) = (base, row.default);
            }
        }
        Self { class: dense.class, states, steps: table.steps, starts: dense.starts.clone() }
    }

    /// The number in which a text of a kind ends.
    pub fn run<'a>(&self, kind: usize, bytes: impl IntoIterator<Item = &'a u8>) -> u32 {
        self.accept(self.state(kind, bytes))
    }

    /// The number in which a text ends that ends in a state.
    #[must_use]
    pub fn accept(&self, state: u32) -> u32 {
        self.states.get(state as usize).map_or(0, |state| state.accept)
    }

    /// The state behind a text of a kind.
    pub fn state<'a>(&self, kind: usize, bytes: impl IntoIterator<Item = &'a u8>) -> u32 {
        let start = self.starts.get(kind).copied().unwrap_or(0);
        bytes.into_iter().fold(start, |state, &byte| self.next(state, byte))
    }

    /// The state behind another one and a byte.
    #[must_use]
    pub fn next(&self, state: u32, byte: u8) -> u32 {
        let Some(here) = self.states.get(state as usize) else { return 0 };
        let class = self.class.get(usize::from(byte)).copied().unwrap_or(0);
        match self.steps.get(here.base as usize + usize::from(class)) {
            Some(step) if step.owner == state => step.next,
            _ => here.default,
        }
    }
}

/// The steps of a state, by class, without those to its default.
struct Row {
    state: u32,
    default: u32,
    steps: Vec<(usize, u32)>,
}

impl Row {
    fn new(state: u32, row: &[u32]) -> Self {
        let mut sorted = row.to_vec();
        sorted.sort_unstable();
        let most = sorted.chunk_by(|a, b| a == b).max_by_key(|same| same.len());
        let default = most.and_then(<[u32]>::first).copied().unwrap_or(0);
        let steps = row.iter().copied().enumerate().filter(|&(_, next)| next != default).collect();
        Self { state, default, steps }
    }
}

/// The table that all states share.
#[derive(Default)]
struct Table {
    steps: Vec<SparseStep>,
    /// Where a row with steps of these classes can lie at the earliest: right behind the last such, as what had no room
    /// for that one has none for the next. Without it, each row would be tried all over again in every gap.
    earliest: HashMap<Vec<usize>, usize>,
}

impl Table {
    /// Puts a row where all of its steps have room; gives its base.
    fn insert(&mut self, row: &Row) -> u32 {
        if row.steps.is_empty() {
            return 0;
        }
        let shape: Vec<usize> = row.steps.iter().map(|(class, _)| *class).collect();
        let from = self.earliest.get(&shape).copied().unwrap_or(0);
        let fits = |base: usize| shape.iter().all(|class| self.is_free(base + class));
        let base = (from..).find(|&base| fits(base)).unwrap_or(from);
        self.earliest.insert(shape, base + 1);
        for &(class, next) in &row.steps {
            let at = base + class;
            if self.steps.len() <= at {
                self.steps.resize(at + 1, SparseStep::default());
            }
            if let Some(step) = self.steps.get_mut(at) {
                *step = SparseStep { owner: row.state, next };
            }
        }
        u32::try_from(base).unwrap_or(u32::MAX)
    }

    /// The dead state has no steps, so that its number stands for nobody.
    fn is_free(&self, at: usize) -> bool {
        self.steps.get(at).is_none_or(|step| step.owner == 0)
    }
}
