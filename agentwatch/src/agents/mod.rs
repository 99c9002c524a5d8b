//! Who is an agent: those that the policy names, then those that are known.

mod known;
mod policy;
mod spec;
mod table;
#[cfg(test)]
mod tests;
mod users;

pub use self::policy::{AGENTS_MAX, PATTERNS_MAX, agents_of, load};
pub use self::spec::{AgentSpec, Match, Mode, Origin};
pub use self::table::{AgentTable, TableError};
pub use self::users::Users;
