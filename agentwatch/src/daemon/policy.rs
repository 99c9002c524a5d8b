//! The policy in force, and bringing another one into force.

use std::{path::PathBuf, sync::Arc};

use super::{
    Daemon, boot_ns, mark,
    rules::{self, Compiled},
    standing,
    start::{StartError, configure},
};
use crate::{
    agents::{AgentTable, Users},
    attribution::Attribution,
    control::policy::{PolicyOrigin, PolicyView},
    event::{
        Event, Kind, PolicyVersion,
        time::{format_time, now_ns},
    },
    kernel::{Abilities, KernelError, maps::Maps, rules::RuleMaps},
    policy::{self, Mode, Policy, Problems},
};

/// What the daemon is told of policies at its start.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The files; none: agents are only observed.
    pub path: Option<PathBuf>,
    /// No agent gets a stricter mode.
    pub at_most: Option<Mode>,
}

/// A policy that was read and compiled.
pub(super) struct Loaded {
    policy: Policy,
    origin: PolicyOrigin,
    pub table: Arc<AgentTable>,
    compiled: Compiled,
    /// Some agent's rules are to be enforced.
    enforces: bool,
}

impl Loaded {
    /// Reads the policy, or takes the empty one where there is none.
    pub fn read(wanted: &Wanted) -> Result<Self, StartError> {
        let (policy, origin) = match &wanted.path {
            Some(path) => (read_policy(path, wanted.at_most)?, PolicyOrigin::Files),
            None => (Policy::default(), PolicyOrigin::None),
        };
        Ok(Self {
            table: Arc::new(AgentTable::new(policy.agent_specs())?),
            compiled: Compiled::new(&policy)?,
            enforces: policy.agents.iter().any(|agent| agent.spec.mode == Mode::Enforce),
            policy,
            origin,
        })
    }

    /// Hands the rules to the kernel. Gives what is in force then.
    ///
    /// # Errors
    /// The kernel cannot carry them out, and what is in force stays in force.
    pub fn bring_into_force(
        &self,
        maps: &mut Maps,
        rule_maps: &mut RuleMaps,
        state: &mut Attribution,
        abilities: &Abilities,
        wanted: &Wanted,
    ) -> Result<PolicyView, KernelError> {
        if let Some(lacking) = abilities.lacking_for_rules().filter(|_| self.enforces) {
            return Err(KernelError::CannotEnforce { lacking });
        }
        let version = rules::put_in_force(maps, rule_maps, &self.compiled, state.host.boot_unix_ns)?;
        state.judges.add(Arc::new(self.compiled.judge(version)));
        Ok(PolicyView {
            version,
            hash: Arc::clone(&self.compiled.hash),
            since: format_time(now_ns()),
            origin: self.origin,
            path: wanted.path.as_ref().map(|path| path.to_string_lossy().into_owned()),
            files: self.policy.sources.iter().map(|source| source.name.to_string()).collect(),
            held_to: wanted.at_most.map(|mode| mode.as_str().to_owned()),
            refused: None,
            agents: standing::agents(&self.policy),
            rules: standing::rules(&self.policy, abilities),
        })
    }
}

/// Reads a policy, and refuses what this version would only pretend to do.
fn read_policy(path: &std::path::Path, at_most: Option<Mode>) -> Result<Policy, StartError> {
    let users = Users::read(std::path::Path::new("/etc/passwd"))
        .map_err(|source| StartError::Host { path: "/etc/passwd", source })?;
    let context = policy::Context { users: &users, now_ns: now_ns() };
    let (mut policy, warnings) = policy::load(path, context).map_err(StartError::Policy)?;
    policy.hold_to(at_most);
    let (refused, more): (Vec<_>, Vec<_>) = policy::enforceable(&policy)
        .into_iter()
        .partition(|problem| problem.code.severity() == policy::Severity::Error);
    for warning in warnings.into_iter().chain(more) {
        eprintln!("{warning}");
    }
    if refused.is_empty() { Ok(policy) } else { Err(StartError::Policy(Problems(refused))) }
}

impl Daemon {
    /// Reads the policy again. A bad one leaves the old one in force. Either is told in the log.
    pub(super) fn reload(&mut self) {
        let loaded = Loaded::read(&self.wanted);
        if let Err(error) = loaded.and_then(|loaded| Ok(self.take_policy(&loaded)?)) {
            tracing::error!("the policy in force stays in force: {error}");
            self.tell_refused(sentence(&error));
            return;
        }
        self.tell_applied("SIGHUP: the files were read again");
    }

    /// Puts another policy into force, and looks for its agents.
    fn take_policy(&mut self, loaded: &Loaded) -> Result<(), KernelError> {
        let (maps, rule_maps) = (&mut self.maps, &mut self.rule_maps);
        self.in_force =
            loaded.bring_into_force(maps, rule_maps, &mut self.state, &self.abilities, &self.wanted)?;
        configure(maps, &loaded.table)?;
        self.state.table = Arc::clone(&loaded.table);
        let mut out = Vec::new();
        let now = boot_ns();
        mark::cover_cgroups(maps, &mut self.state, &mut self.numbers, now);
        mark::adopt_running(maps, &mut self.state, &mut self.numbers, now, &mut out);
        for mut event in out {
            self.log.append(&mut event);
        }
        Ok(())
    }

    /// Says in the log that the policy in force is a new one.
    fn tell_applied(&mut self, why: &str) {
        let PolicyView { version, hash, .. } = &self.in_force;
        tracing::info!(version, hash = &**hash, "a policy came into force: {why}");
        self.log.append(&mut applied_event(&self.state, &self.in_force, boot_ns(), why));
    }

    /// Says in the log that a policy was refused.
    fn tell_refused(&mut self, why: String) {
        let reason = format!("the policy in force stays in force: {why}");
        let mut event = event(&self.state, &self.in_force, Kind::PolicyRefused, boot_ns(), reason);
        self.log.append(&mut event);
        self.in_force.refused = Some(why);
    }
}

/// The event that a policy came into force.
pub(super) fn applied_event(state: &Attribution, in_force: &PolicyView, now: u64, why: &str) -> Event {
    event(state, in_force, Kind::PolicyApplied, now, why.to_owned())
}

/// An event about the policy in force.
fn event(state: &Attribution, in_force: &PolicyView, kind: Kind, now: u64, reason: String) -> Event {
    let mut event = state.host_event(kind, now, Some(reason));
    event.policy = Some(PolicyVersion { version: in_force.version, hash: Arc::clone(&in_force.hash) });
    event
}

/// Why a policy was refused, in one line: of several problems the first.
fn sentence(error: &StartError) -> String {
    let StartError::Policy(Problems(problems)) = error else { return error.to_string() };
    let errors: Vec<_> =
        problems.iter().filter(|problem| problem.code.severity() == policy::Severity::Error).collect();
    let Some(first) = errors.first() else { return error.to_string() };
    let place = first.place.map(|place| format!(":{}:{}", place.line, place.column)).unwrap_or_default();
    let more = match errors.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more: `agentwatch policy check` tells all"),
    };
    format!("{}{place}: {} ({}){more}", first.file, first.message, first.code.as_str())
}
