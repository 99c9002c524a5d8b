//! Addresses of sockets in records: how they come there, and what they stand for.

use agentwatch_common::{
    kind::RecordKind,
    record::{ADDRESS_BYTES, NetBody},
    rules::{SOCKET_ABSTRACT, SOCKET_IPV4, SOCKET_IPV6, SOCKET_TEXT_BYTES, SOCKET_VSOCK},
};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::{
    judge_net::Endpoint,
    kernel::{Address, at_most, offset, pointer, read_field},
    record::Record,
};

/// Family of Unix sockets.
pub const AF_UNIX: u16 = 1;
/// Family of IPv4.
pub const AF_INET: u16 = 2;
/// Family of IPv6.
pub const AF_INET6: u16 = 10;
/// Family of sockets that speak with the kernel.
pub const AF_NETLINK: u16 = 16;
/// Family of sockets between a virtual machine and its host.
pub const AF_VSOCK: u16 = 40;

/// A port that the kernel is to choose.
const VSOCK_PORT_ANY: u32 = u32::MAX;
/// Size of `struct sockaddr_vm`.
pub const VSOCK_ADDRESS_BYTES: i32 = 16;
/// Bytes of the text that stands for a vsock address.
const VSOCK_TEXT_BYTES: u32 = 9;
/// Of an IPv4 address, and of an IPv6 one: with transport and port.
const IPV4_TEXT_BYTES: u32 = 10;
const IPV6_TEXT_BYTES: u32 = 22;

/// A socket's protocol side, and what kind it is.
pub struct Socket {
    /// The `struct sock`.
    pub sk: Address,
    /// Its family (`AF_…`).
    pub family: u16,
    /// `SOCK_STREAM` and the like.
    pub kind: u16,
    /// `IPPROTO_…`, or what the family calls a protocol.
    pub protocol: u16,
}

impl Socket {
    /// From a `struct socket`.
    #[inline(always)]
    pub fn of(socket: Address) -> Self {
        Self::from_sk(pointer(socket, offset!(socket_sk)))
    }

    /// From a `struct sock`.
    #[inline(always)]
    pub fn from_sk(sk: Address) -> Self {
        Self {
            sk,
            family: read_field(sk, offset!(sock_family)),
            kind: read_field(sk, offset!(sock_type)),
            protocol: read_field(sk, offset!(sock_protocol)),
        }
    }
}

/// Which end of a socket is the address of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Local,
    Peer,
}

/// The address in the fixed part of a record.
pub struct Given {
    /// The family for which the kernel takes it.
    pub family: u16,
    /// Nothing is asked about it.
    pub is_nothing: bool,
    body: *mut NetBody,
}

impl Given {
    /// That of an act of this kind, with a socket of this family.
    #[inline(always)]
    pub fn of(body: *mut NetBody, socket_family: u16, kind: u16) -> Self {
        let mut this = Self { family: 0, is_nothing: false, body };
        let given: u16 = this.part(0);
        let binds = kind == RecordKind::NetBind.raw();
        // IPv4 takes a send to an address of no family for one of its own.
        let sends = kind == RecordKind::NetSend.raw() || binds;
        this.family = if given == 0 && sends { socket_family } else { given };
        // A port that the kernel chooses is nobody's to deny; it is looked at when somebody listens there.
        let chosen = binds && this.port() == 0;
        this.is_nothing = given == 0 && !sends || chosen;
        this
    }

    /// What lies so many bytes behind its beginning: aligned, and inside an address of IPv6.
    #[inline(always)]
    fn part<T: Copy>(&self, at: usize) -> T {
        // SAFETY: inside the body, which is valid scratch memory, and aligned: `address` is aligned to 8.
        unsafe { (&raw const (*self.body).address).cast::<u8>().add(at).cast::<T>().read_volatile() }
    }

    #[inline(always)]
    fn port(&self) -> u16 {
        u16::from_be(self.part(2))
    }

    /// As an address of the Internet protocols, where it is one.
    #[inline(always)]
    pub fn endpoint(&self, protocol: u16) -> Option<Endpoint> {
        let port = self.port();
        match self.family {
            AF_INET => {
                let mut address = [0; 16];
                address[..4].copy_from_slice(&self.part::<[u8; 4]>(4));
                Some(Endpoint { family: 4, address, port, protocol })
            }
            AF_INET6 => Some(Endpoint { family: 6, address: self.part(8), port, protocol }),
            _ => None,
        }
    }
}

/// Puts the text that stands for the abstract name in the fixed part of a record at the beginning of the tail. Gives how
/// many bytes it has: 0 where there is no such name.
#[inline(always)]
pub fn abstract_text(record: &Record, body: *mut NetBody) -> u32 {
    // SAFETY: inside the body, which is valid scratch memory.
    let (len, first) = unsafe {
        let address: *const u8 = (&raw const (*body).address).cast();
        ((&raw const (*body).address_len).read_volatile(), address.add(2).read_volatile())
    };
    // The family alone asks the kernel to choose a name.
    if len <= 2 || first != SOCKET_ABSTRACT {
        return 0;
    }
    let len = at_most(u64::from(len) - 2, SOCKET_TEXT_BYTES.into()) as u32;
    // SAFETY: so many bytes into the tail, from the body.
    unsafe {
        let from = (&raw const (*body).address).cast::<u8>().add(2);
        bpf_probe_read_kernel(record.tail().cast(), SOCKET_TEXT_BYTES, from.cast());
    }
    len
}

/// The same for the vsock address in the fixed part of a record.
#[inline(always)]
pub fn vsock_text(record: &Record, body: *mut NetBody, kind: u16) -> u32 {
    // SAFETY: all inside the body, which is valid scratch memory; `address` is aligned to 8.
    let (port, cid) = unsafe {
        let address: *const u8 = (&raw const (*body).address).cast();
        (address.add(4).cast::<u32>().read_volatile(), address.add(8).cast::<u32>().read_volatile())
    };
    // As with other ports that the kernel chooses.
    if kind == RecordKind::NetBind.raw() && port == VSOCK_PORT_ANY {
        return 0;
    }
    let tail = record.tail();
    // SAFETY: the beginning of the tail.
    unsafe {
        tail.write(SOCKET_VSOCK);
        tail.add(1).cast::<[u8; 4]>().write(cid.to_be_bytes());
        tail.add(5).cast::<[u8; 4]>().write(port.to_be_bytes());
    }
    VSOCK_TEXT_BYTES
}

/// The same for an address of the Internet protocols that something asks to reach, or to be reached at.
#[inline(always)]
pub fn endpoint_text(record: &Record, endpoint: &Endpoint, connects: bool) -> u32 {
    let key = endpoint.canonical(connects);
    let port = u32::from(endpoint.port).to_be_bytes();
    let tail = record.tail();
    // SAFETY: the beginning of the tail.
    unsafe {
        tail.add(1).write(endpoint.transport() as u8);
        if key.family == 4 {
            let [one, two, three, four, ..] = key.address;
            tail.write(SOCKET_IPV4);
            tail.add(2).cast::<[u8; 4]>().write([one, two, three, four]);
            tail.add(6).cast::<[u8; 4]>().write(port);
            IPV4_TEXT_BYTES
        } else {
            tail.write(SOCKET_IPV6);
            tail.add(2).cast::<[u8; 16]>().write(key.address);
            tail.add(18).cast::<[u8; 4]>().write(port);
            IPV6_TEXT_BYTES
        }
    }
}

/// Copies an address of kernel memory; one longer than any real one is cut, and its length tells.
#[inline(always)]
pub fn copy_address(body: *mut NetBody, address: Address, len: i32) {
    if len <= 0 {
        return;
    }
    let bytes = at_most(len as u64, ADDRESS_BYTES as u64) as u32;
    // SAFETY: at most ADDRESS_BYTES into the field of that size; the body is valid scratch memory.
    unsafe {
        bpf_probe_read_kernel((&raw mut (*body).address).cast(), bytes, address.cast());
        (&raw mut (*body).address_len).write(len as u16);
    }
}

/// Addresses of an IP socket: the wanted end as a `sockaddr`, and the local one.
#[inline(always)]
pub fn inet_address(body: *mut NetBody, socket: &Socket, end: End) {
    let sk = socket.sk;
    let local_port: u16 = read_field(sk, offset!(sock_num));
    let port = if end == End::Local { local_port.to_be() } else { read_field(sk, offset!(sock_dport)) };
    // SAFETY: all inside the body, which is valid scratch memory; the fields of a `sockaddr` are aligned in
    // `address`, which is aligned to 8.
    unsafe {
        let address: *mut u8 = (&raw mut (*body).address).cast();
        let local: *mut u8 = (&raw mut (*body).local_addr).cast();
        address.cast::<u16>().write(socket.family);
        address.add(2).cast::<u16>().write(port);
        (&raw mut (*body).local_port).write(local_port);
        if socket.family == AF_INET {
            let from = if end == End::Local { offset!(sock_rcv_saddr) } else { offset!(sock_daddr) };
            bpf_probe_read_kernel(address.add(4).cast(), 4, sk.wrapping_add(from).cast());
            bpf_probe_read_kernel(local.cast(), 4, sk.wrapping_add(offset!(sock_rcv_saddr)).cast());
            (&raw mut (*body).address_len).write(16);
        } else {
            let from = if end == End::Local { offset!(sock_v6_rcv_saddr) } else { offset!(sock_v6_daddr) };
            bpf_probe_read_kernel(address.add(8).cast(), 16, sk.wrapping_add(from).cast());
            bpf_probe_read_kernel(local.cast(), 16, sk.wrapping_add(offset!(sock_v6_rcv_saddr)).cast());
            (&raw mut (*body).address_len).write(28);
        }
    }
}
