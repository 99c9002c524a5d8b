//! What differs in two policies: in what they mean, not in how they are written.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Agent, Decision, Mode, Operation, Policy, Resource, Rule, Scope, Trigger, Window};
use crate::event::time::short_time;
use crate::event::{Op, Verdict};

/// All that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Resources, agents, windows and rules.
    pub parts: Vec<Change>,
    /// Operations of the tests of both that are decided otherwise.
    pub decisions: Vec<DecisionChange>,
}

/// A part that was added or removed, or means something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `resource`, `agent`, `window` or `rule`.
    pub part: &'static str,
    /// Its name.
    pub name: String,
    /// What became of it.
    pub change: Kind,
    /// What it no longer says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// What it says now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<String>,
}

/// What became of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    Added,
    Removed,
    Changed,
}

/// An operation that is decided otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DecisionChange {
    /// Who.
    pub agent: String,
    /// What.
    pub operation: String,
    /// What was decided.
    pub before: Side,
    /// What is decided now.
    pub after: Side,
}

/// What one policy decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// What is decided, whatever the agent's mode makes of it.
    pub decided: &'static str,
    /// What comes of it.
    pub verdict: Verdict,
    /// The rule that decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// Compares two policies. Tests that do not say when are decided at `now_ns`, in nanoseconds since 1970.
#[must_use]
pub fn changes(before: &Policy, after: &Policy, now_ns: u64) -> Changes {
    let mut parts = Vec::new();
    parts.extend(compare("resource", &facts(before, resources), &facts(after, resources)));
    parts.extend(compare("agent", &facts(before, agents), &facts(after, agents)));
    parts.extend(compare("window", &facts(before, windows), &facts(after, windows)));
    parts.extend(compare("hooks", &facts(before, hooks), &facts(after, hooks)));
    parts.extend(compare("rule", &facts(before, rules), &facts(after, rules)));
    Changes { parts, decisions: decisions(before, after, now_ns) }
}

/// A part's name with all that it says.
type Facts = Vec<(String, BTreeSet<String>)>;

/// Gives all parts of a kind, each by name with all that it says.
type Reading = fn(&Policy) -> Vec<(&str, Vec<String>)>;

fn facts(policy: &Policy, of: Reading) -> Facts {
    of(policy).into_iter().map(|(name, facts)| (name.to_owned(), facts.into_iter().collect())).collect()
}

fn compare(part: &'static str, before: &Facts, after: &Facts) -> Vec<Change> {
    let find = |facts: &Facts, name: &str| {
        facts.iter().find(|(other, _)| other == name).map(|(_, facts)| facts.clone())
    };
    let added = after.iter().filter(|(name, _)| find(before, name).is_none());
    let names = before.iter().chain(added).map(|(name, _)| name);
    let change = |name: &String| {
        let (old, new) = (find(before, name), find(after, name));
        let change = match (&old, &new) {
            (None, _) => Kind::Added,
            (_, None) => Kind::Removed,
            _ if old == new => return None,
            _ => Kind::Changed,
        };
        let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
        let removed = old.difference(&new).cloned().collect();
        let added = new.difference(&old).cloned().collect();
        Some(Change { part, name: name.clone(), change, removed, added })
    };
    names.filter_map(change).collect()
}

fn resources(policy: &Policy) -> Vec<(&str, Vec<String>)> {
    policy.resources.iter().map(|resource| (resource.name.as_str(), of_resource(resource))).collect()
}

fn of_resource(resource: &Resource) -> Vec<String> {
    let texts = [("why", &resource.why), ("owner", &resource.owner), ("environment", &resource.environment)];
    let mut facts: Vec<String> =
        texts.iter().filter_map(|(key, text)| Some(format!("{key}: {}", text.as_ref()?))).collect();
    facts.extend(resource.connect.iter().map(|pattern| format!("connect: {}", pattern.text())));
    facts.extend(resource.files.iter().map(|glob| format!("files: {}", glob.text())));
    facts
}

fn agents(policy: &Policy) -> Vec<(&str, Vec<String>)> {
    policy.agents.iter().map(|agent| (agent.spec.name.as_str(), of_agent(policy, agent))).collect()
}

fn of_agent(policy: &Policy, agent: &Agent) -> Vec<String> {
    let mut facts = vec![format!("mode: {}", agent.spec.mode.as_str())];
    facts.extend(agent.spec.owner.iter().map(|owner| format!("owner: {owner}")));
    facts.extend(agent.spec.matches.iter().map(|one| format!("match: {one}")));
    facts.extend(
        agent.defaults.iter().map(|(op, action, _)| format!("default {}: {}", op.name(), action.as_str())),
    );
    // On is what a guard is that nobody speaks of.
    let off = agent.guards.iter().filter(|setting| !setting.on);
    facts.extend(off.map(|setting| format!("guard {}: off", setting.guard.as_str())));
    facts.extend(agent.delegates.iter().map(|pattern| format!("guard delegate: {}", pattern.text())));
    let scratch = agent.scratch.iter().flatten().filter(|_| agent.spec.mode == Mode::Plan);
    facts.extend(scratch.map(|glob| format!("scratch: {}", glob.text())));
    facts.extend(
        agent.breakers.iter().map(|breaker| {
            format!("breaker {}: {}", trigger(policy, breaker.trigger), breaker.then.as_str())
        }),
    );
    facts
}

fn trigger(policy: &Policy, trigger: Trigger) -> String {
    match trigger {
        Trigger::Denied { count, within_s } => format!("denied {count} times within {within_s}s"),
        Trigger::Operations { op, count, within_s } => {
            format!("{} {count} times within {within_s}s", op.name())
        }
        Trigger::Touches(index) => {
            format!("touches {}", policy.resources.get(index).map_or("", |resource| &resource.name))
        }
    }
}

fn windows(policy: &Policy) -> Vec<(&str, Vec<String>)> {
    let of_window = |window: &Window| {
        vec![format!("from: {}", short_time(window.from_ns)), format!("to: {}", short_time(window.to_ns))]
    };
    policy.windows.iter().map(|window| (window.name.as_str(), of_window(window))).collect()
}

fn hooks(policy: &Policy) -> Vec<(&str, Vec<String>)> {
    policy.required_hooks.iter().map(|name| (*name, vec!["required".to_owned()])).collect()
}

fn rules(policy: &Policy) -> Vec<(&str, Vec<String>)> {
    policy.rules.iter().map(|rule| (rule.name.as_str(), of_rule(policy, rule))).collect()
}

fn of_rule(policy: &Policy, rule: &Rule) -> Vec<String> {
    let mut facts = of_scope(policy, rule.action.as_str(), &rule.scope);
    facts.extend(of_scope(policy, "unless", &rule.unless));
    let agent = |index: &usize| policy.agents.get(*index).map_or("", |agent| &agent.spec.name);
    facts.extend(rule.agents.iter().flatten().map(|index| format!("agent: {}", agent(index))));
    let window = rule.during.and_then(|index| policy.windows.get(index));
    facts.extend(window.map(|window| format!("during: {}", window.name)));
    facts.extend(rule.message.iter().map(|message| format!("message: {message}")));
    facts.extend(rule.timeout_s.map(|seconds| format!("timeout: {seconds}s")));
    facts.extend(rule.then.map(|then| format!("then: {}", then.as_str())));
    facts
}

fn of_scope(policy: &Policy, word: &str, scope: &Scope) -> Vec<String> {
    let of_op = |op: &Op| {
        let texts = scope.patterns(*op).texts(policy);
        texts.into_iter().map(|text| format!("{word} {}: {text}", op.name())).collect::<Vec<_>>()
    };
    Op::ALL.iter().flat_map(of_op).collect()
}

/// The operations of the tests of both that are decided otherwise, each once.
fn decisions(before: &Policy, after: &Policy, now_ns: u64) -> Vec<DecisionChange> {
    let mut seen: BTreeSet<(String, String, u64)> = BTreeSet::new();
    let mut found = Vec::new();
    for case in before.cases.iter().chain(after.cases.iter()) {
        let when_ns = case.when_ns.unwrap_or(now_ns);
        for (_, operation) in &case.operations {
            let key = (case.agent.clone(), key_of(operation), when_ns);
            if !seen.insert(key) {
                continue;
            }
            let old = before.decide(&case.agent, operation, when_ns);
            let new = after.decide(&case.agent, operation, when_ns);
            if (old.action, old.verdict) != (new.action, new.verdict) {
                let (agent, operation) = (case.agent.clone(), operation.to_string());
                found.push(DecisionChange { agent, operation, before: side(&old), after: side(&new) });
            }
        }
    }
    found
}

/// The operation with the names of its address, which its text leaves out.
fn key_of(operation: &Operation) -> String {
    format!("{operation:?}")
}

fn side(decision: &Decision<'_>) -> Side {
    Side {
        decided: decision.action.as_str(),
        verdict: decision.verdict,
        rule: decision.by.rule().map(|rule| rule.name.clone()),
    }
}
