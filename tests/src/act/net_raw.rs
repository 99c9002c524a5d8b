//! Calls that rustix does not have: sendmmsg and vsock.

use std::io::Error;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};

use super::{DidNet, Recorder, V4, udp};
use crate::act::record::did;
use crate::truth::Did;

/// Context id of this machine itself.
const CID_LOCAL: u32 = 1;
/// Any context id of ours.
const CID_ANY: u32 = u32::MAX;

/// Three messages to `port` and the two after it.
pub fn sendmmsg(rec: &Recorder, port: u16) -> Result<()> {
    let places = [udp(V4, port), udp(V4, port + 1), udp(V4, port + 2)];
    let socket = udp(V4, port).socket()?;
    let mut addresses = [port, port + 1, port + 2].map(|port| libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default(),
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    });
    let mut payload = *b"hello";
    let mut part = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
    let part: *mut _ = &raw mut part;
    let mut messages = addresses.each_mut().map(|address| {
        // SAFETY: msghdr is plain data for which zeros are a value.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_name = std::ptr::from_mut(address).cast();
        header.msg_namelen = libc::socklen_t::try_from(size_of_val(address)).unwrap_or_default();
        header.msg_iov = part;
        header.msg_iovlen = 1;
        libc::mmsghdr { msg_hdr: header, msg_len: 0 }
    });
    // SAFETY: the three headers, and the addresses, the part and the bytes they point to, live across the call.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), 3, 0) };
    ensure!(sent == 3, "sendmmsg sent {sent} of 3: {}", Error::last_os_error());
    for place in &places {
        rec.push(place.as_peer("net.send"));
    }
    Ok(())
}

/// Listens on a vsock port and connects to it. What the kernel cannot do is recorded with its error number.
pub fn vsock(rec: &Recorder, port: u32) -> Result<()> {
    let server = vsock_socket()?;
    vsock_call(&server, CID_ANY, port, libc::bind).context("cannot bind the vsock port")?;
    let local = DidNet { local_port: Some(port), ..vsock_net() };
    rec.push(Did { network: Some(local.clone()), ..did("net.bind") });
    rustix::net::listen(&server, 8).context("cannot listen on the vsock port")?;
    rec.push(Did { network: Some(local), ..did("net.listen") });
    let client = vsock_socket()?;
    let errno =
        vsock_call(&client, CID_LOCAL, port, libc::connect).err().and_then(|error| error.raw_os_error());
    let peer =
        DidNet { peer: Some(CID_LOCAL.to_string().as_str().into()), peer_port: Some(port), ..vsock_net() };
    rec.push(Did { network: Some(peer), errno, ..did("net.connect") });
    Ok(())
}

fn vsock_net() -> DidNet {
    DidNet { transport: "vsock".into(), family: "vsock".into(), ..DidNet::default() }
}

fn vsock_socket() -> Result<OwnedFd> {
    // SAFETY: no pointer is passed.
    let fd = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    ensure!(
        fd >= 0,
        "no vsock socket: {} (`modprobe vsock_loopback` loads what is missing)",
        Error::last_os_error()
    );
    // SAFETY: the kernel gave this descriptor just now, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

type Call = unsafe extern "C" fn(libc::c_int, *const libc::sockaddr, libc::socklen_t) -> libc::c_int;

fn vsock_call(socket: &OwnedFd, cid: u32, port: u32, call: Call) -> Result<(), Error> {
    // SAFETY: sockaddr_vm is plain data for which zeros are a value.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::sa_family_t::try_from(libc::AF_VSOCK).unwrap_or_default();
    address.svm_cid = cid;
    address.svm_port = port;
    let len = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or_default();
    // SAFETY: `address` lives across the call and `len` is its size.
    let result = unsafe { call(socket.as_raw_fd(), (&raw const address).cast(), len) };
    if result == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}
