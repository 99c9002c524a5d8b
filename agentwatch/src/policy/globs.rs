//! All that a policy says of paths.

use super::{AddressPattern, Patterns, Policy, Scope, What, address::AddressKind};
use crate::event::Op;
use crate::matcher::PathGlob;

impl Policy {
    /// Every pattern over paths: of rules, of resources, of what is protected. Some come more than once.
    pub fn path_globs(&self) -> impl Iterator<Item = &PathGlob> {
        let scopes = self.rules.iter().flat_map(|rule| [&*rule.scope, &*rule.unless]);
        let resources = self.resources.iter().flat_map(|resource| {
            resource.files.iter().chain(resource.connect.iter().filter_map(AddressPattern::path))
        });
        let protected =
            self.agents.iter().flat_map(|agent| self.protected(agent)).flat_map(|one| one.globs());
        scopes.flat_map(globs_of).chain(resources).chain(protected)
    }
}

impl AddressPattern {
    /// The pattern over paths of Unix sockets, where it is one.
    #[must_use]
    pub fn path(&self) -> Option<&PathGlob> {
        match self.kind() {
            AddressKind::UnixPath(glob) => Some(glob),
            _ => None,
        }
    }
}

/// The patterns over paths of a rule, without those of resources.
fn globs_of(scope: &Scope) -> Vec<&PathGlob> {
    let mut all = Vec::new();
    for &op in Op::ALL {
        match scope.patterns(op) {
            Patterns::Paths(entries) => all.extend(entries.iter().filter_map(|entry| match &entry.what {
                What::Pattern(glob) => Some(glob),
                What::Resource(_) => None,
            })),
            Patterns::Addresses(entries) => {
                all.extend(entries.iter().filter_map(|entry| match &entry.what {
                    What::Pattern(pattern) => pattern.path(),
                    What::Resource(_) => None,
                }))
            }
            Patterns::Commands(_) => {}
        }
    }
    all
}
