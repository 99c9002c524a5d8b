//! `agentwatch policy test`: the policy's own test cases.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::view::{PlaceView, counted};
use crate::cli::print::{self, Format};
use crate::event::time::now_ns;
use crate::event::{Op, Verdict};
use crate::exit;
use crate::policy::{Outcome, Policy};

/// Run the test cases that stand beside a policy's rules, without a kernel
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  agentwatch policy test policy.yaml
  agentwatch policy test policy.d/          tests may stand in a file of their own there
  agentwatch policy test -o json policy.yaml | jq '.[] | select(.passed | not)'

A case names an agent, one or more operations with their targets, and what is expected:
  tests:
    - name: production is out of reach
      agent: coding
      connect: [\"10.20.3.4:5432\", /run/postgresql/.s.PGSQL.5432]
      expect: deny
      rule: keep away from production databases   # optional: which rule decides
    - {agent: coding, run: git push origin, expect: deny, at: 2026-12-24T12:00:00Z}
    - {agent: coding, connect: \"203.0.113.7:443\", names: api.example.com, expect: allow}

expect is allow, log, ask, deny or kill (or allowed, logged, held, denied, killed): what the policy decides,
whatever the agent's mode makes of it; would-deny is what comes of a refusal in the mode recommend.

Exit codes: 0 all passed, 2 usage, 3 a test failed, 4 the policy is refused.")]
pub struct TestArgs {
    /// The policy: a file, or a folder of files read in the order of their names
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How to write the answer
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

/// What came of one operation, for programs.
#[derive(Serialize)]
struct OutcomeView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    agent: &'a str,
    op: Op,
    operation: String,
    expected: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_rule: Option<&'a str>,
    actual: &'static str,
    verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    reason: String,
    passed: bool,
    at: PlaceView<'a>,
}

/// Runs the command; gives its exit code.
///
/// # Errors
/// The policy is refused, or the answer cannot be written.
pub fn run(args: &TestArgs) -> anyhow::Result<u8> {
    let (policy, _) = super::read(&args.file)?;
    let outcomes = policy.test(now_ns());
    let text = match args.output {
        Format::Json => {
            let views: Vec<_> = outcomes.iter().map(|outcome| view(&policy, outcome)).collect();
            print::json(&views, print::to_terminal())?
        }
        Format::Text => text(&policy, &outcomes),
    };
    print::print(&text)?;
    let passed = outcomes.iter().all(|outcome| outcome.passed);
    Ok(if passed { exit::DONE } else { exit::VIOLATION })
}

fn text(policy: &Policy, outcomes: &[Outcome<'_>]) -> String {
    if outcomes.is_empty() {
        return "the policy has no tests: see `agentwatch policy test --help`\n".to_owned();
    }
    let mut text = String::new();
    for outcome in outcomes {
        if let Some(problem) = outcome.diagnostic(policy) {
            if let Some(name) = &outcome.case.name {
                text.push_str(&format!("{}:\n", crate::output::escape::escape(name)));
            }
            text.push_str(&format!("{problem}\n\n"));
        }
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.passed).count();
    text.push_str(&match failed {
        0 => format!("{} passed\n", counted(outcomes.len(), "operation")),
        _ => format!("{failed} of {} failed\n", counted(outcomes.len(), "operation")),
    });
    text
}

fn view<'a>(policy: &'a Policy, outcome: &Outcome<'a>) -> OutcomeView<'a> {
    OutcomeView {
        name: outcome.case.name.as_deref(),
        agent: &outcome.case.agent,
        op: outcome.operation.op,
        operation: outcome.operation.to_string(),
        expected: outcome.case.expect.word(),
        expected_rule: outcome.case.rule.as_deref(),
        actual: outcome.decision.action.as_str(),
        verdict: outcome.decision.verdict,
        rule: outcome.decision.by.rule().map(|rule| rule.name.as_str()),
        reason: outcome.decision.reason(),
        passed: outcome.passed,
        at: PlaceView::new(policy, outcome.at),
    }
}
