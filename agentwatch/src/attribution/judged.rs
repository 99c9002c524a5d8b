//! What the numbers of a verdict stand for.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use agentwatch_common::{
    record::RecordHeader,
    rules::{RULE_BOUND, RULE_DEFAULT, RULE_GUARDS, RULE_NONE, RULE_UNDECIDED, Verdict as Raw},
};

use super::guard::WORDS;
use crate::{
    event::{Alignment, Event, IntentRef, Kind, PolicyVersion, Verdict},
    intent::Declared,
};

/// Policies in force that are known. Each comes into force only when no program is left that read the one before the
/// last, so that more are not reached within the second for which repeats are folded, nor while a ring is emptied.
const KEPT: usize = 1024;
/// Different policies of which the rules' names are kept.
const KEPT_DIFFERENT: usize = 16;

/// Characters of an intent's task that a refusal tells.
const TASK_CHARS: usize = 100;

/// A policy that is or was in force, as far as events name it.
#[derive(Clone, Debug)]
pub struct Judge {
    /// Which.
    pub policy: PolicyVersion,
    /// Its rules in their order: record number 1 is the first.
    pub rules: Arc<[JudgeRule]>,
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
pub struct Judges(VecDeque<Judge>);

impl Judges {
    /// A policy came into force, or is known to be.
    pub fn add(&mut self, mut judge: Judge) {
        // Policies that take turns are kept once.
        if let Some(same) = self.0.iter().find(|known| known.policy.hash == judge.policy.hash) {
            judge.policy.hash = Arc::clone(&same.policy.hash);
            judge.rules = Arc::clone(&same.rules);
        }
        self.0.push_back(judge);
        while self.0.len() > KEPT || self.different() > KEPT_DIFFERENT {
            self.0.pop_front();
        }
    }

    fn different(&self) -> usize {
        self.0.iter().map(|judge| &judge.policy.hash).collect::<HashSet<_>>().len()
    }

    /// The one in force.
    #[must_use]
    pub fn in_force(&self) -> Option<&Judge> {
        self.0.back()
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
            number => match guard_of(number) {
                Some((name, _)) => Some(Arc::from(format!("guard: {name}"))),
                None => rule.map(|rule| Arc::clone(&rule.name)),
            },
        };
        if is_refused(event.verdict) || event.verdict == Verdict::WouldDeny {
            event.reason = Some(reason(header.rule, rule, event));
        }
        name_error(event);
    }
}

fn is_refused(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Held | Verdict::Denied | Verdict::Killed)
}

/// Says which error whoever was refused got.
fn name_error(event: &mut Event) {
    // A program that a command-line rule ended had begun: nobody got an error.
    let had_begun = event.kind == Kind::ProcessExec && event.command.is_some();
    if is_refused(event.verdict) && !had_begun {
        event.errno = Some(Arc::from("EPERM"));
    }
}

/// Whether an intent decided that binds the session.
pub fn is_bound(header: &RecordHeader) -> bool {
    header.rule == RULE_BOUND && header.policy != 0
}

/// Says in an event what an intent decided that binds the session, where it is known which.
pub fn describe_bound(verdict: u8, intent: Option<&Declared>, event: &mut Event) {
    event.verdict = verdict_of(verdict);
    let what = event.op.map_or("this", |op| op.name());
    let Some(intent) = intent else {
        event.rule = Some(Arc::from("intent"));
        event.reason = Some(format!(
            "an intent that binds the session does not cover {what} here, or it could not be looked at in full"
        ));
        event.intent = Some(IntentRef { id: None, alignment: Some(Alignment::Outside), check: None });
        return name_error(event);
    };
    event.rule = Some(Arc::from(format!("intent: {}", intent.id)));
    let task = intent.task.as_deref().or(intent.prompt.as_deref());
    let task = task.map(|task| format!(" ({})", task.chars().take(TASK_CHARS).collect::<String>()));
    event.reason = Some(format!(
        "{what} is outside of the binding intent {}{} here; ask the operator who declared it for another one",
        intent.id,
        task.unwrap_or_default()
    ));
    event.intent = Some(IntentRef::of(&intent.id, Alignment::Outside));
    name_error(event);
}

fn verdict_of(raw: u8) -> Verdict {
    match Raw::from_raw(raw) {
        Raw::Logged => Verdict::Logged,
        Raw::WouldDeny => Verdict::WouldDeny,
        // As long as nobody can be asked, asking denies, and the kernel refuses.
        Raw::Held | Raw::Denied => Verdict::Denied,
        Raw::Killed => Verdict::Killed,
        Raw::Allowed | Raw::Unknown(_) => Verdict::Allowed,
    }
}

/// Name and sentence of the guard that decided, if it was one.
fn guard_of(number: u16) -> Option<(&'static str, &'static str)> {
    WORDS.get(usize::from(number.checked_sub(RULE_GUARDS)?)).copied()
}

/// One sentence for the one who was refused.
fn reason(number: u16, rule: Option<&JudgeRule>, event: &Event) -> String {
    if let Some((_, sentence)) = guard_of(number) {
        return sentence.to_owned();
    }
    let what = event.op.map_or("this", |op| op.name());
    match (number, rule) {
        (RULE_DEFAULT, _) => {
            format!("no rule allows {what} here, and the agent's default or its mode `plan` refuses it")
        }
        (RULE_UNDECIDED, _) => {
            "it could not be looked at in full, and what cannot be judged is refused".to_owned()
        }
        (_, Some(JudgeRule { message: Some(message), .. })) => message.clone(),
        (_, Some(rule)) => format!("the rule `{}` refuses {what}", rule.name),
        (_, None) => format!("rule {number} of a policy that an earlier daemon loaded refuses {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(version: u32, hash: &str) -> Judge {
        let rule = JudgeRule { name: Arc::from(hash), message: None };
        Judge { policy: PolicyVersion { version, hash: Arc::from(hash) }, rules: Arc::from([rule]) }
    }

    #[test]
    fn policies_that_take_turns_are_all_known_and_kept_once() {
        let mut judges = Judges::default();
        for version in 1..=300 {
            judges.add(judge(version, if version % 2 == 0 { "even" } else { "odd" }));
        }
        assert_eq!(judges.0.len(), 300);
        let of = |version: u32| judges.0.iter().find(|judge| judge.policy.version == version).unwrap();
        assert_eq!(&*of(1).rules[0].name, "odd");
        assert!(Arc::ptr_eq(&of(2).rules, &of(300).rules) && !Arc::ptr_eq(&of(1).rules, &of(2).rules));
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let mut judges = Judges::default();
        (0..5_000).for_each(|version| judges.add(judge(version, "same")));
        assert_eq!(judges.0.len(), KEPT);
        (0..100).for_each(|version| judges.add(judge(version, &version.to_string())));
        assert_eq!(judges.0.len(), KEPT_DIFFERENT);
        assert_eq!(judges.in_force().unwrap().policy.version, 99);
    }
}
