//! The policy: its text, read from files into a tree whose every node knows its place; the policy that the
//! text means, with problems that point at the line; what it decides.

pub mod address;
mod agent;
mod canary;
mod checks;
pub mod compile;
mod diagnostic;
mod diff;
mod enforce;
mod evaluate;
mod globs;
mod implicit;
pub mod keys;
mod model;
mod nested;
mod past;
mod reader;
mod replay;
mod room;
mod schema;
mod scope;
mod source;
mod testing;
#[cfg(test)]
mod tests;
mod tree;
mod users;

pub use self::address::{Address, AddressPattern};
pub use self::agent::{AgentSpec, Match, Mode, Origin};
pub use self::canary::{CANARY, CANARY_ADDRESSES, CANARY_ARGUMENT, Canary};
pub use self::diagnostic::{Code, Diagnostic, Problems, Severity};
pub use self::diff::{Change, Changes, DecisionChange, Kind, Side, changes};
pub use self::enforce::enforceable;
pub use self::evaluate::{By, Decision, SCRATCH, SINKS, TERMINALS, verdict};
pub use self::implicit::{Own, Protected, Protection, exact, literal};
pub use self::model::{
    Action, Agent, At, Breaker, Case, Containment, Expect, Guard, GuardSetting, HARNESSES, MODE_UNDECLARED,
    Policy, Resource, Rule, Trigger, Window,
};
pub use self::nested::{Pairs, nested};
pub use self::past::{Now, PastOperation, PastTarget, operations_of};
pub use self::reader::{
    AGENTS_MAX, CASES_MAX, Context, PATTERNS_MAX, PROBLEMS_MAX, RESOURCES_MAX, RULE_PATTERNS_MAX, RULES_MAX,
    WINDOWS_MAX, load, policy_of, seconds,
};
pub use self::replay::{Difference, Replay, Summary};
pub use self::room::lacks_room;
pub use self::schema::SCHEMA;
pub use self::scope::{Entry, Hit, Operation, Patterns, Scope, Target, What};
pub use self::source::{FILE_BYTES_MAX, FILES_MAX, Place, Source, hash, read};
pub use self::testing::Outcome;
pub use self::tree::{DEPTH_MAX, NODES_MAX, Node, Value, parse};
pub use self::users::Users;
