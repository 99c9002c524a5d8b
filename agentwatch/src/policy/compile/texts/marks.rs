//! The patterns of all rules over paths and command lines, marked so that the automaton stays small.
//!
//! Rules that are about the same operation, of the same agents, in the same window, are one class: of those that
//! match only the one that wins counts. A rule with exceptions is a class of its own, in which an exception that
//! matches wins over the rule's own patterns and says nothing.

use std::collections::HashMap;

use super::{COMMANDS, KINDS, PATHS};
use crate::event::Op;
use crate::matcher::{ByteSet, CommandGlob, Follow, Mark, PathGlob, Patterns as Marked, Piece};
use crate::places::Places;
use crate::policy::compile::order as winning_order;
use crate::policy::{
    Action, AddressPattern, Entry, Patterns, Policy, Protected, Resource, Rule, SINKS, Scope, TERMINALS, What,
};

/// The class of what is open to the mode `plan` for all.
const OPEN_TO_PLAN: Mark = Mark { class: 0, rank: 0 };
/// The rank of exceptions.
const EXCEPT: u32 = 0;
/// The rank of what is protected.
const PROTECTED: u32 = 1;

/// What tells classes apart: what they are about, the views, the window, and the rule where it has exceptions.
type Class = (About, Vec<u16>, Option<usize>, Option<usize>);

/// Operations on what has a path.
const ON_PATHS: [Op; 5] = [Op::Exec, Op::Read, Op::Write, Op::Delete, Op::Connect];

/// What a class of marks is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum About {
    /// Rules on an operation.
    Rules(Op),
    /// Rules that refuse something below a folder.
    Below,
    /// What is protected whatever the rules say: an index in [`Marks::protected`].
    Protected(usize),
    /// Scratch folders of the mode `plan`: an index in [`Marks::scratch`].
    Scratch(usize),
    /// Sockets that are open to all, unless a rule refuses them.
    Open,
}

/// What is protected from agents of some views.
pub(super) struct ProtectedGroup<'p> {
    pub what: Protected<'p>,
    pub views: Vec<u16>,
}

/// What the marks of the automaton stand for.
pub(super) struct Marks<'p> {
    policy: &'p Policy,
    /// In the order in which they are named.
    pub protected: Vec<ProtectedGroup<'p>>,
    /// Rules in the order in which they win: the rank of the first is 1.
    order: Vec<usize>,
    ranks: Vec<u32>,
    /// What each class but the first is about.
    classes: Vec<About>,
    numbers: HashMap<Class, u32>,
    /// Lists of scratch folders.
    scratch: Vec<&'p [PathGlob]>,
    patterns: Marked,
}

impl<'p> Marks<'p> {
    /// Marks the patterns of all rules that have a view, by the rules' views.
    pub(super) fn new(
        policy: &'p Policy,
        places: &Places,
        views_of: &[Vec<u16>],
        protected: Vec<ProtectedGroup<'p>>,
        scratch: Vec<&'p [PathGlob]>,
    ) -> Self {
        let mut order: Vec<usize> = (0..policy.rules.len()).collect();
        order.sort_by_key(|&index| winning_order(policy, index));
        let mut ranks = vec![0; order.len()];
        for (rank, &index) in (1..).zip(&order) {
            if let Some(place) = ranks.get_mut(index) {
                *place = rank;
            }
        }
        let mut patterns = Marked::new(KINDS);
        patterns.set_aliases(PATHS, places.aliases.clone());
        let (classes, numbers) = (Vec::new(), HashMap::new());
        let mut marks = Self { policy, protected, order, ranks, classes, numbers, scratch, patterns };
        for ((index, rule), views) in policy.rules.iter().enumerate().zip(views_of) {
            if !views.is_empty() {
                marks.rule(index, rule, views);
            }
        }
        for (index, group) in marks.protected.iter().enumerate() {
            marks.classes.push(About::Protected(index));
            let mark = Mark { class: class_number(&marks.classes), rank: PROTECTED };
            marks.patterns.follow(Follow::All);
            group.what.globs().for_each(|glob| marks.patterns.insert_path(PATHS, glob, mark));
            group.what.more.iter().for_each(|one| super::sockets::insert(&mut marks.patterns, one, mark));
        }
        if !marks.scratch.is_empty() {
            marks.open_to_plan();
        }
        marks.open_to_all();
        marks
    }

    /// The patterns, marked; none is left.
    pub(super) fn take_patterns(&mut self) -> Marked {
        std::mem::replace(&mut self.patterns, Marked::new(0))
    }

    /// What of the protected things a set of marks stands for.
    pub(super) fn protected_in(&self, set: &[Mark]) -> Vec<&ProtectedGroup<'p>> {
        let one = |mark: &Mark| match self.classes.get(mark.class.checked_sub(1)? as usize)? {
            About::Protected(index) => Some(*index),
            About::Rules(_) | About::Below | About::Scratch(_) | About::Open => None,
        };
        let mut indexes: Vec<usize> = set.iter().filter_map(one).collect();
        indexes.sort_unstable();
        indexes.iter().filter_map(|index| self.protected.get(*index)).collect()
    }

    /// The rules that a set of marks stands for, each with the operation, in the order in which they win.
    pub(super) fn rules(&self, set: &[Mark]) -> Vec<(Op, usize)> {
        let mut marks: Vec<Mark> = set.iter().filter(|mark| mark.rank != EXCEPT).copied().collect();
        marks.sort_unstable_by_key(|mark| (mark.rank, mark.class));
        let one = |mark: &Mark| {
            let About::Rules(op) = self.classes.get(mark.class.checked_sub(1)? as usize)? else {
                return None;
            };
            Some((*op, *self.order.get(mark.rank.checked_sub(1)? as usize)?))
        };
        marks.iter().filter_map(one).collect()
    }

    /// The rules that refuse something below what a set of marks stands for, in the order in which they win.
    pub(super) fn rules_below(&self, set: &[Mark]) -> Vec<usize> {
        let is_below = |mark: &&Mark| {
            let about = mark.class.checked_sub(1).and_then(|class| self.classes.get(class as usize));
            about == Some(&About::Below)
        };
        let mut ranks: Vec<u32> = set.iter().filter(is_below).map(|mark| mark.rank).collect();
        ranks.sort_unstable();
        ranks.iter().filter_map(|rank| self.order.get(rank.checked_sub(1)? as usize).copied()).collect()
    }

    /// Whether a rule refuses something that has a path.
    pub(super) fn refuses_paths(rule: &Rule) -> bool {
        rule.action >= Action::Ask && ON_PATHS.into_iter().any(|op| rule.scope.has(op))
    }

    /// Whether a set of marks says that an agent with these lists of scratch folders may write there in the mode `plan`.
    pub(super) fn is_open_to_plan(&self, set: &[Mark], lists: &[Vec<PathGlob>]) -> bool {
        let has = |list: &Vec<PathGlob>| {
            let index = self.scratch.iter().position(|known| *known == list.as_slice());
            let about = |mark: &Mark| {
                let class = mark.class.checked_sub(1)?;
                self.classes.get(class as usize).copied()
            };
            index.is_some_and(|index| set.iter().any(|mark| about(mark) == Some(About::Scratch(index))))
        };
        set.contains(&OPEN_TO_PLAN) || lists.iter().all(has)
    }

    /// Whether a set of marks says that to connect there is open to all.
    pub(super) fn is_open(&self, set: &[Mark]) -> bool {
        let about = |mark: &Mark| self.classes.get(mark.class.checked_sub(1)? as usize);
        set.iter().any(|mark| about(mark) == Some(&About::Open))
    }

    fn rule(&mut self, index: usize, rule: &'p Rule, views: &[u16]) {
        let rank = self.ranks.get(index).copied().unwrap_or(EXCEPT);
        let opens = rule.action == Action::Allow;
        for op in Op::ALL.iter().copied().filter(|&op| rule.scope.has(op)) {
            let own = rule.unless.has(op).then_some(index);
            let class = self.class((About::Rules(op), views.to_vec(), rule.during, own));
            // What is opened is opened by other names alone that mean nothing else, and that no agent can make.
            self.patterns.follow(if opens { Follow::Trusted } else { Follow::All });
            self.scope(&rule.scope, op, Mark { class, rank });
            self.patterns.follow(Follow::Trusted);
            self.scope(&rule.unless, op, Mark { class, rank: EXCEPT });
        }
        if Self::refuses_paths(rule) {
            self.patterns.follow(Follow::All);
            let class = self.class((About::Below, views.to_vec(), rule.during, None));
            self.folders_above(&rule.scope, Mark { class, rank });
        }
    }

    /// Marks the folders above all that a scope covers, exceptions or not.
    fn folders_above(&mut self, scope: &'p Scope, mark: Mark) {
        let policy = self.policy;
        for op in ON_PATHS.into_iter().filter(|&op| scope.has(op)) {
            match scope.patterns(op) {
                Patterns::Paths(entries) => flat(policy, entries, |resource| &resource.files)
                    .for_each(|glob| self.patterns.insert_folders_above(PATHS, glob, mark)),
                Patterns::Addresses(entries) => flat(policy, entries, |resource| &resource.connect)
                    .filter_map(AddressPattern::path)
                    .for_each(|glob| self.patterns.insert_folders_above(PATHS, glob, mark)),
                Patterns::Commands(_) => {}
            }
        }
    }

    fn class(&mut self, class: Class) -> u32 {
        let about = class.0;
        if let Some(number) = self.numbers.get(&class) {
            return *number;
        }
        self.classes.push(about);
        let number = class_number(&self.classes);
        self.numbers.insert(class, number);
        number
    }

    fn scope(&mut self, scope: &'p Scope, op: Op, mark: Mark) {
        let policy = self.policy;
        match scope.patterns(op) {
            Patterns::Paths(entries) => {
                for glob in flat(policy, entries, |resource| &resource.files) {
                    self.patterns.insert_path(PATHS, glob, mark);
                }
            }
            Patterns::Commands(entries) => {
                for glob in flat::<CommandGlob>(policy, entries, |_| &[]) {
                    self.patterns.insert_command(COMMANDS, glob, mark);
                }
            }
            Patterns::Addresses(entries) => {
                for pattern in flat(policy, entries, |resource| &resource.connect) {
                    match pattern.path() {
                        Some(glob) => self.patterns.insert_path(PATHS, glob, mark),
                        None => super::sockets::insert(&mut self.patterns, pattern, mark),
                    }
                }
            }
        }
    }

    fn open_to_all(&mut self) {
        self.patterns.follow(Follow::Trusted);
        self.classes.push(About::Open);
        let mark = Mark { class: class_number(&self.classes), rank: PROTECTED };
        let policy = self.policy;
        policy.own.open_sockets.iter().for_each(|glob| self.patterns.insert_path(PATHS, glob, mark));
    }

    fn open_to_plan(&mut self) {
        self.patterns.follow(Follow::Trusted);
        for (index, list) in self.scratch.iter().enumerate() {
            self.classes.push(About::Scratch(index));
            let mark = Mark { class: class_number(&self.classes), rank: PROTECTED };
            list.iter().for_each(|glob| self.patterns.insert_path(PATHS, glob, mark));
        }
        let below = [Piece::One(ByteSet::of(b'/')), Piece::Many(ByteSet::ALL)];
        self.patterns.insert(PATHS, &literal(TERMINALS), OPEN_TO_PLAN);
        self.patterns.insert(PATHS, &[literal(TERMINALS).as_slice(), &below].concat(), OPEN_TO_PLAN);
        for file in SINKS {
            self.patterns.insert(PATHS, &literal(file), OPEN_TO_PLAN);
        }
    }
}

/// The number of the last class.
fn class_number(classes: &[About]) -> u32 {
    u32::try_from(classes.len()).unwrap_or(u32::MAX)
}

fn literal(text: &str) -> Vec<Piece> {
    text.bytes().map(|byte| Piece::One(ByteSet::of(byte))).collect()
}

fn flat<'p, T>(
    policy: &'p Policy,
    entries: &'p [Entry<T>],
    of_resource: impl Fn(&'p Resource) -> &'p [T],
) -> impl Iterator<Item = &'p T> {
    entries.iter().flat_map(move |entry| match &entry.what {
        What::Pattern(pattern) => std::slice::from_ref(pattern),
        What::Resource(index) => policy.resources.get(*index).map(&of_resource).unwrap_or_default(),
    })
}
