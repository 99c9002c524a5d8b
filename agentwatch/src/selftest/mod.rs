//! The self-test: a canary session tries what its rules forbid, and says what was not refused.
//!
//! The daemon starts the canary as a child, puts it into a session of an agent that only it has
//! ([`crate::policy::CANARY`]), and lets it try each thing of [`tries::TRIES`]. All of them are harmless where they get
//! through. What is not proved to be refused is not reported as enforced.

pub mod canary;
mod report;
mod run;
mod scene;
pub mod tries;

use std::path::PathBuf;

use crate::{
    event::Op,
    paths::Paths,
    policy::{Guard, Policy},
};

pub use self::report::{Outcome, Report};
pub use self::run::{DEADLINE, perform};

/// Number of the canary's session: no other has it, and nothing of it is told. Sessions that the kernel or the daemon
/// begin are counted up from far below.
pub const SESSION: u64 = u64::MAX;

/// What is tried, and reported, as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// An operation.
    Op(Op),
    /// A guard.
    Guard(Guard),
}

impl Subject {
    /// All that are tried.
    pub fn all() -> impl Iterator<Item = Self> {
        let guards = Guard::ALL.into_iter().filter(|guard| *guard != Guard::Delegate).map(Self::Guard);
        Op::ALL.iter().copied().map(Self::Op).chain(guards)
    }

    /// As it is reported: `read`, `guard mount`.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Op(op) => op.name().to_owned(),
            Self::Guard(guard) => format!("guard {}", guard.as_str()),
        }
    }
}

/// What a guard rests on. That on delegates is rules about files and sockets.
#[must_use]
pub fn subjects_of(guard: Guard) -> Vec<Subject> {
    match guard {
        Guard::Delegate => [Op::Write, Op::Delete, Op::Connect].map(Subject::Op).to_vec(),
        other => vec![Subject::Guard(other)],
    }
}

/// What a policy's enforcement rests on: all operations, and the guards that are on for an agent whose rules are
/// enforced.
#[must_use]
pub fn needed_by(policy: &Policy, guards: &[Guard]) -> Vec<Subject> {
    let enforced = policy.agents.iter().any(|agent| agent.spec.mode > crate::policy::Mode::Recommend);
    if !enforced {
        return Vec::new();
    }
    let guards = guards.iter().flat_map(|guard| subjects_of(*guard));
    Op::ALL.iter().copied().map(Subject::Op).chain(guards).collect()
}

/// The folders in which the canary may do nothing, the first that allows programs being used.
#[must_use]
pub fn folders(paths: &Paths) -> [PathBuf; 2] {
    [&paths.state, &paths.run].map(|folder| folder.join("selftest"))
}
