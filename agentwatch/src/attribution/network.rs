//! What was done to the network, in the words of the event.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agentwatch_common::kind::RecordKind;

use super::{file::locate, process::Text};
use crate::places::Mounts;
use crate::{
    decode::NetAct,
    event::{Kind, Network, ObservedText, Op},
};

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const AF_VSOCK: u16 = 40;

/// Kind and operation of a record on the network.
#[must_use]
pub fn kind_of(kind: RecordKind) -> Option<(Kind, Option<Op>)> {
    Some(match kind {
        RecordKind::NetConnect => (Kind::NetConnect, Some(Op::Connect)),
        RecordKind::NetSend => (Kind::NetSend, Some(Op::Connect)),
        RecordKind::NetBind => (Kind::NetBind, Some(Op::Listen)),
        RecordKind::NetListen => (Kind::NetListen, Some(Op::Listen)),
        RecordKind::NetReceive => (Kind::NetReceive, Some(Op::Connect)),
        RecordKind::NetAccept => (Kind::NetAccept, None),
        _ => return None,
    })
}

/// An address and a port.
#[derive(Debug, Default)]
struct Address {
    text: Option<Text>,
    port: Option<u32>,
}

/// The network of an event. `cwd` makes a relative name of a Unix socket that is bound absolute.
#[must_use]
pub fn network_of(kind: RecordKind, act: &NetAct<'_>, cwd: &ObservedText, mounts: &Mounts) -> Network {
    let given = address_of(act, cwd, mounts);
    let known = local_of(act);
    // An accepted Unix socket has the name of the one that listens; its peer seldom has any.
    let is_local = matches!(kind, RecordKind::NetBind | RecordKind::NetListen)
        || (kind == RecordKind::NetAccept && act.family == AF_UNIX);
    let (peer, local) = if is_local { (Address::default(), given) } else { (given, known) };
    let text = |address: &Address| address.text.as_ref().map(|text| text.text.clone());
    let encoding = |address: &Address| address.text.as_ref().and_then(|text| text.encoding);
    Network {
        transport: transport_of(act),
        family: family_of(act.family),
        peer_address: text(&peer),
        peer_address_encoding: encoding(&peer),
        peer_port: peer.port,
        peer_name: None,
        local_address: text(&local),
        local_address_encoding: encoding(&local),
        local_port: local.port,
    }
}

/// The peer's address, where it is one of the Internet protocols.
#[must_use]
pub fn peer_of(network: &Network) -> Option<IpAddr> {
    let peer = network.peer_address.as_ref().filter(|_| network.family.starts_with("ipv"))?;
    peer.0.parse().ok()
}

/// The address that the record carries, read by its own family, which can differ from the socket's.
fn address_of(act: &NetAct<'_>, cwd: &ObservedText, mounts: &Mounts) -> Address {
    let bytes = |from: usize, to: usize| act.address.get(from..to);
    let port =
        || bytes(2, 4).and_then(|port| port.try_into().ok()).map(|port| u32::from(u16::from_be_bytes(port)));
    let Some(family) = bytes(0, 2).and_then(|family| family.try_into().ok()).map(u16::from_le_bytes) else {
        return Address::default();
    };
    // The kernel takes an address of no family for one of the socket's.
    match if family == 0 { act.family } else { family } {
        AF_INET => Address { text: bytes(4, 8).and_then(ipv4).map(plain), port: port() },
        AF_INET6 => Address { text: bytes(8, 24).and_then(ipv6).map(plain), port: port() },
        AF_UNIX => Address { text: unix_name(act, cwd, mounts), port: None },
        AF_VSOCK => vsock(act.address),
        _ => Address::default(),
    }
}

/// `struct sockaddr_vm { family, reserved, port, cid }`.
fn vsock(address: &[u8]) -> Address {
    let word =
        |at: usize| address.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
    Address { text: word(8).map(|cid| plain(cid.to_string())), port: word(4) }
}

/// Path of a Unix socket's file where the kernel found it, `@name` of an abstract one, or the name as given.
fn unix_name(act: &NetAct<'_>, cwd: &ObservedText, mounts: &Mounts) -> Option<Text> {
    if !act.path.bytes.is_empty() {
        return Some(Text::from_vec(locate(&act.path, &act.path_fs, mounts).path));
    }
    let name = act.address.get(2..)?;
    match name.split_first() {
        None => None,
        Some((0, rest)) => Some(Text::from_vec([b"@", rest].concat())),
        Some(_) => {
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            let relative = !name.starts_with(b"/") && !cwd.0.is_empty();
            Some(if relative {
                Text::from_vec([cwd.0.as_bytes(), b"/", name].concat())
            } else {
                Text::of(name)
            })
        }
    }
}

/// The local end of an IP socket, where the kernel told it.
fn local_of(act: &NetAct<'_>) -> Address {
    if act.local_port == 0 {
        return Address::default();
    }
    let text = match act.family {
        AF_INET => act.local_addr.get(..4).and_then(ipv4),
        AF_INET6 => ipv6(&act.local_addr),
        _ => None,
    };
    Address { text: text.map(plain), port: Some(u32::from(act.local_port)) }
}

fn plain(text: String) -> Text {
    Text { text: ObservedText(text), encoding: None }
}

fn ipv4(bytes: &[u8]) -> Option<String> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string())
}

/// An IPv6 address; the mapped form of an IPv4 address is given as that: rules and people mean the same by both.
fn ipv6(bytes: &[u8]) -> Option<String> {
    let address = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?);
    Some(address.to_ipv4_mapped().map_or_else(|| address.to_string(), |mapped| mapped.to_string()))
}

fn family_of(family: u16) -> String {
    match family {
        AF_UNIX => "unix".into(),
        AF_INET => "ipv4".into(),
        AF_INET6 => "ipv6".into(),
        AF_VSOCK => "vsock".into(),
        other => format!("family-{other}"),
    }
}

fn transport_of(act: &NetAct<'_>) -> String {
    const SOCK_STREAM: u16 = 1;
    const SOCK_RAW: u16 = 3;
    match (act.family, act.socket_type, act.protocol) {
        (AF_UNIX, ..) => "unix".into(),
        (AF_VSOCK, ..) => "vsock".into(),
        (AF_INET | AF_INET6, SOCK_RAW, _) => "raw".into(),
        // MPTCP is TCP to everybody but the kernel.
        (AF_INET | AF_INET6, _, 6 | 262) => "tcp".into(),
        (AF_INET | AF_INET6, _, 17) => "udp".into(),
        (AF_INET | AF_INET6, _, 132) => "sctp".into(),
        (AF_INET | AF_INET6, SOCK_STREAM, 0) => "tcp".into(),
        (_, _, protocol) => format!("protocol-{protocol}"),
    }
}
