//! Acts through io_uring: no system call names what they do.

use std::ffi::CString;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Subcommand;
use io_uring::{IoUring, opcode, squeue, types};
use rustix::fs::OFlags;

use super::ops::{FILE_MODE, with_stat};
use super::record::{Recorder, did};
use crate::truth::{Did, DidNet};

/// Acts through io_uring.
#[derive(Subcommand)]
pub enum Act {
    /// Creates, renames and removes a file and connects by TCP
    IoUring {
        /// By the kernel's worker threads and not by this one
        #[arg(long)]
        workers: bool,
        /// Port to connect to on 127.0.0.1
        #[arg(long, default_value_t = 47_100)]
        port: u16,
    },
}

struct Ring {
    ring: IoUring,
    flags: squeue::Flags,
}

impl Ring {
    /// Submits one operation and waits for its result.
    ///
    /// # Safety
    /// What `entry` points to must live until this returns.
    unsafe fn call(&mut self, entry: squeue::Entry) -> Result<i32> {
        // SAFETY: the caller's promise.
        let result = unsafe { self.result_of(entry) }?;
        ensure!(result >= 0, "the operation failed: {}", io::Error::from_raw_os_error(-result));
        Ok(result)
    }

    /// The same, whatever the result is.
    ///
    /// # Safety
    /// As [`Self::call`].
    unsafe fn result_of(&mut self, entry: squeue::Entry) -> Result<i32> {
        let entry = entry.flags(self.flags);
        // SAFETY: the caller's promise: the operation is complete when this function returns.
        unsafe { self.ring.submission().push(&entry) }.context("the ring is full")?;
        self.ring.submit_and_wait(1).context("io_uring_enter failed")?;
        Ok(self.ring.completion().next().context("no completion")?.result())
    }
}

/// One operation by a ring.
#[derive(Subcommand)]
pub enum Operation {
    /// Opens a file for writing
    Open { path: PathBuf },
    /// Removes a file
    Unlink { path: PathBuf },
    /// Renames a file
    Rename { path: PathBuf, to: PathBuf },
    /// Connects to a port of 127.0.0.1
    Connect { port: u16 },
}

impl Operation {
    /// Does it by a worker of the kernel, by a thread of it that watches the ring, or by this thread.
    pub fn attempt(&self, workers: bool, watched: bool) -> io::Result<()> {
        let mut builder = IoUring::builder();
        if watched {
            builder.setup_sqpoll(1000);
        }
        let flags = if workers { squeue::Flags::ASYNC } else { squeue::Flags::empty() };
        let mut ring = Ring { ring: builder.build(4)?, flags };
        let cwd = types::Fd(libc::AT_FDCWD);
        let names = match self {
            Self::Open { path } | Self::Unlink { path } => vec![c_path(path)],
            Self::Rename { path, to } => vec![c_path(path), c_path(to)],
            Self::Connect { .. } => Vec::new(),
        };
        let names: Vec<CString> = names.into_iter().collect::<Result<_>>().map_err(io::Error::other)?;
        let name = |index: usize| names.get(index).map_or(std::ptr::null(), |name| name.as_ptr());
        let port = if let Self::Connect { port } = self { *port } else { 0 };
        let (family, kind) = (rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM);
        let (socket, address) = (rustix::net::socket(family, kind, None)?, loopback(port));
        let entry = match self {
            Self::Open { .. } => opcode::OpenAt::new(cwd, name(0)).flags(libc::O_WRONLY).build(),
            Self::Unlink { .. } => opcode::UnlinkAt::new(cwd, name(0)).build(),
            Self::Rename { .. } => opcode::RenameAt::new(cwd, name(0), cwd, name(1)).build(),
            Self::Connect { .. } => {
                opcode::Connect::new(types::Fd(socket.as_raw_fd()), (&raw const address).cast(), ADDRESS_LEN)
                    .build()
            }
        };
        // SAFETY: names, socket and address live to the end of this function.
        let result = unsafe { ring.result_of(entry) }.map_err(io::Error::other)?;
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
    }
}

/// Bytes of an IPv4 address as the kernel takes it.
const ADDRESS_LEN: libc::socklen_t = size_of::<libc::sockaddr_in>() as libc::socklen_t;

fn loopback(port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: rustix::net::AddressFamily::INET.as_raw(),
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    }
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).context("NUL in a path")
}

impl Act {
    /// Does it.
    pub fn run(&self, rec: &Recorder) -> Result<()> {
        let Self::IoUring { workers, port } = *self;
        let flags = if workers { squeue::Flags::ASYNC } else { squeue::Flags::empty() };
        let mut ring = Ring { ring: IoUring::new(4).context("no io_uring here")?, flags };
        files(rec, &mut ring)?;
        connect(rec, &mut ring, port)
    }
}

fn files(rec: &Recorder, ring: &mut Ring) -> Result<()> {
    let (path, renamed) = (rec.path("ring-file"), rec.path("ring-renamed"));
    let (c_name, c_renamed) = (c_path(&path)?, c_path(&renamed)?);
    let cwd = types::Fd(libc::AT_FDCWD);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    let raw = i32::try_from(flags.bits()).context("flags")? | libc::O_CLOEXEC;
    let open = opcode::OpenAt::new(cwd, c_name.as_ptr()).flags(raw).mode(FILE_MODE).build();
    // SAFETY: the name lives to the end of this function.
    let fd = unsafe { ring.call(open) }.context("openat")?;
    // SAFETY: the ring gave this descriptor just now, and nobody else has it.
    let fd = unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) };
    rec.opened(&fd, &path, flags, false)?;
    let stat = rustix::fs::fstat(&fd).context("cannot stat the file")?;
    let rename = opcode::RenameAt::new(cwd, c_name.as_ptr(), cwd, c_renamed.as_ptr()).build();
    // SAFETY: both names live to the end of this function.
    unsafe { ring.call(rename) }.context("renameat")?;
    let entry = Did { path: Some(path.as_path().into()), ..did("file.rename") };
    rec.push(with_stat(Did { path_to: Some(renamed.as_path().into()), ..entry }, &stat));
    let unlink = opcode::UnlinkAt::new(cwd, c_renamed.as_ptr()).build();
    // SAFETY: the name lives to the end of this function.
    unsafe { ring.call(unlink) }.context("unlinkat")?;
    rec.push(with_stat(Did { path: Some(renamed.as_path().into()), ..did("file.delete") }, &stat));
    Ok(())
}

fn connect(rec: &Recorder, ring: &mut Ring, port: u16) -> Result<()> {
    let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).context("cannot listen")?;
    let net = |peer: bool| {
        let (address, port) = (Some("127.0.0.1".into()), Some(port.into()));
        let net = DidNet { transport: "tcp".into(), family: "ipv4".into(), ..DidNet::default() };
        if peer {
            DidNet { peer: address, peer_port: port, ..net }
        } else {
            DidNet { local: address, local_port: port, ..net }
        }
    };
    rec.push(Did { network: Some(net(false)), ..did("net.bind") });
    rec.push(Did { network: Some(net(false)), ..did("net.listen") });
    let (family, kind) = (rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM);
    let socket = rustix::net::socket_with(family, kind, rustix::net::SocketFlags::CLOEXEC, None)
        .context("no socket")?;
    let address = loopback(port);
    let entry =
        opcode::Connect::new(types::Fd(socket.as_raw_fd()), (&raw const address).cast(), ADDRESS_LEN).build();
    // SAFETY: the address lives to the end of this function.
    unsafe { ring.call(entry) }.context("connect")?;
    // A worker may find that it must wait and try again, and the kernel asks its hooks each time.
    rec.push(Did { network: Some(net(true)), ..did("net.connect") });
    rec.push(Did { network: Some(net(true)), optional: true, ..did("net.connect") });
    Ok(())
}
