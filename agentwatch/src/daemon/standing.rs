//! What of a policy is carried out here: what `agentwatch policy show` tells.

use super::surroundings;
use crate::{
    control::policy::{PolicyAgentView, PolicyGuardView, PolicyRuleView, Standing},
    event::{Op, time::short_time},
    kernel::Abilities,
    places::Places,
    policy::{Action, Agent, Guard, Mode, Policy, Rule},
};

/// The agents of a policy.
#[must_use]
pub fn agents(policy: &Policy, abilities: &Abilities) -> Vec<PolicyAgentView> {
    let view = |agent: &Agent| PolicyAgentView {
        name: agent.spec.name.clone(),
        owner: agent.spec.owner.clone(),
        mode: agent.spec.mode.as_str().to_owned(),
        guards: Guard::ALL.into_iter().map(|guard| guard_of(agent, guard, abilities)).collect(),
    };
    policy.agents.iter().map(view).collect()
}

fn guard_of(agent: &Agent, guard: Guard, abilities: &Abilities) -> PolicyGuardView {
    let because = |reason: &str| Some(reason.to_owned());
    let (status, reason) = if !agent.guards(guard) {
        (Standing::Off, because("the policy switches it off"))
    } else if let Some(lacking) = abilities.lacking_for_guard(guard) {
        (Standing::NotEnforced, Some(format!("this kernel lacks: {lacking}")))
    } else {
        match agent.spec.mode {
            Mode::Enforce | Mode::Approve | Mode::Plan => (Standing::Enforced, None),
            Mode::Recommend => (Standing::WouldDeny, because("the mode `recommend` only tells")),
            Mode::Observe => (Standing::Observed, because("the mode `observe` decides nothing")),
        }
    };
    PolicyGuardView { guard: guard.as_str().to_owned(), status, reason }
}

/// The rules of a policy, with what comes of each on a kernel of these abilities, where things are called so.
#[must_use]
pub fn rules(policy: &Policy, abilities: &Abilities, places: &Places) -> Vec<PolicyRuleView> {
    policy.rules.iter().map(|rule| rule_view(policy, rule, abilities, places)).collect()
}

fn rule_view(policy: &Policy, rule: &Rule, abilities: &Abilities, places: &Places) -> PolicyRuleView {
    let (status, reasons) = standing(policy, rule, abilities, places);
    let name = |index: &usize| policy.agents.get(*index).map(|agent| agent.spec.name.clone());
    let window = rule.during.and_then(|index| policy.windows.get(index));
    PolicyRuleView {
        name: rule.name.clone(),
        says: rule.action.as_str().to_owned(),
        file: policy.sources.get(rule.at.source).map_or_else(String::new, |source| source.name.to_string()),
        line: rule.at.place.line,
        agents: rule.agents.as_ref().map(|agents| agents.iter().filter_map(name).collect()),
        during: window.map(|window| window.name.clone()),
        status,
        reasons,
    }
}

/// What comes of a rule, and what is to be known of that.
fn standing(policy: &Policy, rule: &Rule, abilities: &Abilities, places: &Places) -> (Standing, Vec<String>) {
    let mut reasons = Vec::new();
    let lacking: Vec<String> = (Op::ALL.iter())
        .filter(|op| rule.scope.has(**op))
        .filter_map(|op| {
            Some(format!("this kernel lacks for {}: {}", op.name(), abilities.lacking_for(*op)?))
        })
        .collect();
    let in_mode = |mode: fn(Mode) -> bool| names_in(policy, rule, mode);
    let enforced = in_mode(|mode| matches!(mode, Mode::Enforce | Mode::Approve | Mode::Plan));
    let told = in_mode(|mode| mode == Mode::Recommend);
    let observed = in_mode(|mode| mode == Mode::Observe);
    let mut milder = |names: &[&str], what: &str| {
        if !names.is_empty() {
            reasons.push(format!("{} {what}", list(names)));
        }
    };
    milder(&told, "in the mode `recommend`: what it would refuse is told, and happens");
    milder(&observed, "in the mode `observe`: nothing is decided");
    let mut assurance = super::names::assurance(policy, rule, abilities);
    if rule.action.stops() && policy.is_about_paths(rule) {
        assurance.extend(surroundings::lacking(places).into_iter().map(str::to_owned));
    }
    let status = match (enforced.is_empty(), told.is_empty(), observed.is_empty()) {
        (false, ..) if !lacking.is_empty() => Standing::NotEnforced,
        (false, true, true) if assurance.is_empty() => Standing::Enforced,
        (false, ..) => Standing::Partly,
        (true, false, _) => Standing::WouldDeny,
        (true, true, _) => Standing::Observed,
    };
    if status != Standing::Observed {
        reasons.extend(lacking);
        reasons.extend(assurance);
        reasons.extend(half_done(policy, rule));
    }
    (status, reasons)
}

/// What the rule asks for and this version does otherwise, and when it counts.
fn half_done(policy: &Policy, rule: &Rule) -> Vec<String> {
    let mut reasons = Vec::new();
    if rule.action == Action::Ask {
        reasons.push("this version asks nobody yet: it denies".to_owned());
    }
    if let Some(then) = rule.then {
        reasons.push(format!("`then: {}` does nothing in this version yet", then.as_str()));
    }
    if let Some(window) = rule.during.and_then(|index| policy.windows.get(index)) {
        let (from, to) = (short_time(window.from_ns), short_time(window.to_ns));
        reasons.push(format!("it counts from {from} to {to} only"));
    }
    reasons
}

/// The agents that a rule is for and whose mode is one of these.
fn names_in<'p>(policy: &'p Policy, rule: &Rule, mode: fn(Mode) -> bool) -> Vec<&'p str> {
    let is_for = |index: usize| rule.agents.as_ref().is_none_or(|agents| agents.contains(&index));
    (policy.agents.iter().enumerate())
        .filter(|(index, agent)| is_for(*index) && mode(agent.spec.mode))
        .map(|(_, agent)| agent.spec.name.as_str())
        .collect()
}

/// Names in backticks, at most 8 of them, with the verb.
fn list(names: &[&str]) -> String {
    const SHOWN: usize = 8;
    let mut text = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if let Some(more @ 1..) = names.len().checked_sub(SHOWN) {
        text.push_str(&format!(" and {more} more"));
    }
    text.push_str(if names.len() == 1 { " is" } else { " are" });
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Context, Source, Users, policy_of};

    const POLICY: &str = "\
version: 1
agents:
  strict: {owner: a@example.com, mode: enforce, guards: {mount: off}}
  soft: {owner: a@example.com, mode: recommend}
  seen: {owner: a@example.com}
windows:
  freeze: {from: 2026-12-20T00:00:00Z, to: 2027-01-04T00:00:00Z}
rules:
  - {name: all, deny: {read: [/srv]}}
  - {name: strict, agents: [strict], deny: {listen: ['*:80']}}
  - {name: soft, agents: [soft], deny: {read: [/a]}}
  - {name: seen, agents: [seen], deny: {read: [/b]}}
  - {name: asks, agents: [strict], ask: {run: ['x *']}, then: freeze, during: freeze}
";

    fn policy() -> Policy {
        let source = Source { name: "p.yaml".into(), text: POLICY.to_owned() };
        policy_of(vec![source], Context { users: &Users::default(), now_ns: 0 }).unwrap().0
    }

    fn statuses(abilities: &Abilities) -> Vec<(String, Standing)> {
        rules(&policy(), abilities, &Places::default())
            .into_iter()
            .map(|rule| (rule.name, rule.status))
            .collect()
    }

    #[test]
    fn a_rule_is_enforced_only_where_all_its_agents_are_held_to_it() {
        use Standing::{Enforced, Observed, Partly, WouldDeny};
        let wanted = [
            ("all", Partly),
            ("strict", Enforced),
            ("soft", WouldDeny),
            ("seen", Observed),
            ("asks", Enforced),
        ];
        let wanted = wanted.map(|(name, status)| (name.to_owned(), status));
        assert_eq!(statuses(&Abilities::default()), wanted);
        let rules = rules(&policy(), &Abilities::default(), &Places::default());
        assert!(rules[0].reasons[0].contains("`soft` is in the mode `recommend`"), "{:?}", rules[0]);
        assert!(rules[0].reasons[1].contains("`seen` is in the mode `observe`"), "{:?}", rules[0]);
        assert!(rules[1].reasons.is_empty() && rules[1].line == 10, "{:?}", rules[1]);
        let asks = rules[4].reasons.join("\n");
        assert!(asks.contains("denies") && asks.contains("`then: freeze`") && asks.contains("2026-12-20"));
        assert_eq!(rules[4].during.as_deref(), Some("freeze"));
    }

    #[test]
    fn what_was_not_found_of_other_names_is_told_of_rules_on_paths() {
        let places = Places { linked_truncated: true, ..Places::default() };
        let text = "version: 1\nagents:\n  a: {owner: a@example.com, mode: enforce}\nrules:\n  - {name: file, deny: {read: [/srv]}}\n  - {name: port, deny: {connect: ['*:80']}}\n";
        let source = Source { name: "p.yaml".into(), text: text.to_owned() };
        let policy = policy_of(vec![source], Context { users: &Users::default(), now_ns: 0 }).unwrap().0;
        let found = rules(&policy, &Abilities::default(), &places);
        assert_eq!((found[0].status, found[1].status), (Standing::Partly, Standing::Enforced));
        assert!(found[0].reasons[0].contains("hard links"), "{:?}", found[0]);
    }

    #[test]
    fn what_the_kernel_lacks_is_never_called_enforced() {
        let mut abilities = Abilities::default();
        abilities.absent("net.bind", "`socket_bind` cannot be used");
        let found = statuses(&abilities);
        assert_eq!(found[1], ("strict".to_owned(), Standing::NotEnforced));
        assert_eq!(found[4], ("asks".to_owned(), Standing::Enforced), "another operation");
        let reasons = &rules(&policy(), &abilities, &Places::default())[1].reasons;
        assert_eq!(reasons, &["this kernel lacks for listen: net.bind (`socket_bind` cannot be used)"]);
        abilities.absent("file.open", "no hook");
        assert_eq!(statuses(&abilities)[2].1, Standing::WouldDeny);
        assert!(
            rules(&policy(), &abilities, &Places::default())[2]
                .reasons
                .iter()
                .any(|reason| reason.contains("file.open"))
        );
    }

    #[test]
    fn guards_say_what_comes_of_them() {
        let agents = agents(&policy(), &Abilities::default());
        let guard = |agent: usize, name: &str| {
            agents[agent].guards.iter().find(|guard| guard.guard == name).unwrap().clone()
        };
        assert_eq!(guard(0, "mount").status, Standing::Off);
        for (guard, shown) in Guard::ALL.iter().zip(&agents[1].guards) {
            assert_eq!((shown.status, shown.guard.as_str()), (Standing::WouldDeny, guard.as_str()));
        }
        let mut abilities = Abilities::default();
        abilities.absent("guard namespace", "no hook");
        let lacking = super::agents(&policy(), &abilities);
        let guard = lacking[0].guards.iter().find(|guard| guard.guard == "namespace").unwrap();
        assert_eq!(guard.status, Standing::NotEnforced);
        assert_eq!(guard.reason.as_deref(), Some("this kernel lacks: guard namespace (no hook)"));
        assert!(
            agents
                .iter()
                .flat_map(|agent| &agent.guards)
                .all(|guard| guard.reason.is_some() || guard.status == Standing::Enforced)
        );
    }
}
