//! The smallest automaton that does the same, by Hopcroft's refinement of a partition.
#![expect(clippy::indexing_slicing, reason = "every index is a state, a block or a class of this automaton")]

use super::subsets::Automaton;

/// Merges states that no text tells apart; state 0 stays the dead one, and every state from which nothing
/// can match any more becomes it.
///
/// Most steps of all lead to one and the same state. The block that holds it is never asked who leads there: each step
/// leads somewhere, so that whoever leads to no other block leads to that one. So those steps need not be kept turned
/// round, which would take more memory than the automaton.
pub(super) fn minimise(automaton: &Automaton) -> Automaton {
    let hub = most_frequent(automaton);
    let mut partition = Partition::by(&automaton.accept);
    let sources = Sources::new(automaton, hub);
    let is_hub = |partition: &Partition, block| partition.block_of[hub as usize] == block;
    let mut waiting: Vec<usize> =
        (0..partition.blocks()).filter(|&block| !is_hub(&partition, block)).collect();
    let mut is_waiting: Vec<bool> = (0..partition.blocks()).map(|block| !is_hub(&partition, block)).collect();
    while let Some(block) = waiting.pop() {
        is_waiting[block] = false;
        let leads_here = partition.members(block).iter().flat_map(|&state| sources.of(state));
        let mut steps: Vec<(u32, u32)> = leads_here.copied().collect();
        steps.sort_unstable();
        for of_class in steps.chunk_by(|(a, _), (b, _)| a == b) {
            of_class.iter().for_each(|&(_, source)| partition.mark(source));
            for (old, new) in partition.split_marked() {
                is_waiting.push(false);
                let smaller =
                    if partition.members(new).len() <= partition.members(old).len() { new } else { old };
                let next = if is_waiting[old] || is_hub(&partition, old) {
                    new
                } else if is_hub(&partition, new) {
                    old
                } else {
                    smaller
                };
                is_waiting[next] = true;
                waiting.push(next);
            }
        }
    }
    drop(sources);
    quotient(automaton, &partition)
}

/// The state to which most steps lead.
fn most_frequent(automaton: &Automaton) -> u32 {
    let mut counts = vec![0_u32; automaton.accept.len()];
    automaton.table.iter().for_each(|&next| counts[next as usize] += 1);
    (0..).zip(counts).max_by_key(|&(_, count)| count).map_or(0, |(state, _)| state)
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

/// The steps that lead to a state, without those to one state that is left out.
struct Sources {
    /// Where those of each state begin.
    first: Vec<usize>,
    /// The class, and the state whose step it is.
    steps: Vec<(u32, u32)>,
}

impl Sources {
    fn new(automaton: &Automaton, without: u32) -> Self {
        let steps = || {
            let rows = (0_u32..).zip(automaton.table.chunks(automaton.classes));
            let steps = rows.flat_map(|(state, row)| (0_u32..).zip(row).map(move |step| (state, step)));
            steps.filter(|(_, (_, next))| **next != without)
        };
        let mut first = vec![0; automaton.accept.len() + 1];
        steps().for_each(|(_, (_, &next))| first[next as usize] += 1);
        // Where those of each end; filling from there backwards, that becomes where they begin.
        let mut end = 0;
        for count in &mut first {
            end += *count;
            *count = end;
        }
        let mut all = vec![(0, 0); end];
        for (state, (class, &next)) in steps() {
            let place = &mut first[next as usize];
            *place -= 1;
            all[*place] = (class, state);
        }
        Self { first, steps: all }
    }

    fn of(&self, state: u32) -> &[(u32, u32)] {
        &self.steps[self.first[state as usize]..self.first[state as usize + 1]]
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
