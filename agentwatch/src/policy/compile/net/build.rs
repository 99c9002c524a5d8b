//! From a policy to the tables.

use std::collections::HashMap;
use std::net::IpAddr;

use agentwatch_common::rules::{CHOICES, Choice, NET_RANGES, NET_ROWS, RULE_UNDECIDED, Verdict};

use super::patterns::{Gathered, Shape, ShapeId};
use super::{
    ANY_HOST, KnownNames, NetError, NetTables, PREFIXES_MAX, PortList, PortRange, Prefix4, Prefix6,
    RANGES_MAX, ROWS_MAX,
};
use crate::event::Op;
use crate::policy::Policy;
use crate::policy::address::{Network, Transport};
use crate::policy::compile::{Views, choice_of_default, windows_of};

/// Compiles the addresses of a policy's rules, with what is known of its names.
///
/// # Errors
/// When they do not fit the tables.
pub fn compile(policy: &Policy, views: &Views, names: &KnownNames) -> Result<NetTables, NetError> {
    let mut compiled = NetRules::new(policy, views)?;
    compiled.update(names);
    Ok(compiled.tables_with_names())
}

/// The tables, and what is needed to follow names in them.
#[derive(Debug)]
pub struct NetRules {
    pub(super) policy: Policy,
    views: Views,
    pub(super) gathered: Gathered,
    /// Patterns of each set but the last, which is the one of addresses that could not be worked out.
    pub(super) sets: Vec<Vec<ShapeId>>,
    numbers: HashMap<Vec<ShapeId>, u32>,
    /// Lists by the shapes that they are made of, and by their ranges.
    lists: HashMap<Vec<ShapeId>, u32>,
    ranges: HashMap<Vec<RangeKey>, u32>,
    /// The set in which everything is refused as undecided; only where the policy has names.
    pub(super) undecided: Option<u32>,
    /// The addresses of names, each with its set.
    pub(super) placed: super::names::Placed,
    /// The names that are looked for in what sessions are told: their numbers, each with its set.
    pub(super) learned: Vec<(u64, u32)>,
    tables: NetTables,
}

impl NetRules {
    /// Compiles the addresses of a policy's rules; of its names nothing is known yet.
    ///
    /// # Errors
    /// When they do not fit the tables.
    pub fn new(policy: &Policy, views: &Views) -> Result<Self, NetError> {
        let gathered = Gathered::new(policy);
        let (prefixes, sets) = sets(&gathered)?;
        let rows = sets.len() * views.len() * 2 * Transport::ALL.len();
        if rows > ROWS_MAX {
            return Err(NetError::TooManyRows { sets: sets.len(), views: views.len() });
        }
        let mut rules = Self {
            policy: policy.clone(),
            views: views.clone(),
            gathered,
            numbers: (0..).zip(&sets).skip(1).map(|(number, set)| (set.clone(), number)).collect(),
            sets: Vec::new(),
            lists: HashMap::new(),
            ranges: HashMap::new(),
            undecided: None,
            placed: super::names::Placed::default(),
            learned: Vec::new(),
            tables: NetTables::default(),
        };
        rules.tables.lists.push(PortList::default());
        rules.tables.views = u32::try_from(views.len()).unwrap_or(u32::MAX);
        rules.tables.windows = windows_of(policy);
        rules.prefixes(&prefixes);
        rules.defaults();
        for set in sets {
            rules.set(set)?;
        }
        if !rules.gathered.names.is_empty() {
            rules.refusing_set()?;
            rules.learn();
        }
        Ok(rules)
    }

    /// The tables, without the addresses of names.
    #[must_use]
    pub fn tables(&self) -> &NetTables {
        &self.tables
    }

    fn prefixes(&mut self, prefixes: &[(Network, u32)]) {
        for &(network, set) in prefixes {
            let bits = u32::from(network.bits);
            match network.address {
                IpAddr::V4(v4) => self.tables.v4.push(Prefix4 { bits, address: v4.octets(), set }),
                IpAddr::V6(v6) => self.tables.v6.push(Prefix6 { bits, address: v6.octets(), set }),
            }
        }
    }

    fn defaults(&mut self) {
        for view in 0..self.views.len() {
            for op in [Op::Connect, Op::Listen] {
                let action = self.views.default_for(&self.policy, view, op);
                self.tables.defaults.push(action.map_or(Choice::default(), choice_of_default));
            }
        }
    }

    /// The number of the set of these patterns, which are in order and each once.
    pub(super) fn number_of(&mut self, shapes: Vec<ShapeId>) -> Result<u32, NetError> {
        if let Some(&number) = self.numbers.get(&shapes) {
            return Ok(number);
        }
        let number = u32::try_from(self.sets.len()).map_err(|_| NetError::TooManyRanges)?;
        let (rows, lists, ranges) =
            (self.tables.rows.len(), self.tables.lists.len(), self.tables.ranges.len());
        let made = self.set(shapes.clone());
        // Here the kernel's tables count, which are smaller.
        let fits =
            self.tables.rows.len() <= NET_ROWS as usize && self.tables.ranges.len() <= NET_RANGES as usize;
        if made.is_err() || !fits {
            self.tables.rows.truncate(rows);
            self.tables.lists.truncate(lists);
            self.tables.ranges.truncate(ranges);
            self.sets.truncate(number as usize);
            self.lists.retain(|_, list| (*list as usize) < lists);
            self.ranges.retain(|_, list| (*list as usize) < lists);
            return Err(made.err().unwrap_or(NetError::TooManyRanges));
        }
        self.numbers.insert(shapes, number);
        Ok(number)
    }

    /// Adds the rows of another set.
    fn set(&mut self, shapes: Vec<ShapeId>) -> Result<(), NetError> {
        let mut rows = Vec::new();
        for view in 0..self.views.len() {
            for op in [Op::Connect, Op::Listen] {
                for transport in Transport::ALL {
                    rows.push(self.list(&shapes, view, op, transport)?);
                }
            }
        }
        self.tables.rows.append(&mut rows);
        self.sets.push(shapes);
        Ok(())
    }

    /// Adds the set in which everything is refused.
    fn refusing_set(&mut self) -> Result<(), NetError> {
        let mut choices = [Choice::default(); CHOICES];
        if let Some(first) = choices.first_mut() {
            *first = Choice { rule: RULE_UNDECIDED, verdict: Verdict::Denied.raw(), window: 0 };
        }
        let list = self.number(vec![PortRange { last: u16::MAX, pad: 0, choices }])?;
        self.undecided = u32::try_from(self.sets.len()).ok();
        self.tables.rows.extend(vec![list; self.views.len() * 2 * Transport::ALL.len()]);
        self.sets.push(Vec::new());
        Ok(())
    }

    fn list(&mut self, set: &[ShapeId], view: usize, op: Op, transport: Transport) -> Result<u32, NetError> {
        let shape = |id: &ShapeId| self.gathered.shapes.get(*id as usize);
        let here = |shape: &&Shape| {
            let rule = self.policy.rules.get(shape.rule);
            shape.op == op
                && shape.transport.is_none_or(|only| only == transport)
                && rule.is_some_and(|rule| self.views.has_rule(view, rule))
        };
        let ids: Vec<ShapeId> =
            set.iter().filter(|id| shape(id).is_some_and(|one| here(&one))).copied().collect();
        if let Some(&list) = self.lists.get(&ids) {
            return Ok(list);
        }
        let shapes: Vec<&Shape> = ids.iter().filter_map(shape).collect();
        let ranges = super::ranges::ranges(&self.policy, &shapes)?;
        let list = self.number(ranges)?;
        self.lists.insert(ids, list);
        Ok(list)
    }

    /// The number of the list of these ranges.
    fn number(&mut self, ranges: Vec<PortRange>) -> Result<u32, NetError> {
        if ranges.is_empty() {
            return Ok(super::NO_LIST);
        }
        let key: Vec<RangeKey> = ranges.iter().map(key).collect();
        if let Some(&list) = self.ranges.get(&key) {
            return Ok(list);
        }
        let first = self.tables.ranges.len();
        if first + ranges.len() > RANGES_MAX {
            return Err(NetError::TooManyRanges);
        }
        let narrow = |number: usize| u32::try_from(number).map_err(|_| NetError::TooManyRanges);
        let list = narrow(self.tables.lists.len())?;
        self.tables.lists.push(PortList { first: narrow(first)?, count: narrow(ranges.len())? });
        self.tables.ranges.extend_from_slice(&ranges);
        self.ranges.insert(key, list);
        Ok(list)
    }
}

/// Each prefix with the number of its set, and all sets; the first is [`ANY_HOST`].
type Sets = (Vec<(Network, u32)>, Vec<Vec<ShapeId>>);

/// What holds for each prefix, that of all enclosing ones included. Prefixes that are alike share a set.
fn sets(gathered: &Gathered) -> Result<Sets, NetError> {
    let mut networks: Vec<&Network> = gathered.networks.keys().collect();
    if !gathered.everywhere.is_empty() {
        // What must be in each set is found at every address only if every address has a set.
        networks.extend([&ALL_V4, &ALL_V6].into_iter().filter(|all| !gathered.networks.contains_key(*all)));
    }
    if networks.len() > PREFIXES_MAX {
        return Err(NetError::TooManyPrefixes { found: networks.len() });
    }
    // Enclosing prefixes come before those in them.
    networks.sort_by_key(|network| (network.address, network.bits));
    let mut anywhere = gathered.anywhere.clone();
    anywhere.sort_unstable();
    anywhere.dedup();
    let mut sets = vec![anywhere];
    let mut numbers: HashMap<Vec<ShapeId>, u32> = HashMap::new();
    let mut prefixes = Vec::with_capacity(networks.len());
    let mut around: Vec<(&Network, Vec<ShapeId>)> = Vec::new();
    for network in networks {
        while around.last().is_some_and(|(outer, _)| !outer.covers(network)) {
            around.pop();
        }
        let outer = around.last().map_or(&gathered.everywhere, |(_, shapes)| shapes);
        let own = gathered.networks.get(network).into_iter().flatten();
        let mut shapes: Vec<ShapeId> = outer.iter().chain(own).copied().collect();
        shapes.sort_unstable();
        shapes.dedup();
        let next = u32::try_from(sets.len()).unwrap_or(u32::MAX);
        let number = *numbers.entry(shapes.clone()).or_insert_with(|| {
            sets.push(shapes.clone());
            next
        });
        prefixes.push((*network, number));
        around.push((network, shapes));
    }
    Ok((prefixes, sets))
}

const ALL_V4: Network = Network { address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), bits: 0 };
const ALL_V6: Network = Network { address: IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), bits: 0 };

/// A range as what can be looked up.
type RangeKey = (u16, [(u16, u8); CHOICES]);

fn key(range: &PortRange) -> RangeKey {
    // The rule's number says its verdict, too.
    (range.last, range.choices.map(|choice| (choice.rule, choice.window)))
}

const _: () = assert!(ANY_HOST == 0);
