//! What can still match from the nodes of the tree of patterns.

use super::Mark;
use super::nfa::{Nfa, NodeId};
use super::slices::Slices;

/// Of each node the marks that can still match: of each class the lowest, in order. Most nodes have the same as the
/// node behind them.
pub(super) struct Lowest {
    of_nodes: Vec<u32>,
    lists: Slices<Mark>,
}

impl Lowest {
    /// Of a tree to which nothing is added any more.
    pub(super) fn new(nfa: &Nfa) -> Self {
        let mut lowest = Self { of_nodes: vec![0; nfa.len()], lists: Slices::new() };
        for end in nfa.ends() {
            lowest.set(end, nfa.accept(end));
        }
        let mut marks: Vec<Mark> = Vec::new();
        // What is behind a node has a higher number, ends apart.
        for id in (0..u32::try_from(nfa.len()).unwrap_or(u32::MAX)).rev() {
            marks.clear();
            marks.extend(nfa.accept(id).iter().chain(nfa.beyond(id)));
            let mut children = nfa.children(id);
            if let (true, Some(only), None) = (marks.is_empty(), children.next(), children.next()) {
                lowest.copy(id, only);
                continue;
            }
            nfa.children(id).for_each(|child| marks.extend_from_slice(lowest.of(child)));
            marks.sort_unstable();
            marks.dedup_by_key(|mark| mark.class);
            lowest.set(id, &marks);
        }
        lowest
    }

    /// What can still match from a node: of each class the lowest, in order.
    pub(super) fn of(&self, id: NodeId) -> &[Mark] {
        self.of_nodes.get(id as usize).map_or(&[], |list| self.lists.get(*list))
    }

    fn set(&mut self, id: NodeId, marks: &[Mark]) {
        let number = self.lists.number(marks);
        if let Some(list) = self.of_nodes.get_mut(id as usize) {
            *list = number;
        }
    }

    fn copy(&mut self, id: NodeId, from: NodeId) {
        let number = self.of_nodes.get(from as usize).copied().unwrap_or(0);
        if let Some(list) = self.of_nodes.get_mut(id as usize) {
            *list = number;
        }
    }
}
