//! A policy as tables: what a decision costs does not grow with the number of rules.

pub mod bound;
pub mod net;
pub mod texts;
mod views;

pub use self::views::{Views, ViewsError};

use std::cmp::Reverse;

use agentwatch_common::rules::{CHOICES, Choice, RULE_DEFAULT, Verdict, WindowTime, op};

use super::{Action, Policy};
use crate::event::Op;

/// The number of an operation in the tables: one of [`agentwatch_common::rules::op`].
#[must_use]
pub const fn op_number(op: Op) -> u8 {
    let number = match op {
        Op::Exec => op::EXEC,
        Op::Run => op::RUN,
        Op::Read => op::READ,
        Op::Write => op::WRITE,
        Op::Delete => op::DELETE,
        Op::Connect => op::CONNECT,
        Op::Listen => op::LISTEN,
    };
    number as u8
}

/// Whether a window, by its number, is open at a moment, in nanoseconds since 1970.
fn is_open(windows: &[WindowTime], window: u8, unix_ns: u64) -> bool {
    match usize::from(window).checked_sub(1) {
        None => true,
        Some(index) => windows.get(index).is_some_and(|one| (one.from_ns..one.to_ns).contains(&unix_ns)),
    }
}

/// The number of an action in the tables. Asking stays apart from denying, which comes before it: what is told of both
/// is [`crate::attribution`]'s to say.
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

/// More rules of different windows about the same target than a decision has choices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {CHOICES} rules of different windows are about the same target, `{rule}` among them")]
pub struct TooManyChoices {
    /// One of the rules.
    pub rule: String,
}

/// What rules that all match leave to decide, the strictest first: up to the first that always counts, and of
/// each window only the first. Rules are given by index in the order in which they win: see [`order`].
///
/// # Errors
/// When there are more choices than a decision has.
pub fn choices(
    policy: &Policy,
    rules: impl IntoIterator<Item = usize>,
) -> Result<[Choice; CHOICES], TooManyChoices> {
    let mut choices: Vec<Choice> = Vec::new();
    for index in rules {
        let Some(choice) = choice_of(policy, index) else { continue };
        if choices.iter().any(|before| before.window == choice.window) {
            continue;
        }
        if choices.len() == CHOICES {
            let rule = policy.rules.get(index).map(|rule| rule.name.clone()).unwrap_or_default();
            return Err(TooManyChoices { rule });
        }
        choices.push(choice);
        if choice.window == 0 {
            break;
        }
    }
    let mut fixed = [Choice::default(); CHOICES];
    fixed.iter_mut().zip(choices).for_each(|(slot, choice)| *slot = choice);
    Ok(fixed)
}

/// What rules are sorted by so that the one that wins comes first: the strictest, then the first in the policy.
#[must_use]
pub fn order(policy: &Policy, rule: usize) -> (Reverse<Action>, usize) {
    let action = policy.rules.get(rule).map_or(Action::Allow, |rule| rule.action);
    (Reverse(action), rule)
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
