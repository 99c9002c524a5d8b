//! Rules that never decide, because stricter ones cover all that they are about.

use crate::event::Op;
use crate::matcher::{CommandGlob, PathGlob};
use crate::policy::{AddressPattern, At, Code, Diagnostic, Entry, Patterns, Policy, Resource, Rule, What};

/// Comparisons of rules and of patterns: about a second at most. Past it shadowed rules may go unsaid, which
/// changes no decision.
const WORK_MAX: usize = 1_000_000;
/// What it costs to find out whether a glob covers another, beside looking at how they begin.
const GLOB_WORK: usize = 50;

pub(super) fn warnings(policy: &Policy) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut work = WORK_MAX;
    for (index, rule) in policy.rules.iter().enumerate() {
        work = work.saturating_sub(policy.rules.len());
        if work == 0 {
            break;
        }
        if rule_without_room(policy, rule, &mut work) {
            let message = "this rule can never match: its `unless` covers all that it is about";
            found.push(policy.diagnostic(Code::NeverMatches, rule.at, message));
            continue;
        }
        let stricter: Vec<&Rule> = policy
            .rules
            .iter()
            .enumerate()
            .filter(|&(other, by)| other != index && wins(policy, (other, by), (index, rule)))
            .map(|(_, by)| &**by)
            .collect();
        found.extend(shadowed(policy, rule, &stricter, &mut work));
    }
    found
}

/// Whether wherever both match, the first decides. Of equally strict rules the first in the files does.
fn wins(policy: &Policy, (index, by): (usize, &Rule), (other, rule): (usize, &Rule)) -> bool {
    let stricter = by.action > rule.action || (by.action == rule.action && index < other);
    let agents = match (&by.agents, &rule.agents) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => narrow.iter().all(|agent| wide.contains(agent)),
    };
    let window = |index: usize| policy.windows.get(index);
    let times = match (by.during, rule.during) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => match (window(wide), window(narrow)) {
            (Some(wide), Some(narrow)) => wide.from_ns <= narrow.from_ns && narrow.to_ns <= wide.to_ns,
            _ => false,
        },
    };
    // An exception of the stricter rule leaves room for the other: it is not looked at further.
    stricter && agents && times && by.unless.is_empty()
}

/// Whether the rule's `unless` covers all that the rule is about.
fn rule_without_room(policy: &Policy, rule: &Rule, work: &mut usize) -> bool {
    !rule.unless.is_empty()
        && Op::ALL.iter().copied().filter(|&op| rule.scope.has(op)).all(|op| {
            let covers = covered(policy, op, rule, &[(rule.name.as_str(), rule.unless.patterns(op))], work);
            covers.iter().all(|(_, by)| by.is_some())
        })
}

/// Warnings about the patterns of a rule: one for the rule where all are covered.
fn shadowed(policy: &Policy, rule: &Rule, stricter: &[&Rule], work: &mut usize) -> Vec<Diagnostic> {
    let mut entries: Vec<(At, Option<&str>)> = Vec::new();
    for op in Op::ALL.iter().copied().filter(|&op| rule.scope.has(op)) {
        let wide: Vec<_> = stricter
            .iter()
            .filter(|by| by.scope.has(op))
            .map(|by| (by.name.as_str(), by.scope.patterns(op)))
            .collect();
        entries.extend(covered(policy, op, rule, &wide, work));
    }
    let tell = |at: At, what: &str, by: &str| {
        let line = policy.rules.iter().find(|other| other.name == by).map(|other| policy.line_of(other.at));
        let message = format!(
            "{what} never decides: the rule `{by}` ({}) covers it and is {}",
            line.unwrap_or_default(),
            if policy.rules.iter().any(|other| other.name == by && other.action > rule.action) {
                "stricter"
            } else {
                "as strict"
            }
        );
        policy.diagnostic(Code::Shadowed, at, message).help("remove it, or narrow the other")
    };
    let first = entries.first().and_then(|(_, by)| *by);
    match first {
        Some(by) if entries.iter().all(|(_, by)| by.is_some()) => vec![tell(rule.at, "this rule", by)],
        _ => entries.into_iter().filter_map(|(at, by)| Some(tell(at, "this", by?))).collect(),
    }
}

/// For each entry of the rule for an operation, the name of who covers all of it.
fn covered<'w>(
    policy: &Policy,
    op: Op,
    rule: &Rule,
    wide: &[(&'w str, Patterns<'_>)],
    work: &mut usize,
) -> Vec<(At, Option<&'w str>)> {
    match rule.scope.patterns(op) {
        Patterns::Paths(entries) => {
            let wide = flat(policy, wide, |patterns| match *patterns {
                Patterns::Paths(entries) => entries,
                _ => &[],
            });
            by_whom(policy, entries, &wide, work)
        }
        Patterns::Commands(entries) => {
            let wide = flat(policy, wide, |patterns| match *patterns {
                Patterns::Commands(entries) => entries,
                _ => &[],
            });
            by_whom(policy, entries, &wide, work)
        }
        Patterns::Addresses(entries) => {
            let wide = flat(policy, wide, |patterns| match *patterns {
                Patterns::Addresses(entries) => entries,
                _ => &[],
            });
            by_whom(policy, entries, &wide, work)
        }
    }
}

/// A kind of pattern.
trait Comparable: Sized {
    /// Those that a resource has.
    fn of(resource: &Resource) -> &[Self];
    /// Whether it covers the other; takes from `work` what that costs.
    fn covers(&self, other: &Self, work: &mut usize) -> bool;
}

impl Comparable for PathGlob {
    fn of(resource: &Resource) -> &[Self] {
        &resource.files
    }

    fn covers(&self, other: &Self, work: &mut usize) -> bool {
        heads_fit(self.text(), other.text(), work) && Self::covers(self, other)
    }
}

impl Comparable for CommandGlob {
    fn of(_: &Resource) -> &[Self] {
        &[]
    }

    fn covers(&self, other: &Self, work: &mut usize) -> bool {
        heads_fit(self.text(), other.text(), work) && Self::covers(self, other)
    }
}

impl Comparable for AddressPattern {
    fn of(resource: &Resource) -> &[Self] {
        &resource.connect
    }

    fn covers(&self, other: &Self, _: &mut usize) -> bool {
        Self::covers(self, other)
    }
}

/// Whether two globs begin with the same bytes as far as both say: most pairs do not.
fn heads_fit(one: &str, two: &str, work: &mut usize) -> bool {
    let head = |text: &str| text.find(['*', '?', '[', '{', '\\']).unwrap_or(text.len());
    let both = head(one).min(head(two));
    let fit = one.as_bytes().get(..both) == two.as_bytes().get(..both);
    *work = work.saturating_sub(if fit { GLOB_WORK } else { 0 });
    fit
}

fn patterns<'p, T: Comparable>(policy: &'p Policy, entry: &'p Entry<T>) -> &'p [T] {
    match &entry.what {
        What::Pattern(pattern) => std::slice::from_ref(pattern),
        What::Resource(index) => policy.resources.get(*index).map_or(&[], T::of),
    }
}

fn flat<'p, 'w, T: Comparable>(
    policy: &'p Policy,
    wide: &[(&'w str, Patterns<'p>)],
    entries: impl Fn(&Patterns<'p>) -> &'p [Entry<T>],
) -> Vec<(&'w str, &'p T)> {
    let of_rule = |(name, all): &(&'w str, Patterns<'p>)| {
        let name = *name;
        entries(all)
            .iter()
            .flat_map(move |entry| patterns(policy, entry))
            .map(move |one| (name, one))
            .collect::<Vec<_>>()
    };
    wide.iter().flat_map(of_rule).collect()
}

fn by_whom<'w, T: Comparable>(
    policy: &Policy,
    entries: &[Entry<T>],
    wide: &[(&'w str, &T)],
    work: &mut usize,
) -> Vec<(At, Option<&'w str>)> {
    let mut one = |narrow: &T| {
        for (name, wide) in wide {
            *work = work.saturating_sub(1);
            if *work == 0 {
                return None;
            }
            if wide.covers(narrow, work) {
                return Some(*name);
            }
        }
        None
    };
    let mut whole = |entry: &Entry<T>| {
        let all: Option<Vec<&str>> = patterns(policy, entry).iter().map(&mut one).collect();
        all?.first().copied()
    };
    entries.iter().map(|entry| (entry.at, whole(entry))).collect()
}
