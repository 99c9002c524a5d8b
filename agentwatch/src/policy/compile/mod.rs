//! A policy as tables: what a decision costs does not grow with the number of rules.

pub mod net;
mod views;

pub use self::views::{Views, ViewsError};

use agentwatch_common::rules::{Choice, RULE_DEFAULT, Verdict, WindowTime};

use super::{Action, Policy};

/// The number of an action in the tables.
#[must_use]
pub fn verdict_of(action: Action) -> Verdict {
    match action {
        Action::Allow => Verdict::Allowed,
        Action::Log => Verdict::Logged,
        Action::Ask => Verdict::Held,
        Action::Deny => Verdict::Denied,
        Action::Kill => Verdict::Killed,
    }
}

/// The choice of a rule by its index in the policy; `None` where it has more rules or windows than the
/// tables can number, which the reader refuses.
#[must_use]
pub fn choice_of(policy: &Policy, rule: usize) -> Option<Choice> {
    let window = match policy.rules.get(rule)?.during {
        Some(index) => u8::try_from(index + 1).ok()?,
        None => 0,
    };
    let verdict = verdict_of(policy.rules.get(rule)?.action).raw();
    Some(Choice { rule: u16::try_from(rule + 1).ok()?, verdict, window })
}

/// The choice of an agent's default.
#[must_use]
pub fn choice_of_default(action: Action) -> Choice {
    Choice { rule: RULE_DEFAULT, verdict: verdict_of(action).raw(), window: 0 }
}

/// The windows, by number less one.
#[must_use]
pub fn windows_of(policy: &Policy) -> Vec<WindowTime> {
    policy.windows.iter().map(|one| WindowTime { from_ns: one.from_ns, to_ns: one.to_ns }).collect()
}
