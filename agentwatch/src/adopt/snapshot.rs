//! All processes of the host at one moment.

use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;

use procfs::process::{Process, all_processes};
use procfs::{ProcError, ProcResult};

/// Bytes of a process's arguments that are read: what patterns see, and a first argument before it.
pub const ARGUMENT_BYTES_MAX: u64 = 4096;
/// Bytes of `/proc/PID/cgroup` that are read.
const CGROUP_BYTES_MAX: u64 = 16 * 1024;

/// A process, for good: process ids are reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcId {
    /// Process id in the initial namespace.
    pub pid: u32,
    /// When it began, in clock ticks since boot, as `/proc/PID/stat` has it.
    pub start_ticks: u64,
}

/// What was seen of a process. Texts are the kernel's bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcInfo {
    /// Which process.
    pub id: ProcId,
    /// Its parent's process id, or 0.
    pub ppid: u32,
    /// Its process group.
    pub pgid: u32,
    /// Its terminal session, which is the process id of the process that began it.
    pub sid: u32,
    /// Path of its program; empty for a kernel thread, and where it may not be read.
    pub exe: Vec<u8>,
    /// Its arguments, cut after [`ARGUMENT_BYTES_MAX`] bytes of them.
    pub arguments: Vec<Vec<u8>>,
    /// Its real user.
    pub uid: u32,
    /// Path of its cgroup in the unified hierarchy; empty where there is none.
    pub cgroup: Vec<u8>,
    /// Its working folder; empty where it may not be read.
    pub cwd: Vec<u8>,
}

/// All processes of the host at one moment, as far as that exists: each was read at a moment of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcSnapshot {
    /// The processes, without those that ended while they were read.
    pub processes: Vec<ProcInfo>,
    /// Processes that could not be read though they live.
    pub unreadable: usize,
}

impl ProcSnapshot {
    /// Reads `/proc`.
    ///
    /// # Errors
    /// When `/proc` itself cannot be read.
    pub fn read() -> ProcResult<Self> {
        let mut snapshot = Self::default();
        for process in all_processes()? {
            match process.and_then(|process| info_of(&process)) {
                Ok(Some(info)) => snapshot.processes.push(info),
                Ok(None) => {}
                Err(error) if has_ended(&error) => {}
                Err(_) => snapshot.unreadable += 1,
            }
        }
        Ok(snapshot)
    }
}

fn has_ended(error: &ProcError) -> bool {
    match error {
        ProcError::NotFound(_) => true,
        ProcError::Io(error, _) => {
            error.raw_os_error() == Some(libc::ESRCH) || error.kind() == std::io::ErrorKind::NotFound
        }
        _ => false,
    }
}

/// `None` for a process that has ended and only waits to be reaped. All is read through one handle, so that
/// no later process of the same number can come between.
fn info_of(process: &Process) -> ProcResult<Option<ProcInfo>> {
    let stat = process.stat()?;
    // A leader that has ended while its threads go on is still a process.
    if stat.state == 'X' || (stat.state == 'Z' && stat.num_threads <= 1) {
        return Ok(None);
    }
    let number = |value: i32| u32::try_from(value).unwrap_or(0);
    let status = process.status()?;
    Ok(Some(ProcInfo {
        id: ProcId { pid: number(stat.pid), start_ticks: stat.starttime },
        ppid: number(stat.ppid),
        pgid: number(stat.pgrp),
        sid: number(stat.session),
        // Kernel threads have none, and others' may not be readable: that is no reason to lose the process.
        exe: process.exe().map(|path| without_deleted(path.into_os_string().into_vec())).unwrap_or_default(),
        arguments: arguments_of(process)?,
        uid: status.ruid,
        cgroup: cgroup_of(process)?,
        cwd: process.cwd().map(|path| path.into_os_string().into_vec()).unwrap_or_default(),
    }))
}

/// The kernel's note that the program's file is gone (replaced by an update, often) is no part of the path.
fn without_deleted(mut path: Vec<u8>) -> Vec<u8> {
    if let Some(kept) = path.strip_suffix(b" (deleted)") {
        path.truncate(kept.len());
    }
    path
}

fn arguments_of(process: &Process) -> ProcResult<Vec<Vec<u8>>> {
    let mut bytes = read_some(process, "cmdline", ARGUMENT_BYTES_MAX)?;
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect())
}

fn cgroup_of(process: &Process) -> ProcResult<Vec<u8>> {
    let text = read_some(process, "cgroup", CGROUP_BYTES_MAX)?;
    let unified = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"0::"));
    let path = unified.unwrap_or_default();
    Ok(path.strip_suffix(b" (deleted)").unwrap_or(path).to_vec())
}

fn read_some(process: &Process, name: &str, most: u64) -> ProcResult<Vec<u8>> {
    let mut bytes = Vec::new();
    process.open_relative(name)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}
