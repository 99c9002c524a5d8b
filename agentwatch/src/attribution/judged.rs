//! What the numbers of a verdict stand for.

use std::{collections::VecDeque, sync::Arc};

use agentwatch_common::{
    record::RecordHeader,
    rules::{RULE_DEFAULT, RULE_NONE, RULE_UNDECIDED, Verdict as Raw},
};

use crate::event::{Event, Kind, PolicyVersion, Verdict};

/// Policies of which the rules' names are kept. Records of older ones wait in no ring.
const KEPT: usize = 16;

/// A policy that is or was in force, as far as events name it.
#[derive(Clone, Debug)]
pub struct Judge {
    /// Which.
    pub policy: PolicyVersion,
    /// Its rules in their order: record number 1 is the first.
    pub rules: Vec<JudgeRule>,
}

/// What an event says of a rule.
#[derive(Clone, Debug)]
pub struct JudgeRule {
    /// Its name.
    pub name: Arc<str>,
    /// Its message, if it has one.
    pub message: Option<String>,
}

/// The policies that were in force lately.
#[derive(Clone, Debug, Default)]
pub struct Judges(VecDeque<Arc<Judge>>);

impl Judges {
    /// A policy came into force, or is known to be.
    pub fn add(&mut self, judge: Arc<Judge>) {
        if self.0.len() >= KEPT {
            self.0.pop_front();
        }
        self.0.push_back(judge);
    }

    /// The one in force.
    #[must_use]
    pub fn in_force(&self) -> Option<&Judge> {
        self.0.back().map(Arc::as_ref)
    }

    /// Says in an event what was decided.
    pub fn describe(&self, header: &RecordHeader, event: &mut Event) {
        if header.policy == 0 {
            return;
        }
        event.verdict = verdict_of(header.verdict);
        let judge = self.0.iter().rev().find(|judge| judge.policy.version == header.policy);
        event.policy = judge.map(|judge| judge.policy.clone());
        let rule = judge.and_then(|judge| judge.rules.get(usize::from(header.rule).checked_sub(1)?));
        event.rule = match header.rule {
            RULE_NONE => None,
            RULE_DEFAULT => Some(Arc::from("default")),
            RULE_UNDECIDED => Some(Arc::from("undecided")),
            _ => rule.map(|rule| Arc::clone(&rule.name)),
        };
        let refused = matches!(event.verdict, Verdict::Held | Verdict::Denied | Verdict::Killed);
        if refused || event.verdict == Verdict::WouldDeny {
            event.reason = Some(reason(header.rule, rule, event));
        }
        // A program that a command-line rule ended had begun: nobody got an error.
        let had_begun = event.kind == Kind::ProcessExec && event.command.is_some();
        if refused && !had_begun {
            event.errno = Some(Arc::from("EPERM"));
        }
    }
}

fn verdict_of(raw: u8) -> Verdict {
    match Raw::from_raw(raw) {
        Raw::Logged => Verdict::Logged,
        Raw::WouldDeny => Verdict::WouldDeny,
        Raw::Held => Verdict::Held,
        Raw::Denied => Verdict::Denied,
        Raw::Killed => Verdict::Killed,
        Raw::Allowed | Raw::Unknown(_) => Verdict::Allowed,
    }
}

/// One sentence for the one who was refused.
fn reason(number: u16, rule: Option<&JudgeRule>, event: &Event) -> String {
    let what = event.op.map_or("this", |op| op.name());
    match (number, rule) {
        (RULE_DEFAULT, _) => format!("the agent's default refuses {what} where no rule allows it"),
        (RULE_UNDECIDED, _) => {
            "it could not be looked at in full, and what cannot be judged is refused".to_owned()
        }
        (_, Some(JudgeRule { message: Some(message), .. })) => message.clone(),
        (_, Some(rule)) => format!("the rule `{}` refuses {what}", rule.name),
        (_, None) => format!("rule {number} of a policy that an earlier daemon loaded refuses {what}"),
    }
}
