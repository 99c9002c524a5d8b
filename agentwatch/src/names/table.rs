//! What names stand for, with when it was last seen to be so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{ADDRESSES_MAX, GRACE_S, NAMES_MAX, Report};

/// What is known of one name.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Each address with when it was last seen, in seconds of any clock.
    addresses: BTreeMap<IpAddr, u64>,
    /// When all of them could be asked for last; never, where they are only learned.
    asked_s: Option<u64>,
    /// Why it could not be asked for last.
    problem: Option<String>,
}

/// What is known of names.
#[derive(Clone, Debug, Default)]
pub struct Table {
    names: BTreeMap<String, Known>,
    /// Names that found no room.
    refused: u64,
}

impl Table {
    /// Takes up what came of asking for a name. Gives whether that changes its addresses.
    pub fn take(&mut self, report: Report, now_s: u64) -> bool {
        let Report { name, found } = report;
        if !self.names.contains_key(&name) && self.names.len() >= NAMES_MAX {
            self.refused += 1;
            return false;
        }
        let known = self.names.entry(name).or_default();
        match found {
            Ok(addresses) => {
                known.problem = None;
                known.asked_s = (!addresses.is_empty()).then_some(now_s);
                known.saw(&addresses, now_s) | known.give_up(now_s)
            }
            // What was known goes on to count as long as nobody can say better.
            Err(problem) => {
                known.problem = Some(problem);
                false
            }
        }
    }

    /// Takes up what an answer said that a session received. Gives whether that changes a name's addresses.
    pub fn learn(&mut self, name: &str, addresses: &[IpAddr], now_s: u64) -> bool {
        if !self.names.contains_key(name) && self.names.len() >= NAMES_MAX {
            self.refused += 1;
            return false;
        }
        self.names.entry(name.to_owned()).or_default().saw(addresses, now_s)
    }

    /// Gives up what was seen too long ago, of names that nobody asks for. Gives whether anything was.
    pub fn tend(&mut self, now_s: u64) -> bool {
        let mut changed = false;
        self.names.retain(|_, known| {
            if known.asked_s.is_none() && known.problem.is_none() {
                changed |= known.give_up(now_s);
                return !known.addresses.is_empty();
            }
            true
        });
        changed
    }

    /// Forgets names of which no rule speaks. Those that are asked for are named.
    pub fn keep(&mut self, asked: &BTreeSet<String>, is_covered: impl Fn(&str) -> bool) {
        self.names.retain(|name, known| {
            if !asked.contains(name) {
                (known.asked_s, known.problem) = (None, None);
            }
            asked.contains(name) || is_covered(name) && !known.addresses.is_empty()
        });
    }

    /// All names with their addresses.
    #[must_use]
    pub fn known(&self) -> BTreeMap<String, Vec<IpAddr>> {
        let addresses = |known: &Known| known.addresses.keys().copied().collect();
        self.names.iter().map(|(name, known)| (name.clone(), addresses(known))).collect()
    }

    /// The addresses of a name, and why it could not be asked for.
    #[must_use]
    pub fn of(&self, name: &str) -> (Vec<IpAddr>, Option<&str>) {
        let known = self.names.get(name);
        let addresses = known.map(|known| known.addresses.keys().copied().collect()).unwrap_or_default();
        (addresses, known.and_then(|known| known.problem.as_deref()))
    }

    /// Names that found no room so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

impl Known {
    fn saw(&mut self, addresses: &[IpAddr], now_s: u64) -> bool {
        let mut changed = false;
        for address in addresses {
            changed |= self.addresses.insert(*address, now_s).is_none();
        }
        while self.addresses.len() > ADDRESSES_MAX {
            let oldest = self.addresses.iter().min_by_key(|(_, seen)| **seen).map(|(address, _)| *address);
            let Some(oldest) = oldest else { break };
            self.addresses.remove(&oldest);
        }
        changed
    }

    fn give_up(&mut self, now_s: u64) -> bool {
        let before = self.addresses.len();
        self.addresses.retain(|_, seen| now_s.saturating_sub(*seen) <= GRACE_S);
        self.addresses.len() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn report(name: &str, addresses: &[u8]) -> Report {
        Report { name: name.into(), found: Ok(addresses.iter().map(|last| ip(*last)).collect()) }
    }

    #[test]
    fn an_address_counts_for_a_while_after_it_was_last_seen() {
        let mut table = Table::default();
        assert!(table.take(report("a", &[1, 2]), 0));
        assert!(!table.take(report("a", &[1]), 10));
        assert!(table.take(report("a", &[3]), GRACE_S), "another one");
        assert_eq!(table.of("a").0, [ip(1), ip(2), ip(3)]);
        assert!(table.take(report("a", &[3]), GRACE_S + 1), "the second is given up");
        assert_eq!(table.of("a").0, [ip(1), ip(3)]);
        let failed = Report { name: "a".into(), found: Err("no server".into()) };
        assert!(!table.take(failed, 10 * GRACE_S) && !table.tend(10 * GRACE_S));
        assert_eq!(table.of("a"), (vec![ip(1), ip(3)], Some("no server")), "nobody knows better");
        assert!(table.take(report("a", &[]), 10 * GRACE_S));
        assert_eq!(table.of("a"), (Vec::new(), None));
    }

    #[test]
    fn what_was_learned_is_given_up_by_itself() {
        let mut table = Table::default();
        assert!(table.learn("x.test", &[ip(1)], 0) && !table.learn("x.test", &[ip(1)], 5));
        assert!(!table.tend(GRACE_S + 5));
        assert!(table.tend(GRACE_S + 6));
        assert!(table.known().is_empty());
        for n in 0..NAMES_MAX + 2 {
            table.learn(&format!("{n}.test"), &[ip(1)], 0);
        }
        assert_eq!((table.known().len(), table.refused()), (NAMES_MAX, 2));
        table.keep(&BTreeSet::new(), |name| name == "7.test");
        assert_eq!(table.known().len(), 1);
    }

    #[test]
    fn a_name_has_so_many_addresses_and_the_newest() {
        let mut table = Table::default();
        for n in 0..=ADDRESSES_MAX as u32 {
            table.learn("a", &[IpAddr::V4(n.into())], n.into());
        }
        let addresses = table.of("a").0;
        assert_eq!(addresses.len(), ADDRESSES_MAX);
        assert!(!addresses.contains(&IpAddr::V4(0.into())));
    }
}
