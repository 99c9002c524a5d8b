//! Addresses: the patterns that a policy has for them, and those that a process reaches for.

mod parse;
mod ports;
mod target;

pub use self::parse::AddressError;
pub use self::ports::Ports;
pub use self::target::{Address, Unix, canonical};

use std::fmt;
use std::net::IpAddr;

use crate::matcher::{CommandGlob, PathGlob};

/// How an address of the Internet protocols is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// TCP, with MPTCP.
    Tcp,
    /// UDP, with UDP-Lite.
    Udp,
    /// Anything else: SCTP, DCCP, raw IP. Only patterns without a transport cover it.
    Other,
}

impl Transport {
    /// All, in the order of their numbers in the compiled tables.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Other];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Other => "other",
        }
    }
}

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network {
    /// The first address; the bits beyond `bits` are zero. Never an IPv4-mapped one.
    pub address: IpAddr,
    /// Leading bits that count: at most 32 for IPv4, 128 for IPv6.
    pub bits: u8,
}

impl Network {
    /// The block of this address. IPv4-mapped blocks become IPv4 ones.
    #[must_use]
    pub fn new(address: IpAddr, bits: u8) -> Self {
        match address {
            IpAddr::V6(v6) if bits >= 96 && v6.to_ipv4_mapped().is_some() => {
                Self::new(address.to_canonical(), bits - 96)
            }
            IpAddr::V4(v4) => {
                let bits = bits.min(32);
                Self { address: IpAddr::V4((v4.to_bits() & mask(bits, 32) as u32).into()), bits }
            }
            IpAddr::V6(v6) => {
                let bits = bits.min(128);
                Self { address: IpAddr::V6((v6.to_bits() & mask(bits, 128)).into()), bits }
            }
        }
    }

    /// Whether this address, in its canonical form, is in the block.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && Self::new(address, self.bits) == *self
    }

    /// Whether the other block is in this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.bits <= other.bits && self.contains(other.address)
    }
}

/// The leading `bits` of `width` set.
fn mask(bits: u8, width: u32) -> u128 {
    let all = if width == 128 { u128::MAX } else { (1 << width) - 1 };
    let zeros = width - u32::from(bits);
    all & all.checked_shl(zeros).unwrap_or(0)
}

/// A name of the domain name system.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DnsName {
    /// In lower case, without a dot at the end.
    pub name: String,
    /// All names below it, at any depth, and not itself: `*.example.com`.
    pub below: bool,
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "*." } else { "" }, self.name)
    }
}

impl DnsName {
    /// Whether this name, in any case, with or without a dot at the end, is covered.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if !self.below {
            return name == self.name;
        }
        name.strip_suffix(&self.name)
            .and_then(|head| head.strip_suffix('.'))
            .is_some_and(|rest| !rest.is_empty())
    }

    fn covers(&self, other: &Self) -> bool {
        match (self.below, other.below) {
            (false, true) => false,
            (true, true) if self.name == other.name => true,
            _ => self.matches(&other.name),
        }
    }
}

/// Which host of the Internet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Any address.
    Any,
    /// A block of addresses.
    Network(Network),
    /// Whatever this name stands for.
    Name(DnsName),
}

impl HostPattern {
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Network(one), Self::Network(two)) => one.covers(two),
            (Self::Name(one), Self::Name(two)) => one.covers(two),
            _ => false,
        }
    }
}

/// What a pattern for addresses stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// Addresses of the Internet protocols.
    Ip {
        /// Which hosts.
        host: HostPattern,
        /// Only this transport.
        transport: Option<Transport>,
        /// Which ports: at most 65535.
        ports: Ports,
    },
    /// Unix sockets by the path of the socket that is reached.
    UnixPath(PathGlob),
    /// Abstract Unix sockets by their name, without the `@`; `*` stands for anything.
    UnixAbstract(CommandGlob),
    /// Sockets between virtual machines.
    Vsock {
        /// Which machine; any without.
        cid: Option<u32>,
        /// Which ports.
        ports: Ports,
    },
}

/// A pattern for addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPattern {
    text: String,
    kind: AddressKind,
}

impl AddressPattern {
    /// Unix sockets with these paths.
    #[must_use]
    pub fn of_paths(glob: PathGlob) -> Self {
        Self { text: glob.text().to_owned(), kind: AddressKind::UnixPath(glob) }
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it stands for.
    #[must_use]
    pub fn kind(&self) -> &AddressKind {
        &self.kind
    }

    /// Whether this address, in its canonical form, matches.
    #[must_use]
    pub fn matches(&self, address: &Address) -> bool {
        match (&self.kind, address) {
            (AddressKind::Ip { host, transport, ports }, Address::Ip { ip, transport: by, port, names }) => {
                let right_host = match host {
                    HostPattern::Any => true,
                    HostPattern::Network(network) => ip.is_some_and(|ip| network.contains(ip)),
                    HostPattern::Name(name) => names.iter().any(|known| name.matches(known)),
                };
                right_host && transport.is_none_or(|only| only == *by) && ports.contains(u32::from(*port))
            }
            (AddressKind::UnixPath(glob), Address::Unix(Unix::Path(path))) => glob.matches(path),
            (AddressKind::UnixAbstract(glob), Address::Unix(Unix::Abstract(name))) => glob.matches(name),
            (AddressKind::Vsock { cid, ports }, Address::Vsock { cid: at, port }) => {
                cid.is_none_or(|only| only == *at) && ports.contains(*port)
            }
            _ => false,
        }
    }

    /// Whether everything that matches the other pattern is known to match this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (
                AddressKind::Ip { host, transport, ports },
                AddressKind::Ip { host: host2, transport: transport2, ports: ports2 },
            ) => {
                host.covers(host2) && (transport.is_none() || transport == transport2) && ports.covers(ports2)
            }
            (AddressKind::UnixPath(one), AddressKind::UnixPath(two)) => one.covers(two),
            (AddressKind::UnixAbstract(one), AddressKind::UnixAbstract(two)) => one.covers(two),
            (AddressKind::Vsock { cid, ports }, AddressKind::Vsock { cid: cid2, ports: ports2 }) => {
                (cid.is_none() || cid == cid2) && ports.covers(ports2)
            }
            _ => false,
        }
    }
}
