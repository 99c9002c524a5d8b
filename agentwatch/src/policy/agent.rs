//! What is known about an agent.

use std::fmt;

use crate::matcher::{CgroupGlob, CommandGlob, PathGlob, Pattern, ScriptGlob};

/// A named kind of actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSpec {
    /// Its name: letters, digits, `-`, `_` and `.`, at most 64 bytes.
    pub name: String,
    /// What people call it, where it is a known one.
    pub title: Option<String>,
    /// The one human owner, where the policy names one.
    pub owner: Option<String>,
    /// What its processes are recognised by: any of these. Empty where it exists only by `agentwatch exec`.
    pub matches: Vec<Match>,
    /// What is done about what it does.
    pub mode: Mode,
    /// Who says that it is an agent.
    pub origin: Origin,
}

/// Who says that something is an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The policy declares it.
    Policy,
    /// The built-in list knows it; nobody declared it.
    Builtin,
}

/// What is done about what an agent does, the mildest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the contract says what each is")]
pub enum Mode {
    #[default]
    Observe,
    Recommend,
    Approve,
    Enforce,
    Plan,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 5] = [Self::Observe, Self::Recommend, Self::Approve, Self::Enforce, Self::Plan];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Recommend => "recommend",
            Self::Approve => "approve",
            Self::Enforce => "enforce",
            Self::Plan => "plan",
        }
    }
}

/// One thing that an agent's processes are recognised by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The program that runs.
    Exec(PathGlob),
    /// The command line.
    Run(CommandGlob),
    /// The script that an interpreter runs. Only known agents have these.
    Script(ScriptGlob),
    /// A systemd unit, or what is below it.
    Unit(CgroupGlob),
    /// A cgroup, or what is below it.
    Cgroup(CgroupGlob),
    /// A user.
    User {
        /// As the policy has it: a name or a number.
        name: String,
        /// The number.
        uid: u32,
    },
}

impl Match {
    /// The pattern that the kernel's automaton has for it; a user has none.
    #[must_use]
    pub fn pattern(&self) -> Option<Pattern<'_>> {
        match self {
            Self::Exec(glob) => Some(Pattern::Program(glob)),
            Self::Run(glob) => Some(Pattern::Command(glob)),
            Self::Script(glob) => Some(Pattern::Script(glob)),
            Self::Unit(glob) | Self::Cgroup(glob) => Some(Pattern::Cgroup(glob)),
            Self::User { .. } => None,
        }
    }
}

/// As in the policy: exec `**/claude`.
impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exec(glob) => write!(f, "exec `{}`", glob.text()),
            Self::Run(glob) => write!(f, "run `{}`", glob.text()),
            Self::Script(glob) => write!(f, "script `{}`", glob.text()),
            Self::Unit(glob) => write!(f, "unit `{}`", glob.text()),
            Self::Cgroup(glob) => write!(f, "cgroup `{}`", glob.text()),
            Self::User { name, .. } => write!(f, "user `{name}`"),
        }
    }
}
