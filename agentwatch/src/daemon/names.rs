//! The names that the policy in force is about: what they stand for is kept in the kernel's tables.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use agentwatch_common::rules::NetRow;

use super::rules::{kernel_prefix, kernel_range, kernel_rows};
use crate::{
    control::policy::{PolicyRuleView, Standing},
    kernel::{Abilities, KernelError, rules::RuleMaps},
    names::{Files, Follower, GRACE_S, Orders, Table},
    policy::{
        Policy, Rule,
        address::DnsName,
        compile::net::{NameChanges, NetRules, is_learned},
    },
};

/// Seconds between two looks for what sessions were told long ago.
const SWEEP_S: u64 = 60;
/// Addresses of a name that are told.
const SHOWN: usize = 4;

/// What is known of names, and where it is kept.
pub(super) struct Names {
    follower: Follower,
    table: Table,
    /// The rules in force, where they are about names, and the half of the tables that they are in.
    in_force: Option<(NetRules, u32)>,
    /// The names of each rule of the policy in force.
    of_rules: Vec<Vec<DnsName>>,
    /// The kernel did not take a change: all is handed to it again.
    is_behind: bool,
    /// What found no room was told.
    told_full: bool,
    /// When what sessions were told long ago is given up next.
    next_sweep_s: u64,
}

impl Names {
    pub fn new(follower: Follower) -> Self {
        Self {
            follower,
            table: Table::default(),
            in_force: None,
            of_rules: Vec::new(),
            is_behind: false,
            told_full: false,
            next_sweep_s: 0,
        }
    }

    /// Begins to follow names; none as yet.
    pub fn follower() -> io::Result<Follower> {
        Follower::start(Files::default())
    }

    /// Where it is said what is to be followed.
    pub fn orders(&self) -> &Orders {
        self.follower.orders()
    }

    /// Puts what is known into tables that are to come into force.
    pub fn fill(&mut self, net: &mut NetRules, now_s: u64) {
        self.take_reports(now_s);
        let changes = net.update(&self.table.known());
        self.warn_of(&changes);
    }

    /// These rules are in force now, in this half of the tables.
    pub fn came_into_force(&mut self, policy: &Policy, net: NetRules, slot: u32) {
        let patterns: Vec<DnsName> = net.names().cloned().collect();
        let asked: BTreeSet<String> =
            patterns.iter().filter(|one| !one.below).map(|one| one.name.clone()).collect();
        self.table.keep(&asked, |name| net.covers(name));
        self.of_rules = policy.rules.iter().map(|rule| names_of(policy, rule)).collect();
        let undecided = net.learned_undecided();
        if undecided > 0 {
            tracing::error!(
                "the policy has more names than there is room for: what sessions are told that {undecided} of them stand for is refused as undecided"
            );
        }
        self.in_force = (!patterns.is_empty()).then_some((net, slot));
        self.is_behind = false;
        self.orders().follow_only(patterns);
    }

    /// Takes over what was found out. Gives whether that changed anything.
    pub fn look(&mut self, tables: &mut RuleMaps, now_s: u64) -> bool {
        let changed = self.take_reports(now_s);
        changed && self.hand_over(tables)
    }

    /// Gives up what is too old.
    pub fn tend(&mut self, tables: &mut RuleMaps, now_s: u64) -> bool {
        if now_s >= self.next_sweep_s {
            self.next_sweep_s = now_s + SWEEP_S;
            if let Err(error) = tables.forget_learned(now_s) {
                tracing::error!("no room is made for what sessions are told of names: {error}");
            }
        }
        let changed = self.table.tend(now_s);
        (changed || self.is_behind) && self.hand_over(tables)
    }

    fn take_reports(&mut self, now_s: u64) -> bool {
        let reports = self.follower.take();
        reports.into_iter().fold(false, |changed, report| self.table.take(report, now_s) | changed)
    }

    fn hand_over(&mut self, tables: &mut RuleMaps) -> bool {
        let known = self.table.known();
        let Some((net, slot)) = &mut self.in_force else { return false };
        let mut changes = net.update(&known);
        if self.is_behind {
            changes = NameChanges { ranges_from: 0, rows_from: 0, put: net.placed().collect(), ..changes };
        }
        let result = hand_over(tables, *slot, net, &changes);
        self.is_behind = result.is_err();
        if let Err(error) = result {
            tracing::error!("the addresses of names are not up to date in the kernel: {error}");
        }
        self.warn_of(&changes);
        true
    }

    fn warn_of(&mut self, changes: &NameChanges) {
        let is_full = changes.undecided + changes.dropped > 0 || self.table.refused() > 0;
        if is_full && !self.told_full {
            tracing::error!(
                "the names of the policy stand for more than there is room for: {} addresses are refused, {} are not known to the rules, {} names were not taken up",
                changes.undecided,
                changes.dropped,
                self.table.refused()
            );
        }
        self.told_full = is_full;
    }

    /// A name for each address that has one: what a rule names itself goes before what it covers.
    pub fn by_address(&self) -> HashMap<IpAddr, Arc<str>> {
        let Some((net, _)) = &self.in_force else { return HashMap::new() };
        let plain: BTreeSet<&str> =
            net.names().filter(|one| !one.below).map(|one| one.name.as_str()).collect();
        let mut found: HashMap<IpAddr, Arc<str>> = HashMap::new();
        let known = self.table.known();
        let (first, second): (Vec<_>, Vec<_>) = known
            .iter()
            .filter(|(name, _)| net.covers(name))
            .partition(|(name, _)| plain.contains(name.as_str()));
        for (name, addresses) in first.into_iter().chain(second) {
            let name: Arc<str> = Arc::from(name.as_str());
            for address in addresses {
                found.entry(*address).or_insert_with(|| Arc::clone(&name));
            }
        }
        found
    }

    /// Adds what is known of their names to the rules of the policy in force.
    pub fn describe(&self, rules: &mut [PolicyRuleView]) {
        for (rule, names) in rules.iter_mut().zip(&self.of_rules) {
            if matches!(rule.status, Standing::Observed | Standing::Off) {
                continue;
            }
            rule.reasons.extend(names.iter().take(SHOWN).map(|name| self.of_name(name)));
            if let Some(more @ 1..) = names.len().checked_sub(SHOWN) {
                rule.reasons.push(format!("and {more} names more"));
            }
        }
    }

    fn of_name(&self, pattern: &DnsName) -> String {
        let (known, problem) = if pattern.below {
            let known = self.table.known();
            let below = known.iter().filter(|(name, _)| pattern.matches(name));
            (below.flat_map(|(_, addresses)| addresses).copied().collect::<BTreeSet<IpAddr>>(), None)
        } else {
            let (known, problem) = self.table.of(&pattern.name);
            (known.into_iter().collect(), problem)
        };
        let mut sentence = match known.len() {
            0 => format!("`{pattern}` stands for no address that is known now"),
            count => {
                let shown: Vec<String> = known.iter().take(SHOWN).map(IpAddr::to_string).collect();
                let more = count.checked_sub(SHOWN).filter(|more| *more > 0);
                let more = more.map(|more| format!(" and {more} more")).unwrap_or_default();
                format!("`{pattern}` stands for {}{more}", shown.join(", "))
            }
        };
        if let Some(problem) = problem {
            sentence.push_str(&format!("; it could not be asked for: {problem}"));
        }
        sentence
    }
}

impl AsFd for Names {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.follower.as_fd()
    }
}

/// Hands changes to the kernel: first what addresses are to have, and then the addresses.
fn hand_over(
    tables: &mut RuleMaps,
    slot: u32,
    net: &NetRules,
    changes: &NameChanges,
) -> Result<(), KernelError> {
    let all = net.tables();
    let ranges: Vec<_> =
        all.ranges.get(changes.ranges_from..).unwrap_or_default().iter().map(kernel_range).collect();
    let rows: Vec<NetRow> = kernel_rows(all, changes.rows_from);
    tables.add_net(slot, (changes.ranges_from, &ranges), (changes.rows_from, &rows))?;
    for &(address, set) in &changes.put {
        tables.put_prefix(slot, &kernel_prefix(address, set))?;
    }
    for &address in &changes.gone {
        match net.own_set(address) {
            Some(set) => tables.put_prefix(slot, &kernel_prefix(address, set))?,
            None => tables.remove_prefix(slot, &kernel_prefix(address, 0))?,
        }
    }
    Ok(())
}

/// The names that a rule is about, or that it makes an exception for.
fn names_of(policy: &Policy, rule: &Rule) -> Vec<DnsName> {
    let mut names: Vec<DnsName> = Vec::new();
    for scope in [&rule.scope, &rule.unless] {
        for name in policy.names_in(scope) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
    }
    names
}

/// What is learned, and what is not.
const TOLD: &str = "what a session itself is told by a name server, by UDP from port 53, is refused to it before it can \
                    use it; not what it learns otherwise: by TCP, TLS or HTTPS, from a resolver's own sockets, by a \
                    socket that it was handed, or from another session";

/// How sure it is that a rule on names covers what they stand for: what `policy show` says of every such rule.
pub(super) fn assurance(policy: &Policy, rule: &Rule, abilities: &Abilities) -> Vec<String> {
    let names = names_of(policy, rule);
    let mut reasons = Vec::new();
    if !names.is_empty() && rule.action.stops() {
        reasons.push(match (is_learned(policy, rule), abilities.lacking_for_learning()) {
            (true, None) => TOLD.to_owned(),
            (true, Some(lacking)) => {
                format!("what sessions themselves are told by name servers is not learned here: {lacking}")
            }
            (false, _) => {
                "what sessions themselves are told by name servers does not count for it, as it makes an \
                           exception for networks"
                    .to_owned()
            }
        });
    }
    if names.iter().any(|name| !name.below) {
        reasons.push(format!(
            "the daemon asks for its names, again when their time is over, and counts an address for {} minutes after it \
             was last given: one that others are given meanwhile it does not know yet",
            GRACE_S / 60
        ));
    }
    if names.iter().any(|name| name.below) {
        reasons.push(
            "of names below another one the daemon knows those in `/etc/hosts`, and those that rules name"
                .to_owned(),
        );
    }
    reasons
}
