//! From a policy to the tables.

use std::collections::HashMap;
use std::sync::Arc;

use agentwatch_common::limits::{DEVICES, RULE_STATES, RULE_STEPS};
use agentwatch_common::rules::{
    CHOICES, Choice, Decision, DecisionKey, Device, LinkedKey, RULE_DEFAULT, RULE_GUARDS, Verdict, View,
    guard, op,
};

use super::marks::{Marks, ProtectedGroup};
use super::{CompiledRules, DECISIONS_MAX, KNOWN, RuleText, TextsError};
use crate::event::Op;
use crate::matcher::{Built, Mark, PathGlob, SparseAutomaton};
use crate::places::{Places, Root};
use crate::policy::compile::{TooManyChoices, Views, choice_of, op_number, verdict_of, windows_of};
use crate::policy::{Action, Agent, Guard, Mode, Policy, Protection, Rule};

/// States before equal ones are merged. Past it the patterns are refused.
const STATES_MAX: usize = 1 << 19;

/// Compiles the rules of a policy about paths and command lines, for a host on which things have these names.
///
/// # Errors
/// When they do not fit the tables.
pub fn compile(policy: &Policy, views: &Views, places: &Places) -> Result<CompiledRules, TextsError> {
    let mut builder = Builder::new(policy, views, places);

    let built = builder.marks.take_patterns().build(STATES_MAX).map_err(|_| TextsError::TooManyStates)?;

    let mut sets = Sets::default();
    // The first of the sets is the empty one, and gets the number 0.
    let numbers: Result<Vec<u32>, TextsError> =
        built.sets().map(|set| sets.number(builder.decisions(set)?)).collect();

    let numbers = numbers?;
    let linked = linked(&builder, &built, &mut sets, places)?;

    let automaton = SparseAutomaton::new(&built.smallest(&numbers));
    check(&automaton)?;
    sets.decisions.sort_unstable_by_key(|(key, _)| *key);
    Ok(CompiledRules {
        devices: devices(places, &automaton)?,
        linked,
        automaton,
        views: builder.views_of_agents(&sets.decisions),
        decisions: sets.decisions,
        windows: windows_of(policy),
        rules: (policy.rules.iter())
            .map(|rule| RuleText { name: rule.name.clone(), message: rule.message.clone() })
            .collect(),
    })
}

/// The sets of files with several names, those that come to something.
fn linked(
    builder: &Builder<'_>,
    built: &Built,
    sets: &mut Sets,
    places: &Places,
) -> Result<Vec<(LinkedKey, u32)>, TextsError> {
    let mut all = Vec::new();
    for file in &places.linked {
        let mut marks: Vec<Mark> =
            file.names.iter().flat_map(|name| built.marks(KNOWN, name)).copied().collect();
        marks.sort_unstable();
        marks.dedup();
        let rows = builder.refusals(&marks)?;
        if !rows.is_empty() {
            all.push((LinkedKey { ino: file.ino, dev: file.dev, slot: 0 }, sets.number(rows)?));
        }
    }
    Ok(all)
}

/// Where the paths within each file system begin.
fn devices(places: &Places, automaton: &SparseAutomaton) -> Result<Vec<(u32, Device)>, TextsError> {
    let count = places.devices.len();
    if count > DEVICES as usize {
        return Err(TextsError::TooManyDevices { count });
    }
    let one = |device: &Root| {
        let start = automaton.state(KNOWN, &device.text);
        (device.dev, Device { start, mount: device.mount })
    };
    Ok(places.devices.iter().map(one).collect())
}

fn check(automaton: &SparseAutomaton) -> Result<(), TextsError> {
    if automaton.states.len() > RULE_STATES as usize {
        return Err(TextsError::TooManyStates);
    }
    let steps = automaton.steps.len();
    if steps > RULE_STEPS as usize { Err(TextsError::TooManySteps { steps }) } else { Ok(()) }
}

/// What is decided for a set: view, operation, choices.
type Row = (u16, u8, [Choice; CHOICES]);

/// Sets of patterns, numbered so that those that decide alike are one.
#[derive(Default)]
struct Sets {
    known: HashMap<Vec<RowKey>, u32>,
    decisions: Vec<(DecisionKey, Decision)>,
}

/// A row as what can be looked up.
type RowKey = (u16, u8, [(u16, u8, u8); CHOICES]);

impl Sets {
    fn number(&mut self, rows: Vec<Row>) -> Result<u32, TextsError> {
        let choice = |choice: Choice| (choice.rule, choice.verdict, choice.window);
        let key: Vec<RowKey> = rows.iter().map(|&(view, op, all)| (view, op, all.map(choice))).collect();
        if let Some(&number) = self.known.get(&key) {
            return Ok(number);
        }
        let number = u32::try_from(self.known.len()).map_err(|_| TextsError::TooManyDecisions)?;
        self.add(number, &rows)?;
        self.known.insert(key, number);
        Ok(number)
    }

    fn add(&mut self, set: u32, rows: &[Row]) -> Result<(), TextsError> {
        if self.decisions.len() + rows.len() > DECISIONS_MAX {
            return Err(TextsError::TooManyDecisions);
        }
        self.decisions.extend(
            rows.iter()
                .map(|&(view, op, choices)| (DecisionKey { set, view, op, slot: 0 }, Decision { choices })),
        );
        Ok(())
    }
}

/// A view of which an agent is more than observed.
struct LiveView<'p> {
    number: u16,
    /// Lists of scratch folders, in the mode `plan`.
    plan: Option<&'p [Vec<PathGlob>]>,
}

struct Builder<'p> {
    policy: &'p Policy,
    views: &'p Views,
    live: Vec<LiveView<'p>>,
    /// For each rule the live views that have it.
    views_of: Vec<Vec<u16>>,
    marks: Marks<'p>,
}

impl<'p> Builder<'p> {
    fn new(policy: &'p Policy, views: &'p Views, places: &Places) -> Self {
        let mut live: Vec<LiveView<'p>> = Vec::new();
        for (index, agent) in policy.agents.iter().enumerate() {
            let number = views.of_agent(Some(index));
            let mode = agent.spec.mode;
            if mode != Mode::Observe && !live.iter().any(|view| view.number == number) {
                let plan = (mode == Mode::Plan).then_some(agent.scratch.as_slice());
                live.push(LiveView { number, plan });
            }
        }
        let of_rule = |rule: &Arc<Rule>| {
            let has = |view: &&LiveView<'_>| views.has_rule(usize::from(view.number), rule);
            live.iter().filter(has).map(|view| view.number).collect()
        };
        let views_of: Vec<Vec<u16>> = policy.rules.iter().map(of_rule).collect();
        let mut scratch: Vec<&[PathGlob]> = Vec::new();
        for list in live.iter().filter_map(|view| view.plan).flatten() {
            if !scratch.contains(&list.as_slice()) {
                scratch.push(list);
            }
        }
        let marks = Marks::new(policy, places, &views_of, protected(policy, views, &live), scratch);
        Self { policy, views, live, views_of, marks }
    }

    /// The views as the kernel has them, with these decisions.
    fn views_of_agents(&self, decisions: &[(DecisionKey, Decision)]) -> Vec<(String, View)> {
        let one = |(index, agent): (usize, &Agent)| {
            let view = self.views.of_agent(Some(index));
            let mode = agent.spec.mode;
            let says = |op: Op| {
                let by_rule = self.policy.rules.iter();
                let mut by_rule = by_rule.filter(|rule| self.views.has_rule(usize::from(view), rule));
                let mut protected = self.marks.protected.iter();
                agent.default_for(op).is_some()
                    || protected.any(|group| group.views.contains(&view) && group.what.ops.contains(&op))
                    || mode == Mode::Plan && is_for_plan(op)
                    || by_rule.any(|rule| rule.scope.has(op))
            };
            let bits = |ops: u8, op: Op| ops | u8::from(says(op)) << op_number(op);
            let judged = |enforce| {
                let mut by_rule = self.policy.rules.iter();
                let above = by_rule
                    .any(|rule| self.views.has_rule(usize::from(view), rule) && Marks::refuses_paths(rule));
                let ops = Op::ALL.iter().copied().fold(u8::from(above) << op::MOVE_ABOVE, bits);
                let bare = decisions.iter().take_while(|(key, _)| key.set == 0);
                let bare =
                    bare.filter(|(key, _)| key.view == view).fold(0, |bits, (key, _)| bits | 1 << key.op);
                View { view, ops, enforce, guards: guards_of(agent), bare, ..CompiledRules::OTHERS }
            };
            let view = match mode {
                Mode::Observe => CompiledRules::OTHERS,
                Mode::Recommend => judged(0),
                Mode::Approve | Mode::Enforce | Mode::Plan => judged(1),
            };
            (agent.spec.name.clone(), view)
        };
        self.policy.agents.iter().enumerate().map(one).collect()
    }

    /// What is decided for a set of marks, with the defaults: the kernel looks nowhere else.
    fn decisions(&self, set: &[Mark]) -> Result<Vec<Row>, TextsError> {
        let rules = self.marks.rules(set);
        let protected = self.marks.protected_in(set);
        let below = self.marks.rules_below(set);
        let open_to_all = self.marks.is_open(set);
        let mut rows = Vec::new();
        for view in &self.live {
            let open = view.plan.is_some_and(|lists| self.marks.is_open_to_plan(set, lists));
            for &op in Op::ALL {
                let read_only = view.plan.is_some() && is_for_plan(op) && !(open && op == Op::Write);
                let about = rules.iter().filter(|(of, _)| *of == op).map(|(_, rule)| *rule);
                let has_default = !(op == Op::Connect && open_to_all);
                let choices = match protected_from(&protected, view, op) {
                    Some(by) => {
                        let agent = self.views.example(self.policy, view.number);
                        let default = agent.and_then(|agent| agent.default_for(op));
                        self.choices_protected(view, about, by, default.filter(|_| has_default))?
                    }
                    None => {
                        let default = self.views.default_for(self.policy, usize::from(view.number), op);
                        let default = default.filter(|_| has_default);
                        self.choices(view, about, default, read_only && op != Op::Connect)?
                    }
                };
                if choices.iter().any(|choice| choice.verdict != 0) {
                    rows.push((view.number, op_number(op), choices));
                }
            }
            let above = self.choices_above(view, &below)?;
            if above.iter().any(|choice| choice.verdict != 0) {
                rows.push((view.number, op::MOVE_ABOVE as u8, above));
            }
        }
        Ok(rows)
    }

    /// What rules and protections refuse of a set of marks, without the defaults.
    fn refusals(&self, set: &[Mark]) -> Result<Vec<Row>, TextsError> {
        let mut rules = self.marks.rules(set);
        rules.retain(|(_, rule)| self.policy.rules.get(*rule).is_some_and(|rule| rule.action >= Action::Ask));
        let protected = self.marks.protected_in(set);
        let mut rows = Vec::new();
        for view in &self.live {
            for &op in Op::ALL {
                let about = rules.iter().filter(|(of, _)| *of == op).map(|(_, rule)| *rule);
                let choices = match protected_from(&protected, view, op) {
                    Some(by) => self.choices_protected(view, about, by, None)?,
                    None => self.choices(view, about, None, false)?,
                };
                if choices.iter().any(|choice| choice.verdict != 0) {
                    rows.push((view.number, op_number(op), choices));
                }
            }
        }
        Ok(rows)
    }

    /// The choices about moving a folder below which these rules refuse something.
    fn choices_above(
        &self,
        view: &LiveView<'_>,
        rules: &[usize],
    ) -> Result<[Choice; CHOICES], TooManyChoices> {
        let mut list = List { choices: [Choice::default(); CHOICES], used: 0 };
        let here =
            |rule: &&usize| self.views_of.get(**rule).is_some_and(|views| views.contains(&view.number));
        for &rule in rules.iter().filter(here) {
            if let Some(choice) = self.choice(rule, false) {
                list.push(choice).map_err(|Full| self.too_many(Some(rule)))?;
            }
        }
        Ok(list.choices)
    }

    /// The choices for a view and an operation by these rules, the winning one first, and the default.
    fn choices(
        &self,
        view: &LiveView<'_>,
        rules: impl Iterator<Item = usize>,
        default: Option<Action>,
        read_only: bool,
    ) -> Result<[Choice; CHOICES], TooManyChoices> {
        let mut list = List { choices: [Choice::default(); CHOICES], used: 0 };
        let mut last = None;
        let here = |rule: &usize| self.views_of.get(*rule).is_some_and(|views| views.contains(&view.number));
        for rule in rules.filter(here) {
            let Some(choice) = self.choice(rule, read_only) else { continue };
            last = Some(rule);
            list.push(choice).map_err(|Full| self.too_many(last))?;
        }
        let least = read_only.then_some(Action::Deny);
        if let Some(action) = default.max(least) {
            list.push(by_default(action, 0)).map_err(|Full| self.too_many(last))?;
        }
        Ok(list.choices)
    }

    /// The same for what is protected: what does not refuse it by itself does so by its protection.
    fn choices_protected(
        &self,
        view: &LiveView<'_>,
        rules: impl Iterator<Item = usize>,
        by: Protection,
        default: Option<Action>,
    ) -> Result<[Choice; CHOICES], TooManyChoices> {
        let mut list = List { choices: [Choice::default(); CHOICES], used: 0 };
        let refusal = |window| Choice {
            rule: RULE_GUARDS + by.number() as u16,
            verdict: Verdict::Denied.raw(),
            window,
        };
        let default = default.filter(|action| *action >= Action::Deny);
        let mut last = None;
        let here = |rule: &usize| self.views_of.get(*rule).is_some_and(|views| views.contains(&view.number));
        for rule in rules.filter(here) {
            let Some(choice) = self.choice(rule, false) else { continue };
            last = Some(rule);
            let refuses = self.policy.rules.get(rule).is_some_and(|rule| rule.action >= Action::Deny);
            if !refuses && default.is_none() {
                // All that follow are as mild.
                break;
            }
            let choice = if refuses { choice } else { refusal(choice.window) };
            list.push(choice).map_err(|Full| self.too_many(last))?;
        }
        list.push(default.map_or(refusal(0), |action| by_default(action, 0)))
            .map_err(|Full| self.too_many(last))?;
        Ok(list.choices)
    }

    fn too_many(&self, rule: Option<usize>) -> TooManyChoices {
        let rule = rule.and_then(|index| self.policy.rules.get(index));
        TooManyChoices { rule: rule.map(|rule| rule.name.clone()).unwrap_or_default() }
    }

    /// What a rule decides: nothing but a refusal where the agent may only read.
    fn choice(&self, index: usize, read_only: bool) -> Option<Choice> {
        let choice = choice_of(self.policy, index)?;
        let action = self.policy.rules.get(index)?.action;
        if read_only && action < Action::Deny {
            return Some(by_default(Action::Deny, choice.window));
        }
        Some(choice)
    }
}

/// What is protected from the agents of each view, each thing once.
fn protected<'p>(policy: &'p Policy, views: &Views, live: &[LiveView<'_>]) -> Vec<ProtectedGroup<'p>> {
    let mut groups: Vec<ProtectedGroup<'p>> = Vec::new();
    for view in live {
        let Some(agent) = views.example(policy, view.number) else { continue };
        for what in policy.protected(agent) {
            // Lists are the same where they are one list.
            let same = |group: &&mut ProtectedGroup<'_>| {
                group.what.by == what.by
                    && std::ptr::eq(group.what.paths, what.paths)
                    && std::ptr::eq(group.what.more, what.more)
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.views.push(view.number),
                None => groups.push(ProtectedGroup { what, views: vec![view.number] }),
            }
        }
    }
    // As they are named: agentwatch's own first.
    groups.sort_by_key(|group| std::cmp::Reverse(group.what.by.number()));
    groups
}

/// By what something is protected from an operation of the agents of a view.
fn protected_from(groups: &[&ProtectedGroup<'_>], view: &LiveView<'_>, op: Op) -> Option<Protection> {
    let is_here =
        |group: &&&ProtectedGroup<'_>| group.what.ops.contains(&op) && group.views.contains(&view.number);
    groups.iter().find(is_here).map(|group| group.what.by)
}

/// The guards that are on for an agent, as bits.
fn guards_of(agent: &Agent) -> u16 {
    let on = Guard::ALL.into_iter().filter(|guard| agent.guards(*guard)).map(Guard::number);
    on.chain([guard::OWN]).fold(0, |bits, number| bits | 1 << number)
}

/// Whether the mode `plan` forbids such operations where no rule speaks of them.
fn is_for_plan(op: Op) -> bool {
    matches!(op, Op::Write | Op::Delete | Op::Connect)
}

fn by_default(action: Action, window: u8) -> Choice {
    Choice { rule: RULE_DEFAULT, verdict: verdict_of(action).raw(), window }
}

/// Choices, of which each can count at some time.
struct List {
    choices: [Choice; CHOICES],
    used: usize,
}

/// There is no room for another choice.
struct Full;

impl List {
    fn push(&mut self, choice: Choice) -> Result<(), Full> {
        let before = self.choices.iter().take(self.used);
        if before.clone().any(|other| other.window == 0 || other.window == choice.window) {
            return Ok(());
        }
        *self.choices.get_mut(self.used).ok_or(Full)? = choice;
        self.used += 1;
        Ok(())
    }
}
