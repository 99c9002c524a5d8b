//! The tree of patterns as a deterministic automaton, by the construction of subsets.
//!
//! It is our own because of one step that a general library cannot take: as only the lowest mark of each class
//! counts, whatever can only lead to higher ones is dropped as soon as a lower one matches for good. Without it,
//! patterns such as `node *a*`, `node *b*`, … of n agents need 2ⁿ states; with it, some n times their length.

use std::collections::HashMap;
use std::rc::Rc;

use super::Mark;
use super::classes::Classes;
use super::nfa::{Nfa, NodeId};

/// Nodes in all states together: bounds memory and time. Past it the patterns are refused.
const MEMBERS_MAX: usize = 1 << 22;

/// The patterns need too many states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyStates;

/// State 0 is dead.
#[derive(Debug)]
pub(super) struct Automaton {
    pub classes: usize,
    /// `table[state * classes + class]` is the next state.
    pub table: Vec<u32>,
    /// What matches where the text ends in a state: a number of [`Built::sets`].
    pub accept: Vec<u32>,
    pub starts: Vec<u32>,
}

/// An automaton that is not yet the smallest.
#[derive(Debug)]
pub(super) struct Built {
    pub automaton: Automaton,
    /// What matches, by number: of each class the lowest mark. Number 0 is nothing.
    pub sets: Vec<Vec<Mark>>,
}

struct Builder<'a> {
    nfa: &'a Nfa,
    known: HashMap<Rc<[NodeId]>, u32>,
    waiting: Vec<Rc<[NodeId]>>,
    members: usize,
    states_max: usize,
    automaton: Automaton,
    sets: Vec<Vec<Mark>>,
    set_numbers: HashMap<Vec<Mark>, u32>,
    /// Where a state's ways lead, by class: kept for its memory.
    next: Vec<Vec<NodeId>>,
}

/// The automaton with these starts, each a set of roots, if it has at most so many states.
pub(super) fn build(
    nfa: &Nfa,
    classes: &Classes,
    starts: &[Vec<NodeId>],
    states_max: usize,
) -> Result<Built, TooManyStates> {
    let automaton = Automaton {
        classes: classes.members.len(),
        table: Vec::new(),
        accept: Vec::new(),
        starts: Vec::new(),
    };
    let mut builder = Builder {
        nfa,
        known: HashMap::new(),
        waiting: Vec::new(),
        members: 0,
        states_max,
        automaton,
        sets: vec![Vec::new()],
        set_numbers: HashMap::from([(Vec::new(), 0)]),
        next: vec![Vec::new(); classes.members.len()],
    };
    builder.state(Vec::new())?;
    for roots in starts {
        let start = builder.state(roots.clone())?;
        builder.automaton.starts.push(start);
    }
    let within: Vec<Vec<usize>> = nfa.sets().iter().map(|&set| classes.within(set)).collect();
    let mut done = 0;
    while let Some(nodes) = builder.waiting.get(done).cloned() {
        done += 1;
        builder.follow(&nodes, &within)?;
    }
    Ok(Built { automaton: builder.automaton, sets: builder.sets })
}

impl Builder<'_> {
    /// Appends the row of the next state in order. `within` has the classes of each set of bytes.
    fn follow(&mut self, nodes: &[NodeId], within: &[Vec<usize>]) -> Result<(), TooManyStates> {
        let mut next = std::mem::take(&mut self.next);
        next.iter_mut().for_each(Vec::clear);
        for &id in nodes {
            let Some(node) = self.nfa.node(id) else { continue };
            for &(set, to) in node.ones.iter().chain(&node.links).chain(&[(node.repeat, id)]) {
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
            let state = match found.iter().find(|(others, _)| *others == targets.as_slice()) {
                Some(&(_, state)) => state,
                None => {
                    let state = self.state(targets.clone())?;
                    found.push((targets, state));
                    state
                }
            };
            self.automaton.table.push(state);
        }
        self.next = next;
        Ok(())
    }

    /// The number of the state that stands for these nodes.
    fn state(&mut self, nodes: Vec<NodeId>) -> Result<u32, TooManyStates> {
        let nodes = self.closed(nodes);
        if let Some(&state) = self.known.get(nodes.as_slice()) {
            return Ok(state);
        }
        let state = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        self.members += nodes.len();
        if self.waiting.len() >= self.states_max || self.members > MEMBERS_MAX {
            return Err(TooManyStates);
        }
        let accept = self.set_of(&nodes);
        self.automaton.accept.push(accept);
        let nodes: Rc<[NodeId]> = nodes.into();
        self.known.insert(Rc::clone(&nodes), state);
        self.waiting.push(nodes);
        Ok(state)
    }

    /// The number of what matches where the text ends in these nodes.
    fn set_of(&mut self, nodes: &[NodeId]) -> u32 {
        let accepts = nodes.iter().filter_map(|&id| self.nfa.node(id));
        let mut marks: Vec<Mark> = accepts.flat_map(|node| node.accept.iter().copied()).collect();
        marks.sort_unstable();
        marks.dedup_by_key(|mark| mark.class);
        if let Some(&number) = self.set_numbers.get(&marks) {
            return number;
        }
        let number = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
        self.sets.push(marks.clone());
        self.set_numbers.insert(marks, number);
        number
    }

    /// These nodes and all that are reached without a byte, sorted, without those that cannot count.
    fn closed(&self, mut nodes: Vec<NodeId>) -> Vec<NodeId> {
        let mut index = 0;
        while let Some(&id) = nodes.get(index) {
            index += 1;
            if let Some(node) = self.nfa.node(id) {
                nodes.extend_from_slice(&node.skips);
            }
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
        let marks = |&id: &NodeId| {
            let node = self.nfa.node(id);
            node.into_iter().flat_map(move |node| node.forever().iter().map(move |&mark| (mark, id)))
        };
        let mut all: Vec<(Mark, NodeId)> = nodes.iter().flat_map(marks).collect();
        all.sort_unstable();
        all.dedup_by_key(|(mark, _)| mark.class);
        all
    }

    /// Whether a node can lead to something that does not match for good anyhow.
    fn counts(&self, id: NodeId, forever: &[(Mark, NodeId)]) -> bool {
        let lowest = self.nfa.node(id).map_or([].as_slice(), |node| &node.lowest);
        forever.iter().any(|&(_, keep)| keep == id)
            || lowest.iter().any(|mark| {
                match forever.binary_search_by_key(&mark.class, |(known, _)| known.class) {
                    Ok(place) => forever.get(place).is_none_or(|(known, _)| mark < known),
                    Err(_) => true,
                }
            })
    }
}
