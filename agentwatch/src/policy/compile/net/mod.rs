//! Addresses of the Internet protocols as tables: prefixes in tries, ports in sorted ranges.
//!
//! An address is looked up once, in the trie of its family, which finds the longest prefix alone. Its set
//! therefore holds what all enclosing prefixes say, too. Patterns for any host (`*:22`) are in the set
//! [`ANY_HOST`], which is looked at for every address: otherwise each of them would be in each set.

mod build;
mod learn;
mod names;
mod patterns;
mod ranges;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use agentwatch_common::rules::{CHOICES, Choice, RULE_NONE, Verdict, WindowTime};

pub use self::build::{NetRules, compile};
pub use self::learn::is_learned;
pub use self::names::{NAMED_ADDRESSES_MAX, NameChanges};
use super::{TooManyChoices, ViewsError};
use crate::event::Op;
use crate::policy::address::{Transport, canonical};

/// Prefixes of one family: six times the networks that a policy is promised room for, since names that are
/// followed add their addresses.
pub const PREFIXES_MAX: usize = 65_536;
/// Rows (sets times views times operations times transports): 4 MiB.
pub const ROWS_MAX: usize = 1 << 20;
/// Ranges of ports in all lists: 5 MiB.
pub const RANGES_MAX: usize = 1 << 18;
/// The set of the patterns for any host.
pub const ANY_HOST: u32 = 0;
/// The list of ports in which no rule is.
pub const NO_LIST: u32 = 0;

/// Names of hosts with the addresses that they are known to stand for.
pub type KnownNames = BTreeMap<String, Vec<IpAddr>>;

/// Why addresses cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// Too many networks.
    #[error(
        "the policy has {found} networks with the addresses of its names, and can have {PREFIXES_MAX}: merge some"
    )]
    TooManyPrefixes {
        /// How many.
        found: usize,
    },
    /// Too many different sets for too many groups of agents.
    #[error(
        "the networks of the policy fall into {sets} sets for {views} groups of agents, which is more than the \
         kernel's tables hold: give networks the same rules, or fewer groups in `agents:`"
    )]
    TooManyRows {
        /// Sets of patterns.
        sets: usize,
        /// Groups of agents.
        views: usize,
    },
    /// Too many ranges of ports.
    #[error("the rules tell more than {RANGES_MAX} ranges of ports apart: merge some")]
    TooManyRanges,
    /// Too many windows on one address.
    #[error(transparent)]
    Choices(#[from] TooManyChoices),
    /// Too many groups of agents.
    #[error(transparent)]
    Views(#[from] ViewsError),
}

/// An entry of the trie for IPv4.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix4 {
    /// Leading bits that count: at most 32.
    pub bits: u32,
    /// The address in network order.
    pub address: [u8; 4],
    /// Number of the set.
    pub set: u32,
}

/// An entry of the trie for IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix6 {
    /// Leading bits that count: at most 128.
    pub bits: u32,
    /// The address in network order.
    pub address: [u8; 16],
    /// Number of the set.
    pub set: u32,
}

/// A list of ranges of ports.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortList {
    /// Index of its first range in [`NetTables::ranges`].
    pub first: u32,
    /// Number of its ranges; 0 in [`NO_LIST`] alone. The last one reaches to port 65535.
    pub count: u32,
}

/// The ports after those of the range before, up to and with `last`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortRange {
    /// The last port.
    pub last: u16,
    /// Padding, zero.
    pub pad: u16,
    /// The choices, the strictest first; an empty one ends them.
    pub choices: [Choice; CHOICES],
}

const _: () = {
    assert!(size_of::<Prefix4>() == 12 && size_of::<Prefix6>() == 24);
    assert!(size_of::<PortList>() == 8 && size_of::<PortRange>() == 20);
};

/// The tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetTables {
    /// Trie for IPv4. At most [`PREFIXES_MAX`].
    pub v4: Vec<Prefix4>,
    /// Trie for IPv6. At most [`PREFIXES_MAX`].
    pub v6: Vec<Prefix6>,
    /// Numbers of lists: see [`row`]. At most [`ROWS_MAX`].
    pub rows: Vec<u32>,
    /// Lists of ranges of ports; the first is [`NO_LIST`].
    pub lists: Vec<PortList>,
    /// Ranges of ports of all lists. At most [`RANGES_MAX`].
    pub ranges: Vec<PortRange>,
    /// What is decided where no rule matches: at `view * 2 + operation`.
    pub defaults: Vec<Choice>,
    /// Windows, by their number less one.
    pub windows: Vec<WindowTime>,
    /// Number of views.
    pub views: u32,
}

/// Index in [`NetTables::rows`] of a set, a view, an operation (0 for connect, 1 for listen) and a transport
/// (its place in [`Transport::ALL`]), where there are so many views.
#[must_use]
pub fn row(views: u32, set: u32, view: u16, op: u32, transport: u32) -> usize {
    ((set as usize * views as usize + usize::from(view)) * 2 + op as usize) * Transport::ALL.len()
        + transport as usize
}

/// Number of an operation in the rows.
fn op_number(op: Op) -> u32 {
    u32::from(op == Op::Listen)
}

/// Number of a transport in the rows.
fn transport_number(transport: Transport) -> u32 {
    match transport {
        Transport::Tcp => 0,
        Transport::Udp => 1,
        Transport::Other => 2,
    }
}

/// An attempt, as the kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The agent's view.
    pub view: u16,
    /// [`Op::Connect`] or [`Op::Listen`].
    pub op: Op,
    /// By what.
    pub transport: Transport,
    /// The host.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
    /// When: nanoseconds since 1970.
    pub when_ns: u64,
}

impl NetTables {
    /// What is decided, by the tables alone and as the kernel does it. Without rule and default: allowed, by
    /// [`RULE_NONE`].
    #[must_use]
    pub fn decide(&self, attempt: Attempt) -> Choice {
        let here = self.set_of(canonical(attempt.op, attempt.ip)).and_then(|set| self.look(set, attempt));
        let anywhere = self.look(ANY_HOST, attempt);
        let index = usize::from(attempt.view) * 2 + op_number(attempt.op) as usize;
        let default = self.defaults.get(index).copied().filter(|choice| choice.verdict != 0);
        let nothing = Choice { rule: RULE_NONE, verdict: Verdict::Allowed.raw(), window: 0 };
        match (here, anywhere) {
            // The stricter decides; of equally strict rules the one that comes first in the policy.
            (Some(one), Some(two)) if (two.verdict, one.rule) > (one.verdict, two.rule) => two,
            (Some(one), _) | (None, Some(one)) => one,
            (None, None) => default.unwrap_or(nothing),
        }
    }

    /// The set of the longest prefix that holds the address.
    fn set_of(&self, ip: IpAddr) -> Option<u32> {
        let holds = |bits: u32, own: u128, width: u32, address: u128| {
            bits == 0 || (own ^ address) >> (width - bits.min(width)) == 0
        };
        match ip {
            IpAddr::V4(v4) => {
                let address = u128::from(v4.to_bits());
                let entry =
                    |one: &&Prefix4| holds(one.bits, u32::from_be_bytes(one.address).into(), 32, address);
                self.v4.iter().filter(entry).max_by_key(|one| one.bits).map(|one| one.set)
            }
            IpAddr::V6(v6) => {
                let address = v6.to_bits();
                let entry = |one: &&Prefix6| holds(one.bits, u128::from_be_bytes(one.address), 128, address);
                self.v6.iter().filter(entry).max_by_key(|one| one.bits).map(|one| one.set)
            }
        }
    }

    /// The first choice of a set whose window is open.
    fn look(&self, set: u32, attempt: Attempt) -> Option<Choice> {
        let (op, transport) = (op_number(attempt.op), transport_number(attempt.transport));
        let list = *self.rows.get(row(self.views, set, attempt.view, op, transport))?;
        let list = self.lists.get(list as usize)?;
        let first = list.first as usize;
        let ranges = self.ranges.get(first..first + list.count as usize)?;
        let range = ranges.get(ranges.partition_point(|range| range.last < attempt.port))?;
        let choices = range.choices.iter().take_while(|choice| choice.verdict != 0);
        choices.copied().find(|choice| self.is_open(choice.window, attempt.when_ns))
    }

    fn is_open(&self, window: u8, when_ns: u64) -> bool {
        match usize::from(window).checked_sub(1) {
            None => true,
            Some(index) => {
                self.windows.get(index).is_some_and(|one| (one.from_ns..one.to_ns).contains(&when_ns))
            }
        }
    }
}
