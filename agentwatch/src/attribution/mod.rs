//! Who did it: sessions, their processes, and the events that carry both.
//!
//! A pure core. It takes records in the order of the ring and gives events; what it must ask the host
//! ([`HostFacts`]) it asks through a trait, so that a replay gives the same.

mod container;
mod describe;
mod exec;
mod file;
mod guard;
mod judged;
mod membership;
mod network;
mod process;
mod session;
mod state;
#[cfg(test)]
mod tests;
mod unseen;

pub use container::container_of;
pub use judged::{Judge, JudgeRule, Judges};
pub use process::{Process, ProcessSeen, Processes};
pub use session::{Beginning, Saved, Session, Sessions};
pub use state::{Attribution, Host, HostFacts};
