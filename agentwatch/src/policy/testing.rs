//! A policy's own test cases, run through the reference evaluator.

use super::{At, Case, Code, Decision, Diagnostic, Expect, Operation, Policy};
use crate::event::Verdict;

impl Policy {
    /// Runs the policy's own test cases: for each operation of each case, what went wrong, if anything did.
    /// Cases that do not say when are run at `now_ns`, in nanoseconds since 1970.
    #[must_use]
    pub fn test(&self, now_ns: u64) -> Vec<Outcome<'_>> {
        let mut outcomes = Vec::new();
        for case in self.cases.iter() {
            for (at, operation) in &case.operations {
                let decision = self.decide(&case.agent, operation, case.when_ns.unwrap_or(now_ns));
                let as_expected = case.expect.is(&decision);
                let rule = decision.by.rule().map(|rule| rule.name.as_str());
                let by_rule = case.rule.is_none() || case.rule.as_deref() == rule;
                outcomes.push(Outcome { case, at: *at, operation, decision, passed: as_expected && by_rule });
            }
        }
        outcomes
    }
}

/// What came of one operation of a test case.
#[derive(Clone, Debug)]
pub struct Outcome<'p> {
    /// The case.
    pub case: &'p Case,
    /// Where the operation is written.
    pub at: At,
    /// The operation.
    pub operation: &'p Operation,
    /// What was decided.
    pub decision: Decision<'p>,
    /// Whether that was expected.
    pub passed: bool,
}

impl Outcome<'_> {
    /// What went wrong, at its line.
    #[must_use]
    pub fn diagnostic(&self, policy: &Policy) -> Option<Diagnostic> {
        if self.passed {
            return None;
        }
        let by = match self.decision.by.rule() {
            Some(rule) => format!("the rule `{}` ({})", rule.name, policy.line_of(rule.at)),
            None => self.decision.by.to_string(),
        };
        let expected = match &self.case.rule {
            Some(rule) => format!("`{}` by the rule `{rule}`", self.case.expect.word()),
            None => format!("`{}`", self.case.expect.word()),
        };
        let message = format!(
            "`{}` by `{}`: expected {expected}, but it is `{}`: {by}",
            self.operation,
            self.case.agent,
            self.decision.action.as_str()
        );
        Some(policy.diagnostic(Code::TestFailed, self.at, message))
    }
}

impl Expect {
    /// Whether the decision is as expected.
    #[must_use]
    pub fn is(self, decision: &Decision<'_>) -> bool {
        match self {
            Self::Action(action) => decision.action == action,
            Self::WouldDeny => decision.verdict == Verdict::WouldDeny,
        }
    }

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Action(action) => action.as_str(),
            Self::WouldDeny => "would-deny",
        }
    }
}
