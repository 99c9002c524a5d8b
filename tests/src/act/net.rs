//! Acts on the network, all on loopback.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};
use rustix::net::{self, AddressFamily, SendFlags, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType};

use super::record::{Recorder, did};
use crate::truth::{Bytes, Did, DidNet};

#[path = "net_raw.rs"]
mod raw;

/// Acts on the network.
#[derive(Subcommand)]
pub enum Act {
    /// TCP over IPv4: bind, listen, connect, accept
    Tcp4(Port),
    /// TCP over IPv6
    Tcp6(Port),
    /// TCP from an IPv6 socket to a mapped IPv4 address
    TcpMapped(Port),
    /// TCP to a port where nobody listens
    TcpRefused(Port),
    /// TCP fast open: an address given to sendto
    TcpFastOpen(Port),
    /// UDP: connect and send
    UdpConnect(Port),
    /// UDP: send to an address, IPv4 and IPv6
    UdpSend(Port),
    /// UDP: three messages to three ports in one sendmmsg
    UdpSendmmsg(Port),
    /// Unix stream by path
    UnixStream,
    /// Unix seqpacket by path
    UnixSeqpacket,
    /// Unix datagram by path: send without connection, and connect
    UnixDgram,
    /// Unix stream by abstract name, a newline in it
    UnixAbstract,
    /// Unix streams by hostile abstract names
    UnixAbstractOdd,
    /// Unix stream by a relative path
    UnixRelative,
    /// vsock to this machine itself
    Vsock(Port),
}

/// A port.
#[derive(Args, Clone, Copy)]
pub struct Port {
    /// First port to use; acts on several take those after it
    #[arg(long, default_value_t = 47_000)]
    port: u16,
}

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

impl Act {
    /// Does it.
    pub fn run(&self, rec: &Recorder) -> Result<()> {
        match *self {
            Self::Tcp4(Port { port }) => stream(rec, &tcp(V4, port), &tcp(V4, port)),
            Self::Tcp6(Port { port }) => stream(rec, &tcp(V6, port), &tcp(V6, port)),
            Self::TcpMapped(Port { port }) => {
                let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
                stream(rec, &tcp(V4, port), &tcp(mapped, port))
            }
            Self::TcpRefused(Port { port }) => refused(rec, &tcp(V4, port)),
            Self::TcpFastOpen(Port { port }) => fast_open(rec, &tcp(V4, port)),
            Self::UdpConnect(Port { port }) => udp_connect(rec, &udp(V4, port)),
            Self::UdpSend(Port { port }) => udp_send(rec, port),
            Self::UdpSendmmsg(Port { port }) => raw::sendmmsg(rec, port),
            Self::UnixStream => stream_once(rec, &unix(rec, "stream.sock", SocketType::STREAM)?),
            Self::UnixSeqpacket => stream_once(rec, &unix(rec, "seqpacket.sock", SocketType::SEQPACKET)?),
            Self::UnixDgram => unix_dgram(rec),
            Self::UnixAbstract => {
                stream_once(rec, &abstract_name(format!("aw-act\n{}", std::process::id()).as_bytes())?)
            }
            Self::UnixAbstractOdd => {
                ODD_NAMES.iter().try_for_each(|name| stream_once(rec, &abstract_name(name)?))
            }
            Self::UnixRelative => unix_relative(rec),
            Self::Vsock(Port { port }) => raw::vsock(rec, port.into()),
        }
    }
}

/// An address with all that is said about it.
struct Place {
    address: SocketAddrAny,
    family: AddressFamily,
    socket_type: SocketType,
    transport: &'static str,
    family_name: &'static str,
    name: Bytes,
    port: Option<u32>,
    file: Option<PathBuf>,
}

fn ip(address: IpAddr, port: u16, socket_type: SocketType, transport: &'static str) -> Place {
    let (family, family_name) = match address {
        IpAddr::V4(_) => (AddressFamily::INET, "ipv4"),
        IpAddr::V6(_) => (AddressFamily::INET6, "ipv6"),
    };
    Place {
        address: SocketAddr::new(address, port).into(),
        family,
        socket_type,
        transport,
        family_name,
        name: address.to_string().as_str().into(),
        port: Some(port.into()),
        file: None,
    }
}

fn tcp(address: IpAddr, port: u16) -> Place {
    ip(address, port, SocketType::STREAM, "tcp")
}

fn udp(address: IpAddr, port: u16) -> Place {
    ip(address, port, SocketType::DGRAM, "udp")
}

fn unix(rec: &Recorder, name: &str, socket_type: SocketType) -> Result<Place> {
    let path = rec.path(name);
    let address = SocketAddrUnix::new(&path).context("the folder's path is too long for a Unix socket")?;
    Ok(Place { file: Some(path.clone()), ..unix_place(address, socket_type, path.as_path().into()) })
}

fn unix_place(address: SocketAddrUnix, socket_type: SocketType, name: Bytes) -> Place {
    Place {
        address: address.into(),
        family: AddressFamily::UNIX,
        socket_type,
        transport: "unix",
        family_name: "unix",
        name,
        port: None,
        file: None,
    }
}

/// Abstract names that tear a careless log apart.
const ODD_NAMES: [&[u8]; 4] =
    [b"aw {\"seq\":1}\n{\"seq\":2}", b"aw \x1b[2J\x1b]0;title\x07", b"aw \xff\xfe\x80", b"aw %41% \r\t"];

fn abstract_name(name: &[u8]) -> Result<Place> {
    let address = SocketAddrUnix::new_abstract_name(name).context("no abstract name")?;
    Ok(unix_place(address, SocketType::STREAM, Bytes([b"@", name].concat())))
}

impl Place {
    fn socket(&self) -> Result<OwnedFd> {
        net::socket_with(self.family, self.socket_type, SocketFlags::CLOEXEC, None)
            .with_context(|| format!("no {} socket", self.transport))
    }

    fn did(&self, kind: &str, network: DidNet) -> Did {
        let network = DidNet { transport: self.transport.into(), family: self.family_name.into(), ..network };
        Did { network: Some(network), ..did(kind) }
    }

    fn as_peer(&self, kind: &str) -> Did {
        self.did(kind, DidNet { peer: Some(self.name.clone()), peer_port: self.port, ..DidNet::default() })
    }

    fn as_local(&self, kind: &str) -> Did {
        self.did(kind, DidNet { local: Some(self.name.clone()), local_port: self.port, ..DidNet::default() })
    }

    fn bound(&self, rec: &Recorder) -> Result<OwnedFd> {
        let socket = self.socket()?;
        if self.family != AddressFamily::UNIX {
            net::sockopt::set_socket_reuseaddr(&socket, true).context("SO_REUSEADDR failed")?;
        }
        net::bind(&socket, &self.address).with_context(|| format!("cannot bind to {:?}", self.name))?;
        rec.push(self.as_local("net.bind"));
        if let Some(path) = &self.file {
            rec.touched(path, did("file.create"))?;
        }
        Ok(socket)
    }

    fn listening(&self, rec: &Recorder) -> Result<OwnedFd> {
        let socket = self.bound(rec)?;
        net::listen(&socket, 8).context("listen failed")?;
        rec.push(self.as_local("net.listen"));
        Ok(socket)
    }

    fn connected(&self, rec: &Recorder) -> Result<OwnedFd> {
        let socket = self.socket()?;
        net::connect(&socket, &self.address).with_context(|| format!("cannot connect to {:?}", self.name))?;
        rec.push(self.as_peer("net.connect"));
        Ok(socket)
    }
}

/// Listens at one place and connects to another, which leads there.
fn stream(rec: &Recorder, server: &Place, peer: &Place) -> Result<()> {
    let listener = server.listening(rec)?;
    let client = peer.connected(rec)?;
    accept(rec, server, &listener, &client)
}

fn stream_once(rec: &Recorder, place: &Place) -> Result<()> {
    stream(rec, place, place)
}

fn accept(rec: &Recorder, server: &Place, listener: impl AsFd, client: impl AsFd) -> Result<()> {
    net::accept_with(listener, SocketFlags::CLOEXEC).context("accept failed")?;
    let mut entry = server.as_local("net.accept");
    let port = net::getsockname(client).context("getsockname failed")?;
    if let (Some(network), Ok(address)) = (&mut entry.network, SocketAddr::try_from(port)) {
        network.peer = Some(address.ip().to_canonical().to_string().as_str().into());
        network.peer_port = Some(address.port().into());
    }
    rec.push(entry);
    Ok(())
}

fn refused(rec: &Recorder, place: &Place) -> Result<()> {
    let error = net::connect(place.socket()?, &place.address).err().context("somebody listens there")?;
    rec.push(Did { errno: Some(error.raw_os_error()), ..place.as_peer("net.connect") });
    Ok(())
}

fn fast_open(rec: &Recorder, place: &Place) -> Result<()> {
    let listener = place.listening(rec)?;
    let client = place.socket()?;
    let flag = SendFlags::from_bits_retain(libc::MSG_FASTOPEN.unsigned_abs());
    net::sendto(&client, b"hello", flag, &place.address).context("sendto with MSG_FASTOPEN failed")?;
    // It sends and connects in one.
    rec.push(Did { or_kind: Some("net.connect".into()), ..place.as_peer("net.send") });
    accept(rec, place, &listener, &client)
}

fn udp_connect(rec: &Recorder, place: &Place) -> Result<()> {
    let _server = place.bound(rec)?;
    let client = place.connected(rec)?;
    let sent = net::send(&client, b"hello", SendFlags::empty()).context("send failed")?;
    ensure!(sent == 5, "only {sent} bytes were sent");
    Ok(())
}

fn udp_send(rec: &Recorder, port: u16) -> Result<()> {
    for place in [udp(V4, port), udp(V6, port)] {
        let _server = place.bound(rec)?;
        send_to(rec, &place)?;
    }
    Ok(())
}

fn send_to(rec: &Recorder, place: &Place) -> Result<()> {
    net::sendto(place.socket()?, b"hello", SendFlags::empty(), &place.address).context("sendto failed")?;
    rec.push(place.as_peer("net.send"));
    Ok(())
}

fn unix_dgram(rec: &Recorder) -> Result<()> {
    let place = unix(rec, "dgram.sock", SocketType::DGRAM)?;
    let _server = place.bound(rec)?;
    send_to(rec, &place)?;
    net::connect(place.socket()?, &place.address).context("cannot connect")?;
    // For datagrams one hook of the kernel stands for both.
    rec.push(Did { or_kind: Some("net.send".into()), ..place.as_peer("net.connect") });
    Ok(())
}

fn unix_relative(rec: &Recorder) -> Result<()> {
    rustix::process::chdir(rec.dir()).context("chdir failed")?;
    let address = SocketAddrUnix::new("short.sock").context("no Unix address")?;
    let place = Place { address: address.into(), ..unix(rec, "short.sock", SocketType::STREAM)? };
    // What bind was given is relative; what is reached has a full path.
    stream(rec, &place, &place)
}
