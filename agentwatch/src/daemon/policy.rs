//! The policy in force, and bringing another one into force.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Daemon, applied, boot_ns, mark,
    names::Names,
    own,
    prepare::Ready,
    rules::{self, Compiled},
    selftest::Needs,
    standing,
    start::{StartError, configure},
    surroundings,
};
use crate::{
    agents::{AgentTable, Users},
    attribution::Attribution,
    control::{
        Apply, Refusal, Reply,
        policy::{AppliedView, PolicyOrigin, PolicyView},
        required,
        selftest::SelfTestView,
    },
    event::{
        Event, Kind, PolicyVersion,
        time::{format_time, now_ns},
    },
    exit,
    kernel::{Abilities, KernelError, maps::Maps, rules::RuleMaps},
    memory,
    names::Orders,
    paths::Paths,
    places::Places,
    policy::{self, Diagnostic, Guard, Mode, Policy, Problems, Source, address::DnsName},
};

/// How long a new policy waits until it is known what its names stand for. What is not known by then is found out while it
/// is in force.
const PATIENCE_WITH_NAMES: Duration = Duration::from_secs(5);

/// What the daemon is told of policies at its start.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The files; none: agents are only observed.
    pub path: Option<PathBuf>,
    /// No agent gets a stricter mode.
    pub at_most: Option<Mode>,
    /// The daemon's folders, which no session changes.
    pub paths: Paths,
    /// Who follows names.
    pub names: Orders,
}

/// A policy that was read and compiled.
pub(super) struct Loaded {
    pub policy: Arc<Policy>,
    /// What things were called when it was compiled.
    pub places: Arc<Places>,
    origin: PolicyOrigin,
    pub table: Arc<AgentTable>,
    compiled: Compiled,
    /// The strictest mode of an agent.
    strictest: Mode,
    /// What is to be proved.
    pub needs: Needs,
}

impl Loaded {
    /// What a daemon begins with, and why: the policy that was applied last, where it still holds, else the files.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn at_start(wanted: &Wanted, state: &Path) -> Result<(Self, &'static str), StartError> {
        let kept = applied::read(state)
            .map_err(|source| StartError::Applied { path: applied::path(state), source })?;
        let Some(kept) = kept else { return Ok((Self::files(wanted)?, "the daemon started with it")) };
        if !kept.holds_over(wanted.path.as_deref()) {
            let loaded = Self::files(wanted)?;
            applied::forget(state);
            let why = "the daemon started with it: what `--policy` names is not what it was when a policy was applied";
            return Ok((loaded, why));
        }
        let loaded = Self::given(wanted, kept.sources()).inspect_err(|_| {
            let path = applied::path(state);
            let path = path.display();
            tracing::error!(
                "`agentwatch policy apply` left this policy in `{path}`: remove that to start without it"
            );
        })?;
        Ok((loaded, "the daemon started with what was applied last"))
    }

    /// Takes a policy that was handed over.
    pub fn given(wanted: &Wanted, sources: Vec<Source>) -> Result<Self, StartError> {
        Self::compile(wanted, read_policy(sources, Vec::new(), wanted.at_most)?, PolicyOrigin::Applied)
    }

    /// Reads the files, or takes the empty policy where there are none.
    fn files(wanted: &Wanted) -> Result<Self, StartError> {
        let Some(path) = &wanted.path else {
            return Self::compile(wanted, Policy::default(), PolicyOrigin::None);
        };
        let (sources, warnings) = policy::read(path).map_err(StartError::Policy)?;
        Self::from_files(wanted, sources, warnings)
    }

    /// Takes the files that were read.
    pub fn from_files(
        wanted: &Wanted,
        sources: Vec<Source>,
        warnings: Vec<Diagnostic>,
    ) -> Result<Self, StartError> {
        Self::compile(wanted, read_policy(sources, warnings, wanted.at_most)?, PolicyOrigin::Files)
    }

    fn compile(wanted: &Wanted, mut policy: Policy, origin: PolicyOrigin) -> Result<Self, StartError> {
        policy.own = own::own(&wanted.paths, wanted.path.as_deref())?;
        let places = surroundings::look(&policy)?;
        surroundings::tell(&places);
        let loaded = Self::of(Arc::new(policy), places, origin)?;
        let names: Vec<DnsName> = loaded.compiled.net.names().cloned().collect();
        wanted.names.follow_too(&names, PATIENCE_WITH_NAMES);
        warn_of_users(&loaded.table);
        Ok(loaded)
    }

    /// Compiles a policy for a host on which things are called so.
    pub fn of(policy: Arc<Policy>, places: Places, origin: PolicyOrigin) -> Result<Self, StartError> {
        // The tree that it was read as took three times as much, and so did the links on the way to what it names.
        memory::release();
        let loaded = Self {
            table: Arc::new(AgentTable::new(policy.agent_specs())?),
            compiled: Compiled::new(&policy, &places)?,
            needs: Needs::of(&policy, &guards_in_force(&policy)),
            strictest: policy.agents.iter().map(|agent| agent.spec.mode).max().unwrap_or_default(),
            policy,
            places: Arc::new(places),
            origin,
        };
        // What comes next takes much, too: at a start, the kernel's type information.
        memory::release();
        Ok(loaded)
    }

    /// In which mode the agents are by whose number a process can be judged.
    pub fn modes(&self) -> Arc<BTreeMap<u32, Mode>> {
        Arc::clone(&self.compiled.modes)
    }

    /// Hands the rules to the kernel. Gives what is in force then.
    ///
    /// # Errors
    /// The kernel cannot carry them out, and what is in force stays in force.
    pub fn bring_into_force(
        mut self,
        names: &mut Names,
        maps: &mut Maps,
        rule_maps: &mut RuleMaps,
        state: &mut Attribution,
        abilities: &Abilities,
        wanted: &Wanted,
    ) -> Result<PolicyView, KernelError> {
        if let Some(lacking) = abilities.lacking_for_mode(self.strictest, &guards_in_force(&self.policy)) {
            return Err(KernelError::CannotEnforce { lacking });
        }
        names.fill(&mut self.compiled.net, now_s());
        let (version, slot) = rules::put_in_force(maps, rule_maps, &self.compiled, state.host.boot_unix_ns)?;
        state.judges.add(self.compiled.judge(version));
        maps.set_nested(&self.compiled.pairs)?;
        names.came_into_force(&self.policy, self.compiled.net, slot);
        state.peer_names = names.by_address();
        Ok(PolicyView {
            version,
            hash: Arc::clone(&self.compiled.hash),
            since: format_time(now_ns()),
            origin: self.origin,
            path: wanted.path.as_ref().map(|path| path.to_string_lossy().into_owned()),
            files: self.policy.sources.iter().map(|source| source.name.to_string()).collect(),
            held_to: wanted.at_most.map(|mode| mode.as_str().to_owned()),
            refused: None,
            self_test: SelfTestView::default(),
            agents: standing::agents(&self.policy, abilities),
            rules: standing::rules(&self.policy, abilities, &self.places),
        })
    }
}

/// Notes for hooks which of them must not fail.
pub(super) fn require_hooks(run: &Path, policy: &Policy) -> Result<(), String> {
    required::write(run, &policy.required_hooks).map_err(|error| {
        let run = run.display();
        format!(
            "what the policy says of `hooks` is not in force, as nothing can be written to `{run}`: {error}"
        )
    })
}

/// Seconds since boot.
fn now_s() -> u64 {
    boot_ns() / 1_000_000_000
}

/// The guards that are on for an agent whose rules are enforced.
fn guards_in_force(policy: &Policy) -> Vec<Guard> {
    let enforced = || policy.agents.iter().filter(|agent| agent.spec.mode > Mode::Recommend);
    let is_on = |guard: &Guard| enforced().any(|agent| agent.guards(*guard));
    Guard::ALL.into_iter().filter(is_on).collect()
}

/// Says where an agent is matched by root or by the daemon's own user, which makes most of a host one session.
fn warn_of_users(table: &AgentTable) {
    let own = rustix::process::geteuid().as_raw();
    for (uid, index) in table.users().filter(|(uid, _)| *uid == 0 || *uid == own) {
        let agent = table.get(index).map_or("", |agent| agent.name.as_str());
        tracing::warn!(
            "the agent `{}` matches the user with id {uid}, {}: every process of that user becomes a session of \
             it; give the agent a user of its own",
            crate::output::escape::escape(agent),
            if uid == 0 { "which is root" } else { "as which agentwatch itself runs" }
        );
    }
}

/// Reads a policy, and refuses what this version would only pretend to do. `warnings` are those of its files.
fn read_policy(
    sources: Vec<Source>,
    mut warnings: Vec<Diagnostic>,
    at_most: Option<Mode>,
) -> Result<Policy, StartError> {
    let users = Users::read(Path::new("/etc/passwd"))
        .map_err(|source| StartError::Host { path: "/etc/passwd", source })?;
    let context = policy::Context { users: &users, now_ns: now_ns() };
    let (mut policy, more) = policy::policy_of(sources, context).map_err(StartError::Policy)?;
    warnings.extend(more);
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
    /// Has the policy read again. A bad one leaves the old one in force. Either is told in the log.
    pub(super) fn reload(&mut self) {
        self.preparing.files("SIGHUP", false);
    }

    /// Has a caller's policy brought into force.
    pub(super) fn apply(&self, apply: Apply, reply: Reply<AppliedView>) {
        let pid = apply.pid.map(|pid| format!("process {pid} of ")).unwrap_or_default();
        let why = format!("`agentwatch policy apply` by {pid}user {}", apply.uid);
        self.preparing.caller(why, applied::sources_of(apply.files), reply);
    }

    /// Looks what names stand for now.
    pub(super) fn look_at_names(&mut self) {
        if self.names.look(&mut self.rule_maps, now_s()) {
            self.state.peer_names = self.names.by_address();
        }
    }

    /// Gives up what names stood for long ago.
    pub(super) fn tend_names(&mut self) {
        if self.names.tend(&mut self.rule_maps, now_s()) {
            self.state.peer_names = self.names.by_address();
        }
    }

    /// Looks whether the files have changed, and whether a policy is ready.
    pub(super) fn look_at_policies(&mut self, now: u64) {
        if self.watch.as_mut().is_some_and(|watch| watch.has_changed(now)) {
            self.preparing.files("the files changed", true);
        }
        if self.surroundings.is_due(now) {
            self.look_at_bindings();
            let (policy, places) = (Arc::clone(&self.policy), Arc::clone(&self.places));
            self.preparing.surroundings(policy, places, self.in_force.origin);
        }
        self.take_policies();
    }

    /// Brings into force what is ready for it, in the order in which it was asked for.
    fn take_policies(&mut self) {
        for Ready { why, reply, of, result } in self.preparing.take() {
            if of.is_some_and(|policy| !Arc::ptr_eq(&policy, &self.policy)) {
                // Another policy came into force meanwhile, perhaps before the change.
                self.surroundings.look_again(boot_ns());
                continue;
            }
            // Who was told that there is no answer must not find it in force later.
            if reply.as_ref().is_some_and(Reply::is_closed) {
                tracing::warn!("a policy did not come into force: its caller gave up ({why})");
                continue;
            }
            let taken = match result {
                Ok(Some(loaded)) => self.take_policy(loaded).map_err(StartError::from),
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            if let Err(error) = &taken {
                tracing::error!("the policy in force stays in force ({why}): {error}");
                self.tell_refused(&why, sentence(error), reply.is_none());
            } else {
                self.tell_applied(&why);
                self.keep_or_forget(reply.is_some());
            }
            if let Some(reply) = reply {
                // Sending fails where the caller is gone, which is no error.
                drop(reply.send(taken.map(|()| self.applied_view()).map_err(Refusal::from)));
            }
        }
    }

    /// What the next start of the daemon begins with is what is in force now.
    fn keep_or_forget(&self, by_caller: bool) {
        if by_caller {
            if let Err(error) = applied::keep(&self.paths.state) {
                tracing::error!(%error, "the policy that was applied is not kept over a restart");
            }
        } else if self.in_force.origin != PolicyOrigin::Applied {
            applied::forget(&self.paths.state);
        }
    }

    fn applied_view(&self) -> AppliedView {
        AppliedView {
            version: self.in_force.version,
            hash: Arc::clone(&self.in_force.hash),
            since: self.in_force.since.clone(),
            kept: applied::path(&self.paths.state).to_string_lossy().into_owned(),
            path: self.in_force.path.clone(),
        }
    }

    /// Puts another policy into force, and looks for its agents.
    fn take_policy(&mut self, loaded: Loaded) -> Result<(), KernelError> {
        let (table, policy) = (Arc::clone(&loaded.table), Arc::clone(&loaded.policy));
        let (places, modes, needs) = (Arc::clone(&loaded.places), loaded.modes(), loaded.needs.clone());
        self.in_force = loaded.bring_into_force(
            &mut self.names,
            &mut self.maps,
            &mut self.rule_maps,
            &mut self.state,
            &self.abilities,
            &self.wanted,
        )?;
        (self.policy, self.places, self.modes) = (policy, places, modes);
        if let Err(error) = require_hooks(&self.paths.run, &self.policy) {
            self.pipeline.warn_once(&error);
        }
        self.note_needs(needs);
        if let Err(error) = configure(&mut self.maps, &table) {
            // Its rules are in force, and nothing is gained by going back.
            let reason = format!("its rules are in force; what its agents are recognised by is not: {error}");
            tracing::error!("{reason}");
            let mut event = event(&self.state, &self.in_force, Kind::PolicyRefused, boot_ns(), reason);
            self.log.append(&mut event);
        }
        self.state.table = table;
        let mut out = Vec::new();
        let now = boot_ns();
        mark::cover_cgroups(&mut self.maps, &mut self.state, &mut self.numbers, now);
        mark::adopt_running(&mut self.maps, &mut self.state, &mut self.numbers, now, &mut out);
        for mut event in out {
            self.log.append(&mut event);
        }
        memory::release();
        Ok(())
    }

    /// Says in the log that the policy in force is a new one.
    fn tell_applied(&mut self, why: &str) {
        let PolicyView { version, hash, .. } = &self.in_force;
        tracing::info!(version, hash = &**hash, "a policy came into force: {why}");
        self.log.append(&mut applied_event(&self.state, &self.in_force, boot_ns(), why));
    }

    /// Says in the log that a policy was refused.
    ///
    /// That of the files stays to be seen: they say something else than what is in force.
    fn tell_refused(&mut self, why: &str, problem: String, of_files: bool) {
        let reason = format!("the policy in force stays in force ({why}): {problem}");
        let mut event = event(&self.state, &self.in_force, Kind::PolicyRefused, boot_ns(), reason);
        self.log.append(&mut event);
        if of_files {
            self.in_force.refused = Some(problem);
        }
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

impl From<StartError> for Refusal {
    fn from(error: StartError) -> Self {
        match error.exit_code() {
            exit::BAD_POLICY => Self::BadPolicy(error.to_string()),
            exit::NOT_ALLOWED => Self::CannotEnforce(error.to_string()),
            _ => Self::Unable(error.to_string()),
        }
    }
}
