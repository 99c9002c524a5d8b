//! What the shapes of a set say of each port: one sweep over all ports.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use agentwatch_common::rules::{CHOICES, Choice};

use super::patterns::Shape;
use super::{NetError, PortRange};
use crate::policy::compile::{choices, order};
use crate::policy::{Action, Policy};

const PORT_MAX: u32 = u16::MAX as u32;

/// The ranges of a list, of shapes of one operation and transport. Empty where no rule is about any port.
pub(super) fn ranges(policy: &Policy, shapes: &[&Shape]) -> Result<Vec<PortRange>, NetError> {
    let mut events: Vec<(u32, bool, &Shape)> = Vec::new();
    for shape in shapes {
        for range in shape.ports.ranges() {
            events.push((*range.start(), true, shape));
            events.push((range.end().saturating_add(1), false, shape));
        }
    }
    events.sort_by_key(|(port, ..)| *port);
    let mut sweep = Sweep { policy, about: HashMap::new(), unless: HashMap::new(), active: BTreeSet::new() };
    let mut found: Vec<PortRange> = Vec::new();
    let mut events = events.into_iter().peekable();
    let mut port = 0;
    while port <= PORT_MAX {
        while let Some((_, begins, shape)) = events.next_if(|(at, ..)| *at <= port) {
            sweep.take(shape, begins);
        }
        let next = events.peek().map_or(PORT_MAX + 1, |(at, ..)| (*at).min(PORT_MAX + 1));
        let last = u16::try_from(next - 1).unwrap_or(u16::MAX);
        let choices = sweep.choices()?;
        match found.last_mut() {
            Some(before) if before.choices == choices => before.last = last,
            _ => found.push(PortRange { last, pad: 0, choices }),
        }
        port = next;
    }
    let says_nothing = found.iter().all(|range| range.choices == [Choice::default(); CHOICES]);
    Ok(if says_nothing { Vec::new() } else { found })
}

/// The rules that are about the port that the sweep has reached.
struct Sweep<'p> {
    policy: &'p Policy,
    /// For each rule the number of its patterns that hold here, and of its exceptions.
    about: HashMap<usize, usize>,
    unless: HashMap<usize, usize>,
    /// In the order in which they win.
    active: BTreeSet<(Reverse<Action>, usize)>,
}

impl Sweep<'_> {
    fn take(&mut self, shape: &Shape, begins: bool) {
        let counts = if shape.unless { &mut self.unless } else { &mut self.about };
        let count = counts.entry(shape.rule).or_default();
        *count = if begins { *count + 1 } else { count.saturating_sub(1) };
        let has = |counts: &HashMap<usize, usize>| counts.get(&shape.rule).is_some_and(|count| *count > 0);
        let is_active = has(&self.about) && !has(&self.unless);
        let key = order(self.policy, shape.rule);
        if is_active {
            self.active.insert(key);
        } else {
            self.active.remove(&key);
        }
    }

    fn choices(&self) -> Result<[Choice; CHOICES], NetError> {
        Ok(choices(self.policy, self.active.iter().map(|(_, rule)| *rule))?)
    }
}
