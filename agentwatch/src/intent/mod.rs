//! Intents: what was said that a session is about to do, held against what it does.
//!
//! An intent is somebody's word. Who gave it is what the kernel says of the caller, and never what its text says; what it
//! covers opens nothing that the policy refuses.

mod narrow;
mod plan;
mod scope;
mod store;

pub use self::narrow::narrower;
pub use self::plan::{PlanError, judge as judge_plan};
pub use self::scope::{ScopeError, Stated};
pub use self::store::{Declaration, DeclareError, Declared, EXPIRES_S, EXPIRES_S_MAX, IN_FORCE_MAX, Intents};

#[cfg(test)]
mod bound_tests;
#[cfg(test)]
mod tests;
