//! Advice about a policy that can be used: rules that decide nothing, windows that have ended, protection
//! that is only a speed bump.

mod shadow;

use super::{Action, Code, Diagnostic, Policy, Rule};
use crate::event::Op;
use crate::event::time::short_time;

/// Operations that have an effect by themselves, whatever program does them.
const EFFECTS: [Op; 3] = [Op::Write, Op::Delete, Op::Connect];

/// All warnings that need the whole policy, in the order of its parts.
pub(super) fn warnings(policy: &Policy, now_ns: u64) -> Vec<Diagnostic> {
    let mut found = windows_ended(policy, now_ns);
    found.extend(shadow::warnings(policy));
    found.extend(policy.rules.iter().filter_map(|rule| exec_only(policy, rule)));
    found
}

fn windows_ended(policy: &Policy, now_ns: u64) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (index, window) in policy.windows.iter().enumerate().filter(|(_, window)| window.to_ns <= now_ns) {
        let message = format!("the window `{}` ended at {}", window.name, short_time(window.to_ns));
        found.push(policy.diagnostic(Code::WindowEnded, window.at, message).help("move it, or remove it"));
        for rule in policy.rules.iter().filter(|rule| rule.during == Some(index)) {
            let message = format!("this rule can never match: its window `{}` has ended", window.name);
            found.push(policy.diagnostic(Code::NeverMatches, rule.at, message));
        }
    }
    found
}

/// A program can be copied, renamed, or replaced by three lines of a script. Only a rule on the effect holds.
fn exec_only(policy: &Policy, rule: &Rule) -> Option<Diagnostic> {
    let is_exec = rule.scope.has(Op::Exec) || rule.scope.has(Op::Run);
    let is_effect = EFFECTS.into_iter().any(|op| rule.scope.has(op));
    if !rule.action.stops() || !is_exec || is_effect {
        return None;
    }
    let all: Vec<usize> = (0..policy.agents.len()).collect();
    let agents = rule.agents.as_ref().unwrap_or(&all);
    let is_held = |agent: &usize| {
        let by_rule = policy.rules.iter().any(|other| {
            let its = other.agents.as_ref().is_none_or(|agents| agents.contains(agent));
            its && other.action.stops() && EFFECTS.into_iter().any(|op| other.scope.has(op))
        });
        let by_default = policy.agents.get(*agent).is_some_and(|agent| {
            EFFECTS.into_iter().any(|op| agent.default_for(op).is_some_and(Action::stops))
        });
        by_rule || by_default
    };
    let held_for_others = policy.rules.iter().any(|other| {
        other.agents.is_none() && other.action.stops() && EFFECTS.into_iter().any(|op| other.scope.has(op))
    });
    let held = if agents.is_empty() { held_for_others } else { agents.iter().all(is_held) };
    (!held).then(|| {
        let message = "a copy of the program, or another one, does the same: nothing here stops the effect";
        let help = "add a rule for what must not be written, deleted or connected to";
        policy.diagnostic(Code::ExecOnly, rule.at, message).help(help)
    })
}
