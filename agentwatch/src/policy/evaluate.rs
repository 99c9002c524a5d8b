//! The reference evaluator: plain and slow. What the compiled tables decide is tested against this.

use std::fmt;

use super::{Action, Agent, MODE_UNDECLARED, Mode, Operation, Policy, Protection, Resource, Rule, Target};
use crate::event::{Op, Verdict};
use crate::matcher::PathGlob;

/// Folders in which a session in the mode `plan` may write where its agent names none: its scratch folders.
pub const SCRATCH: [&str; 2] = ["/tmp", "/var/tmp"];
/// What keeps nothing of what is written to it, and is open to the mode `plan` for that reason: hardly a
/// program works without.
pub const SINKS: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/ptmx"];
/// The folder of terminals, which are sinks too.
pub const TERMINALS: &str = "/dev/pts";

/// What a policy decides about an operation.
#[derive(Clone, Debug)]
#[must_use]
pub struct Decision<'p> {
    /// What is decided, whatever the agent's mode makes of it. The mode `plan` counts in.
    pub action: Action,
    /// What comes of it in the agent's mode.
    pub verdict: Verdict,
    /// What decided.
    pub by: By<'p>,
    /// The agent's mode.
    pub mode: Mode,
    /// The resource that it was done to: the one that the rule names, or else the first that covers it.
    pub resource: Option<&'p Resource>,
}

/// What decided.
#[derive(Clone, Copy, Debug)]
pub enum By<'p> {
    /// The strictest rule that matched; the first in the files where several are as strict.
    Rule {
        /// Its index in [`Policy::rules`].
        index: usize,
        /// The rule.
        rule: &'p Rule,
    },
    /// The agent's default for the operation.
    Default,
    /// The mode `plan`.
    Plan,
    /// What no rule can open.
    Protection(Protection),
    /// What is open to every session, unless a rule refuses it.
    Open,
    /// Nothing: what no rule and no default speaks of is allowed.
    Nothing,
}

impl<'p> By<'p> {
    /// The rule, if one decided.
    #[must_use]
    pub fn rule(&self) -> Option<&'p Rule> {
        match self {
            Self::Rule { rule, .. } => Some(rule),
            _ => None,
        }
    }
}

impl Decision<'_> {
    /// What the agent and its owner are told, where the rule says it.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.by.rule()?.message.as_deref()
    }

    /// Why, in one sentence.
    #[must_use]
    pub fn reason(&self) -> String {
        let mut reason = self.by.to_string();
        match (self.mode, self.action) {
            (Mode::Observe, action) if action != Action::Allow => {
                reason.push_str("; the mode `observe` enforces nothing");
            }
            (Mode::Recommend, action) if action.stops() => {
                reason.push_str("; the mode `recommend` only says so");
            }
            (Mode::Approve | Mode::Enforce | Mode::Plan, Action::Ask) => {
                reason.push_str("; this version asks nobody yet, and denies");
            }
            _ => {}
        }
        reason
    }
}

/// As the beginning of a sentence.
impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule { rule, .. } => write!(f, "the rule `{}` says `{}`", rule.name, rule.action.as_str()),
            Self::Default => f.write_str("no rule matches, and the agent's default decides"),
            Self::Plan => f.write_str("the mode `plan` is read-only"),
            Self::Protection(Protection::Guard(guard)) => {
                write!(f, "the guard `{}` is on, which no rule opens", guard.as_str())
            }
            Self::Protection(Protection::Own) => f.write_str("no session changes what is agentwatch's own"),
            Self::Open => {
                f.write_str("no rule matches, and every session may declare what it is about to do")
            }
            Self::Nothing => f.write_str("no rule matches, and the agent has no default"),
        }
    }
}

impl Policy {
    /// What is decided when an agent does something at a moment, in nanoseconds since 1970. An agent that the
    /// policy does not declare is only observed.
    ///
    /// Paths are those of the file itself, whatever name it was reached by.
    pub fn decide(&self, agent: &str, operation: &Operation, when_ns: u64) -> Decision<'_> {
        let index = self.agents.iter().position(|one| one.spec.name == agent);
        let declared = index.and_then(|index| self.agents.get(index));
        let mode = declared.map_or(MODE_UNDECLARED, |agent| agent.spec.mode);
        let operation = canonical(operation);
        let (mut action, mut by) = self.by_rules(index, declared, &operation, when_ns);
        if action < Action::Deny
            && let Some(protection) = declared.and_then(|agent| self.protection(agent, &operation))
        {
            (action, by) = (Action::Deny, By::Protection(protection));
        }
        let scratch = declared.map_or(&[][..], |agent| &agent.scratch);
        if mode == Mode::Plan && action < Action::Deny && plan_denies(scratch, &operation, &by) {
            (action, by) = (Action::Deny, By::Plan);
        }
        let resource = self.resource_of(&operation, by.rule());
        Decision { action, verdict: verdict(mode, action), by, mode, resource }
    }

    fn by_rules(
        &self,
        agent: Option<usize>,
        declared: Option<&Agent>,
        operation: &Operation,
        when_ns: u64,
    ) -> (Action, By<'_>) {
        let mut strictest: Option<(usize, &Rule)> = None;
        for (index, rule) in self.rules.iter().enumerate() {
            let stricter = strictest.is_none_or(|(_, found)| rule.action > found.action);
            if stricter && self.matches(rule, agent, operation, when_ns) {
                strictest = Some((index, rule));
            }
        }
        if let Some((index, rule)) = strictest {
            return (rule.action, By::Rule { index, rule });
        }
        if self.own.is_open(operation) {
            return (Action::Allow, By::Open);
        }
        match declared.and_then(|agent| agent.default_for(operation.op)) {
            Some(action) => (action, By::Default),
            None => (Action::Allow, By::Nothing),
        }
    }

    /// All rules that match, in the order in which they win.
    #[must_use]
    pub fn matching(&self, agent: &str, operation: &Operation, when_ns: u64) -> Vec<&Rule> {
        let agent = self.agents.iter().position(|one| one.spec.name == agent);
        let operation = canonical(operation);
        let mut rules: Vec<&Rule> = self
            .rules
            .iter()
            .map(AsRef::as_ref)
            .filter(|rule| self.matches(rule, agent, &operation, when_ns))
            .collect();
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.action));
        rules
    }

    /// Whether a rule is about this. The operation's address must be in canonical form.
    fn matches(&self, rule: &Rule, agent: Option<usize>, operation: &Operation, when_ns: u64) -> bool {
        let for_agent = match (&rule.agents, agent) {
            (None, agent) => !agent.and_then(|agent| self.agents.get(agent)).is_some_and(Agent::is_canary),
            (Some(agents), Some(agent)) => agents.contains(&agent),
            (Some(_), None) => false,
        };
        let in_time = rule
            .during
            .is_none_or(|window| self.windows.get(window).is_some_and(|window| window.contains(when_ns)));
        for_agent
            && in_time
            && rule.scope.hit(self, operation).is_some()
            && rule.unless.hit(self, operation).is_none()
    }

    /// The resource that an operation is done to.
    fn resource_of(&self, operation: &Operation, rule: Option<&Rule>) -> Option<&Resource> {
        let named = rule.and_then(|rule| rule.scope.hit(self, operation)).and_then(|hit| hit.resource);
        let covers = |resource: &&Resource| match &operation.target {
            Target::Path(path) => resource.files.iter().any(|glob| glob.matches(path)),
            Target::Address(address) => resource.connect.iter().any(|pattern| pattern.matches(address)),
            Target::Command(_) => false,
        };
        named.or_else(|| self.resources.iter().find(covers))
    }
}

/// With the address that is really meant.
fn canonical(operation: &Operation) -> Operation {
    let target = match &operation.target {
        Target::Address(address) => Target::Address(address.canonical(operation.op)),
        other => other.clone(),
    };
    Operation { op: operation.op, target }
}

/// Whether the mode `plan` forbids this: writing outside the scratch folders, deleting, and connections but
/// those that a rule allows.
fn plan_denies(scratch: &[Vec<PathGlob>], operation: &Operation, by: &By<'_>) -> bool {
    match (operation.op, &operation.target) {
        (Op::Delete, _) => true,
        (Op::Write, Target::Path(path)) => !plan_may_write(scratch, path),
        (Op::Connect, _) => by.rule().is_none() && !matches!(by, By::Open),
        _ => false,
    }
}

/// Whether a session in the mode `plan` may write to this path, with these lists of scratch folders.
fn plan_may_write(scratch: &[Vec<PathGlob>], path: &[u8]) -> bool {
    let is_terminal = || {
        let rest = path.strip_prefix(TERMINALS.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    scratch.iter().all(|list| list.iter().any(|glob| glob.matches(path)))
        || SINKS.iter().any(|sink| sink.as_bytes() == path)
        || is_terminal()
}

/// What comes of a decision in a mode.
#[must_use]
pub fn verdict(mode: Mode, action: Action) -> Verdict {
    match (mode, action) {
        (Mode::Observe, _) | (_, Action::Allow) => Verdict::Allowed,
        (_, Action::Log) => Verdict::Logged,
        (Mode::Recommend, Action::Ask | Action::Deny | Action::Kill) => Verdict::WouldDeny,
        (Mode::Approve | Mode::Enforce | Mode::Plan, Action::Ask | Action::Deny) => Verdict::Denied,
        (Mode::Approve | Mode::Enforce | Mode::Plan, Action::Kill) => Verdict::Killed,
    }
}
