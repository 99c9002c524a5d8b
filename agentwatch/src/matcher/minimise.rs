//! The smallest automaton that does the same, by Hopcroft's refinement of a partition.
#![expect(clippy::indexing_slicing, reason = "every index is a state, a block or a class of this automaton")]

use super::rows::Rows;

/// Merges states that no text tells apart; state 0 stays the dead one, and every state from which nothing
/// can match any more becomes it.
///
/// Most steps of all lead to one and the same state. The block that holds it is never asked who leads there: each step
/// leads somewhere, so that whoever leads to no other block leads to that one. So those steps need not be looked at, nor
/// kept turned round.
pub(super) fn minimise(automaton: &Rows) -> Rows {
    let hub = most_frequent(automaton);
    let mut partition = Partition::by(&automaton.accept);
    let sources = Sources::new(automaton, hub);

    let is_hub = |partition: &Partition, block| partition.block_of[hub as usize] == block;
    let mut waiting: Vec<usize> =
        (0..partition.blocks()).filter(|&block| !is_hub(&partition, block)).collect();
    let mut is_waiting: Vec<bool> = (0..partition.blocks()).map(|block| !is_hub(&partition, block)).collect();
    let mut leading = Leading::new(automaton.classes);
    while let Some(block) = waiting.pop() {
        is_waiting[block] = false;
        leading.find(automaton, &sources, partition.members(block));
        for class in leading.classes() {
            leading.each(automaton, class, |source| partition.mark(source));
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
fn most_frequent(automaton: &Rows) -> u32 {
    let mut counts = vec![0_usize; automaton.len()];
    for state in automaton.states() {
        let steps = automaton.steps(state);
        steps.iter().for_each(|step| counts[step.next() as usize] += 1);
        counts[automaton.default_of(state) as usize] += automaton.classes - steps.len();
    }
    (0..).zip(counts).max_by_key(|&(_, count)| count).map_or(0, |(state, _)| state)
}

/// One state for each block, the dead state's block first.
fn quotient(automaton: &Rows, partition: &Partition) -> Rows {
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
    let mut smallest = Rows::new(automaton.classes);
    let mut row = Vec::new();
    for block in std::iter::once(dead).chain((0..partition.blocks()).filter(|&block| block != dead)) {
        let state = partition.members(block)[0];
        automaton.expand(state, &mut row);
        row.iter_mut().for_each(|next| *next = number(*next));
        smallest.push(&row);
        smallest.accept.push(automaton.accept[state as usize]);
    }
    smallest.starts = automaton.starts.iter().map(|&start| number(start)).collect();
    smallest.shrink();
    smallest
}

/// Who leads to a state, but for one state that is left out.
struct Sources {
    /// The states that lead there by default.
    defaults: Turned<u32>,
    /// The class of each other step, and the state whose step it is.
    steps: Turned<(u32, u32)>,
}

impl Sources {
    fn new(automaton: &Rows, without: u32) -> Self {
        let defaults = || automaton.states().map(|state| (automaton.default_of(state), state));
        let steps = || {
            let of =
                |state| automaton.steps(state).iter().map(move |step| (step.next(), (step.class(), state)));
            automaton.states().flat_map(of)
        };
        let count = automaton.len();
        Self {
            defaults: Turned::new(count, || defaults().filter(|(next, _)| *next != without)),
            steps: Turned::new(count, || steps().filter(|(next, _)| *next != without)),
        }
    }
}

/// Lists by state, in one piece of memory.
struct Turned<T> {
    /// Where that of each state begins.
    first: Vec<u32>,
    all: Vec<T>,
}

impl<T: Copy + Default> Turned<T> {
    /// Of pairs of a state and an item, which are asked for twice.
    fn new<I: Iterator<Item = (u32, T)>>(states: usize, pairs: impl Fn() -> I) -> Self {
        let mut first = vec![0_u32; states + 1];
        pairs().for_each(|(state, _)| first[state as usize] += 1);
        // Where those of each end; filling from there backwards, that becomes where they begin.
        let mut end = 0;
        for count in &mut first {
            end += *count;
            *count = end;
        }
        let mut all = vec![T::default(); end as usize];
        for (state, item) in pairs() {
            let place = &mut first[state as usize];
            *place -= 1;
            all[*place as usize] = item;
        }
        Self { first, all }
    }

    fn of(&self, state: u32) -> &[T] {
        &self.all[self.first[state as usize] as usize..self.first[state as usize + 1] as usize]
    }
}

/// Who leads to one of the states of a block.
struct Leading {
    /// By default.
    defaults: Vec<u32>,
    /// By a step of its own: class and state, in order.
    steps: Vec<(u32, u32)>,
    /// The classes of which one of them has a step, wherever it leads.
    is_special: Vec<bool>,
}

impl Leading {
    fn new(classes: usize) -> Self {
        Self { defaults: Vec::new(), steps: Vec::new(), is_special: vec![false; classes] }
    }

    fn find(&mut self, automaton: &Rows, sources: &Sources, members: &[u32]) {
        self.defaults.clear();
        self.steps.clear();
        self.is_special.fill(false);
        for &state in members {
            self.defaults.extend_from_slice(sources.defaults.of(state));
            self.steps.extend_from_slice(sources.steps.of(state));
        }
        self.steps.sort_unstable();
        self.steps.iter().for_each(|(class, _)| self.is_special[*class as usize] = true);
        for &state in &self.defaults {
            automaton.steps(state).iter().for_each(|step| self.is_special[step.class() as usize] = true);
        }
    }

    /// The classes by which they are to be told apart: of those that are alike to all of them, one.
    fn classes(&self) -> Vec<u32> {
        let all = || (0_u32..).zip(&self.is_special);
        let plain = all().find(|(_, special)| !**special).filter(|_| !self.defaults.is_empty());
        all().filter(|(_, special)| **special).chain(plain).map(|(class, _)| class).collect()
    }

    /// Each that leads there by this class.
    fn each(&self, automaton: &Rows, class: u32, mut take: impl FnMut(u32)) {
        let from = self.steps.partition_point(|(other, _)| *other < class);
        let here = self.steps[from..].iter().take_while(|(other, _)| *other == class);
        here.for_each(|(_, state)| take(*state));
        let by_default = |state: &&u32| automaton.steps(**state).iter().all(|step| step.class() != class);
        self.defaults.iter().filter(by_default).for_each(|state| take(*state));
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
