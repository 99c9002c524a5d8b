//! The address that a process reaches for.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Transport;
use super::parse::is_name;
use crate::event::Op;
use crate::output::escape::escape_bytes;

/// An address that a process connects to, or listens at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// Of the Internet protocols.
    Ip {
        /// By what.
        transport: Transport,
        /// The host; absent where only its name is known.
        ip: Option<IpAddr>,
        /// The port.
        port: u16,
        /// Names that are known to stand for the host.
        names: Vec<String>,
    },
    /// A Unix socket.
    Unix(Unix),
    /// A socket between virtual machines.
    Vsock {
        /// The machine.
        cid: u32,
        /// The port.
        port: u32,
    },
}

/// A Unix socket that has a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Unix {
    /// The path of the socket that is reached.
    Path(Vec<u8>),
    /// The abstract name, without the NUL byte in front.
    Abstract(Vec<u8>),
}

/// The address that is really meant: a mapped IPv6 address is the IPv4 one, and who connects to "no
/// address" reaches this host.
#[must_use]
pub fn canonical(op: Op, ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) if op == Op::Connect && v4.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(v6) if op == Op::Connect && v6.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    }
}

impl Address {
    /// Reads an address, as `10.20.3.4:5432`, `[2001:db8::1]:443`, `example.com:443`, each perhaps after
    /// `udp:` or `tcp:` (TCP without), `/run/some.sock`, `unix:@name`, `vsock:2:1024`.
    ///
    /// # Errors
    /// A sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Self::Unix(Unix::Path(text.into())));
        }
        if let Some(rest) = text.strip_prefix("unix:") {
            return match rest.strip_prefix('@') {
                Some(name) if !name.is_empty() => Ok(Self::Unix(Unix::Abstract(name.into()))),
                _ if rest.starts_with('/') => Ok(Self::Unix(Unix::Path(rest.into()))),
                _ => Err("a Unix socket is an absolute path, or `unix:@name`".to_owned()),
            };
        }
        if let Some(rest) = text.strip_prefix("vsock:") {
            let vsock =
                rest.split_once(':').and_then(|(cid, port)| Some((cid.parse().ok()?, port.parse().ok()?)));
            let (cid, port) = vsock.ok_or("a vsock address is `vsock:CID:PORT`, both numbers")?;
            return Ok(Self::Vsock { cid, port });
        }
        match (text.strip_prefix("udp:"), text.strip_prefix("tcp:")) {
            (Some(rest), _) => ip(rest, Transport::Udp),
            (_, rest) => ip(rest.unwrap_or(text), Transport::Tcp),
        }
    }

    /// The address that is really meant: see [`canonical`].
    #[must_use]
    pub fn canonical(&self, op: Op) -> Self {
        match self {
            Self::Ip { transport, ip: Some(ip), port, names } => Self::Ip {
                transport: *transport,
                ip: Some(canonical(op, *ip)),
                port: *port,
                names: names.clone(),
            },
            other => other.clone(),
        }
    }
}

fn ip(text: &str, transport: Transport) -> Result<Address, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Address::Ip {
            transport,
            ip: Some(address.ip()),
            port: address.port(),
            names: Vec::new(),
        });
    }
    let (name, port) = text.rsplit_once(':').ok_or_else(|| {
        format!("`{text}` has no port: write it as `HOST:PORT`, `/path`, `unix:@name` or `vsock:CID:PORT`")
    })?;
    let port =
        port.parse().map_err(|_| format!("`{port}` is no port: one address has one, at most 65535"))?;
    let last = name.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    if !is_name(&name) || last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("`{name}` is neither an address (IPv6 stands in brackets) nor a host name"));
    }
    Ok(Address::Ip { transport, ip: None, port, names: vec![name] })
}

/// As it is read, escaped for a terminal.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip { transport, ip, port, names } => {
                if *transport != Transport::Tcp {
                    write!(f, "{}:", transport.as_str())?;
                }
                match ip {
                    Some(ip) => write!(f, "{}", SocketAddr::new(*ip, *port)),
                    None => write!(f, "{}:{port}", names.first().map_or("*", String::as_str)),
                }
            }
            Self::Unix(Unix::Path(path)) => f.write_str(&escape_bytes(path)),
            Self::Unix(Unix::Abstract(name)) => write!(f, "unix:@{}", escape_bytes(name)),
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
        }
    }
}
