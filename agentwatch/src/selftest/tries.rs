//! What the canary tries.
//!
//! Each is harmless where it gets through: files of its own, addresses at which nobody listens, calls that change
//! nothing or cannot succeed.

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io,
    net::{Ipv6Addr, SocketAddrV4, SocketAddrV6},
    os::unix::{
        ffi::OsStringExt as _,
        net::{UnixDatagram, UnixStream},
        process::ExitStatusExt as _,
    },
    process::{Command, Stdio},
};

use rustix::{
    fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
    mount::{MountPropagationFlags, MoveMountFlags},
    net::{AddressFamily, SendFlags, SocketType},
    process::{PidfdGetfdFlags, Signal},
    thread::UnshareFlags,
};

use super::{
    Outcome, Subject,
    scene::{LOOPBACK, Scene},
};
use crate::{
    event::Op,
    policy::{CANARY_ARGUMENT, Guard},
};

/// One thing that is tried.
#[derive(Debug)]
pub struct Try {
    /// What it is to prove.
    pub about: Subject,
    /// What it is, in a word or two.
    pub what: &'static str,
    run: fn(&Scene) -> io::Result<()>,
}

const fn op(op: Op, what: &'static str, run: fn(&Scene) -> io::Result<()>) -> Try {
    Try { about: Subject::Op(op), what, run }
}

const fn guard(guard: Guard, what: &'static str, run: fn(&Scene) -> io::Result<()>) -> Try {
    Try { about: Subject::Guard(guard), what, run }
}

/// All, in their order. The last would change what the others meet, if it got through.
pub const TRIES: &[Try] = &[
    op(Op::Exec, "start a program", exec),
    op(Op::Run, "run a command line", run),
    op(Op::Read, "open for reading", |scene| File::open(scene.path("read")).map(drop)),
    op(Op::Read, "list a folder", |scene| fs::read_dir(&scene.folder).map(drop)),
    op(Op::Write, "open for writing", |scene| {
        OpenOptions::new().write(true).open(scene.path("write")).map(drop)
    }),
    op(Op::Write, "make a file", |scene| File::create_new(scene.path("new")).map(drop)),
    op(Op::Write, "make a folder", |scene| fs::create_dir(scene.path("new-folder"))),
    op(Op::Write, "make a symbolic link", |scene| std::os::unix::fs::symlink("/", scene.path("new-symlink"))),
    op(Op::Write, "make a hard link", |scene| fs::hard_link(scene.path("link"), scene.path("new-link"))),
    op(Op::Write, "rename onto a file", |scene| fs::rename(scene.path("from"), scene.path("onto"))),
    op(Op::Write, "truncate a file", truncate),
    op(Op::Write, "truncate an open file", |scene| scene.open.set_len(1)),
    op(Op::Write, "change permissions", |scene| {
        Ok(rustix::fs::chmod(scene.path("mode"), Mode::from_raw_mode(0o600))?)
    }),
    op(Op::Write, "change the owner", |scene| {
        let (uid, gid) = (Some(Uid::ROOT), Some(Gid::ROOT));
        Ok(rustix::fs::chownat(CWD, scene.path("owner"), uid, gid, AtFlags::empty())?)
    }),
    op(Op::Write, "set an attribute", |scene| {
        Ok(rustix::fs::setxattr(scene.path("xattr"), "user.selftest", b"x", XattrFlags::empty())?)
    }),
    // It has none of the name.
    op(Op::Write, "remove an attribute", |scene| {
        Ok(rustix::fs::removexattr(scene.path("xattr"), "user.selftest")?)
    }),
    op(Op::Write, "set times", |scene| {
        let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        Ok(rustix::fs::utimensat(CWD, scene.path("times"), &times, AtFlags::empty())?)
    }),
    op(Op::Write, "set flags to what they are", |scene| {
        let flags = rustix::fs::ioctl_getflags(&scene.read);
        let set = flags.and_then(|flags| rustix::fs::ioctl_setflags(&scene.read, flags));
        // Not all file systems have them.
        set.map_err(|error| if error == Errno::NOTTY { Errno::AFNOSUPPORT } else { error }.into())
    }),
    op(Op::Delete, "remove a file", |scene| fs::remove_file(scene.path("delete"))),
    op(Op::Delete, "remove a folder", |scene| fs::remove_dir(scene.path("folder"))),
    op(Op::Delete, "rename away", |scene| fs::rename(scene.path("away"), scene.path("elsewhere"))),
    op(Op::Connect, "connect by TCP over IPv4", |scene| {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        Ok(rustix::net::connect(&socket, &SocketAddrV4::new(LOOPBACK, scene.port))?)
    }),
    op(Op::Connect, "connect by TCP over IPv6", |scene| {
        let socket = rustix::net::socket(AddressFamily::INET6, SocketType::STREAM, None)?;
        Ok(rustix::net::connect(&socket, &SocketAddrV6::new(Ipv6Addr::LOCALHOST, scene.port, 0, 0))?)
    }),
    op(Op::Connect, "send by UDP", |scene| {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        let to = SocketAddrV4::new(LOOPBACK, scene.port);
        Ok(rustix::net::sendto(&socket, b"", SendFlags::empty(), &to).map(drop)?)
    }),
    op(Op::Connect, "connect to a Unix socket", |scene| UnixStream::connect(scene.path("stream")).map(drop)),
    op(Op::Connect, "send to a Unix socket", |scene| {
        UnixDatagram::unbound()?.send_to(b"x", scene.path("datagram")).map(drop)
    }),
    // It has been taken already. A port that the kernel chooses would be nobody's to deny.
    op(Op::Listen, "take an address of IPv4", |scene| {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        Ok(rustix::net::bind(&socket, &SocketAddrV4::new(LOOPBACK, scene.port))?)
    }),
    op(Op::Listen, "take an address of IPv6", |scene| {
        let socket = rustix::net::socket(AddressFamily::INET6, SocketType::STREAM, None)?;
        Ok(rustix::net::bind(&socket, &SocketAddrV6::new(Ipv6Addr::LOCALHOST, scene.port, 0, 0))?)
    }),
    op(Op::Listen, "listen", |scene| {
        let socket = scene.bound.as_ref().ok_or(Errno::AFNOSUPPORT)?;
        Ok(rustix::net::listen(socket, 1)?)
    }),
    guard(Guard::Ptrace, "take a descriptor of the daemon", |scene| {
        let taken = rustix::process::pidfd_getfd(&scene.daemon_fd, 0, PidfdGetfdFlags::empty());
        Ok(taken.map(drop)?)
    }),
    // A signal that nobody notices.
    guard(Guard::Signal, "signal the daemon", |scene| {
        Ok(rustix::process::kill_process(scene.daemon, Signal::URG)?)
    }),
    guard(Guard::Signal, "set the daemon's priority to what it is", |scene| {
        let now = rustix::process::getpriority_process(Some(scene.daemon))?;
        Ok(rustix::process::setpriority_process(Some(scene.daemon), now)?)
    }),
    // Nothing is mounted there.
    guard(Guard::Mount, "change a mount", |scene| {
        Ok(rustix::mount::mount_change(&scene.folder, MountPropagationFlags::PRIVATE)?)
    }),
    guard(Guard::Mount, "move a mount", |scene| {
        let (from, to) = (&scene.folder, scene.path("folder"));
        Ok(rustix::mount::move_mount(CWD, from, CWD, to, MoveMountFlags::empty())?)
    }),
    guard(Guard::Module, "load a file into the kernel", |scene| {
        Ok(rustix::system::finit_module(&scene.read, c"", 0)?)
    }),
    guard(Guard::Module, "load bytes into the kernel", |_| Ok(rustix::system::init_module(&[0; 4096], c"")?)),
    guard(Guard::Bpf, "use BPF", |_| bpf()),
    guard(Guard::RawDevice, "open a device that is memory", |scene| {
        File::open(scene.devices.first().ok_or(Errno::AFNOSUPPORT)?).map(drop)
    }),
    guard(Guard::RawSocket, "make a raw socket", |_| {
        let icmp = Some(rustix::net::ipproto::ICMP);
        Ok(rustix::net::socket(AddressFamily::INET, SocketType::RAW, icmp).map(drop)?)
    }),
    guard(Guard::Namespace, "take the root for its root", |_| Ok(rustix::process::chroot("/")?)),
    // It is no mount.
    guard(Guard::Namespace, "change the root of all", |scene| {
        Ok(rustix::process::pivot_root(&scene.folder, &scene.folder)?)
    }),
    guard(Guard::Namespace, "make a user namespace", |_| {
        // SAFETY: this process has one thread, and nothing of it rests on its namespace.
        Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }?)
    }),
];

impl Try {
    /// Tries it.
    #[must_use]
    pub fn make(&self, scene: &Scene) -> Outcome {
        let error = match (self.run)(scene) {
            Ok(()) => return Outcome::WentThrough,
            Err(error) => error.raw_os_error().unwrap_or(0),
        };
        match Errno::from_raw_os_error(error) {
            Errno::PERM => Outcome::Refused,
            Errno::AFNOSUPPORT | Errno::NOSYS => Outcome::Absent,
            _ => Outcome::Other(error),
        }
    }
}

/// No program that any kernel knows.
fn exec(scene: &Scene) -> io::Result<()> {
    let nothing = Stdio::null;
    let child =
        Command::new(scene.path("program")).stdin(nothing()).stdout(nothing()).stderr(nothing()).spawn();
    child.and_then(|mut child| child.wait()).map(drop)
}

/// agentwatch itself, which would tell its version.
fn run(_: &Scene) -> io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(CANARY_ARGUMENT).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let killed = command.status()?.signal() == Some(Signal::KILL.as_raw());
    if killed { Err(Errno::PERM.into()) } else { Ok(()) }
}

fn truncate(scene: &Scene) -> io::Result<()> {
    let path = CString::new(scene.path("write").into_os_string().into_vec())?;
    // SAFETY: the text ends with a zero, and lives across the call.
    let result = unsafe { libc::truncate(path.as_ptr(), 1) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Asks for a table without saying which: it cannot be made.
fn bpf() -> io::Result<()> {
    const MAP_CREATE: libc::c_int = 0;
    // SAFETY: the kernel reads nothing where the length is 0.
    let result = unsafe { libc::syscall(libc::SYS_bpf, MAP_CREATE, std::ptr::null::<u8>(), 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
