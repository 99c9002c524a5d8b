//! Sockets without a path as texts: abstract Unix sockets and vsock, and for bindings addresses of the Internet protocols.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use agentwatch_common::rules::{SOCKET_ABSTRACT, SOCKET_IPV4, SOCKET_IPV6, SOCKET_VSOCK};

use super::SOCKETS;
use crate::matcher::{ByteSet, Mark, Patterns, Piece};
use crate::policy::AddressPattern;
use crate::policy::address::{Address, AddressKind, HostPattern, Network, Unix};

/// The text that stands for a socket without a path, as the kernel makes it; none for other addresses.
#[must_use]
pub fn socket_text(address: &Address) -> Option<Vec<u8>> {
    match address {
        Address::Unix(Unix::Abstract(name)) => Some([&[SOCKET_ABSTRACT], name.as_slice()].concat()),
        Address::Vsock { cid, port } => {
            Some([&[SOCKET_VSOCK], cid.to_be_bytes().as_slice(), &port.to_be_bytes()].concat())
        }
        _ => None,
    }
}

/// Marks the sockets without a path that a pattern stands for.
pub(in super::super) fn insert(patterns: &mut Patterns, pattern: &AddressPattern, mark: Mark) {
    match pattern.kind() {
        AddressKind::UnixAbstract(glob) => {
            patterns.insert_command_after(SOCKETS, SOCKET_ABSTRACT, glob, mark)
        }
        AddressKind::Vsock { cid, ports } => {
            let mut head = vec![one(SOCKET_VSOCK..=SOCKET_VSOCK)];
            match cid {
                Some(cid) => head.extend(cid.to_be_bytes().map(|byte| one(byte..=byte))),
                None => head.extend([one(0..=u8::MAX); 4]),
            }
            for range in ports.ranges() {
                numbers(range, &mut |port| {
                    patterns.insert(SOCKETS, &[head.as_slice(), &port].concat(), mark)
                });
            }
        }
        AddressKind::Ip { .. } | AddressKind::UnixPath(_) => {}
    }
}

/// Marks the addresses of the Internet protocols that a pattern without a name stands for. Only bindings have them so: the
/// networks of a policy are too many.
pub(in super::super) fn insert_networks(patterns: &mut Patterns, pattern: &AddressPattern, mark: Mark) {
    let AddressKind::Ip { host, transport, ports } = pattern.kind() else { return };
    let transport = transport.map_or(one(0..=u8::MAX), |only| one(only as u8..=only as u8));
    for (family, address) in blocks(host) {
        let head = [&[one(family..=family), transport], address.as_slice()].concat();
        for range in ports.ranges() {
            numbers(range, &mut |port| {
                patterns.insert(SOCKETS, &[head.as_slice(), &port].concat(), mark);
            });
        }
    }
}

/// What the texts of a host's addresses begin with, and the bytes of these.
fn blocks(host: &HostPattern) -> Vec<(u8, Vec<Piece>)> {
    let any = |family, bytes| (family, vec![one(0..=u8::MAX); bytes]);
    match host {
        HostPattern::Any => vec![any(SOCKET_IPV4, 4), any(SOCKET_IPV6, 16)],
        HostPattern::Network(Network { address: IpAddr::V4(v4), bits }) => {
            vec![(SOCKET_IPV4, block(&v4.octets(), *bits))]
        }
        HostPattern::Network(Network { address: IpAddr::V6(v6), bits }) => {
            vec![(SOCKET_IPV6, block(&v6.octets(), *bits))]
        }
        HostPattern::Name(_) => Vec::new(),
    }
}

/// The bytes of addresses whose leading bits are those of this one.
fn block(address: &[u8], bits: u8) -> Vec<Piece> {
    let mut left = u32::from(bits);
    let piece = |byte: &u8| {
        let fixed = left.min(8);
        left -= fixed;
        let rest = u8::MAX.checked_shr(fixed).unwrap_or(0);
        one(byte & !rest..=byte | rest)
    };
    address.iter().map(piece).collect()
}

/// The numbers of a range, in network order, as at most nine sequences of ranges of bytes.
fn numbers(range: &RangeInclusive<u32>, take: &mut dyn FnMut([Piece; 4])) {
    let (first, last) = (range.start().to_be_bytes(), range.end().to_be_bytes());
    // Where the ends differ first.
    let Some(fork) = first.iter().zip(&last).position(|(a, b)| a != b) else {
        return take(first.map(|byte| one(byte..=byte)));
    };
    let piece = |at: usize, end: &[u8; 4], fork: usize, middle: RangeInclusive<u8>| match at.cmp(&fork) {
        std::cmp::Ordering::Less => end.get(at).map_or(one(0..=0), |byte| one(*byte..=*byte)),
        std::cmp::Ordering::Equal => one(middle),
        std::cmp::Ordering::Greater => one(0..=u8::MAX),
    };
    let all = |end: &[u8; 4], at: usize, middle: RangeInclusive<u8>| {
        [0, 1, 2, 3].map(|place| piece(place, end, at, middle.clone()))
    };
    let byte = |end: &[u8; 4], at: usize| end.get(at).copied().unwrap_or_default();
    take(first.map(|byte| one(byte..=byte)));
    take(last.map(|byte| one(byte..=byte)));
    for at in fork..4 {
        let (low, high) = (byte(&first, at), byte(&last, at));
        if at == fork {
            if high - low > 1 {
                take(all(&first, at, low + 1..=high - 1));
            }
            continue;
        }
        if low < u8::MAX {
            take(all(&first, at, low + 1..=u8::MAX));
        }
        if high > 0 {
            take(all(&last, at, 0..=high - 1));
        }
    }
}

/// A byte of a range.
fn one(range: RangeInclusive<u8>) -> Piece {
    let mut set = ByteSet::NONE;
    range.for_each(|byte| set.insert(byte));
    Piece::One(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_numbers_hold_their_numbers_and_no_other() {
        let ends = [
            0,
            1,
            2,
            254,
            255,
            256,
            257,
            1_023,
            1_024,
            65_535,
            65_536,
            0x00ff_ffff,
            0x0100_0000,
            0x7fff_ff00,
        ];
        let ends: Vec<u32> = ends.into_iter().flat_map(|end| [end, u32::MAX - end]).collect();
        for &first in &ends {
            for &last in ends.iter().filter(|last| **last >= first) {
                let mut found: Vec<[Piece; 4]> = Vec::new();
                numbers(&(first..=last), &mut |pieces| found.push(pieces));
                assert!(found.len() <= 9);
                let tried = ends.iter().flat_map(|end| [end.saturating_sub(1), *end, end.saturating_add(1)]);
                for number in tried {
                    let holds = found.iter().any(|pieces| {
                        pieces.iter().zip(number.to_be_bytes()).all(|(piece, byte)| match piece {
                            Piece::One(set) => set.contains(byte),
                            Piece::Many(_) => false,
                        })
                    });
                    assert_eq!(holds, (first..=last).contains(&number), "{number} in {first}..={last}");
                }
            }
        }
    }
}
