//! Patterns for addresses as they are written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{AddressKind, AddressPattern, DnsName, HostPattern, Network, Ports, Transport};
use crate::matcher::{CommandGlob, GlobError, PathGlob};

/// The largest port of the Internet protocols.
pub(super) const PORT_MAX: u32 = 65_535;
/// Bytes of a name, and of one label of it: RFC 1035.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// What is wrong with a pattern for addresses, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct AddressError {
    /// Byte offset in the pattern.
    pub offset: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What can be wrong with a pattern for addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the pattern is empty: write what it should match, such as `10.0.0.0/8:443`")]
    Empty,
    #[error("an address says its ports: write `{0}:*` for all of them")]
    NoPort(String),
    #[error("a port is a number up to {max}, a range such as `8000-8099`, or `*`")]
    Port { max: u32 },
    #[error("this range of ports is backwards: swap its ends")]
    BackwardPorts,
    #[error("a pattern lists at most {} ports and ranges: split it", super::ports::RANGES_MAX)]
    TooManyPorts,
    #[error("an IPv6 address stands in brackets: `[2001:db8::]/32:443`")]
    BareIpv6,
    #[error("`[` is not closed: write `[2001:db8::]/32:443`")]
    OpenBracket,
    #[error("`{0}` is no IPv4 address: it has four numbers up to 255 with dots between them")]
    Ipv4(String),
    #[error("`{0}` is no IPv6 address")]
    Ipv6(String),
    #[error("a prefix has at most {max} bits here")]
    Bits { max: u8 },
    #[error("`{0}` is no host name: letters, digits, `-` and `_` in labels of at most 63 bytes")]
    Name(String),
    #[error("`*` stands for any host, or for the first labels of a name, as in `*.example.com`")]
    Star,
    #[error("a Unix socket is a path that begins with `/` or `**/`, or `unix:@name`")]
    Unix,
    #[error("a vsock address is `vsock:CID:PORT`, both numbers or `*`")]
    Vsock,
    #[error("{0}")]
    Glob(crate::matcher::Problem),
}

impl From<GlobError> for AddressError {
    fn from(error: GlobError) -> Self {
        Self { offset: error.offset, problem: Problem::Glob(error.problem) }
    }
}

impl AddressError {
    fn at(offset: usize, problem: Problem) -> Self {
        Self { offset, problem }
    }

    fn moved(mut self, by: usize) -> Self {
        self.offset += by;
        self
    }
}

impl AddressPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it, and where in the text.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        Ok(Self { text: text.to_owned(), kind: kind(text)? })
    }
}

fn kind(text: &str) -> Result<AddressKind, AddressError> {
    if text.is_empty() {
        return Err(AddressError::at(0, Problem::Empty));
    }
    if text.starts_with('/') || text.starts_with("**") {
        return Ok(AddressKind::UnixPath(PathGlob::parse(text)?));
    }
    if let Some(rest) = text.strip_prefix("unix:") {
        return unix(rest).map_err(|error| error.moved("unix:".len()));
    }
    if let Some(rest) = text.strip_prefix("vsock:") {
        return vsock(rest);
    }
    for (prefix, transport) in [("tcp:", Transport::Tcp), ("udp:", Transport::Udp)] {
        if let Some(rest) = text.strip_prefix(prefix) {
            return ip(rest, Some(transport)).map_err(|error| error.moved(prefix.len()));
        }
    }
    ip(text, None)
}

fn unix(rest: &str) -> Result<AddressKind, AddressError> {
    if let Some(name) = rest.strip_prefix('@') {
        let glob = CommandGlob::parse(name).map_err(|error| AddressError::from(error).moved(1))?;
        return Ok(AddressKind::UnixAbstract(glob));
    }
    if rest.starts_with('/') || rest.starts_with("**") {
        return Ok(AddressKind::UnixPath(PathGlob::parse(rest)?));
    }
    Err(AddressError::at(0, Problem::Unix))
}

fn vsock(rest: &str) -> Result<AddressKind, AddressError> {
    let offset = "vsock:".len();
    let bad = || AddressError::at(offset, Problem::Vsock);
    let (cid, ports) = rest.split_once(':').ok_or_else(bad)?;
    let cid = if cid == "*" { None } else { Some(cid.parse().map_err(|_| bad())?) };
    Ok(AddressKind::Vsock { cid, ports: Ports::parse(ports, u32::MAX, offset + rest.len() - ports.len())? })
}

fn ip(text: &str, transport: Option<Transport>) -> Result<AddressKind, AddressError> {
    let (host, ports) = if text.starts_with('[') { in_brackets(text)? } else { plain(text)? };
    let offset = text.len() - ports.len();
    Ok(AddressKind::Ip { host, transport, ports: Ports::parse(ports, PORT_MAX, offset)? })
}

/// `[2001:db8::]/32:443`: the network, and the text of the ports.
fn in_brackets(text: &str) -> Result<(HostPattern, &str), AddressError> {
    let inner = text.strip_prefix('[').unwrap_or(text);
    let (address, rest) = inner.split_once(']').ok_or(AddressError::at(0, Problem::OpenBracket))?;
    let ip: Ipv6Addr = address.parse().map_err(|_| AddressError::at(1, Problem::Ipv6(address.to_owned())))?;
    let (bits, ports) = rest.split_once(':').ok_or(AddressError::at(text.len(), no_port(text)))?;
    let bits = match bits {
        "" => 128,
        bits => prefix(bits.strip_prefix('/').unwrap_or("x"), 128, address.len() + 2)?,
    };
    Ok((HostPattern::Network(Network::new(IpAddr::V6(ip), bits)), ports))
}

/// `10.0.0.0/8:443`, `*:22`, `example.com:443`: the host, and the text of the ports.
fn plain(text: &str) -> Result<(HostPattern, &str), AddressError> {
    let Some((host, ports)) = text.rsplit_once(':') else {
        return Err(AddressError::at(text.len(), no_port(text)));
    };
    if host.contains(':') {
        return Err(AddressError::at(0, Problem::BareIpv6));
    }
    if host == "*" {
        return Ok((HostPattern::Any, ports));
    }
    let (address, bits) = match host.split_once('/') {
        Some((address, bits)) => (address, prefix(bits, 32, address.len())?),
        None => (host, 32),
    };
    if let Ok(ip) = address.parse::<Ipv4Addr>() {
        return Ok((HostPattern::Network(Network::new(IpAddr::V4(ip), bits)), ports));
    }
    let last = address.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    if address.len() != host.len() || last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AddressError::at(0, Problem::Ipv4(address.to_owned())));
    }
    Ok((HostPattern::Name(name(host)?), ports))
}

fn no_port(text: &str) -> Problem {
    if text.parse::<Ipv6Addr>().is_ok() { Problem::BareIpv6 } else { Problem::NoPort(text.to_owned()) }
}

/// The bits of a prefix; `offset` is that of the `/`.
fn prefix(text: &str, max: u8, offset: usize) -> Result<u8, AddressError> {
    let bits = text.parse().ok().filter(|bits| *bits <= max);
    bits.ok_or(AddressError::at(offset + 1, Problem::Bits { max }))
}

/// Reads a name, with or without a dot at the end.
fn name(text: &str) -> Result<DnsName, AddressError> {
    let (name, below) = match text.strip_prefix("*.") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    if let Some(star) = name.find('*') {
        return Err(AddressError::at(star, Problem::Star));
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    if !is_name(name) {
        return Err(AddressError::at(0, Problem::Name(text.to_owned())));
    }
    Ok(DnsName { name: name.to_ascii_lowercase(), below })
}

/// Whether this is a name that the domain name system or `/etc/hosts` can hold.
pub(super) fn is_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label = |label: &str| !label.is_empty() && label.len() <= LABEL_BYTES_MAX && label.bytes().all(good);
    name.len() <= NAME_BYTES_MAX && name.split('.').all(label)
}
