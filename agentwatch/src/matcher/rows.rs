//! An automaton while it is made: of each state the most frequent next state, and the steps to others.
//!
//! A row for each state in full would take some twenty times as much, as most states lead somewhere else by few bytes.

/// A deterministic automaton over classes of bytes. State 0 is dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    /// Number of classes: 1 to 256.
    pub classes: usize,
    /// What matches where the text ends in a state.
    pub accept: Vec<u32>,
    /// Where texts begin, by kind.
    pub starts: Vec<u32>,
    /// Where each state leads by the classes that have no step of their own.
    defaults: Vec<u32>,
    /// Where the steps of each state end, and those of the next begin.
    ends: Vec<u32>,
    steps: Vec<Step>,
    /// A row in order: kept for its memory.
    sorted: Vec<u32>,
}

/// A step that does not lead to the state's default: the class in the highest byte, the next state in the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step(u32);

impl Step {
    /// Bits of a state's number: more states no automaton has.
    const STATE_BITS: u32 = 24;

    fn new(class: usize, next: u32) -> Self {
        debug_assert!(class < 256 && next >> Self::STATE_BITS == 0);
        Self((class as u32) << Self::STATE_BITS | next)
    }

    /// By which class it leads on.
    pub(super) fn class(self) -> u32 {
        self.0 >> Self::STATE_BITS
    }

    /// Where it leads.
    pub(super) fn next(self) -> u32 {
        self.0 & ((1 << Self::STATE_BITS) - 1)
    }
}

impl Rows {
    /// No state yet.
    pub(super) fn new(classes: usize) -> Self {
        Self {
            classes,
            accept: Vec::new(),
            starts: Vec::new(),
            defaults: Vec::new(),
            ends: Vec::new(),
            steps: Vec::new(),
            sorted: Vec::new(),
        }
    }

    /// Adds where the next state leads, by class.
    pub(super) fn push(&mut self, row: &[u32]) {
        let default = majority(row).unwrap_or_else(|| self.most_frequent(row));
        let others = (0..).zip(row).filter(|(_, next)| **next != default);
        self.steps.extend(others.map(|(class, &next)| Step::new(class, next)));
        self.defaults.push(default);
        self.ends.push(u32::try_from(self.steps.len()).unwrap_or(u32::MAX));
    }

    fn most_frequent(&mut self, row: &[u32]) -> u32 {
        self.sorted.clear();
        self.sorted.extend_from_slice(row);
        self.sorted.sort_unstable();
        let most = self.sorted.chunk_by(|a, b| a == b).max_by_key(|same| same.len());
        most.and_then(<[u32]>::first).copied().unwrap_or(0)
    }

    /// Number of states.
    pub(super) fn len(&self) -> usize {
        self.defaults.len()
    }

    /// Where a state leads by the classes without a step.
    pub(super) fn default_of(&self, state: u32) -> u32 {
        self.defaults.get(state as usize).copied().unwrap_or(0)
    }

    /// The steps of a state, by class in order.
    pub(super) fn steps(&self, state: u32) -> &[Step] {
        let end = |index: Option<usize>| index.and_then(|index| self.ends.get(index)).map_or(0, |end| *end);
        let (first, last) = (end((state as usize).checked_sub(1)), end(Some(state as usize)));
        self.steps.get(first as usize..last as usize).unwrap_or_default()
    }

    /// Where a state leads, by class, in place of what is in `row`.
    pub(super) fn expand(&self, state: u32, row: &mut Vec<u32>) {
        row.clear();
        row.resize(self.classes, self.default_of(state));
        for step in self.steps(state) {
            if let Some(next) = row.get_mut(step.class() as usize) {
                *next = step.next();
            }
        }
    }

    /// The states, by number.
    pub(super) fn states(&self) -> impl Iterator<Item = u32> + use<> {
        (0..).take(self.len())
    }

    /// Gives back what adding took: all states are there.
    pub(super) fn shrink(&mut self) {
        self.sorted = Vec::new();
        self.accept.shrink_to_fit();
        self.defaults.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.steps.shrink_to_fit();
    }
}

/// What more than half of a row is, as in most rows: found without sorting, by what is left where two that differ cancel
/// each other.
fn majority(row: &[u32]) -> Option<u32> {
    let (left, _) = row.iter().fold((0, 0_usize), |(left, votes), &next| match votes {
        0 => (next, 1),
        _ if next == left => (left, votes + 1),
        _ => (left, votes - 1),
    });
    (row.iter().filter(|next| **next == left).count() > row.len() / 2).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_where_most_classes_lead() {
        for (row, default) in [
            (&[7, 7, 3, 7][..], 7),
            (&[3, 7, 7], 7),
            (&[1, 2, 2, 3, 3, 3], 3),
            (&[5], 5),
            (&[4, 9, 4, 9, 4, 8], 4),
        ] {
            let mut rows = Rows::new(row.len());
            rows.push(row);
            let mut expanded = Vec::new();
            rows.expand(0, &mut expanded);
            assert_eq!((rows.default_of(0), expanded.as_slice()), (default, row));
        }
        assert_eq!((majority(&[1, 1, 2, 2]), majority(&[]), majority(&[1, 2, 2])), (None, None, Some(2)));
    }
}
