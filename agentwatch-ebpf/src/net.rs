//! The network, Unix sockets and vsock.
//!
//! Addresses in these hooks are the kernel's own copies: what a second thread does to the caller's memory
//! makes no difference. A Unix socket is told by the socket that is reached and not by the name given.

use agentwatch_common::{kind::RecordKind, maps::control, offsets::MISSING, record::NetBody, rules::op};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::{
    address::{
        AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, AF_VSOCK, End, Given, Socket, VSOCK_ADDRESS_BYTES,
        abstract_text, copy_address, endpoint_text, inet_address, vsock_text,
    },
    bound, delegate,
    judge::{Court, Judgement, Ops, bit},
    kernel::{Address, field, offset, pointer, read_field},
    learn,
    look::look_at_file,
    place::Place,
    record::{Record, fill, part},
    session::{Member, Task, control_word},
};

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
/// Without an address it is a send on a connection, which is no event, but may ask a delegate for something. With one it may also connect (TCP
/// Fast Open).
#[lsm(hook = "socket_sendmsg")]
pub fn net_send(ctx: LsmContext) -> i32 {
    delegate::on_send(ctx.arg(0));
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

/// Begins the fixed part of a record about a socket.
#[inline(always)]
fn begin(record: &Record, member: &Member, socket: &Socket) -> *mut NetBody {
    bound::take_up(record, member);
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

/// What a hook returns where no buffer was free.
#[inline(always)]
fn unseen(court: &Option<Court>, member: &Member, kind: RecordKind) -> i32 {
    // Nothing is asked about a connection that is accepted.
    if ops_of(kind) == 0 { Court::unseen(court) } else { bound::unseen(court, member).carry_out() }
}

/// Judges and reports an act with the address that was given; gives what the hook returns.
#[inline(always)]
fn report_address(member: &Member, kind: RecordKind, socket: &Socket, address: Address, len: i32) -> i32 {
    let court = Court::of(member, ops_of(kind));
    let Some(record) = Record::take::<NetBody>(member, kind) else {
        return unseen(&court, member, kind);
    };
    let body = begin(&record, member, socket);
    copy_address(body, address, len);
    if let Some(court) = &court {
        record.decide(&judge_address((court, member), &record, body, socket, kind));
    }
    hold_to_address(&record, body, socket, kind);
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
    let given = Given::of(body, socket.family, kind.raw());
    let ops = ops_of(kind);
    let text = |len: u32| if len == 0 { Judgement::NONE } else { court.on_socket(record, len, ops) };
    match given.family {
        // A path is judged as the file that is made, and when somebody listens there.
        AF_UNIX => return text(abstract_text(record, body)),
        AF_VSOCK => return text(vsock_text(record, body, kind.raw())),
        _ if given.is_nothing => return Judgement::NONE,
        _ => {}
    }
    let Some(endpoint) = given.endpoint(socket.protocol) else { return court.on_set(0, ops, 0) };
    let judgement = court.on_endpoint(record, &endpoint, ops);
    if ops != bit(op::CONNECT) || control_word(control::LEARNS) == 0 {
        return judgement;
    }
    judgement.or_stricter(court.on_told(record, member.session, &endpoint))
}

/// Judges the address in the fixed part of a record by what binds the session. Beside the policy's judgement and not in a
/// call inside it, and in two calls one after the other: the stack has little room.
#[inline(always)]
fn hold_to_address(record: &Record, body: *mut NetBody, socket: &Socket, kind: RecordKind) {
    let ops = ops_of(kind);
    if ops != 0 && bound::is_asked(record) {
        let told = u64::from(socket.family) | u64::from(socket.protocol) << 16 | u64::from(kind.raw()) << 32;
        let len = address_text(record.untold(), body, told, ops);
        if len != NO_TEXT {
            bound::judge_text(record.untold(), len, ops);
        }
    }
}

/// Nothing is asked about it.
const NO_TEXT: u32 = u32::MAX;

/// Puts the text that stands for the address in the fixed part of a record at the beginning of the tail. Gives how many
/// bytes it has: 0 for a family that no text tells. `told`: the socket's family, its protocol and the kind of the record, in
/// 16 bits each.
#[inline(never)]
fn address_text(record: Record, body: *mut NetBody, told: u64, ops: Ops) -> u32 {
    let (family, protocol, kind) = (told as u16, (told >> 16) as u16, (told >> 32) as u16);
    let given = Given::of(body, family, kind);
    let or_nothing = |len: u32| if len == 0 { NO_TEXT } else { len };
    match given.family {
        AF_UNIX => or_nothing(abstract_text(&record, body)),
        AF_VSOCK => or_nothing(vsock_text(&record, body, kind)),
        _ if given.is_nothing => NO_TEXT,
        _ => match given.endpoint(protocol) {
            Some(endpoint) => endpoint_text(&record, &endpoint, ops == bit(op::CONNECT)),
            None => 0,
        },
    }
}

/// Judges and reports an act with the name of a Unix socket; gives what the hook returns.
#[inline(always)]
fn report_unix(member: &Member, kind: RecordKind, socket: &Socket) -> i32 {
    let court = Court::of(member, ops_of(kind));
    let Some(record) = Record::take::<NetBody>(member, kind) else {
        return unseen(&court, member, kind);
    };
    let body = begin(&record, member, socket);
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
    let Some(record) = Record::take::<NetBody>(member, kind) else {
        return unseen(&court, member, kind);
    };
    let body = begin(&record, member, socket);
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
    if unknown && ops_of(kind) != 0 {
        bound::refuse_unknown(&record);
    } else {
        hold_to_address(&record, body, socket, kind);
    }
    record.finish(member, kind)
}

/// The name of a Unix socket, and where its file is; judges the file that is reached.
#[inline(always)]
fn unix_address(record: &Record, body: *mut NetBody, sk: Address, court: &Option<Court>, ops: Ops) {
    let address = pointer(sk, offset!(unix_sock_addr));
    let len = read_field::<i32>(address, offset!(unix_address_len));
    copy_address(body, address.wrapping_add(offset!(unix_address_name)), len);
    let place = Place::read(sk.wrapping_add(offset!(unix_sock_path)));
    if place.dentry.is_null() {
        if let Some(court) = court {
            let judgement = match abstract_text(record, body) {
                0 => court.on_set(0, ops, 0),
                len => court.on_socket(record, len, ops),
            };
            record.decide(&judgement);
        }
        if ops != 0 && bound::is_asked(record) {
            let record = record.untold();
            bound::judge_text(record, abstract_text(&record, body), ops);
        }
        return;
    }
    fill!(body, ino: place.ino());
    look_at_file(record, place, [part!(body, path), part!(body, path_fs)], court, [ops, 0]);
    bound::on_place(record, place, ops);
}
