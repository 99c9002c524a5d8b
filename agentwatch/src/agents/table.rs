//! All agents in the order in which they win.

use std::collections::BTreeMap;

use agentwatch_common::{limits::AGENTS, rules::agent_number};

use super::known::{self, KnownError};
use super::{AgentSpec, Match};
use crate::matcher::{AgentIndex, CompileError, CompiledMatcher, command_text};

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The patterns do not fit the kernel.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// Two names that the kernel could not tell apart.
    #[error(
        "the agents `{0}` and `{1}` have names that give the same number, by which the kernel knows them: rename one"
    )]
    SameNumber(String, String),
    /// More than the kernel's table has room for.
    #[error(
        "there are {0} agents with the built-in ones, and the kernel's table has room for {AGENTS}: declare fewer"
    )]
    TooMany(usize),
    /// The built-in list is broken: a bug.
    #[error("the built-in list of known agents cannot be read, which is a bug of agentwatch: {0}")]
    Known(#[from] KnownError),
}

/// All agents: those of the policy in the order of their names, then the known ones that the policy does
/// not name itself. Where several match, the first is meant. An agent's place is its [`AgentIndex`].
#[derive(Clone, Debug)]
pub struct AgentTable {
    agents: Vec<AgentSpec>,
    matcher: CompiledMatcher,
    users: BTreeMap<u32, AgentIndex>,
}

impl AgentTable {
    /// The table of these agents of a policy (none without a policy) and of the known ones.
    ///
    /// # Errors
    /// When the patterns do not fit the kernel.
    pub fn new(mut agents: Vec<AgentSpec>) -> Result<Self, TableError> {
        agents.sort_by(|a, b| a.name.cmp(&b.name));
        let known = known::agents()?;
        let undeclared: Vec<_> =
            known.into_iter().filter(|known| agents.iter().all(|agent| agent.name != known.name)).collect();
        agents.extend(undeclared);
        check_numbers(&agents)?;
        let patterns = indexed(&agents).filter_map(|(index, item)| Some((index, item.pattern()?)));
        let matcher = CompiledMatcher::compile(patterns)?;
        let mut users = BTreeMap::new();
        for (index, item) in indexed(&agents) {
            if let Match::User { uid, .. } = item {
                users.entry(*uid).or_insert(index);
            }
        }
        Ok(Self { agents, matcher, users })
    }

    /// All agents, in order.
    #[must_use]
    pub fn agents(&self) -> &[AgentSpec] {
        &self.agents
    }

    /// One agent.
    #[must_use]
    pub fn get(&self, index: AgentIndex) -> Option<&AgentSpec> {
        self.agents.get(index as usize)
    }

    /// The index of the agent of this name.
    #[must_use]
    pub fn index_of(&self, name: &str) -> Option<AgentIndex> {
        let index = self.agents.iter().position(|agent| agent.name == name)?;
        u32::try_from(index).ok()
    }

    /// The number by which the kernel knows an agent; 0 where there is none.
    #[must_use]
    pub fn number_of(&self, index: AgentIndex) -> u32 {
        self.get(index).map_or(0, |agent| agent_number(&agent.name))
    }

    /// The index of the agent that the kernel knows by this number; `AgentIndex::MAX` where there is none any more.
    #[must_use]
    pub fn with_number(&self, number: u32) -> AgentIndex {
        let found = self.agents.iter().position(|agent| agent_number(&agent.name) == number);
        found.and_then(|index| u32::try_from(index).ok()).unwrap_or(AgentIndex::MAX)
    }

    /// What the kernel walks.
    #[must_use]
    pub fn matcher(&self) -> &CompiledMatcher {
        &self.matcher
    }

    /// Users whose processes are an agent's, each with it.
    pub fn users(&self) -> impl ExactSizeIterator<Item = (u32, AgentIndex)> + '_ {
        self.users.iter().map(|(uid, index)| (*uid, *index))
    }

    /// The agent that this program with these arguments is.
    #[must_use]
    pub fn of_program<'a>(
        &self,
        program: &[u8],
        arguments: impl IntoIterator<Item = &'a [u8]>,
    ) -> Option<AgentIndex> {
        let command = command_text(program, arguments);
        let found = [self.matcher.run_program(program), self.matcher.run_command(&command)];
        found.into_iter().flatten().min()
    }

    /// The agent that this user is.
    #[must_use]
    pub fn of_user(&self, uid: u32) -> Option<AgentIndex> {
        self.users.get(&uid).copied()
    }

    /// The first of the agent's patterns that covers this program with these arguments.
    #[must_use]
    pub fn why_program<'a>(
        &self,
        agent: AgentIndex,
        program: &[u8],
        arguments: impl IntoIterator<Item = &'a [u8]>,
    ) -> Option<&Match> {
        let command = command_text(program, arguments);
        self.get(agent)?.matches.iter().find(|item| match item {
            Match::Exec(glob) => glob.matches(program),
            Match::Run(glob) => glob.matches(&command),
            Match::Script(glob) => glob.matches(&command),
            Match::Unit(_) | Match::Cgroup(_) | Match::User { .. } => false,
        })
    }

    /// The first of the agent's patterns that covers this cgroup.
    #[must_use]
    pub fn why_cgroup(&self, agent: AgentIndex, path: &[u8]) -> Option<&Match> {
        self.get(agent)?.matches.iter().find(|item| match item {
            Match::Unit(glob) | Match::Cgroup(glob) => glob.matches(path),
            _ => false,
        })
    }

    /// The first of the agent's entries that names this user.
    #[must_use]
    pub fn why_user(&self, agent: AgentIndex, user: u32) -> Option<&Match> {
        let is_user = |item: &&Match| matches!(item, Match::User { uid, .. } if *uid == user);
        self.get(agent)?.matches.iter().find(is_user)
    }
}

/// Each agent must have a number of its own.
fn check_numbers(agents: &[AgentSpec]) -> Result<(), TableError> {
    if agents.len() > AGENTS as usize {
        return Err(TableError::TooMany(agents.len()));
    }
    let mut known: BTreeMap<u32, &str> = BTreeMap::new();
    for agent in agents {
        if let Some(other) = known.insert(agent_number(&agent.name), &agent.name) {
            return Err(TableError::SameNumber(other.to_owned(), agent.name.clone()));
        }
    }
    Ok(())
}

fn indexed(agents: &[AgentSpec]) -> impl Iterator<Item = (AgentIndex, &Match)> {
    (0..).zip(agents).flat_map(|(index, agent)| agent.matches.iter().map(move |item| (index, item)))
}
