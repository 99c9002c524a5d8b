//! Attempts at what guards are about. Each says how it went: a refusal is no failure of the actor.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags};

use super::io_uring::Operation;
use super::record::Recorder;

/// Attempts at what guards are about.
#[derive(Subcommand)]
pub enum Act {
    /// Tries one of them, and gives the error's number as the fact `errno`: 0 where it went through
    #[command(subcommand)]
    Try(Attempt),
}

/// What is tried.
#[derive(Subcommand)]
pub enum Attempt {
    /// Attaches to a process
    Attach { pid: i32 },
    /// Attaches to a child of its own, which runs this program as `sleep`
    AttachChild { program: PathBuf },
    /// Opens the memory of a process for writing
    Memory { pid: i32 },
    /// Writes into the memory of a process, at an address where there is none
    WriteMemory { pid: i32 },
    /// Takes a descriptor of a process
    TakeDescriptor { pid: i32 },
    /// Sends a signal
    Signal { pid: i32, signal: i32 },
    /// Sets a limit of a process to what it is
    Limit { pid: i32 },
    /// Sets the priority of a process to what it is
    Nice { pid: i32 },
    /// Sets the CPUs of a process to what they are
    Affinity { pid: i32 },
    /// Makes a user namespace
    UserNamespace,
    /// Makes a folder its root
    Chroot { path: PathBuf },
    /// Asks for another root of the mount namespace, which is none
    PivotRoot { path: PathBuf },
    /// Loads a file as a module
    Module { path: PathBuf },
    /// Loads some bytes as a module
    ModuleBytes,
    /// Makes a table for BPF
    Bpf,
    /// Opens a device for reading
    Device { path: PathBuf },
    /// Makes a socket for raw packets of a family
    RawSocket { family: i32 },
    /// Mounts a tmpfs
    Mount { path: PathBuf },
    /// Mounts a tmpfs without a place
    MountNowhere,
    /// Makes a mount read-only by the newer calls
    Reconfigure { path: PathBuf },
    /// Unmounts
    Unmount { path: PathBuf },
    /// Connects to a Unix socket
    Connect { path: PathBuf },
    /// Makes a file
    Create { path: PathBuf },
    /// Removes a file
    Remove { path: PathBuf },
    /// Puts a key into a new terminal
    Keys,
    /// Sets the clock to what it is
    Clock,
    /// Starts a thread, which is no process, and then a process
    Fork,
    /// Gives a command to a console
    Console { path: PathBuf },
    /// Gives something another name
    Rename { path: PathBuf, to: PathBuf },
    /// Does something by a ring of io_uring
    Ring {
        /// By the kernel's worker threads
        #[arg(long)]
        workers: bool,
        /// By a thread of the kernel that takes what is in the ring
        #[arg(long)]
        watched: bool,
        #[command(subcommand)]
        what: Operation,
    },
}

impl Act {
    /// Does it.
    pub fn run(&self, rec: &Recorder) -> Result<()> {
        let Self::Try(attempt) = self;
        let errno = match attempt.make() {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().with_context(|| format!("no error of the kernel: {error}"))?,
        };
        rec.fact("errno", errno);
        Ok(())
    }
}

impl Attempt {
    fn make(&self) -> io::Result<()> {
        match self {
            Self::Attach { pid } => attach(*pid),
            Self::AttachChild { program } => attach_child(program),
            Self::Memory { pid } => OpenOptions::new().write(true).open(format!("/proc/{pid}/mem")).map(drop),
            Self::WriteMemory { pid } => write_memory(*pid),
            Self::TakeDescriptor { pid } => take_descriptor(*pid),
            // SAFETY: numbers alone.
            Self::Signal { pid, signal } => made(unsafe { libc::kill(*pid, *signal) }.into()),
            Self::Limit { pid } => limit(*pid),
            Self::Nice { pid } => nice(*pid),
            Self::Affinity { pid } => affinity(*pid),
            // SAFETY: no pointers; this process has one thread, and ends soon.
            Self::UserNamespace => made(unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into()),
            Self::Chroot { path } => Ok(rustix::process::chroot(path)?),
            Self::PivotRoot { path } => Ok(rustix::process::pivot_root(path, path)?),
            Self::Module { path } => module(path),
            Self::ModuleBytes => module_bytes(),
            Self::Bpf => bpf(),
            Self::Device { path } => OpenOptions::new().read(true).open(path).map(drop),
            Self::RawSocket { family } => raw_socket(*family),
            Self::Mount { path } => Ok(rustix::mount::mount("aw", path, "tmpfs", MountFlags::empty(), None)?),
            Self::MountNowhere => mount_nowhere(),
            Self::Reconfigure { path } => reconfigure(path),
            Self::Unmount { path } => Ok(rustix::mount::unmount(path, UnmountFlags::empty())?),
            Self::Connect { path } => std::os::unix::net::UnixStream::connect(path).map(drop),
            Self::Create { path } => OpenOptions::new().write(true).create_new(true).open(path).map(drop),
            Self::Remove { path } => std::fs::remove_file(path),
            Self::Keys => keys(),
            Self::Clock => clock(),
            Self::Fork => fork(),
            Self::Console { path } => console(path),
            Self::Rename { path, to } => std::fs::rename(path, to),
            Self::Ring { workers, watched, what } => what.attempt(*workers, *watched),
        }
    }
}

/// What a call gave, as std has it.
fn made(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Without stopping it; the kernel detaches at this process's end.
fn attach(pid: i32) -> io::Result<()> {
    // SAFETY: numbers alone.
    made(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) })
}

fn attach_child(program: &Path) -> io::Result<()> {
    let mut child = Command::new(program).arg("1000").stdin(Stdio::null()).spawn()?;
    let result = i32::try_from(child.id()).map_err(io::Error::other).and_then(attach);
    child.kill()?;
    child.wait()?;
    result
}

fn write_memory(pid: i32) -> io::Result<()> {
    let byte = [0_u8];
    let local = libc::iovec { iov_base: byte.as_ptr().cast_mut().cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 1 };
    // SAFETY: the byte is only read; at the other address is nothing.
    made(unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) } as libc::c_long)
}

fn take_descriptor(pid: i32) -> io::Result<()> {
    // SAFETY: numbers alone; the descriptor is new and nobody else's.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    made(fd)?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: as above.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::process::pidfd_getfd(&fd, 0, rustix::process::PidfdGetfdFlags::empty())?;
    Ok(())
}

fn limit(pid: i32) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure lives across both calls.
    unsafe {
        made(libc::prlimit(pid, libc::RLIMIT_CORE, std::ptr::null(), &raw mut limit).into())?;
        made(libc::prlimit(pid, libc::RLIMIT_CORE, &raw const limit, std::ptr::null_mut()).into())
    }
}

fn nice(pid: i32) -> io::Result<()> {
    let id = libc::id_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: numbers alone.
    unsafe {
        made(libc::setpriority(libc::PRIO_PROCESS, id, libc::getpriority(libc::PRIO_PROCESS, id)).into())
    }
}

fn affinity(pid: i32) -> io::Result<()> {
    let pid = rustix::process::Pid::from_raw(pid);
    Ok(rustix::thread::sched_setaffinity(pid, &rustix::thread::sched_getaffinity(pid)?)?)
}

fn module(path: &Path) -> io::Result<()> {
    let file = std::fs::File::open(path)?;
    // SAFETY: a descriptor and a text that live across the call.
    made(unsafe {
        libc::syscall(libc::SYS_finit_module, std::os::fd::AsRawFd::as_raw_fd(&file), c"".as_ptr(), 0)
    })
}

fn module_bytes() -> io::Result<()> {
    let bytes = [0_u8; 4096];
    // SAFETY: bytes and a text that live across the call.
    made(unsafe { libc::syscall(libc::SYS_init_module, bytes.as_ptr(), bytes.len(), c"".as_ptr()) })
}

/// `BPF_MAP_CREATE` of an array of one word.
fn bpf() -> io::Result<()> {
    const ARRAY: u32 = 2;
    let attributes = [ARRAY, 4, 4, 1];
    // SAFETY: the attributes live across the call; the descriptor is closed at this process's end.
    made(unsafe { libc::syscall(libc::SYS_bpf, 0, attributes.as_ptr(), size_of_val(&attributes)) })
}

fn raw_socket(family: i32) -> io::Result<()> {
    // SAFETY: numbers alone; the descriptor is closed at this process's end.
    made(unsafe { libc::socket(family, libc::SOCK_RAW, libc::IPPROTO_ICMP) }.into())
}

fn fork() -> io::Result<()> {
    let thread = std::thread::Builder::new().spawn(|| ());
    thread.map_err(io::Error::other)?.join().map_err(|_| io::Error::other("the thread panicked"))?;
    // SAFETY: the child does nothing but end.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: a number alone.
        unsafe { libc::_exit(0) };
    }
    made(child.into())?;
    // SAFETY: the status is not asked for.
    made(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }.into())
}

fn keys() -> io::Result<()> {
    use rustix::pty::OpenptFlags;
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    rustix::pty::unlockpt(&master)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let name = std::ffi::OsStr::from_bytes(name.as_bytes());
    command(&OpenOptions::new().read(true).open(name)?, libc::TIOCSTI, b'x')
}

fn clock() -> io::Result<()> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    Ok(rustix::time::clock_settime(rustix::time::ClockId::Realtime, now)?)
}

/// Asks for the state of the shift keys: pasting is told from it only in the caller's memory.
fn console(path: &Path) -> io::Result<()> {
    const TIOCL_GETSHIFTSTATE: u8 = 6;
    command(&OpenOptions::new().read(true).open(path)?, libc::TIOCLINUX, TIOCL_GETSHIFTSTATE)
}

fn command(terminal: &impl std::os::fd::AsRawFd, command: libc::c_ulong, mut byte: u8) -> io::Result<()> {
    // SAFETY: the byte lives across the call, which reads and writes nothing beyond.
    made(unsafe { libc::ioctl(terminal.as_raw_fd(), command, &raw mut byte) }.into())
}

fn mount_nowhere() -> io::Result<()> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    Ok(())
}

fn reconfigure(path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let context =
        rustix::mount::fspick(rustix::fs::CWD, path.as_c_str(), rustix::mount::FsPickFlags::FSPICK_CLOEXEC)?;
    rustix::mount::fsconfig_set_flag(&context, "ro")?;
    Ok(rustix::mount::fsconfig_reconfigure(&context)?)
}
