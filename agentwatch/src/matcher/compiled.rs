//! The automaton as the kernel walks it, and the same walk in user space.

use agentwatch_common::limits::{AUTOMATON_ENTRIES, AUTOMATON_STATES, MATCH_PATH_BYTES};

use super::marked::Patterns;
use super::{AgentIndex, CgroupGlob, CommandGlob, Mark, PathGlob, ScriptGlob};

/// States before the smallest automaton is looked for. Past it the patterns are refused.
const STATES_MAX: usize = 1 << 16;

/// A pattern, with the kind of text that it is held against.
#[derive(Clone, Copy, Debug)]
pub enum Pattern<'a> {
    /// Against the path of the program that really runs.
    Program(&'a PathGlob),
    /// Against the command line: see [`super::command_text`].
    Command(&'a CommandGlob),
    /// Against the command line.
    Script(&'a ScriptGlob),
    /// Against the path of a cgroup.
    Cgroup(&'a CgroupGlob),
}

/// Why patterns cannot be compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// They do not fit the kernel's table.
    #[error(
        "these patterns need more than the {AUTOMATON_STATES} states that the kernel's table of patterns has: \
         use fewer patterns, and fewer `*` in the middle of one"
    )]
    TooManyStates,
    /// They do not fit the kernel's table.
    #[error(
        "these patterns need {entries} entries of the {AUTOMATON_ENTRIES} that the kernel's table of patterns has: \
         use fewer patterns, and fewer `*` in the middle of one"
    )]
    TooManyEntries {
        /// States times byte classes.
        entries: usize,
    },
}

/// The patterns of all agents as one automaton, in the form in which the kernel has it.
///
/// State 0 is dead: nothing matches whatever follows, and the kernel stops reading. Where several agents
/// match, the lowest index is the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledMatcher {
    /// `table[state * class_count + classes[byte]]` is the next state. At most `AUTOMATON_ENTRIES`.
    pub table: Vec<u32>,
    /// The class of each byte: less than `class_count`.
    pub classes: [u8; 256],
    /// Number of classes, 1 to 256: the stride of `table`.
    pub class_count: u32,
    /// For each state the index of the agent that matches where the text ends there, plus one, or 0. At most
    /// `AUTOMATON_STATES`.
    pub accept: Vec<u32>,
    /// Start state over programs' paths as components, deepest first, each followed by a NUL byte; 0 where
    /// nothing can match.
    pub start_program: u32,
    /// Start state over command lines; 0 where nothing can match.
    pub start_command: u32,
    /// Start state over cgroups' paths; 0 where nothing can match.
    pub start_cgroup: u32,
}

impl CompiledMatcher {
    /// Compiles patterns, each with its agent's index (less than `u32::MAX`).
    ///
    /// # Errors
    /// When they do not fit the kernel's table.
    pub fn compile<'a>(
        patterns: impl IntoIterator<Item = (AgentIndex, Pattern<'a>)>,
    ) -> Result<Self, CompileError> {
        let mut all = Patterns::new(3);
        for (agent, pattern) in patterns {
            let mark = Mark { class: 0, rank: agent };
            match pattern {
                Pattern::Program(glob) => glob.reversed().for_each(|pieces| all.insert(0, &pieces, mark)),
                Pattern::Command(glob) => glob.sequences().for_each(|pieces| all.insert(1, pieces, mark)),
                Pattern::Script(glob) => all.insert_script(1, glob, mark),
                Pattern::Cgroup(glob) => glob.forward().for_each(|pieces| all.insert(2, &pieces, mark)),
            }
        }
        let built = all.build(STATES_MAX).map_err(|_| CompileError::TooManyStates)?;
        let agents: Vec<u32> = built.sets().map(|set| set.first().map_or(0, |mark| mark.rank + 1)).collect();
        let automaton = built.smallest(&agents);
        if automaton.states() > AUTOMATON_STATES as usize {
            return Err(CompileError::TooManyStates);
        }
        let entries = automaton.states() * automaton.class_count() as usize;
        if entries > AUTOMATON_ENTRIES as usize {
            return Err(CompileError::TooManyEntries { entries });
        }
        let start = |index: usize| automaton.starts().get(index).copied().unwrap_or(0);
        Ok(Self {
            classes: automaton.class,
            class_count: automaton.class_count(),
            start_program: start(0),
            start_command: start(1),
            start_cgroup: start(2),
            table: automaton.table(),
            accept: automaton.accept().to_vec(),
        })
    }

    /// The agent whose patterns cover this absolute path of a program. Like the kernel, looks at
    /// `MATCH_PATH_BYTES` bytes of its components, deepest first.
    #[must_use]
    pub fn run_program(&self, path: &[u8]) -> Option<AgentIndex> {
        let components = path.rsplit(|&byte| byte == b'/').filter(|component| !component.is_empty());
        let bytes = components.flat_map(|component| component.iter().chain(&[0]));
        self.run(self.start_program, bytes.take(MATCH_PATH_BYTES as usize))
    }

    /// The agent whose patterns cover this command line, as [`super::command_text`] makes it.
    #[must_use]
    pub fn run_command(&self, command: &[u8]) -> Option<AgentIndex> {
        self.run(self.start_command, command.iter())
    }

    /// The agent whose patterns cover this cgroup's path, or one above it. Like the kernel, looks at less
    /// than `MATCH_PATH_BYTES` bytes.
    #[must_use]
    pub fn run_cgroup(&self, path: &[u8]) -> Option<AgentIndex> {
        self.run(self.start_cgroup, path.iter().take(MATCH_PATH_BYTES as usize - 1))
    }

    fn run<'a>(&self, start: u32, bytes: impl Iterator<Item = &'a u8>) -> Option<AgentIndex> {
        let mut state = start;
        for &byte in bytes {
            if state == 0 {
                return None;
            }
            let class = self.classes.get(usize::from(byte)).copied().unwrap_or(0);
            let entry = state as usize * self.class_count as usize + usize::from(class);
            state = self.table.get(entry).copied().unwrap_or(0);
        }
        self.accept.get(state as usize)?.checked_sub(1)
    }
}
