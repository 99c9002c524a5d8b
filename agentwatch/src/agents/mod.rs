//! Who is an agent: those that the policy names, then those that are known.

mod known;
mod table;
#[cfg(test)]
mod tests;

pub use self::table::{AgentTable, TableError};
pub use crate::policy::{AgentSpec, Match, Mode, Origin, Users};
