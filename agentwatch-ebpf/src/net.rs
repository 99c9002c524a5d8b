//! The network, Unix sockets and vsock.
//!
//! Addresses in these hooks are the kernel's own copies: what a second thread does to the caller's memory
//! makes no difference. A Unix socket is told by the socket that is reached and not by the name given.

use agentwatch_common::{
    kind::RecordKind,
    maps::control,
    offsets::MISSING,
    record::{ADDRESS_BYTES, NetBody},
    rules::{SOCKET_ABSTRACT, SOCKET_TEXT_BYTES, SOCKET_VSOCK, op},
};
use aya_ebpf::{helpers::generated::bpf_probe_read_kernel, macros::lsm, programs::LsmContext};

use crate::{
    file::look_at_file,
    judge::{Court, Judgement, Ops, bit},
    judge_net::Endpoint,
    kernel::{Address, at_most, field, offset, pointer, read_field},
    learn,
    path::Place,
    record::{Record, fill, part},
    session::{Member, Task, control_word},
};

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const AF_NETLINK: u16 = 16;
const AF_VSOCK: u16 = 40;

/// `net/socket.c`, `__sys_connect_file()`:
/// `int socket_connect(struct socket *sock, struct sockaddr *address, int addrlen)`, since 2.6.
/// Unix sockets are told by [`unix_connect`] and [`unix_send`].
#[lsm(hook = "socket_connect")]
pub fn net_connect(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let socket = Socket::of(ctx.arg(0));
    if socket.family != AF_UNIX && socket.family != AF_NETLINK {
        learn::mark(&member, ctx.arg(0), socket.kind, ctx.arg(1));
        return report_address(&member, RecordKind::NetConnect, &socket, ctx.arg(1), ctx.arg(2));
    }
    0
}

/// `net/socket.c`, `sock_sendmsg()`:
/// `int socket_sendmsg(struct socket *sock, struct msghdr *msg, int size)`, since 2.6.
/// Without an address it is a send on a connection, which is no event. With one it may also connect (TCP
/// Fast Open).
#[lsm(hook = "socket_sendmsg")]
pub fn net_send(ctx: LsmContext) -> i32 {
    let message: Task = ctx.arg(1);
    // SAFETY: a typed argument (see `field!`).
    let name = unsafe { field!(message, msghdr_msg_name, Address) };
    if name.is_null() {
        return 0;
    }
    let Some(member) = Member::current() else { return 0 };
    let socket = Socket::of(ctx.arg(0));
    if socket.family != AF_UNIX && socket.family != AF_NETLINK {
        // SAFETY: as above.
        let len = unsafe { field!(message, msghdr_msg_namelen, i32) };
        learn::mark(&member, ctx.arg(0), socket.kind, name);
        return report_address(&member, RecordKind::NetSend, &socket, name, len);
    }
    0
}

/// `net/socket.c`, `__sys_bind()`:
/// `int socket_bind(struct socket *sock, struct sockaddr *address, int addrlen)`, since 2.6.
#[lsm(hook = "socket_bind")]
pub fn net_bind(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let socket = Socket::of(ctx.arg(0));
    if socket.family != AF_NETLINK {
        return report_address(&member, RecordKind::NetBind, &socket, ctx.arg(1), ctx.arg(2));
    }
    0
}

/// `net/socket.c`, `__sys_listen()`: `int socket_listen(struct socket *sock, int backlog)`, since 2.6.
#[lsm(hook = "socket_listen")]
pub fn net_listen(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let socket = Socket::of(ctx.arg(0));
    report_socket(&member, RecordKind::NetListen, &socket, End::Local)
}

/// `include/net/sock.h`, `sock_graft()`: `void sock_graft(struct sock *sk, struct socket *parent)`, since 2.6.
/// The connection gets its socket: here, and not in `socket_accept`, the peer is known.
#[lsm(hook = "sock_graft")]
pub fn net_accept(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let socket = Socket::from_sk(ctx.arg(0));
    if matches!(socket.family, AF_UNIX | AF_INET | AF_INET6 | AF_VSOCK) {
        report_socket(&member, RecordKind::NetAccept, &socket, End::Peer);
    }
    0
}

/// `net/unix/af_unix.c`, `unix_stream_connect()`: `int unix_stream_connect(struct sock *sock,
/// struct sock *other, struct sock *newsk)`, since 2.6.39. `other` is the socket that listens.
#[lsm(hook = "unix_stream_connect")]
pub fn unix_connect(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    report_unix(&member, RecordKind::NetConnect, &Socket::from_sk(ctx.arg(1)))
}

/// `net/unix/af_unix.c`, `unix_dgram_connect()` and `unix_dgram_sendmsg()`:
/// `int unix_may_send(struct socket *sock, struct socket *other)`, since 2.6.
/// A socket without a name (one of a pair) is no address, and no event.
#[lsm(hook = "unix_may_send")]
pub fn unix_send(ctx: LsmContext) -> i32 {
    let Some(member) = Member::current() else { return 0 };
    let other = Socket::of(ctx.arg(1));
    if !pointer(other.sk, offset!(unix_sock_addr)).is_null() {
        return report_unix(&member, RecordKind::NetSend, &other);
    }
    0
}

/// `net/core/scm.c` and `fs/file.c`, `receive_fd()`: `int file_receive(struct file *file)`, since 2.6.
///
/// A connected socket comes from another process: it is as if it were connected here. Others are told by
/// [`crate::file::file_receive`].
#[lsm(hook = "file_receive")]
pub fn net_receive(ctx: LsmContext) -> i32 {
    const TYPE: u16 = 0o170_000;
    const SOCKET: u16 = 0o140_000;
    let Some(member) = Member::current() else { return 0 };
    let file: Task = ctx.arg(0);
    // SAFETY: a typed argument (see `field!`).
    let (inode, data) =
        unsafe { (field!(file, file_f_inode, Address), field!(file, file_private_data, Address)) };
    // Of a socket's file that was opened for its name alone nothing is there.
    if read_field::<u16>(inode, offset!(inode_i_mode)) & TYPE != SOCKET || data.is_null() {
        return 0;
    }
    let socket = Socket::of(data);
    match socket.family {
        AF_UNIX => {
            // The one that listened gave its name to those that it accepted.
            let peer = Socket::from_sk(pointer(socket.sk, offset!(unix_sock_peer)));
            if pointer(peer.sk, offset!(unix_sock_addr)).is_null() {
                return 0;
            }
            report_unix(&member, RecordKind::NetReceive, &peer)
        }
        AF_INET | AF_INET6 if read_field::<u16>(socket.sk, offset!(sock_dport)) != 0 => {
            report_socket(&member, RecordKind::NetReceive, &socket, End::Peer)
        }
        _ => 0,
    }
}

/// A socket's protocol side, and what kind it is.
struct Socket {
    sk: Address,
    family: u16,
    kind: u16,
    protocol: u16,
}

impl Socket {
    /// From a `struct socket`.
    #[inline(always)]
    fn of(socket: Address) -> Self {
        Self::from_sk(pointer(socket, offset!(socket_sk)))
    }

    /// From a `struct sock`.
    #[inline(always)]
    fn from_sk(sk: Address) -> Self {
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
enum End {
    Local,
    Peer,
}

/// Begins the fixed part of a record about a socket.
#[inline(always)]
fn begin(record: &Record, socket: &Socket) -> *mut NetBody {
    let body = record.body::<NetBody>();
    fill!(body, family: socket.family, socket_type: socket.kind, protocol: socket.protocol);
    body
}

/// What an act asks for; an accepted connection was asked for by its peer.
#[inline(always)]
const fn ops_of(kind: RecordKind) -> Ops {
    match kind {
        RecordKind::NetConnect | RecordKind::NetSend | RecordKind::NetReceive => bit(op::CONNECT),
        RecordKind::NetBind | RecordKind::NetListen => bit(op::LISTEN),
        _ => 0,
    }
}

/// Judges and reports an act with the address that was given; gives what the hook returns.
#[inline(always)]
fn report_address(member: &Member, kind: RecordKind, socket: &Socket, address: Address, len: i32) -> i32 {
    let court = Court::of(member, ops_of(kind));
    let Some(record) = Record::take::<NetBody>(member, kind) else { return Court::unseen(&court) };
    let body = begin(&record, socket);
    copy_address(body, address, len);
    if let Some(court) = &court {
        record.decide(&judge_address((court, member), &record, body, socket, kind));
    }
    record.finish(member, kind)
}

/// Judges the address in the fixed part of a record.
#[inline(always)]
fn judge_address(
    (court, member): (&Court, &Member),
    record: &Record,
    body: *mut NetBody,
    socket: &Socket,
    kind: RecordKind,
) -> Judgement {
    // SAFETY: all inside the body, which is valid scratch memory, and aligned: `address` is aligned to 8.
    let (given, port, v4, v6) = unsafe {
        let address: *const u8 = (&raw const (*body).address).cast();
        (
            address.cast::<u16>().read_volatile(),
            u16::from_be(address.add(2).cast::<u16>().read_volatile()),
            address.add(4).cast::<[u8; 4]>().read_volatile(),
            address.add(8).cast::<[u8; 16]>().read_volatile(),
        )
    };
    let binds = kind.raw() == RecordKind::NetBind.raw();
    // IPv4 takes a send to an address of no family for one of its own.
    let sends = kind.raw() == RecordKind::NetSend.raw() || binds;
    let family = if given == 0 && sends { socket.family } else { given };
    if family == AF_UNIX {
        // A path is judged as the file that is made, and when somebody listens there.
        return on_abstract(court, record, body, ops_of(kind)).unwrap_or(Judgement::NONE);
    }
    if family == AF_VSOCK {
        return on_vsock(court, record, body, kind);
    }
    // A port that the kernel chooses is nobody's to deny; it is looked at when somebody listens there.
    let chosen = binds && port == 0;
    if given == 0 && !sends || chosen {
        return Judgement::NONE;
    }
    let protocol = socket.protocol;
    let endpoint = match family {
        AF_INET => {
            let mut address = [0; 16];
            address[..4].copy_from_slice(&v4);
            Endpoint { family: 4, address, port, protocol }
        }
        AF_INET6 => Endpoint { family: 6, address: v6, port, protocol },
        _ => return court.on_set(0, ops_of(kind), 0),
    };
    let judgement = court.on_endpoint(record, &endpoint, ops_of(kind));
    if ops_of(kind) != bit(op::CONNECT) || control_word(control::LEARNS) == 0 {
        return judgement;
    }
    judgement.or_stricter(court.on_told(record, member.session, &endpoint))
}

/// Judges the abstract name in the fixed part of a record; nothing where there is none.
#[inline(always)]
fn on_abstract(court: &Court, record: &Record, body: *mut NetBody, ops: Ops) -> Option<Judgement> {
    // SAFETY: inside the body, which is valid scratch memory.
    let (len, first) = unsafe {
        let address: *const u8 = (&raw const (*body).address).cast();
        ((&raw const (*body).address_len).read_volatile(), address.add(2).read_volatile())
    };
    // The family alone asks the kernel to choose a name.
    if len <= 2 || first != SOCKET_ABSTRACT {
        return None;
    }
    let len = at_most(u64::from(len) - 2, SOCKET_TEXT_BYTES.into()) as u32;
    // SAFETY: so many bytes into the tail, from the body.
    unsafe {
        let from = (&raw const (*body).address).cast::<u8>().add(2);
        bpf_probe_read_kernel(record.tail().cast(), SOCKET_TEXT_BYTES, from.cast());
    }
    Some(court.on_socket(record, len, ops))
}

/// Judges the vsock address in the fixed part of a record.
#[inline(always)]
fn on_vsock(court: &Court, record: &Record, body: *mut NetBody, kind: RecordKind) -> Judgement {
    // SAFETY: all inside the body, which is valid scratch memory; `address` is aligned to 8.
    let (port, cid) = unsafe {
        let address: *const u8 = (&raw const (*body).address).cast();
        (address.add(4).cast::<u32>().read_volatile(), address.add(8).cast::<u32>().read_volatile())
    };
    // As with other ports that the kernel chooses.
    if kind.raw() == RecordKind::NetBind.raw() && port == VSOCK_PORT_ANY {
        return Judgement::NONE;
    }
    let tail = record.tail();
    // SAFETY: the beginning of the tail.
    unsafe {
        tail.write(SOCKET_VSOCK);
        tail.add(1).cast::<[u8; 4]>().write(cid.to_be_bytes());
        tail.add(5).cast::<[u8; 4]>().write(port.to_be_bytes());
    }
    court.on_socket(record, 9, ops_of(kind))
}

/// Copies an address of kernel memory; one longer than any real one is cut, and its length tells.
#[inline(always)]
fn copy_address(body: *mut NetBody, address: Address, len: i32) {
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

/// Judges and reports an act with the name of a Unix socket; gives what the hook returns.
#[inline(always)]
fn report_unix(member: &Member, kind: RecordKind, socket: &Socket) -> i32 {
    let court = Court::of(member, ops_of(kind));
    let Some(record) = Record::take::<NetBody>(member, kind) else { return Court::unseen(&court) };
    let body = begin(&record, socket);
    unix_address(&record, body, socket.sk, &court, ops_of(kind));
    record.finish(member, kind)
}

/// Judges and reports an act with the address of a socket; gives what the hook returns.
#[inline(always)]
fn report_socket(member: &Member, kind: RecordKind, socket: &Socket, end: End) -> i32 {
    if socket.family == AF_UNIX {
        return report_unix(member, kind, socket);
    }
    let court = Court::of(member, ops_of(kind));
    let Some(record) = Record::take::<NetBody>(member, kind) else { return Court::unseen(&court) };
    let body = begin(&record, socket);
    let mut unknown = false;
    match socket.family {
        AF_VSOCK => {
            let from = if end == End::Local { offset!(vsock_local_addr) } else { offset!(vsock_remote_addr) };
            unknown = from == MISSING as usize;
            if !unknown {
                copy_address(body, socket.sk.wrapping_add(from), VSOCK_ADDRESS_BYTES);
            }
        }
        AF_INET | AF_INET6 => inet_address(body, socket, end),
        _ => {}
    }
    if let Some(court) = &court {
        let judgement = if unknown {
            court.undecided()
        } else {
            judge_address((court, member), &record, body, socket, kind)
        };
        record.decide(&judgement);
    }
    record.finish(member, kind)
}

/// A port that the kernel is to choose.
const VSOCK_PORT_ANY: u32 = u32::MAX;
/// Size of `struct sockaddr_vm`.
const VSOCK_ADDRESS_BYTES: i32 = 16;

/// The name of a Unix socket, and where its file is; judges the file that is reached.
#[inline(always)]
fn unix_address(record: &Record, body: *mut NetBody, sk: Address, court: &Option<Court>, ops: Ops) {
    let address = pointer(sk, offset!(unix_sock_addr));
    let len = read_field::<i32>(address, offset!(unix_address_len));
    copy_address(body, address.wrapping_add(offset!(unix_address_name)), len);
    let place = Place::read(sk.wrapping_add(offset!(unix_sock_path)));
    if place.dentry.is_null() {
        if let Some(court) = court {
            let judgement = match on_abstract(court, record, body, ops) {
                Some(judgement) => judgement,
                None => court.on_set(0, ops, 0),
            };
            record.decide(&judgement);
        }
        return;
    }
    fill!(body, ino: place.ino());
    look_at_file(record, place, [part!(body, path), part!(body, path_fs)], court, [ops, 0]);
}

/// Addresses of an IP socket: the wanted end as a `sockaddr`, and the local one.
#[inline(always)]
fn inet_address(body: *mut NetBody, socket: &Socket, end: End) {
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
