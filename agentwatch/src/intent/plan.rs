//! Plans: what is to be done, step by step, judged by the policy before anything runs.

use super::scope::{PATTERNS_MAX, Stated};
use crate::{
    control::intent::PlanStepView,
    event::{Op, Verdict},
    policy::{Operation, Policy, Target},
    query::parse_op,
};

/// Why a plan is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// It has too many steps.
    #[error(
        "the plan has {0} steps, and {PATTERNS_MAX} are the most: declare what comes first, and the rest later"
    )]
    TooMany(usize),
    /// A step cannot be read.
    #[error("step {number} of the plan, `{step}`, cannot be used: {problem}")]
    Bad {
        /// Its number, from 1.
        number: usize,
        /// The step.
        step: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The policy refuses some of it. A line for each step that it refuses.
    #[error("the policy refuses {} of the {steps} steps of the plan, so nothing was declared{}", refused.len(), lines(refused))]
    Forbidden {
        /// All steps.
        steps: usize,
        /// Those that are refused: number, step, why.
        refused: Vec<(usize, String, String)>,
    },
}

fn lines(refused: &[(usize, String, String)]) -> String {
    refused.iter().map(|(number, step, why)| format!("\n  step {number}: {step}: {why}")).collect()
}

/// What the policy makes of each step of an agent's plan, `OP TARGET` as `agentwatch policy explain` takes them, and the
/// scope that they come to.
///
/// # Errors
/// See [`PlanError`].
pub fn judge(
    plan: &[String],
    policy: &Policy,
    agent: &str,
    now_ns: u64,
) -> Result<(Vec<PlanStepView>, Stated), PlanError> {
    if plan.len() > PATTERNS_MAX {
        return Err(PlanError::TooMany(plan.len()));
    }
    let (mut steps, mut scope, mut refused) = (Vec::new(), Stated::new(), Vec::new());
    for (number, step) in (1..).zip(plan) {
        let bad = |problem| PlanError::Bad { number, step: step.clone(), problem };
        let (op, target) = parse(step).map_err(bad)?;
        let operation = Operation::parse(op, target).map_err(bad)?;
        let decision = policy.decide(agent, &operation, now_ns);
        let message = decision.message().map(|message| format!(" ({message})")).unwrap_or_default();
        let why = format!("{}{message}", decision.reason());
        if matches!(decision.verdict, Verdict::Held | Verdict::Denied | Verdict::Killed) {
            let resource = decision.resource.map(|one| format!("`{}`: ", one.name)).unwrap_or_default();
            refused.push((number, step.clone(), format!("{resource}{why}")));
        }
        scope.entry(op).or_default().push(pattern(&operation, target));
        steps.push(PlanStepView { step: step.clone(), verdict: decision.verdict, reason: why });
    }
    if refused.is_empty() {
        Ok((steps, scope))
    } else {
        Err(PlanError::Forbidden { steps: plan.len(), refused })
    }
}

fn parse(step: &str) -> Result<(Op, &str), String> {
    let (op, target) = step
        .trim()
        .split_once(char::is_whitespace)
        .ok_or_else(|| "write the operation and its target, such as `write /srv/app.conf`".to_owned())?;
    Ok((parse_op(op)?, target.trim()))
}

/// A pattern for this target alone.
fn pattern(operation: &Operation, target: &str) -> String {
    let escaped = |text: &str| {
        let one = |one: char| if "*?[]{},\\".contains(one) { format!("\\{one}") } else { one.to_string() };
        text.chars().map(one).collect::<String>()
    };
    match &operation.target {
        Target::Path(_) => escaped(target),
        // As the evaluator has it: the program by its base name.
        Target::Command(line) => escaped(&String::from_utf8_lossy(line)),
        Target::Address(_) if target.starts_with('/') => escaped(target),
        Target::Address(_) => target.to_owned(),
    }
}
