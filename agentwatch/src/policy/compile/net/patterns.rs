//! The patterns of all rules for addresses of the Internet protocols, one by one.

use std::collections::HashMap;

use crate::event::Op;
use crate::policy::address::{AddressKind, DnsName, HostPattern, Network, Ports, Transport};
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
    /// Patterns for names, each once.
    pub names: Vec<(DnsName, Vec<ShapeId>)>,
    name_numbers: HashMap<DnsName, usize>,
}

impl Gathered {
    /// Gathers the patterns of a policy.
    pub fn new(policy: &Policy) -> Self {
        let mut gathered = Self::default();
        for (index, rule) in policy.rules.iter().enumerate() {
            for op in [Op::Connect, Op::Listen] {
                gathered.rule(policy, (index, rule), op);
            }
        }
        gathered
    }

    fn rule(&mut self, policy: &Policy, (index, rule): (usize, &Rule), op: Op) {
        let about = hosts(policy, &rule.scope, op);
        let unless = hosts(policy, &rule.unless, op);
        let local_exception = unless.iter().any(|(host, ..)| *host != HostPattern::Any);
        let is_local = about.iter().any(|(host, ..)| *host != HostPattern::Any);
        for (all, unless) in [(about, false), (unless, true)] {
            for (host, transport, ports) in all {
                let shape = self.number(Shape { rule: index, unless, op, transport, ports });
                match host {
                    HostPattern::Network(network) => self.networks.entry(network).or_default().push(shape),
                    HostPattern::Name(name) => self.name(name, shape),
                    HostPattern::Any if local_exception => self.everywhere.push(shape),
                    HostPattern::Any if unless => {
                        self.anywhere.push(shape);
                        if is_local {
                            self.everywhere.push(shape);
                        }
                    }
                    HostPattern::Any => self.anywhere.push(shape),
                }
            }
        }
    }

    fn name(&mut self, name: DnsName, shape: ShapeId) {
        let next = self.names.len();
        let number = *self.name_numbers.entry(name.clone()).or_insert(next);
        match self.names.get_mut(number) {
            Some((_, shapes)) => shapes.push(shape),
            None => self.names.push((name, vec![shape])),
        }
    }

    /// The numbers of the patterns that cover a name in lower case.
    pub fn names_of(&self, name: &str) -> impl Iterator<Item = usize> {
        let mut at = Some(DnsName { name: name.to_owned(), below: false });
        let candidates = std::iter::from_fn(move || {
            let next = at.take()?;
            at = next.name.split_once('.').map(|(_, rest)| DnsName { name: rest.to_owned(), below: true });
            Some(next)
        });
        candidates.filter_map(|candidate| self.name_numbers.get(&candidate).copied())
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

/// A pattern's host, transport and ports.
type Host = (HostPattern, Option<Transport>, Ports);

/// Whether a scope is about networks.
pub(super) fn has_network(policy: &Policy, scope: &Scope, op: Op) -> bool {
    hosts(policy, scope, op).iter().any(|(host, ..)| matches!(host, HostPattern::Network(_)))
}

fn hosts(policy: &Policy, scope: &Scope, op: Op) -> Vec<Host> {
    let Patterns::Addresses(entries) = scope.patterns(op) else { return Vec::new() };
    entries.iter().flat_map(|entry| patterns(policy, entry)).filter_map(host_of).collect()
}

fn patterns<'p>(policy: &'p Policy, entry: &'p Entry<AddressPattern>) -> &'p [AddressPattern] {
    match &entry.what {
        What::Pattern(pattern) => std::slice::from_ref(pattern),
        What::Resource(index) => policy.resources.get(*index).map_or(&[], |resource| &resource.connect),
    }
}

fn host_of(pattern: &AddressPattern) -> Option<Host> {
    match pattern.kind() {
        AddressKind::Ip { host, transport, ports } => Some((host.clone(), *transport, ports.clone())),
        _ => None,
    }
}
