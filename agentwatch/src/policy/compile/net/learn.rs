//! Names that are looked for in what sessions are told: what is refused to a session for what it was told itself.
//!
//! Whoever can answer a session can tell it what it likes. So only rules that refuse are learned: more is refused by it,
//! and never less.

use std::collections::BTreeSet;

use agentwatch_common::answer::{NAME_UNDECIDED, name_number};

use super::NetRules;
use super::patterns::{ShapeId, has_network};
use crate::event::Op;
use crate::policy::{Policy, Rule};

/// Whether a rule counts for the addresses that a session itself is told for the rule's names. One with an exception for
/// networks does not: of an address that is learned it is not known which networks it is in.
#[must_use]
pub fn is_learned(policy: &Policy, rule: &Rule) -> bool {
    rule.action.stops() && !has_network(policy, &rule.unless, Op::Connect)
}

impl NetRules {
    /// The numbers of the names that are looked for, each with its set.
    #[must_use]
    pub fn learned(&self) -> &[(u64, u32)] {
        &self.learned
    }

    /// How many names there are whose addresses are refused as undecided where a session is told them, since the tables have
    /// no room for what rules say of them.
    #[must_use]
    pub fn learned_undecided(&self) -> usize {
        let is_undecided =
            |(name, set): &&(u64, u32)| *name != NAME_UNDECIDED && Some(*set) == self.undecided;
        self.learned.iter().filter(is_undecided).count()
    }

    /// Works out the sets.
    pub(super) fn learn(&mut self) {
        let names: Vec<String> = self.names().map(ToString::to_string).collect();
        for name in names {
            let Some(shapes) = self.shapes_of(&name) else { continue };
            // What cannot be told in the tables is refused.
            let Some(set) = self.number_of(shapes).ok().or(self.undecided) else { continue };
            self.learned.push((name_number(&name), set));
        }
        if let (false, Some(undecided)) = (self.learned.is_empty(), self.undecided) {
            self.learned.push((NAME_UNDECIDED, undecided));
        }
    }

    /// What rules that are learned say of a name, or of all names that a pattern covers and none more closely. Nothing
    /// where none refuses anything.
    fn shapes_of(&self, name: &str) -> Option<Vec<ShapeId>> {
        let patterns = self.gathered.names_of(name).filter_map(|pattern| self.gathered.names.get(pattern));
        let all: BTreeSet<ShapeId> = patterns.flat_map(|(_, shapes)| shapes).copied().collect();
        let shape = |id: &ShapeId| self.gathered.shapes.get(*id as usize);
        let rule = |index: usize| self.policy.rules.get(index);
        let is_learned = |index: usize| rule(index).is_some_and(|rule| is_learned(&self.policy, rule));
        let about: BTreeSet<usize> = (all.iter().filter_map(shape))
            .filter(|shape| !shape.unless && is_learned(shape.rule))
            .map(|shape| shape.rule)
            .collect();
        if about.is_empty() {
            return None;
        }
        // Exceptions for any host are not among those for names.
        let exceptions = self.gathered.everywhere.iter().filter(|id| shape(id).is_some_and(|one| one.unless));
        let of_these = |id: &ShapeId| shape(id).is_some_and(|shape| about.contains(&shape.rule));
        let found: BTreeSet<ShapeId> = all.iter().chain(exceptions).copied().filter(of_these).collect();
        Some(found.into_iter().collect())
    }
}
