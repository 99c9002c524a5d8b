//! What of a policy this version can do.

use super::{Agent, Code, Diagnostic, Mode, Policy};

/// What of the policy this version cannot do although the policy asks for it. Where there is an error, the daemon
/// must refuse the policy: it does not pretend.
#[must_use]
pub fn enforceable(policy: &Policy) -> Vec<Diagnostic> {
    policy.agents.iter().filter_map(|agent| mode_problem(policy, agent)).collect()
}

fn mode_problem(policy: &Policy, agent: &Agent) -> Option<Diagnostic> {
    let mode = agent.spec.mode;
    match mode {
        Mode::Observe | Mode::Recommend | Mode::Enforce | Mode::Plan => None,
        Mode::Approve => {
            let message = format!("this version does not enforce the mode `{}` yet", mode.as_str());
            let problem = policy.diagnostic(Code::NotEnforced, agent.mode_at, message);
            Some(problem.help("write `observe`, `recommend`, `enforce` or `plan`"))
        }
    }
}
