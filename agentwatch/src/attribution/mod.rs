//! Who did it: sessions, their processes, and the events that carry both.
//!
//! A pure core. It takes records in the order of the ring and gives events; what it must ask the host
//! ([`HostFacts`]) it asks through a trait, so that a replay gives the same.

mod cause;
mod container;
mod describe;
mod exec;
mod file;
mod guard;
mod judged;
mod kept;
mod membership;
mod network;
mod process;
mod session;
mod state;
#[cfg(test)]
mod tests;
mod unseen;

use std::collections::HashMap;

/// What is known by a number that the kernel gave. Every event looks several of them up: the usual hash, which nobody
/// can make collide, costs more than all the rest of a look-up, and the kernel's numbers are nobody's to choose.
pub(crate) type ByNumber<N, T> = HashMap<N, T, foldhash::fast::RandomState>;

pub use container::container_of;
pub use describe::{known_process, name_session};
pub use judged::{Judge, JudgeRule, Judges};
pub use process::{Process, ProcessSeen, Processes};
pub use session::{Beginning, Saved, Session, Sessions, session_id};
pub use state::{Attribution, Host, HostFacts};
