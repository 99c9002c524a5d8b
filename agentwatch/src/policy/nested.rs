//! Sessions inside sessions: what begins inside another is held to the rules of both.
//!
//! The kernel knows who judges a process by one number. So each group of agents that can be inside one another gets a
//! number, and an agent of its own in the policy that is compiled, for which the rules of all of them hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agentwatch_common::rules::agent_number;

use super::{Action, Agent, AgentSpec, At, GuardSetting, Mode, Origin, Policy, RULES_MAX, Rule};
use crate::event::Op;
use crate::matcher::PathGlob;

/// Agents of a policy up to which all groups are compiled.
const ALL_GROUPS: usize = 4;
/// Agents of a policy up to which all pairs are compiled. Past it, and for groups that are not compiled, what is inside
/// a session is judged as that session is.
const ALL_PAIRS: usize = 16;

/// What a session inside another is judged by: for the number by which the outer one is judged and the number of the
/// inner one's agent, the number of both.
pub type Pairs = BTreeMap<(u32, u32), u32>;

/// A group of agents, by their indexes in the policy.
type Group = BTreeSet<usize>;

/// The policy with an agent for each group of agents that can be inside one another, and their numbers.
///
/// What the group may do is never more than what each of its agents may: see [`holds_for`]. It is in the strictest mode
/// of them, and only agents in that mode have a say.
#[must_use]
pub fn nested(policy: &Policy) -> (Policy, Pairs) {
    let (mut whole, mut pairs) = (policy.clone(), Pairs::new());
    let count = policy.agents.len();
    let most = if count <= ALL_GROUPS {
        count
    } else if count <= ALL_PAIRS {
        2
    } else {
        1
    };
    let mut numbers: BTreeMap<Group, u32> = (policy.agents.iter().enumerate())
        .map(|(index, agent)| (Group::from([index]), number(agent)))
        .collect();
    let mut known: BTreeSet<u32> = numbers.values().copied().collect();
    let mut last: Vec<Group> = numbers.keys().cloned().collect();
    for _ in 1..most {
        let mut next = Vec::new();
        for (group, index) in last.iter().flat_map(|group| (0..count).map(move |index| (group, index))) {
            let mut larger = group.clone();
            if !larger.insert(index) || numbers.contains_key(&larger) {
                continue;
            }
            let agent = together(policy, &larger);
            // Two names with one number cannot be told apart: then there is no such group.
            if known.insert(number(&agent)) {
                numbers.insert(larger.clone(), number(&agent));
                join_rules(&mut whole, policy, &larger);
                if whole.rules.len() > RULES_MAX {
                    return (policy.clone(), Pairs::new());
                }
                whole.agents.push(agent);
                next.push(larger);
            }
        }
        last = next;
    }
    for (group, outer) in &numbers {
        for (index, agent) in policy.agents.iter().enumerate() {
            let mut larger = group.clone();
            larger.insert(index);
            if let Some(both) = numbers.get(&larger) {
                pairs.insert((*outer, number(agent)), *both);
            }
        }
    }
    (whole, pairs)
}

fn number(agent: &Agent) -> u32 {
    agent_number(&agent.spec.name)
}

/// Those of a group that have a say, and the mode of all.
fn judges<'p>(policy: &'p Policy, group: &Group) -> (Vec<(usize, &'p Agent)>, Mode) {
    let members = || group.iter().filter_map(|index| Some((*index, policy.agents.get(*index)?)));
    let mode =
        members().map(|(_, agent)| agent.spec.mode).max_by_key(|mode| strictness(*mode)).unwrap_or_default();
    (members().filter(|(_, agent)| agent.spec.mode == mode).collect(), mode)
}

const fn strictness(mode: Mode) -> u8 {
    match mode {
        Mode::Observe => 0,
        Mode::Recommend => 1,
        Mode::Enforce => 2,
        Mode::Approve => 3,
        Mode::Plan => 4,
    }
}

/// The agent that a group is judged as. No policy can name it: its name holds a `+`.
fn together(policy: &Policy, group: &Group) -> Agent {
    let (judges, mode) = judges(policy, group);
    let names: BTreeSet<&str> =
        group.iter().filter_map(|index| Some(policy.agents.get(*index)?.spec.name.as_str())).collect();
    let spec = AgentSpec {
        name: names.into_iter().collect::<Vec<_>>().join("+"),
        title: None,
        owner: None,
        matches: Vec::new(),
        mode,
        origin: Origin::Policy,
    };
    let at = judges.first().map_or_else(nowhere, |(_, agent)| agent.at);
    let default = |op: &Op| {
        let strictest = judges.iter().filter_map(|(_, agent)| agent.default_for(*op)).max()?;
        Some((*op, strictest, at))
    };
    let guard = |guard: super::Guard| {
        let on = judges.iter().any(|(_, agent)| agent.guards(guard));
        GuardSetting { guard, on, at }
    };
    Agent {
        spec,
        at,
        mode_at: at,
        defaults: Op::ALL.iter().filter_map(default).collect(),
        guards: super::Guard::ALL.into_iter().map(guard).collect(),
        delegates: judges.iter().flat_map(|(_, agent)| agent.delegates.iter().cloned()).collect(),
        scratch: scratch(&judges),
        breakers: Vec::new(),
    }
}

/// The folders in which all of these agents may write in the mode `plan`.
fn scratch(judges: &[(usize, &Agent)]) -> Vec<Vec<PathGlob>> {
    let mut lists: Vec<Vec<PathGlob>> = Vec::new();
    for list in judges.iter().flat_map(|(_, agent)| &agent.scratch) {
        if !lists.contains(list) {
            lists.push(list.clone());
        }
    }
    lists
}

const fn nowhere() -> At {
    At { source: 0, place: super::Place { line: 1, column: 1, width: 1 } }
}

/// Makes the rules hold for a group, whose agent is the next one.
fn join_rules(whole: &mut Policy, policy: &Policy, group: &Group) {
    let (judges, _) = judges(policy, group);
    let next = whole.agents.len();
    for (index, rule) in policy.rules.iter().enumerate() {
        match holds_for(rule, &judges) {
            None => {}
            Some(action) if action == rule.action => {
                // It has agents: one that is for all holds for this one, too.
                if let Some(agents) =
                    whole.rules.get_mut(index).and_then(|rule| Arc::make_mut(rule).agents.as_mut())
                {
                    agents.push(next);
                }
            }
            Some(action) => {
                let rule = Rule { action, agents: Some(vec![next]), ..Rule::clone(rule) };
                whole.rules.push(Arc::new(rule));
            }
        }
    }
}

/// What a rule for some agents decides for a group; nothing where it does not hold for it.
///
/// Where it matches, no default counts any more. So it must be no milder than the default of those that it is not for:
/// what it allows is left out, and what it refuses it refuses as strictly.
fn holds_for(rule: &Rule, judges: &[(usize, &Agent)]) -> Option<Action> {
    let agents = rule.agents.as_ref()?;
    let (own, others): (Vec<_>, Vec<_>) = judges.iter().partition(|(index, _)| agents.contains(index));
    let default = |agent: &Agent| {
        Op::ALL.iter().filter(|op| rule.scope.has(**op)).filter_map(|op| agent.default_for(*op)).max()
    };
    let strictest = others.iter().filter_map(|(_, agent)| default(agent)).max().unwrap_or(Action::Allow);
    if own.is_empty() || !rule.action.stops() && strictest.stops() {
        return None;
    }
    Some(if rule.action.stops() { rule.action.max(strictest) } else { rule.action })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::{Context, Operation, Source, Users, policy_of};

    fn read(text: &str) -> Policy {
        let source = Source { name: "p.yaml".into(), text: text.to_owned() };
        policy_of(vec![source], Context { users: &Users::default(), now_ns: 0 }).unwrap().0
    }

    fn decided(policy: &Policy, agent: &str, op: Op, target: &str) -> Action {
        policy.decide(agent, &Operation::parse(op, target).unwrap(), 0).action
    }

    #[test]
    fn each_pair_has_a_number_and_the_same_either_way() {
        let policy = read(
            "version: 1\nagents:\n  a: {owner: o, mode: enforce}\n  b: {owner: o}\n  c: {owner: o, mode: recommend}\n",
        );
        let (whole, pairs) = nested(&policy);
        let of = |outer: &str, inner: &str| pairs.get(&(agent_number(outer), agent_number(inner))).copied();
        assert_eq!(of("a", "b"), Some(agent_number("a+b")));
        assert_eq!(of("b", "a"), Some(agent_number("a+b")));
        assert_eq!(of("a+b", "a"), Some(agent_number("a+b")));
        assert_eq!(of("a+b", "c"), Some(agent_number("a+b+c")));
        assert_eq!(of("a", "a"), Some(agent_number("a")));
        assert_eq!(of("a", "nobody"), None);
        let modes: Vec<_> =
            whole.agents.iter().map(|agent| (agent.spec.name.as_str(), agent.spec.mode)).collect();
        use Mode::{Enforce, Observe, Recommend};
        let wanted = [
            ("a", Enforce),
            ("b", Observe),
            ("c", Recommend),
            ("a+b", Enforce),
            ("a+c", Enforce),
            ("b+c", Recommend),
            ("a+b+c", Enforce),
        ];
        assert_eq!(modes, wanted);
    }

    #[test]
    fn an_allowance_of_one_lifts_no_default_of_another() {
        let policy = read(
            "version: 1\nagents:\n  a: {owner: o, mode: enforce, default: {write: deny}}\n  \
             b: {owner: o, mode: enforce, default: {read: deny}}\n  c: {owner: o, mode: enforce}\n  \
             r: {owner: o, mode: recommend}\nrules:\n  \
             - {name: w, agents: [a], allow: {write: [/tmp]}}\n  - {name: r, agents: [a], allow: {read: [/srv]}}\n  \
             - {name: d, agents: [c], deny: {write: [/tmp/c]}}\n  - {name: s, agents: [r], deny: {write: [/tmp/r]}}\n",
        );
        let (whole, _) = nested(&policy);
        assert_eq!(decided(&whole, "a+b", Op::Read, "/srv/f"), Action::Deny, "b's default");
        assert_eq!(decided(&whole, "a+b", Op::Write, "/etc/f"), Action::Deny, "a's default");
        assert_eq!(decided(&whole, "a+c", Op::Write, "/tmp/f"), Action::Allow, "c has no default");
        assert_eq!(decided(&whole, "a+c", Op::Write, "/tmp/c"), Action::Deny, "c's rule");
        assert_eq!(decided(&whole, "a+r", Op::Write, "/tmp/r"), Action::Allow, "r only recommends");
    }

    #[test]
    fn many_agents_have_pairs_and_very_many_none() {
        let policy = |count: usize| {
            let agents: String =
                (0..count).map(|one| format!("  a{one}: {{owner: o, mode: enforce}}\n")).collect();
            read(&format!("version: 1\nagents:\n{agents}"))
        };
        let (whole, pairs) = nested(&policy(ALL_PAIRS));
        assert_eq!(whole.agents.len(), ALL_PAIRS + ALL_PAIRS * (ALL_PAIRS - 1) / 2);
        assert!(pairs.len() <= agentwatch_common::limits::NESTED as usize, "{}", pairs.len());
        assert_eq!(pairs.get(&(agent_number("a0+a1"), agent_number("a2"))), None, "judged as the outer one");
        let (whole, _) = nested(&policy(ALL_PAIRS + 1));
        assert_eq!(whole.agents.len(), ALL_PAIRS + 1);
    }

    proptest! {
        /// The group is never milder than any of its agents in the strictest mode.
        #[test]
        fn a_group_is_as_strict_as_each_of_its_agents(
            modes in prop::collection::vec(prop::sample::select(vec!["observe", "recommend", "enforce"]), 3),
            defaults in prop::collection::vec(prop::sample::select(vec!["allow", "log", "ask", "deny", "kill"]), 3),
            rules in prop::collection::vec(
                (
                    prop::sample::select(vec!["allow", "log", "ask", "deny", "kill"]),
                    prop::sample::subsequence(vec!["a0", "a1", "a2"], 1..=3),
                    prop::sample::select(vec!["read: [/x]", "write: [/x]", "read: [/x/y], write: [/x/y]"]),
                ),
                0..6,
            ),
        ) {
            let mut text = String::from("version: 1\nagents:\n");
            for (index, (mode, default)) in modes.iter().zip(&defaults).enumerate() {
                text.push_str(&format!("  a{index}: {{owner: o, mode: {mode}, default: {{read: {default}}}}}\n"));
            }
            text.push_str(if rules.is_empty() { "" } else { "rules:\n" });
            for (index, (action, agents, scope)) in rules.iter().enumerate() {
                let agents = agents.join(", ");
                text.push_str(&format!("  - {{name: r{index}, agents: [{agents}], {action}: {{{scope}}}}}\n"));
            }
            let (whole, pairs) = nested(&read(&text));
            for (&(outer, inner), both) in &pairs {
                let named = |number: u32| {
                    whole.agents.iter().find(|agent| agent_number(&agent.spec.name) == number).unwrap()
                };
                let both = named(*both);
                for op in [Op::Read, Op::Write] {
                    for target in ["/x", "/x/y", "/x/z", "/other"] {
                        let strict = decided(&whole, &both.spec.name, op, target);
                        for part in [named(outer), named(inner)] {
                            if part.spec.mode != both.spec.mode {
                                continue;
                            }
                            let own = decided(&whole, &part.spec.name, op, target);
                            prop_assert!(!own.stops() || strict >= own, "{op:?} {target}: {own:?}, {strict:?}\n{text}");
                        }
                    }
                }
            }
        }
    }
}
