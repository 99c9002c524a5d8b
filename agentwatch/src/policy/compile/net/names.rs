//! Addresses of names in the tables: sets of their own, which change while the policy stays.
//!
//! An address that a name stands for has a set of what the networks around it say and what all patterns for its names
//! say. New sets are added behind those that are there, so that whoever reads the tables meanwhile finds them whole.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{KnownNames, NetRules, NetTables, PREFIXES_MAX, Prefix4, Prefix6};
use crate::policy::address::DnsName;

/// Addresses of names, each with its set.
pub(super) type Placed = BTreeMap<IpAddr, u32>;

/// Addresses of names that the tables hold at most. Past it the policy's names are not followed further, which is told.
pub const NAMED_ADDRESSES_MAX: usize = 16_384;

/// What changed in the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameChanges {
    /// Ranges that are new: the tables' own from this index on.
    pub ranges_from: usize,
    /// Rows that are new: the tables' own from this index on.
    pub rows_from: usize,
    /// Addresses that have this set now.
    pub put: Vec<(IpAddr, u32)>,
    /// Addresses that have none of their own any more.
    pub gone: Vec<IpAddr>,
    /// Addresses that found no room, and those of which not all can be told in the tables: refused as undecided.
    pub undecided: usize,
    /// Addresses that are not in the tables for want of room.
    pub dropped: usize,
}

impl NetRules {
    /// The names and patterns of names that the rules are about.
    pub fn names(&self) -> impl Iterator<Item = &DnsName> {
        self.gathered.names.iter().map(|(name, _)| name)
    }

    /// Whether a rule is about this name, which is in lower case.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        self.gathered.names_of(name).next().is_some()
    }

    /// Takes over what is known of names now. Tells what that changes in the tables.
    pub fn update(&mut self, known: &KnownNames) -> NameChanges {
        let mut changes = NameChanges {
            ranges_from: self.tables().ranges.len(),
            rows_from: self.tables().rows.len(),
            ..NameChanges::default()
        };
        let mut placed = Placed::new();
        let mut wanted = self.patterns_by_address(known);
        while wanted.len() > NAMED_ADDRESSES_MAX {
            wanted.pop_last();
            changes.dropped += 1;
        }
        for (address, patterns) in wanted {
            let set = self.set_for(address, &patterns).or_else(|| {
                changes.undecided += 1;
                self.undecided
            });
            placed.extend(set.map(|set| (address, set)));
        }
        changes.put = placed
            .iter()
            .filter(|(address, set)| self.placed.get(address) != Some(set))
            .map(|(address, set)| (*address, *set))
            .collect();
        changes.gone = self.placed.keys().filter(|address| !placed.contains_key(address)).copied().collect();
        self.placed = placed;
        changes
    }

    /// The addresses of names, each with its set.
    pub fn placed(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        self.placed.iter().map(|(address, set)| (*address, *set))
    }

    /// The set that an address has by the policy's own networks, where it is one by itself.
    #[must_use]
    pub fn own_set(&self, address: IpAddr) -> Option<u32> {
        match address {
            IpAddr::V4(v4) => {
                let own = |one: &&Prefix4| one.bits == 32 && one.address == v4.octets();
                self.tables().v4.iter().find(own).map(|one| one.set)
            }
            IpAddr::V6(v6) => {
                let own = |one: &&Prefix6| one.bits == 128 && one.address == v6.octets();
                self.tables().v6.iter().find(own).map(|one| one.set)
            }
        }
    }

    /// The tables with the addresses of names in them.
    #[must_use]
    pub fn tables_with_names(&self) -> NetTables {
        let mut tables = self.tables().clone();
        tables.v4.retain(|one| one.bits < 32 || !self.placed.contains_key(&IpAddr::from(one.address)));
        tables.v6.retain(|one| one.bits < 128 || !self.placed.contains_key(&IpAddr::from(one.address)));
        for (&address, &set) in &self.placed {
            match address {
                IpAddr::V4(v4) => tables.v4.push(Prefix4 { bits: 32, address: v4.octets(), set }),
                IpAddr::V6(v6) => tables.v6.push(Prefix6 { bits: 128, address: v6.octets(), set }),
            }
        }
        tables
    }

    /// The patterns that each address is known by.
    fn patterns_by_address(&self, known: &KnownNames) -> BTreeMap<IpAddr, BTreeSet<usize>> {
        let mut found: BTreeMap<IpAddr, BTreeSet<usize>> = BTreeMap::new();
        for (name, addresses) in known {
            let patterns: Vec<usize> = self.gathered.names_of(name).collect();
            if patterns.is_empty() {
                continue;
            }
            for address in addresses {
                found.entry(address.to_canonical()).or_default().extend(&patterns);
            }
        }
        found
    }

    /// The set of an address; none where there is no room for another one.
    fn set_for(&mut self, address: IpAddr, patterns: &BTreeSet<usize>) -> Option<u32> {
        let around = self.tables().set_of(address).and_then(|set| self.sets.get(set as usize));
        let mut shapes = around.unwrap_or(&self.gathered.everywhere).clone();
        for pattern in patterns {
            shapes.extend(self.gathered.names.get(*pattern).into_iter().flat_map(|(_, shapes)| shapes));
        }
        shapes.sort_unstable();
        shapes.dedup();
        self.number_of(shapes).ok()
    }
}

const _: () = assert!(NAMED_ADDRESSES_MAX < PREFIXES_MAX);
