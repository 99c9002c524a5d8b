//! The tree of patterns as a deterministic automaton, by the construction of subsets.
//!
//! It is our own because of one step that a general library cannot take: as only the lowest mark of each class
//! counts, whatever can only lead to higher ones is dropped as soon as a lower one matches for good. Without it,
//! patterns such as `node *a*`, `node *b*`, … of n agents need 2ⁿ states; with it, some n times their length.

use super::Mark;
use super::classes::Classes;
use super::lowest::Lowest;
use super::nfa::{Nfa, NodeId};
use super::rows::Rows;
use super::slices::Slices;

/// Nodes in all states together: bounds memory and time. Past it the patterns are refused.
const MEMBERS_MAX: usize = 1 << 22;

/// The state of no nodes.
const DEAD: u32 = 0;

/// The patterns need too many states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyStates;

/// An automaton that is not yet the smallest.
#[derive(Debug)]
pub(super) struct Built {
    /// It accepts numbers of `sets`.
    pub automaton: Rows,
    /// What matches, by number: of each class the lowest mark. Number 0 is nothing.
    pub sets: Slices<Mark>,
}

struct Builder<'a> {
    nfa: &'a Nfa,
    lowest: Lowest,
    /// The nodes that each state stands for.
    states: Slices<NodeId>,
    states_max: usize,
    automaton: Rows,
    sets: Slices<Mark>,
    /// Where a state's ways lead, by class: kept for its memory, as is its row.
    next: Vec<Vec<NodeId>>,
    row: Vec<u32>,
}

/// The automaton with these starts, each a set of roots, if it has at most so many states.
pub(super) fn build(
    nfa: &Nfa,
    classes: &Classes,
    starts: &[Vec<NodeId>],
    states_max: usize,
) -> Result<Built, TooManyStates> {
    let mut builder = Builder {
        nfa,
        lowest: Lowest::new(nfa),
        states: Slices::new(),
        states_max,
        automaton: Rows::new(classes.members.len()),
        sets: Slices::new(),
        next: vec![Vec::new(); classes.members.len()],
        row: Vec::new(),
    };
    builder.sets.add(&[]);
    builder.state(Vec::new())?;
    for roots in starts {
        let start = builder.state(roots.clone())?;
        builder.automaton.starts.push(start);
    }
    let within: Vec<Vec<usize>> = nfa.sets().iter().map(|&set| classes.within(set)).collect();
    let mut nodes = Vec::new();
    for done in 0.. {
        if done as usize == builder.states.len() {
            break;
        }
        nodes.clear();
        nodes.extend_from_slice(builder.states.get(done));
        builder.follow(&nodes, &within)?;
    }
    builder.automaton.shrink();
    Ok(Built { automaton: builder.automaton, sets: builder.sets })
}

impl Builder<'_> {
    /// Appends the row of the next state in order. `within` has the classes of each set of bytes.
    fn follow(&mut self, nodes: &[NodeId], within: &[Vec<usize>]) -> Result<(), TooManyStates> {
        let (mut next, mut row) = (std::mem::take(&mut self.next), std::mem::take(&mut self.row));
        next.iter_mut().for_each(Vec::clear);
        row.clear();
        for &id in nodes {
            for (set, to) in self.nfa.by_byte(id) {
                for &class in within.get(set as usize).into_iter().flatten() {
                    if let Some(targets) = next.get_mut(class) {
                        targets.push(to);
                    }
                }
            }
        }
        // Most classes lead to the same place: it is looked for once.
        let mut found: Vec<(&[NodeId], u32)> = Vec::new();
        for targets in &next {
            if targets.is_empty() {
                row.push(DEAD);
                continue;
            }
            let state = match found.iter().find(|(others, _)| *others == targets.as_slice()) {
                Some(&(_, state)) => state,
                None => {
                    let state = self.state(targets.clone())?;
                    found.push((targets, state));
                    state
                }
            };
            row.push(state);
        }
        self.automaton.push(&row);
        (self.next, self.row) = (next, row);
        Ok(())
    }

    /// The number of the state that stands for these nodes.
    fn state(&mut self, nodes: Vec<NodeId>) -> Result<u32, TooManyStates> {
        let nodes = self.closed(nodes);
        if let Some(state) = self.states.find(&nodes) {
            return Ok(state);
        }
        if self.states.len() >= self.states_max || self.states.items() + nodes.len() > MEMBERS_MAX {
            return Err(TooManyStates);
        }
        let accept = self.set_of(&nodes);
        self.automaton.accept.push(accept);
        Ok(self.states.add(&nodes))
    }

    /// The number of what matches where the text ends in these nodes.
    fn set_of(&mut self, nodes: &[NodeId]) -> u32 {
        let mut marks: Vec<Mark> = nodes.iter().flat_map(|&id| self.nfa.accept(id)).copied().collect();
        marks.sort_unstable();
        marks.dedup_by_key(|mark| mark.class);
        self.sets.number(&marks)
    }

    /// These nodes and all that are reached without a byte, sorted, without those that cannot count.
    fn closed(&self, mut nodes: Vec<NodeId>) -> Vec<NodeId> {
        let mut index = 0;
        while let Some(&id) = nodes.get(index) {
            index += 1;
            nodes.extend(self.nfa.skips(id));
        }
        nodes.sort_unstable();
        nodes.dedup();
        let forever = self.forever(&nodes);
        if !forever.is_empty() {
            nodes.retain(|&id| self.counts(id, &forever));
        }
        nodes
    }

    /// Of each class the lowest mark that matches for good, with one of the nodes where it does.
    fn forever(&self, nodes: &[NodeId]) -> Vec<(Mark, NodeId)> {
        let marks = |&id: &NodeId| self.nfa.forever(id).iter().map(move |&mark| (mark, id));
        let mut all: Vec<(Mark, NodeId)> = nodes.iter().flat_map(marks).collect();
        all.sort_unstable();
        all.dedup_by_key(|(mark, _)| mark.class);
        all
    }

    /// Whether a node can lead to something that does not match for good anyhow.
    fn counts(&self, id: NodeId, forever: &[(Mark, NodeId)]) -> bool {
        forever.iter().any(|&(_, keep)| keep == id)
            || self.lowest.of(id).iter().any(|mark| {
                match forever.binary_search_by_key(&mark.class, |(known, _)| known.class) {
                    Ok(place) => forever.get(place).is_none_or(|(known, _)| mark < known),
                    Err(_) => true,
                }
            })
    }
}
