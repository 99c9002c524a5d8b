//! What the policy says of an address of the Internet protocols.

use agentwatch_common::rules::{
    self, Choice, NET_ANY_HOST, NetRange, NetRow, PREFIX_FIXED_BITS, PrefixKey, TRANSPORTS, op,
};
use aya_ebpf::maps::lpm_trie::Key;

use crate::{
    judge::{Court, Judgement, Ops, Windows, bit},
    kernel::repeat,
    known::KnownPlace,
    maps::{NET_DEFAULTS, NET_RANGES, NET_ROWS, NET_VIEWS, PREFIXES},
    record::Record,
};

/// Longest binary search: in as many ranges as there can be.
const SEARCH_STEPS: u32 = rules::NET_RANGES.ilog2() + 1;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;
const IPPROTO_UDPLITE: u16 = 136;
const IPPROTO_MPTCP: u16 = 262;

/// An address and how it is reached.
pub struct Endpoint {
    /// 4 or 6.
    pub family: u8,
    /// In network order; of IPv4 the first four bytes.
    pub address: [u8; 16],
    /// In host order.
    pub port: u16,
    /// `IPPROTO_*`.
    pub protocol: u16,
}

impl Endpoint {
    /// The address that is really reached: IPv4 where it is mapped into IPv6, and the loopback address where a
    /// connection goes to none.
    #[inline(always)]
    pub fn canonical(&self, connects: bool) -> PrefixKey {
        let mut key = PrefixKey { slot: 0, family: self.family, pad: [0; 2], address: self.address };
        let words = words_of(&self.address);
        if self.family == 6 && words[0] == 0 && words[1] == 0 && words[2] == u32::to_be(0xffff) {
            key.family = 4;
            key.address = bytes_of([words[3], 0, 0, 0]);
        }
        let words = words_of(&key.address);
        if connects && words == [0; 4] {
            key.address = if key.family == 4 {
                bytes_of([u32::to_be(0x7f00_0001), 0, 0, 0])
            } else {
                bytes_of([0, 0, 0, u32::to_be(1)])
            };
        }
        key
    }

    /// The number of its transport in the tables.
    #[inline(always)]
    pub fn transport(&self) -> u32 {
        match self.protocol {
            IPPROTO_TCP | IPPROTO_MPTCP => 0,
            IPPROTO_UDP | IPPROTO_UDPLITE => 1,
            _ => 2,
        }
    }
}

#[inline(always)]
fn words_of(bytes: &[u8; 16]) -> [u32; 4] {
    // SAFETY: the same size, and every bit pattern is a value of both.
    unsafe { core::mem::transmute::<[u8; 16], [u32; 4]>(*bytes) }
}

#[inline(always)]
fn bytes_of(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: as above.
    unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) }
}

impl Court {
    /// Judges an attempt to reach an address, or to be reached at it (`ops` is one of the two).
    #[inline(never)]
    pub fn on_endpoint(&self, record: &Record, endpoint: &Endpoint, ops: Ops) -> Judgement {
        let listens = u32::from(ops == bit(op::LISTEN));
        let mut key = endpoint.canonical(listens == 0);
        key.slot = self.slot() as u8;
        let bits = PREFIX_FIXED_BITS + if key.family == 4 { 32 } else { 128 };
        let place = Place::new(self, endpoint, listens);
        let mut windows = Windows::new(self.slot());
        let here = match PREFIXES.get(Key::new(bits, key)) {
            Some(set) => place.look(record, *set, &mut windows),
            None => NOTHING,
        };
        let anywhere = place.look(record, NET_ANY_HOST, &mut windows);
        // Of equally strict rules the one that comes first in the policy is named.
        let other =
            anywhere.verdict > here.verdict || anywhere.verdict == here.verdict && anywhere.rule < here.rule;
        let found = if other { anywhere } else { here };
        if found.verdict != 0 {
            return self.judgement(found.rule, found.verdict);
        }
        let index = (self.slot() * rules::NET_VIEWS + self.view_number()) * 2 + listens;
        let default = NET_DEFAULTS.get(index).copied().unwrap_or(NOTHING);
        self.judgement(default.rule, default.verdict)
    }
}

const NOTHING: Choice = Choice { rule: 0, verdict: 0, window: 0 };

/// Where in the tables an attempt is looked for.
pub struct Place {
    /// Which half of the tables.
    pub slot: u32,
    view: u32,
    views: u32,
    column: u32,
    port: u16,
}

/// A search in a sorted list of ranges. Its bounds lie in the buffer, where the verifier does not follow them.
struct Search {
    known: KnownPlace,
    first: u32,
    port: u16,
}

impl Place {
    /// Where an attempt to reach an address is looked for, or (1) to be reached at it.
    #[inline(always)]
    pub fn new(court: &Court, endpoint: &Endpoint, listens: u32) -> Self {
        let slot = court.slot();
        Self {
            slot,
            view: court.view_number(),
            views: NET_VIEWS.get(slot).copied().unwrap_or(0),
            column: listens * TRANSPORTS + endpoint.transport(),
            port: endpoint.port,
        }
    }

    /// Where nothing is found: nobody's rules are looked for.
    #[inline(always)]
    pub fn of_nobody(slot: u32) -> Self {
        Self { slot, view: rules::NET_ROWS, views: 0, column: 0, port: 0 }
    }

    /// Whether a set of networks has rules, for whatever port and transport.
    #[inline(always)]
    pub fn has_rules(&self, set: u32) -> bool {
        (0..TRANSPORTS).any(|transport| self.row(set, transport).is_some())
    }

    /// The ranges of ports of a set of networks, where it has rules.
    #[inline(always)]
    fn row(&self, set: u32, column: u32) -> Option<NetRow> {
        let row = (set.wrapping_mul(self.views).wrapping_add(self.view))
            .wrapping_mul(2 * TRANSPORTS)
            .wrapping_add(column);
        if row >= rules::NET_ROWS {
            return None;
        }
        NET_ROWS.get(self.slot * rules::NET_ROWS + row).copied().filter(|row| row.count != 0)
    }

    /// What a set of networks says; nothing where it has no rule.
    #[inline(always)]
    pub fn look(&self, record: &Record, set: u32, windows: &mut Windows) -> Choice {
        let Some(row) = self.row(set, self.column) else { return NOTHING };
        let known = record.known();
        known.set(0, row.count);
        let first = self.slot * rules::NET_RANGES + row.first;
        repeat(SEARCH_STEPS, halve, &mut Search { known, first, port: self.port });
        match NET_RANGES.get(first.wrapping_add(known.hash() as u32)) {
            Some(range) => windows.choose(&range.decision),
            None => NOTHING,
        }
    }
}

/// One step: the first range whose last port is not below the port lies from `hash` up to `state`.
#[inline(never)]
extern "C" fn halve(_index: u32, search: &mut Search) -> i64 {
    let (low, high) = (search.known.hash() as u32, search.known.state());
    if low >= high {
        return 1;
    }
    let middle = low.wrapping_add(high.wrapping_sub(low) / 2);
    let Some(range) = NET_RANGES.get(search.first.wrapping_add(middle)) else { return 1 };
    let range: &NetRange = range;
    if range.last < search.port {
        search.known.set(u64::from(middle) + 1, high);
    } else {
        search.known.set(u64::from(low), middle);
    }
    0
}
