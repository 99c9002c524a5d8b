//! What of a policy this version can do.

use super::{Code, Diagnostic, Mode, Policy};

/// What of the policy this version cannot do although the policy asks for it. Where there is anything, the
/// daemon must refuse the policy: it does not pretend.
#[must_use]
pub fn enforceable(policy: &Policy) -> Vec<Diagnostic> {
    let asks = |mode: Mode| mode != Mode::Observe;
    let agents = policy.agents.iter().filter(|agent| asks(agent.spec.mode));
    let refused = agents.map(|agent| {
        let message = format!("this version does not enforce the mode `{}` yet", agent.spec.mode.as_str());
        policy
            .diagnostic(Code::NotEnforced, agent.mode_at, message)
            .help("write `observe`, or leave `mode` out")
    });
    refused.collect()
}
