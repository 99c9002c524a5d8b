//! Who is at the other end of a TCP connection on this host, as the kernel says: whose socket that is, and which processes of
//! sessions hold it.
//!
//! The two ends of a connection over the loopback device are two sockets of one network namespace. The kernel finds the other
//! one by the addresses (`sock_diag`, one look-up), and as long as ours is open no other connection has these.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use procfs::process::{FDTarget, Process};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, netlink::SocketAddrNetlink,
};

use super::request::Member;

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// Bytes of `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// Bytes of `struct inet_diag_req_v2`.
const QUESTION_BYTES: usize = 56;
/// Bytes of `struct inet_diag_msg`.
const ANSWER_BYTES: usize = 72;
/// `TCP_TIME_WAIT`, `TCP_CLOSE` and `TCP_LISTEN`: nobody is there to speak.
const SILENT: [u8; 3] = [6, 7, 10];

/// The two ends of a connection, as this side sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    own: SocketAddr,
    other: SocketAddr,
}

/// A socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its number on this host.
    pub inode: u64,
    /// Whose it is: user id in the initial namespace.
    pub uid: u32,
}

/// A process of a session that holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// When it began, in clock ticks since boot.
    pub start_ticks: u64,
    /// Number of its session, as it was known a moment ago.
    pub session: u64,
}

impl Ends {
    /// Of a connection.
    pub const fn new(own: SocketAddr, other: SocketAddr) -> Self {
        Self { own, other }
    }

    /// The socket at the other end; none where that is closed, or not in this network namespace.
    pub fn other_socket(&self) -> io::Result<Option<Socket>> {
        let netlink: OwnedFd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::SOCK_DIAG),
        )?;
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&netlink, &self.question(), SendFlags::empty(), &kernel)?;
        // The kernel answers before that returns.
        let mut answer = [0; 1024];
        let (filled, _) = rustix::net::recv(&netlink, &mut answer, RecvFlags::empty())?;
        read(answer.get(..filled).unwrap_or_default())
    }

    /// Asks for one socket: the one whose own address is our peer's.
    fn question(&self) -> Vec<u8> {
        let family = match self.own.ip() {
            IpAddr::V4(_) => AddressFamily::INET,
            IpAddr::V6(_) => AddressFamily::INET6,
        };
        let length = HEADER_BYTES + QUESTION_BYTES;
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&(length as u32).to_ne_bytes());
        bytes.extend_from_slice(&BY_FAMILY.to_ne_bytes());
        bytes.extend_from_slice(&REQUEST.to_ne_bytes());
        // Sequence and port.
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&[family.as_raw() as u8, TCP, 0, 0]);
        // Any state.
        bytes.extend_from_slice(&u32::MAX.to_ne_bytes());
        for end in [self.other, self.own] {
            bytes.extend_from_slice(&end.port().to_be_bytes());
        }
        for end in [self.other, self.own] {
            match end.ip() {
                IpAddr::V4(ip) => {
                    bytes.extend_from_slice(&ip.octets());
                    bytes.extend_from_slice(&[0; 12]);
                }
                IpAddr::V6(ip) => bytes.extend_from_slice(&ip.octets()),
            }
        }
        // Any interface, and no cookie.
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&[0xff; 8]);
        bytes
    }
}

/// Reads the kernel's answer.
fn read(answer: &[u8]) -> io::Result<Option<Socket>> {
    let short = || io::Error::other("the kernel's answer about a socket is too short");
    let word = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let kind = answer.get(4..6).and_then(|bytes| Some(u16::from_ne_bytes(bytes.try_into().ok()?)));
    match kind.ok_or_else(short)? {
        ERROR => {
            let code = word(HEADER_BYTES).ok_or_else(short)?.cast_signed().saturating_neg();
            match io::Error::from_raw_os_error(code) {
                error if error.kind() == io::ErrorKind::NotFound => Ok(None),
                error => Err(error),
            }
        }
        BY_FAMILY => {
            let state = *answer.get(HEADER_BYTES + 1).ok_or_else(short)?;
            let uid = word(HEADER_BYTES + ANSWER_BYTES - 8).ok_or_else(short)?;
            let inode = word(HEADER_BYTES + ANSWER_BYTES - 4).ok_or_else(short)?;
            let speaks = !SILENT.contains(&state) && inode != 0;
            Ok(speaks.then_some(Socket { inode: inode.into(), uid }))
        }
        _ => Err(io::Error::other("the kernel's answer about a socket is something else")),
    }
}

/// Listens, and makes sure that the kernel says who connects: a receiver that cannot know that takes nothing.
///
/// # Errors
/// The address is taken, or nobody says who connects.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let client = client.local_addr().map(|own| (client, own))?;
    // Somebody else may have been there before.
    let server = loop {
        let (server, other) = listener.accept()?;
        if other == client.1 {
            break server;
        }
    };
    if Ends::new(server.local_addr()?, client.1).other_socket()?.is_none() {
        return Err(io::Error::other(
            "this kernel does not say who connects: it lacks `tcp_diag` (CONFIG_INET_TCP_DIAG)",
        ));
    }
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Those processes of sessions that hold a socket. Looks through all of their descriptors: not for the thread that answers.
pub fn holders(socket: u64, members: &[Member]) -> Vec<Holder> {
    members.iter().filter_map(|member| held(socket, member)).collect()
}

fn held(socket: u64, member: &Member) -> Option<Holder> {
    // Its folder is held open: all that is read is of one process.
    let process = Process::new(i32::try_from(member.pid).ok()?).ok()?;
    let is_it = |target: &FDTarget| matches!(target, FDTarget::Socket(inode) if *inode == socket);
    process.fd().ok()?.flatten().find(|fd| is_it(&fd.target))?;
    Some(Holder { pid: member.pid, start_ticks: process.stat().ok()?.starttime, session: member.session })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    fn pair(address: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(address).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn ends(server: &TcpStream) -> Ends {
        Ends::new(server.local_addr().unwrap(), server.peer_addr().unwrap())
    }

    fn inode(stream: &TcpStream) -> u64 {
        rustix::fs::fstat(stream.as_fd()).unwrap().st_ino
    }

    #[test]
    fn the_other_end_is_found_until_it_is_closed() {
        let (client, server) = pair("127.0.0.1:0");
        let found = ends(&server).other_socket().unwrap().unwrap();
        assert_eq!(found, Socket { inode: inode(&client), uid: rustix::process::geteuid().as_raw() });
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(ends(&server).other_socket().unwrap().is_some(), "it still reads");
        drop(client);
        assert_eq!(ends(&server).other_socket().unwrap(), None);
        let nobody = Ends::new("127.0.0.1:4318".parse().unwrap(), "127.0.0.1:1".parse().unwrap());
        assert_eq!(nobody.other_socket().unwrap(), None);
    }

    #[test]
    fn a_socket_is_known_by_those_who_hold_it() {
        let (client, server) = pair("127.0.0.1:0");
        let own = Member { pid: std::process::id(), session: 7 };
        let others = [Member { pid: 1, session: 8 }, Member { pid: 4_194_305, session: 9 }, own];
        let found = holders(inode(&client), &others);
        assert_eq!(found.iter().map(|one| (one.pid, one.session)).collect::<Vec<_>>(), [(own.pid, 7)]);
        assert_eq!(found[0].start_ticks, Process::myself().unwrap().stat().unwrap().starttime);
        let gone = inode(&client);
        drop((client, server));
        assert_eq!(holders(gone, &others), []);
    }

    #[test]
    fn a_listener_knows_who_connects() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(listener.accept().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
        assert!(listen(listener.local_addr().unwrap()).is_err(), "it is taken");
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let (client, server) = pair("127.0.0.1:0");
        let question = ends(&server).question();
        assert_eq!(question.len(), HEADER_BYTES + QUESTION_BYTES);
        for short in [&question[..3], &question[..HEADER_BYTES + 1], &[]] {
            assert!(read(short).is_err());
        }
        drop(client);
    }
}
