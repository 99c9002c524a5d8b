//! The records in the ring.
//!
//! A record is a [`RecordHeader`], the fixed part that its kind names, and a tail of texts. The fixed
//! part says how long each text is; they follow each other in the order of its fields. The header's
//! `len` counts all of it.
//!
//! A path is given as the names of its components, **the deepest first**, each ended by a NUL: the kernel
//! finds them in that order, and turning them round is cheaper in the daemon.

use core::mem::{offset_of, size_of};

/// First part of every record: who, when, in which session.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of the whole record.
    pub len: u32,
    /// [`crate::kind::RecordKind`].
    pub kind: u16,
    /// [`crate::ABI`] of the program that wrote it.
    pub abi: u16,
    /// Nanoseconds since boot, suspended time included (`CLOCK_BOOTTIME`).
    pub time_ns: u64,
    /// The session's number. Never 0.
    pub session: u64,
    /// When the process began (its group leader's `start_boottime`), nanoseconds since boot.
    pub start_ns: u64,
    /// Process id (thread group) in the initial namespace.
    pub pid: u32,
    /// Thread id in the initial namespace.
    pub tid: u32,
    /// Process id of the parent at this moment.
    pub ppid: u32,
    /// Effective user id, in the initial namespace.
    pub uid: u32,
    /// Version of the policy that judged; 0 where none had anything to say.
    pub policy: u32,
    /// The rule that decided: see [`crate::rules`].
    pub rule: u16,
    /// [`crate::rules::Verdict`]; 0 where nothing was judged, which is allowed.
    pub verdict: u8,
    /// Padding, zero.
    pub pad: u8,
}

/// Where a text of the tail came from and what it is worth.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathDesc {
    /// Bytes in the tail.
    pub len: u32,
    /// [`path_flag`].
    pub flags: u16,
    /// Names in the tail.
    pub components: u16,
    /// Inode number of the mount namespace in which the walk ended; 0 where none (a detached mount).
    pub mount_ns: u32,
    /// Device of the file system on which the file is, as the kernel encodes it (`MAJOR << 20 | MINOR`).
    pub dev: u32,
}

/// Flags of a [`PathDesc`].
pub mod path_flag {
    /// Names are missing at the upper end: too many components, or no room.
    pub const TRUNCATED: u16 = 1;
    /// The file has no name any more, or never had one (`O_TMPFILE`, memfd).
    pub const DELETED: u16 = 1 << 1;
    /// A read failed in the walk: names may be missing.
    pub const FAULT: u16 = 1 << 2;
    /// The walk did not cross mounts: the path begins at the root of its file system.
    pub const WITHIN_FS: u16 = 1 << 3;
    /// The walk ended at the root of a mount namespace that is not the initial one.
    pub const OTHER_NS: u16 = 1 << 4;
    /// The text is no path but as the caller gave it (a link's target, an attribute's name).
    pub const VERBATIM: u16 = 1 << 5;
    /// The file system keeps no tree of names (pipe, socket, anonymous inode).
    pub const PSEUDO: u16 = 1 << 6;
}

/// A process made another.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForkBody {
    /// When the child began, nanoseconds since boot.
    pub child_start_ns: u64,
    /// The child's process id in the initial namespace.
    pub child_pid: u32,
    /// The child's process id in its own, innermost namespace.
    pub child_ns_pid: u32,
}

/// A process started a program. Tail: program, working directory, arguments.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecBody {
    /// Inode number of the program that runs (for a script its interpreter).
    pub ino: u64,
    /// Session in which this process was before, where this exec began a new one; else 0.
    pub parent_session: u64,
    /// Bytes of all arguments, those in later records included.
    pub args_total: u32,
    /// Bytes of arguments in this record.
    pub args_len: u32,
    /// [`args_flag`].
    pub args_flags: u16,
    /// [`crate::kind::Attribution`] where this exec began a session, else 0.
    pub attribution: u8,
    /// Padding, zero.
    pub pad: u8,
    /// Number of the agent whose pattern matched, where this exec began a session: see [`crate::rules::agent_number`].
    pub agent: u32,
    /// Path of the program.
    pub program: PathDesc,
    /// Path within its file system, where the walk ended in another mount namespace.
    pub program_fs: PathDesc,
    /// Working directory.
    pub cwd: PathDesc,
    /// Id of the process's cgroup (its inode number in cgroupfs).
    pub cgroup: u64,
}

/// Flags of argument lists.
pub mod args_flag {
    /// More follow in an [`super::ArgsBody`] record.
    pub const MORE: u16 = 1;
    /// Arguments are missing at the end: more than [`crate::limits::ARGS_CHUNKS`] records.
    pub const TRUNCATED: u16 = 1 << 1;
    /// A page of the arguments could not be read.
    pub const FAULT: u16 = 1 << 2;
}

/// More arguments of the exec before. Tail: arguments.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArgsBody {
    /// Offset of these bytes in the whole list.
    pub offset: u32,
    /// Bytes in this record.
    pub args_len: u32,
    /// [`args_flag`].
    pub args_flags: u16,
    /// Padding, zero.
    pub pad: [u8; 6],
}

/// The last thread of a process ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitBody {
    /// As `wait` gives it: status in bits 8 to 15, signal in bits 0 to 6, core dump in bit 7.
    pub code: u32,
    /// Padding, zero.
    pub pad: u32,
}

/// A process joined a session without an exec.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinBody {
    /// Id of the cgroup that matched, or 0.
    pub cgroup: u64,
    /// Number of the agent that matched.
    pub agent: u32,
    /// [`crate::kind::Attribution`].
    pub attribution: u8,
    /// Padding, zero.
    pub pad: [u8; 3],
}

/// Something done to a file. Tail: path, path within the file system, second path, second within.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileBody {
    /// Inode number; 0 where the file does not exist yet.
    pub ino: u64,
    /// Inode number of the second file (rename over, link), or 0.
    pub ino_to: u64,
    /// `f_flags` of an open; flags of a rename or mount; length asked of a truncate is in `ino_to`.
    pub flags: u32,
    /// Mode given, or the file's mode.
    pub mode: u32,
    /// Owner given (chown), or `u32::MAX`.
    pub uid: u32,
    /// Group given (chown), or `u32::MAX`.
    pub gid: u32,
    /// The path.
    pub path: PathDesc,
    /// The path within its file system, where the walk ended in another mount namespace.
    pub path_fs: PathDesc,
    /// Second path (rename, link) or text (symlink, xattr, mount).
    pub path_to: PathDesc,
    /// Second path within its file system.
    pub path_to_fs: PathDesc,
}

/// [`FileBody::flags`] of a refused exec: not the file was refused but the command line, whose arguments are the second
/// text, each with its NUL.
pub const REFUSED_COMMAND: u32 = 1;

/// Bytes of an address in a [`NetBody`]: a whole `sockaddr_un` and more.
pub const ADDRESS_BYTES: usize = 128;

/// Something done to the network. Tail: path of the Unix socket that is reached, path within its file system.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetBody {
    /// Address family of the socket (`AF_*`).
    pub family: u16,
    /// Type of the socket (`SOCK_*`).
    pub socket_type: u16,
    /// Protocol of the socket (`IPPROTO_*`).
    pub protocol: u16,
    /// Port of the local address, host byte order, where known.
    pub local_port: u16,
    /// Local IP address where known: IPv4 in the first four bytes.
    pub local_addr: [u8; 16],
    /// Bytes of `address` that count.
    pub address_len: u16,
    /// Padding, zero.
    pub pad: [u8; 6],
    /// Inode number of the Unix socket's file, or 0.
    pub ino: u64,
    /// The address as the kernel holds it (`struct sockaddr`): the peer's, or the local one for bind and listen.
    pub address: [u8; ADDRESS_BYTES],
    /// Path of the Unix socket's file.
    pub path: PathDesc,
    /// The same within its file system.
    pub path_fs: PathDesc,
}

/// Something that a guard is about. Tail: path, path within the file system.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardBody {
    /// When the other process began, nanoseconds since boot; 0 where there is none.
    pub target_start_ns: u64,
    /// Process id of the other process, or 0.
    pub target_pid: u32,
    /// What [`crate::kind::GuardAct`] says.
    pub detail: u32,
    /// [`crate::kind::GuardAct`].
    pub act: u16,
    /// Number of the guard: see [`crate::rules::guard`].
    pub guard: u8,
    /// Padding, zero.
    pub pad: [u8; 5],
    /// Path of the file, where it is about one.
    pub path: PathDesc,
    /// The same within its file system, where the walk ended in another mount namespace.
    pub path_fs: PathDesc,
}

/// A process outside every session uses what one left behind, or is started by a delegate that one asked, or as its job. Tail: path, path
/// within the file system.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CauseBody {
    /// Inode number of the file; of a job its key in the map `JOBS`; 0 where a delegate was asked.
    pub ino: u64,
    /// Number of the session that wrote it last, or asked; with [`crate::maps::SESSION_OF_PAST`] one of an earlier boot.
    pub writer: u64,
    /// Generation of the inode.
    pub generation: u32,
    /// Number of that session's agent; 0 where the kernel does not know it any more.
    pub agent: u32,
    /// [`crate::kind::CauseBy`].
    pub by: u8,
    /// 1 where the delegate heard from others as well: it may be they who asked.
    pub others: u8,
    /// Padding, zero.
    pub pad: [u8; 2],
    /// Process of the session that asked a delegate, else 0.
    pub asker: u32,
    /// Path of the file; of a delegate that of its program, of a job that of what is started.
    pub path: PathDesc,
    /// The same within its file system, where the walk ended in another mount namespace.
    pub path_fs: PathDesc,
}

// The layout is a promise between two compilations: a change here is a change of the ABI.
const _: () = {
    assert!(size_of::<RecordHeader>() == 56);
    assert!(offset_of!(RecordHeader, session) == 16);
    assert!(offset_of!(RecordHeader, pid) == 32);
    assert!(size_of::<PathDesc>() == 16);
    assert!(size_of::<ForkBody>() == 16);
    assert!(size_of::<ExecBody>() == 88);
    assert!(offset_of!(ExecBody, program) == 32);
    assert!(size_of::<ArgsBody>() == 16);
    assert!(size_of::<ExitBody>() == 8);
    assert!(size_of::<JoinBody>() == 16);
    assert!(size_of::<FileBody>() == 96);
    assert!(offset_of!(FileBody, path) == 32);
    assert!(size_of::<NetBody>() == 200);
    assert!(offset_of!(NetBody, address) == 40);
    assert!(size_of::<GuardBody>() == 56);
    assert!(offset_of!(GuardBody, path) == 24);
    assert!(size_of::<CauseBody>() == 64);
    assert!(offset_of!(CauseBody, path) == 32);
};
