//! The tree of patterns as a deterministic automaton, by the construction of subsets.
//!
//! It is our own because of one step that a general library cannot take: as only the lowest agent counts,
//! whatever can only lead to a higher agent is dropped as soon as a lower one matches for good. Without it,
//! patterns such as `node *a*`, `node *b*`, … of n agents need 2ⁿ states; with it, some n times their length.

use std::collections::HashMap;
use std::rc::Rc;

use super::classes::Classes;
use super::nfa::{Nfa, NodeId};
use super::{AgentIndex, CompileError};

/// States before the smallest automaton is looked for. Past it the patterns are refused.
const STATES_MAX: usize = 1 << 16;
/// Nodes in all states together: bounds memory and time. Past it the patterns are refused.
const MEMBERS_MAX: usize = 1 << 22;

/// State 0 is dead.
#[derive(Debug)]
pub(super) struct Automaton {
    pub classes: usize,
    /// `table[state * classes + class]` is the next state.
    pub table: Vec<u32>,
    /// The agent that matches where the text ends in a state, plus one, or 0.
    pub accept: Vec<u32>,
    pub starts: Vec<u32>,
}

struct Builder<'a> {
    nfa: &'a Nfa,
    known: HashMap<Rc<[NodeId]>, u32>,
    waiting: Vec<Rc<[NodeId]>>,
    members: usize,
    automaton: Automaton,
}

/// The automaton of these roots, one start state for each.
pub(super) fn build(nfa: &Nfa, classes: &Classes, roots: &[NodeId]) -> Result<Automaton, CompileError> {
    let automaton = Automaton {
        classes: classes.members.len(),
        table: Vec::new(),
        accept: Vec::new(),
        starts: Vec::new(),
    };
    let mut builder = Builder { nfa, known: HashMap::new(), waiting: Vec::new(), members: 0, automaton };
    builder.state(Vec::new())?;
    for &root in roots {
        let start = builder.state(vec![root])?;
        builder.automaton.starts.push(start);
    }
    let sets = ways(nfa, classes);
    let mut done = 0;
    while let Some(nodes) = builder.waiting.get(done).cloned() {
        done += 1;
        builder.follow(&nodes, &sets)?;
    }
    Ok(builder.automaton)
}

/// For each node its ways on, as classes.
fn ways(nfa: &Nfa, classes: &Classes) -> Vec<Vec<(Vec<usize>, NodeId)>> {
    let mut all = Vec::with_capacity(nfa.nodes().len());
    for (id, node) in (0_u32..).zip(nfa.nodes()) {
        let steps = node.ones.iter().chain(&node.links);
        let mut ways: Vec<_> = steps.map(|(set, to)| (classes.within(*set), *to)).collect();
        ways.push((classes.within(node.repeat), id));
        all.push(ways);
    }
    all
}

impl Builder<'_> {
    /// Appends the row of the next state in order.
    fn follow(&mut self, nodes: &[NodeId], ways: &[Vec<(Vec<usize>, NodeId)>]) -> Result<(), CompileError> {
        let mut next: Vec<Vec<NodeId>> = vec![Vec::new(); self.automaton.classes];
        for &node in nodes {
            for (classes, to) in ways.get(node as usize).into_iter().flatten() {
                for &class in classes {
                    if let Some(targets) = next.get_mut(class) {
                        targets.push(*to);
                    }
                }
            }
        }
        for targets in next {
            let state = self.state(targets)?;
            self.automaton.table.push(state);
        }
        Ok(())
    }

    /// The number of the state that stands for these nodes.
    fn state(&mut self, nodes: Vec<NodeId>) -> Result<u32, CompileError> {
        let nodes = self.closed(nodes);
        if let Some(&state) = self.known.get(nodes.as_slice()) {
            return Ok(state);
        }
        let state = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        self.members += nodes.len();
        if self.waiting.len() >= STATES_MAX || self.members > MEMBERS_MAX {
            return Err(CompileError::TooManyStates);
        }
        let accept = nodes.iter().filter_map(|&id| self.nfa.node(id)?.accept).min();
        self.automaton.accept.push(accept.map_or(0, |agent| agent + 1));
        let nodes: Rc<[NodeId]> = nodes.into();
        self.known.insert(Rc::clone(&nodes), state);
        self.waiting.push(nodes);
        Ok(state)
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
        let forever = nodes.iter().filter_map(|&id| Some((self.nfa.node(id)?.forever()?, id))).min();
        if let Some((agent, keep)) = forever {
            nodes.retain(|&id| id == keep || self.lowest(id) < agent);
        }
        nodes
    }

    fn lowest(&self, id: NodeId) -> AgentIndex {
        self.nfa.node(id).map_or(AgentIndex::MAX, |node| node.lowest)
    }
}
