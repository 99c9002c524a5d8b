//! What the canary has at hand before it becomes a session.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::OpenOptionsExt as _,
            net::{UnixDatagram, UnixListener},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode},
    net::{AddressFamily, SocketAddrAny, SocketType},
    process::{Pid, PidfdFlags},
};

/// Address of this host that nobody else uses.
pub const LOOPBACK: std::net::Ipv4Addr = std::net::Ipv4Addr::new(127, 255, 255, 254);
/// Files that it makes, each for one try.
const FILES: [&str; 13] = [
    "program", "read", "write", "link", "mode", "owner", "xattr", "times", "cut", "from", "onto", "delete",
    "away",
];

/// Everything that the tries need, made before they are forbidden.
#[derive(Debug)]
pub struct Scene {
    /// The canary's own folder.
    pub folder: PathBuf,
    /// The daemon.
    pub daemon: Pid,
    /// The same.
    pub daemon_fd: OwnedFd,
    /// A file, open for writing.
    pub open: File,
    /// A file, open for reading.
    pub read: File,
    /// A socket with an address, at which it does not listen.
    pub bound: Option<OwnedFd>,
    /// Its port, on which nobody listens.
    pub port: u16,
    /// Devices that are memory or a disk.
    pub devices: Vec<PathBuf>,
    _listener: UnixListener,
    _datagrams: UnixDatagram,
}

impl Scene {
    /// Makes all of it in this folder, which must be there and empty.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn new(folder: &Path) -> io::Result<Self> {
        for name in FILES {
            // No program: what got through would not be understood.
            OpenOptions::new().write(true).create_new(true).mode(0o700).open(folder.join(name)).and_then(
                |mut file| io::Write::write_all(&mut file, b"a file of agentwatch's self-test\n"),
            )?;
        }
        fs::create_dir(folder.join("folder"))?;
        let daemon = rustix::process::getppid().ok_or_else(|| io::Error::other("there is no daemon"))?;
        let bound = bound().ok();
        Ok(Self {
            daemon,
            daemon_fd: rustix::process::pidfd_open(daemon, PidfdFlags::empty())?,
            open: OpenOptions::new().write(true).open(folder.join("cut"))?,
            read: File::open(folder.join("read"))?,
            // Another port would do as well where there is none: it is refused before anybody looks.
            port: bound.as_ref().map_or(1, |(_, port)| *port),
            bound: bound.map(|(socket, _)| socket),
            devices: devices(folder),
            _listener: UnixListener::bind(folder.join("stream"))?,
            _datagrams: UnixDatagram::bind(folder.join("datagram"))?,
            folder: folder.to_owned(),
        })
    }

    /// A name in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// A socket with a port that nobody has.
fn bound() -> io::Result<(OwnedFd, u16)> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &std::net::SocketAddrV4::new(LOOPBACK, 0))?;
    let port = match SocketAddrAny::try_into(rustix::net::getsockname(&socket)?) {
        Ok(std::net::SocketAddr::V4(address)) => address.port(),
        Ok(_) | Err(_) => return Err(io::Error::other("not an address of IPv4")),
    };
    Ok((socket, port))
}

/// Those of the host, else one of its own.
fn devices(folder: &Path) -> Vec<PathBuf> {
    let there = ["/dev/mem", "/dev/port"].map(PathBuf::from).into_iter().find(|path| path.exists());
    let own = || {
        let path = folder.join("device");
        let mode = Mode::from_raw_mode(0o400);
        // `/dev/mem`.
        let made =
            rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, mode, rustix::fs::makedev(1, 1));
        made.is_ok().then_some(path)
    };
    there.or_else(own).into_iter().collect()
}
