//! Names of hosts that rules are about: followed from a thread of its own, and what they stand for now and stood for a
//! while ago.

mod answer;
mod ask;
mod config;
mod follow;
mod table;
#[cfg(test)]
mod told_tests;

pub use self::answer::{Answer, Outcome};
pub use self::config::{Hosts, Resolv};
pub use self::follow::{Files, Follower, Orders, Report};
pub use self::table::Table;

/// Seconds that an address goes on counting as a name's after it was last seen to be.
pub const GRACE_S: u64 = agentwatch_common::limits::NAME_GRACE_S;
/// Seconds between two questions for a name: however short its time to live, and however long.
pub const ASK_AGAIN_S: std::ops::RangeInclusive<u64> = 1..=120;
/// Names that are known at the same time at most. Past it further ones are not taken up, which is told.
pub const NAMES_MAX: usize = 8_192;
/// Addresses of one name at most: past it those seen longest ago are given up.
pub const ADDRESSES_MAX: usize = 512;
