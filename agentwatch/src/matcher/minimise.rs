//! The smallest automaton that does the same, by Hopcroft's refinement of a partition.
#![expect(clippy::indexing_slicing, reason = "every index is a state, a block or a class of this automaton")]

use super::subsets::Automaton;

/// Merges states that no text tells apart; state 0 stays the dead one, and every state from which nothing
/// can match any more becomes it.
pub(super) fn minimise(automaton: &Automaton) -> Automaton {
    let mut partition = Partition::by(&automaton.accept);
    let sources = Sources::new(automaton);
    let mut waiting: Vec<usize> = (0..partition.blocks()).collect();
    let mut is_waiting = vec![true; waiting.len()];
    while let Some(block) = waiting.pop() {
        is_waiting[block] = false;
        let splitter = partition.members(block).to_vec();
        for class in 0..automaton.classes {
            for &state in &splitter {
                for &source in sources.of(state, class) {
                    partition.mark(source);
                }
            }
            for (old, new) in partition.split_marked() {
                is_waiting.push(false);
                let smaller =
                    if partition.members(new).len() <= partition.members(old).len() { new } else { old };
                let next = if is_waiting[old] { new } else { smaller };
                is_waiting[next] = true;
                waiting.push(next);
            }
        }
    }
    quotient(automaton, &partition)
}

/// One state for each block, the dead state's block first.
fn quotient(automaton: &Automaton, partition: &Partition) -> Automaton {
    let dead = partition.block_of[0];
    let number = |state: u32| {
        let block = partition.block_of[state as usize];
        let moved = if block == dead {
            0
        } else if block < dead {
            block + 1
        } else {
            block
        };
        u32::try_from(moved).unwrap_or(0)
    };
    let mut order: Vec<usize> = (0..partition.blocks()).filter(|&block| block != dead).collect();
    order.insert(0, dead);
    let mut table = Vec::with_capacity(order.len() * automaton.classes);
    let mut accept = Vec::with_capacity(order.len());
    for block in order {
        let state = partition.members(block)[0] as usize;
        let row = &automaton.table[state * automaton.classes..(state + 1) * automaton.classes];
        table.extend(row.iter().map(|&next| number(next)));
        accept.push(automaton.accept[state]);
    }
    let starts = automaton.starts.iter().map(|&start| number(start)).collect();
    Automaton { classes: automaton.classes, table, accept, starts }
}

/// The states that lead to a state by a class.
struct Sources {
    classes: usize,
    first: Vec<usize>,
    states: Vec<u32>,
}

impl Sources {
    fn new(automaton: &Automaton) -> Self {
        let classes = automaton.classes;
        let mut first = vec![0; automaton.accept.len() * classes + 1];
        let slot = |index: usize, next: u32| next as usize * classes + index % classes;
        for (index, &next) in automaton.table.iter().enumerate() {
            first[slot(index, next) + 1] += 1;
        }
        for index in 1..first.len() {
            first[index] += first[index - 1];
        }
        let mut free = first.clone();
        let mut states = vec![0; automaton.table.len()];
        for (index, &next) in automaton.table.iter().enumerate() {
            let place = &mut free[slot(index, next)];
            states[*place] = u32::try_from(index / classes).unwrap_or(0);
            *place += 1;
        }
        Self { classes, first, states }
    }

    fn of(&self, state: u32, class: usize) -> &[u32] {
        let slot = state as usize * self.classes + class;
        &self.states[self.first[slot]..self.first[slot + 1]]
    }
}

/// States in blocks; each block is a range of `states`, with its marked states at the range's beginning.
struct Partition {
    states: Vec<u32>,
    place_of: Vec<usize>,
    block_of: Vec<usize>,
    ranges: Vec<(usize, usize)>,
    marked: Vec<usize>,
    touched: Vec<usize>,
}

impl Partition {
    /// A block for each value.
    fn by(values: &[u32]) -> Self {
        let mut states: Vec<u32> = (0_u32..).take(values.len()).collect();
        states.sort_by_key(|&state| values[state as usize]);
        let mut this = Self {
            place_of: vec![0; states.len()],
            block_of: vec![0; states.len()],
            ranges: Vec::new(),
            marked: Vec::new(),
            touched: Vec::new(),
            states: Vec::new(),
        };
        let mut start = 0;
        for block in states.chunk_by(|a, b| values[*a as usize] == values[*b as usize]) {
            for (place, &state) in (start..).zip(block) {
                this.place_of[state as usize] = place;
                this.block_of[state as usize] = this.ranges.len();
            }
            this.ranges.push((start, start + block.len()));
            this.marked.push(0);
            start += block.len();
        }
        this.states = states;
        this
    }

    fn blocks(&self) -> usize {
        self.ranges.len()
    }

    fn members(&self, block: usize) -> &[u32] {
        let (start, end) = self.ranges[block];
        &self.states[start..end]
    }

    fn mark(&mut self, state: u32) {
        let block = self.block_of[state as usize];
        let place = self.place_of[state as usize];
        let first_unmarked = self.ranges[block].0 + self.marked[block];
        if place < first_unmarked {
            return;
        }
        let other = self.states[first_unmarked];
        self.states.swap(place, first_unmarked);
        self.place_of[other as usize] = place;
        self.place_of[state as usize] = first_unmarked;
        if self.marked[block] == 0 {
            self.touched.push(block);
        }
        self.marked[block] += 1;
    }

    /// Makes the marked states of every block a block of their own; gives each (old, new).
    fn split_marked(&mut self) -> Vec<(usize, usize)> {
        let mut splits = Vec::new();
        for block in std::mem::take(&mut self.touched) {
            let marked = std::mem::take(&mut self.marked[block]);
            let (start, end) = self.ranges[block];
            if start + marked == end {
                continue;
            }
            let new = self.ranges.len();
            self.ranges[block].0 = start + marked;
            self.ranges.push((start, start + marked));
            self.marked.push(0);
            for place in start..start + marked {
                self.block_of[self.states[place] as usize] = new;
            }
            splits.push((block, new));
        }
        splits
    }
}
