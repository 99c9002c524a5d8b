//! What of a policy this version can do.

use super::{
    Agent, At, Code, Diagnostic, Guard, Mode, Policy, Scope,
    address::{AddressKind, AddressPattern, HostPattern},
    scope::What,
};

/// What of the policy this version cannot do although the policy asks for it. Where there is an error, the daemon
/// must refuse the policy: it does not pretend.
#[must_use]
pub fn enforceable(policy: &Policy) -> Vec<Diagnostic> {
    let mut found: Vec<Diagnostic> =
        policy.agents.iter().filter_map(|agent| mode_problem(policy, agent)).collect();
    if policy.agents.iter().all(|agent| agent.spec.mode == Mode::Observe) {
        return found;
    }
    for agent in policy.agents.iter().filter(|agent| agent.guards(Guard::Delegate)) {
        let at = agent
            .guards
            .iter()
            .find(|setting| setting.guard == Guard::Delegate)
            .map_or(agent.at, |one| one.at);
        found.extend(agent.delegates.iter().filter_map(|pattern| address_problem(policy, at, pattern)));
    }
    for rule in &policy.rules {
        found.extend(address_problems(policy, &rule.scope));
        found.extend(address_problems(policy, &rule.unless));
    }
    found
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

/// Patterns for addresses that the kernel's tables do not have yet.
fn address_problems(policy: &Policy, scope: &Scope) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for entry in scope.connect.iter().chain(&scope.listen) {
        match &entry.what {
            What::Pattern(pattern) => found.extend(address_problem(policy, entry.at, pattern)),
            What::Resource(index) => {
                let patterns = policy.resources.get(*index).into_iter().flat_map(|one| &one.connect);
                found.extend(patterns.filter_map(|pattern| address_problem(policy, entry.at, pattern)));
            }
        }
    }
    found
}

fn address_problem(policy: &Policy, at: At, pattern: &AddressPattern) -> Option<Diagnostic> {
    let what = match pattern.kind() {
        AddressKind::Ip { host: HostPattern::Name(_), .. } => "names of hosts",
        AddressKind::UnixAbstract(_) => "abstract Unix sockets",
        AddressKind::Vsock { .. } => "vsock",
        AddressKind::Ip { .. } | AddressKind::UnixPath(_) => return None,
    };
    let message = format!("this version does not enforce rules about {what} yet: `{}`", pattern.text());
    Some(
        policy
            .diagnostic(Code::NotEnforced, at, message)
            .help("leave it out, or set the agents to `observe`"),
    )
}
