//! All that a policy says of paths.

use super::{Action, AddressPattern, Patterns, Policy, Resource, Rule, Scope, What, address::AddressKind};
use crate::event::Op;
use crate::matcher::PathGlob;

impl Policy {
    /// Every pattern over paths: of rules, of resources, of what is protected. Some come more than once. With each whether
    /// something is refused for what it covers.
    pub fn path_globs(&self) -> impl Iterator<Item = (&PathGlob, bool)> {
        let refusing = self.rules.iter().filter(|rule| rule.action >= Action::Ask);
        let of_resources = refusing.clone().flat_map(|rule| self.resources_of(&rule.scope));
        let refusing = refusing.flat_map(|rule| globs_of(&rule.scope)).chain(of_resources);

        let scopes = self.rules.iter().flat_map(|rule| [&*rule.scope, &*rule.unless]);
        let resources = self.resources.iter().flat_map(|resource| {
            resource.files.iter().chain(resource.connect.iter().filter_map(AddressPattern::path))
        });
        let protected =
            self.agents.iter().flat_map(|agent| self.protected(agent)).flat_map(|one| one.globs());
        let all = scopes.flat_map(globs_of).chain(resources).map(|glob| (glob, false));
        all.chain(refusing.chain(protected).map(|glob| (glob, true)))
    }

    /// Whether what a rule says is about paths.
    #[must_use]
    pub fn is_about_paths(&self, rule: &Rule) -> bool {
        !globs_of(&rule.scope).is_empty() || !self.resources_of(&rule.scope).is_empty()
    }

    /// The patterns over paths of the resources that a scope names.
    fn resources_of(&self, scope: &Scope) -> Vec<&PathGlob> {
        let mut all = Vec::new();
        for &op in Op::ALL {
            match scope.patterns(op) {
                Patterns::Paths(entries) => {
                    all.extend(
                        entries
                            .iter()
                            .filter_map(|entry| self.resource(&entry.what))
                            .flat_map(|resource| &resource.files),
                    );
                }
                Patterns::Addresses(entries) => {
                    let resources = entries.iter().filter_map(|entry| self.resource(&entry.what));
                    all.extend(
                        resources.flat_map(|resource| &resource.connect).filter_map(AddressPattern::path),
                    );
                }
                Patterns::Commands(_) => {}
            }
        }
        all
    }

    fn resource<T>(&self, what: &What<T>) -> Option<&Resource> {
        match what {
            What::Pattern(_) => None,
            What::Resource(index) => self.resources.get(*index),
        }
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
