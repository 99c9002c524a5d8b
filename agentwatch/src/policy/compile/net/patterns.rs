//! The patterns of all rules for addresses of the Internet protocols, one by one.

use std::collections::HashMap;
use std::net::IpAddr;

use super::KnownNames;
use crate::event::Op;
use crate::policy::address::{AddressKind, HostPattern, Network, Ports, Transport};
use crate::policy::{AddressPattern, Entry, Patterns, Policy, Rule, Scope, What};

/// What one pattern of a rule says of the ports of a host: alike for all hosts where it is the same number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    /// Index of the rule.
    pub rule: usize,
    /// Whether the rule is about these ports, or not about them (`unless`).
    pub unless: bool,
    /// Connect or listen.
    pub op: Op,
    /// Only by this.
    pub transport: Option<Transport>,
    /// The ports.
    pub ports: Ports,
}

/// The number of a [`Shape`].
pub(super) type ShapeId = u32;

/// All patterns.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// The shapes by number.
    pub shapes: Vec<Shape>,
    numbers: HashMap<Shape, ShapeId>,
    /// Patterns for any host, of rules without an exception for certain hosts.
    pub anywhere: Vec<ShapeId>,
    /// Patterns for any host that every other set must know, too: exceptions, and rules with an exception for
    /// certain hosts.
    pub everywhere: Vec<ShapeId>,
    /// Patterns for certain hosts.
    pub networks: HashMap<Network, Vec<ShapeId>>,
}

impl Gathered {
    /// Gathers the patterns of a policy; each name stands for the addresses that it is known for.
    pub fn new(policy: &Policy, names: &KnownNames) -> Self {
        let mut gathered = Self::default();
        for (index, rule) in policy.rules.iter().enumerate() {
            for op in [Op::Connect, Op::Listen] {
                gathered.rule(policy, names, (index, rule), op);
            }
        }
        gathered
    }

    fn rule(&mut self, policy: &Policy, names: &KnownNames, (index, rule): (usize, &Rule), op: Op) {
        let about = hosts(policy, names, &rule.scope, op);
        let unless = hosts(policy, names, &rule.unless, op);
        let local_exception = unless.iter().any(|(host, ..)| host.is_some());
        let is_local = about.iter().any(|(host, ..)| host.is_some());
        for (all, unless) in [(about, false), (unless, true)] {
            for (host, transport, ports) in all {
                let shape = self.number(Shape { rule: index, unless, op, transport, ports });
                match host {
                    Some(network) => self.networks.entry(network).or_default().push(shape),
                    None if local_exception => self.everywhere.push(shape),
                    None if unless => {
                        self.anywhere.push(shape);
                        if is_local {
                            self.everywhere.push(shape);
                        }
                    }
                    None => self.anywhere.push(shape),
                }
            }
        }
    }

    fn number(&mut self, shape: Shape) -> ShapeId {
        if let Some(&number) = self.numbers.get(&shape) {
            return number;
        }
        let number = ShapeId::try_from(self.shapes.len()).unwrap_or(ShapeId::MAX);
        self.shapes.push(shape.clone());
        self.numbers.insert(shape, number);
        number
    }
}

/// A pattern's host (any without), transport and ports.
type Host = (Option<Network>, Option<Transport>, Ports);

fn hosts(policy: &Policy, names: &KnownNames, scope: &Scope, op: Op) -> Vec<Host> {
    let Patterns::Addresses(entries) = scope.patterns(op) else { return Vec::new() };
    entries.iter().flat_map(|entry| patterns(policy, entry)).flat_map(|one| hosts_of(one, names)).collect()
}

fn patterns<'p>(policy: &'p Policy, entry: &'p Entry<AddressPattern>) -> &'p [AddressPattern] {
    match &entry.what {
        What::Pattern(pattern) => std::slice::from_ref(pattern),
        What::Resource(index) => policy.resources.get(*index).map_or(&[], |resource| &resource.connect),
    }
}

fn hosts_of(pattern: &AddressPattern, names: &KnownNames) -> Vec<Host> {
    let AddressKind::Ip { host, transport, ports } = pattern.kind() else { return Vec::new() };
    let one = |network| (network, *transport, ports.clone());
    match host {
        HostPattern::Any => vec![one(None)],
        HostPattern::Network(network) => vec![one(Some(*network))],
        HostPattern::Name(name) => names
            .iter()
            .filter(|(known, _)| name.matches(known))
            .flat_map(|(_, addresses)| addresses)
            .map(|address| one(Some(single(*address))))
            .collect(),
    }
}

fn single(address: IpAddr) -> Network {
    Network::new(address.to_canonical(), 128)
}
