//! A policy that was read and checked: what `evaluate` decides by, and what is compiled for the kernel.

use std::{collections::BTreeSet, sync::Arc};

use agentwatch_common::rules::guard;

use super::{AddressPattern, AgentSpec, Code, Diagnostic, Mode, Own, Place, Scope, Source};
use crate::event::Op;
use crate::matcher::PathGlob;

/// A place in the policy's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// Index in [`Policy::sources`].
    pub source: usize,
    /// Where in it.
    pub place: Place,
}

/// What `agentwatch hook` is called by, as a policy and the command line name it: harnesses, and the relay of MCP servers.
pub const HARNESSES: [&str; 4] = ["claude-code", "codex", "gemini", "mcp"];

/// A whole policy: one file, or all files of a folder.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The files that it was read from.
    pub sources: Arc<[Source]>,
    /// Precious things.
    pub resources: Vec<Resource>,
    /// Agents, in the order of the files.
    pub agents: Vec<Agent>,
    /// Times that rules can be bound to.
    pub windows: Vec<Window>,
    /// Rules, in the order of the files. Policies that are made of this one share them.
    pub rules: Vec<Arc<Rule>>,
    /// Harnesses of [`HARNESSES`] that are to do nothing of which agentwatch cannot be told.
    pub required_hooks: BTreeSet<&'static str>,
    /// The policy's own test cases.
    pub cases: Arc<[Case]>,
    /// agentwatch's own files and sockets; not of the policy, but of the daemon that it is in force in.
    pub own: Own,
}

impl Policy {
    /// The agent of this name.
    #[must_use]
    pub fn agent(&self, name: &str) -> Option<&Agent> {
        self.agents.iter().find(|agent| agent.spec.name == name)
    }

    /// The agents as attribution needs them.
    #[must_use]
    pub fn agent_specs(&self) -> Vec<AgentSpec> {
        self.agents.iter().map(|agent| agent.spec.clone()).collect()
    }

    /// Lowers the mode of every agent to this one, if there is one: to `observe`, or to `recommend` where more was
    /// asked for.
    pub fn hold_to(&mut self, at_most: Option<Mode>) {
        let Some(at_most) = at_most else { return };
        for agent in &mut self.agents {
            if agent.spec.mode != Mode::Observe {
                agent.spec.mode = at_most;
            }
        }
    }

    /// A problem at a place in this policy.
    #[must_use]
    pub fn diagnostic(&self, code: Code, at: At, message: impl Into<String>) -> Diagnostic {
        match self.sources.get(at.source) {
            Some(source) => Diagnostic::new(code, source, at.place, message),
            None => Diagnostic::of_file(code, "policy", message),
        }
    }

    /// A place as people write it: `policy.yaml:12`.
    #[must_use]
    pub fn line_of(&self, at: At) -> String {
        let file = self.sources.get(at.source).map_or("policy", |source| &source.name);
        format!("{file}:{}", at.place.line)
    }
}

/// A named precious thing.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Its name.
    pub name: String,
    /// Where it is declared.
    pub at: At,
    /// Why it is precious.
    pub why: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Where it belongs, such as `production`.
    pub environment: Option<String>,
    /// Where it is reached: what `resource:NAME` stands for in `connect` and `listen`.
    pub connect: Vec<AddressPattern>,
    /// Its files: what `resource:NAME` stands for in `exec`, `read`, `write` and `delete`.
    pub files: Vec<PathGlob>,
}

/// A kind of actor, with what is decided about it beyond the rules.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Name, owner, mode, and what it is recognised by.
    pub spec: AgentSpec,
    /// Where it is declared.
    pub at: At,
    /// Where its mode is written; where it is declared if it is not.
    pub mode_at: At,
    /// What is decided where no rule matches, by operation.
    pub defaults: Vec<(Op, Action, At)>,
    /// Guards that the policy speaks of.
    pub guards: Vec<GuardSetting>,
    /// Delegates beyond the built-in list: `guards: {delegate: [...]}`.
    pub delegates: Vec<AddressPattern>,
    /// The folders in which it may write in the mode `plan`: what is in each of these lists. Several lists are of several
    /// agents, of which none has a say alone.
    pub scratch: Vec<Vec<PathGlob>>,
    /// What contains a session that does too much.
    pub breakers: Vec<Breaker>,
}

impl Agent {
    /// What is decided where no rule matches, if the agent says so.
    #[must_use]
    pub fn default_for(&self, op: Op) -> Option<Action> {
        self.defaults.iter().find(|(of, ..)| *of == op).map(|&(_, action, _)| action)
    }

    /// Whether a guard is on: those that the policy does not speak of are.
    #[must_use]
    pub fn guards(&self, guard: Guard) -> bool {
        self.guards.iter().find(|setting| setting.guard == guard).is_none_or(|setting| setting.on)
    }
}

/// What a rule, or a default, decides. Ordered: the strictest is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the contract says what each is")]
pub enum Action {
    Allow,
    Log,
    Ask,
    Deny,
    Kill,
}

impl Action {
    /// All, from the mildest to the strictest.
    pub const ALL: [Self; 5] = [Self::Allow, Self::Log, Self::Ask, Self::Deny, Self::Kill];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Log => "log",
            Self::Ask => "ask",
            Self::Deny => "deny",
            Self::Kill => "kill",
        }
    }

    /// Whether the operation does not go on at once.
    #[must_use]
    pub const fn stops(self) -> bool {
        matches!(self, Self::Ask | Self::Deny | Self::Kill)
    }
}

/// Ways out of sight or out of reach, closed unless the policy opens them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the contract says what each is")]
pub enum Guard {
    Ptrace,
    Signal,
    Mount,
    Namespace,
    Module,
    Bpf,
    RawDevice,
    RawSocket,
    Delegate,
}

impl Guard {
    /// All guards.
    pub const ALL: [Self; 9] = [
        Self::Ptrace,
        Self::Signal,
        Self::Mount,
        Self::Namespace,
        Self::Module,
        Self::Bpf,
        Self::RawDevice,
        Self::RawSocket,
        Self::Delegate,
    ];

    /// Its number in the kernel's tables: see [`agentwatch_common::rules::guard`].
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Ptrace => guard::PTRACE,
            Self::Signal => guard::SIGNAL,
            Self::Mount => guard::MOUNT,
            Self::Namespace => guard::NAMESPACE,
            Self::Module => guard::MODULE,
            Self::Bpf => guard::BPF,
            Self::RawDevice => guard::RAW_DEVICE,
            Self::RawSocket => guard::RAW_SOCKET,
            Self::Delegate => guard::DELEGATE,
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ptrace => "ptrace",
            Self::Signal => "signal",
            Self::Mount => "mount",
            Self::Namespace => "namespace",
            Self::Module => "module",
            Self::Bpf => "bpf",
            Self::RawDevice => "raw-device",
            Self::RawSocket => "raw-socket",
            Self::Delegate => "delegate",
        }
    }
}

/// What an agent's policy says of one guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardSetting {
    /// Which.
    pub guard: Guard,
    /// On or off.
    pub on: bool,
    /// Where it is written.
    pub at: At,
}

/// What is done with a whole session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the contract says what each is")]
pub enum Containment {
    Freeze,
    Quarantine,
    Kill,
}

impl Containment {
    /// All, from the mildest to the strictest.
    pub const ALL: [Self; 3] = [Self::Freeze, Self::Quarantine, Self::Kill];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Freeze => "freeze",
            Self::Quarantine => "quarantine",
            Self::Kill => "kill",
        }
    }
}

/// Contains a session that does too much of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Where it is written.
    pub at: At,
    /// What trips it.
    pub trigger: Trigger,
    /// What happens then.
    pub then: Containment,
}

/// What trips a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// So many refusals within so many seconds.
    Denied {
        /// How many: at least one.
        count: u32,
        /// Within what: seconds, at least one.
        within_s: u64,
    },
    /// So many operations of a kind within so many seconds.
    Operations {
        /// Which.
        op: Op,
        /// How many: at least one.
        count: u32,
        /// Within what: seconds, at least one.
        within_s: u64,
    },
    /// Anything done to this resource: an index in [`Policy::resources`].
    Touches(usize),
}

/// A time that rules can be bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its name.
    pub name: String,
    /// Where it is declared.
    pub at: At,
    /// When it begins: nanoseconds since 1970.
    pub from_ns: u64,
    /// When it ends, itself outside: nanoseconds since 1970.
    pub to_ns: u64,
}

impl Window {
    /// Whether this moment, in nanoseconds since 1970, is in it.
    #[must_use]
    pub fn contains(&self, unix_ns: u64) -> bool {
        (self.from_ns..self.to_ns).contains(&unix_ns)
    }
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// Where its name is.
    pub at: At,
    /// What it decides.
    pub action: Action,
    /// About what.
    pub scope: Arc<Scope>,
    /// For whom: indexes in [`Policy::agents`]; all agents without.
    pub agents: Option<Vec<usize>>,
    /// When: an index in [`Policy::windows`]; always without.
    pub during: Option<usize>,
    /// But not about this.
    pub unless: Arc<Scope>,
    /// What the agent and its owner are told.
    pub message: Option<String>,
    /// For how long an `ask` waits: seconds.
    pub timeout_s: Option<u64>,
    /// What is done with the session then.
    pub then: Option<Containment>,
}

/// One of the policy's own test cases: an agent does these things, and this is expected.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Where it is written.
    pub at: At,
    /// The agent's name: one of the policy, or any other for an agent that only rules for all cover.
    pub agent: String,
    /// What it does.
    pub operations: Vec<(At, super::Operation)>,
    /// What is expected.
    pub expect: Expect,
    /// The rule that is expected to decide.
    pub rule: Option<String>,
    /// When: nanoseconds since 1970; now without.
    pub when_ns: Option<u64>,
}

/// What a test case expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// That this is decided, in whatever mode the agent is.
    Action(Action),
    /// That it would be refused, the agent being in the mode `recommend`.
    WouldDeny,
}

impl Expect {
    /// The words, each with what it stands for.
    pub const WORDS: [(&str, Self); 11] = [
        ("allow", Self::Action(Action::Allow)),
        ("allowed", Self::Action(Action::Allow)),
        ("log", Self::Action(Action::Log)),
        ("logged", Self::Action(Action::Log)),
        ("ask", Self::Action(Action::Ask)),
        ("held", Self::Action(Action::Ask)),
        ("deny", Self::Action(Action::Deny)),
        ("denied", Self::Action(Action::Deny)),
        ("kill", Self::Action(Action::Kill)),
        ("killed", Self::Action(Action::Kill)),
        ("would-deny", Self::WouldDeny),
    ];
}

/// The mode of an agent that the policy does not declare.
pub const MODE_UNDECLARED: Mode = Mode::Observe;
