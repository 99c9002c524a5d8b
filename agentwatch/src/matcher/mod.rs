//! Which agent a program, a command line or a cgroup belongs to.
//!
//! Patterns of all agents become one deterministic automaton over bytes ([`CompiledMatcher`]): the kernel
//! walks its table at every exec and at every new cgroup. The patterns themselves can also be asked one by
//! one ([`PathGlob::matches`] …), which is slow and plain: it names the pattern that matched, and is what
//! the table is tested against.

mod alias;
mod classes;
mod compiled;
mod cover;
mod glob;
mod lowest;
mod marked;
mod minimise;
mod nfa;
mod path;
mod rows;
mod set;
mod slices;
mod sparse;
mod subsets;
#[cfg(test)]
mod tests;
mod token;

pub use self::alias::{Alias, Follow};
pub use self::compiled::{CompileError, CompiledMatcher, Pattern};
pub(crate) use self::glob::matches as matches_pieces;
pub use self::glob::{CgroupGlob, CommandGlob, PathGlob, Piece, ScriptGlob};
pub use self::marked::{Built, DeterministicAutomaton, Patterns};
pub use self::set::ByteSet;
pub use self::sparse::{SparseAutomaton, SparseState, SparseStep};
pub use self::subsets::TooManyStates;
pub use self::token::{EXPANSIONS_MAX, GlobError, PATTERN_BYTES_MAX, Problem};

use agentwatch_common::limits::MATCH_COMMAND_BYTES;

/// Index of an agent in the [`crate::agents::AgentTable`]: the lower one wins where several match.
pub type AgentIndex = u32;

/// What a pattern stands for. Of the marks of one class that match, only the one of the lowest rank counts: the
/// fewer classes, the smaller the automaton.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// The class.
    pub class: u32,
    /// The rank in it.
    pub rank: u32,
}

/// The command line that `run` patterns see: the base name of the program that really runs, then each
/// argument after the first, with a single space before it.
///
/// Cut as in the kernel, which reads the first `MATCH_COMMAND_BYTES` bytes of the arguments, the first one
/// and a NUL after each included.
#[must_use]
pub fn command_text<'a>(program: &[u8], arguments: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut arguments = arguments.into_iter();
    let mut text = program.rsplit(|&byte| byte == b'/').next().unwrap_or_default().to_vec();
    let first = arguments.next().map_or(0, <[u8]>::len);
    let limit = (text.len() + MATCH_COMMAND_BYTES as usize).saturating_sub(first + 1).max(text.len());
    for argument in arguments {
        if text.len() >= limit {
            break;
        }
        text.push(b' ');
        text.extend_from_slice(argument);
    }
    text.truncate(limit);
    text
}
