//! Making processes by every way that Linux has, with what they did brought back to the maker.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, WaitOptions, WaitStatus};

use super::record::{Recorder, did};
use crate::truth::{Bytes, Did, Truth};

/// How a process is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    /// `CLONE_*` flags beside the signal.
    pub flags: u64,
    /// Process id that it must get, or 0.
    pub pid: u32,
}

/// A pipe on which descendants report.
pub struct Reports {
    read: OwnedFd,
    write: OwnedFd,
}

impl Reports {
    /// A new pipe.
    pub fn new() -> Result<Self> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("no pipe")?;
        Ok(Self { read, write })
    }

    /// Waits until every descendant has closed the pipe, and merges what they did into `rec`. `pid` replaces
    /// the ids of processes that do not know their own (in a namespace).
    pub fn collect(self, rec: &Recorder, pid: Option<u32>) -> Result<()> {
        drop(self.write);
        let mut text = String::new();
        File::from(self.read).read_to_string(&mut text).context("a child's report cannot be read")?;
        for line in text.lines() {
            let mut truth: Truth = serde_json::from_str(line).context("a child's report is not JSON")?;
            for entry in &mut truth.did {
                if let Some(pid) = pid {
                    (entry.pid, entry.tid) = (pid, pid);
                }
            }
            rec.merge(truth);
        }
        Ok(())
    }

    /// Does `act` with a list of its own and reports it. For children.
    pub fn report(&self, rec: &Recorder, act: impl FnOnce(&Recorder) -> Result<()>) -> Result<()> {
        let own = Recorder::new(rec.dir().to_path_buf());
        act(&own)?;
        let mut line = own.into_json()?;
        line.push('\n');
        // One write: lines of several processes then do not mix (the pipe is larger than any report).
        let mut pipe = File::from(self.write.try_clone().context("no descriptor is left")?);
        pipe.write_all(line.as_bytes()).context("the report cannot be written")
    }
}

/// Makes a process that does `act` and ends with 0, or with 99 and a message if that fails. The new process
/// is recorded.
pub fn fork(rec: &Recorder, way: Way, act: impl FnOnce() -> Result<()>) -> Result<u32> {
    let pid = fork_unrecorded(way, act)?;
    rec.push(Did { child: Some(pid), ..did("process.fork") });
    Ok(pid)
}

/// As [`fork`], but records nothing: for whoever must not lose time between two forks.
pub fn fork_unrecorded(way: Way, act: impl FnOnce() -> Result<()>) -> Result<u32> {
    let pid = clone_process(way)?;
    if pid != 0 {
        return Ok(pid);
    }
    let code = match act() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("aw-act: a child failed: {error:#}");
            99
        }
    };
    // SAFETY: always sound; the child must run none of its parent's exit handlers.
    unsafe { libc::_exit(code) }
}

fn clone_process(way: Way) -> Result<u32> {
    let set_tid = [libc::pid_t::try_from(way.pid).context("no such process id")?];
    let args = libc::clone_args {
        flags: way.flags,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        // With CLONE_PARENT the child signals as its sibling does, and asking is an error.
        exit_signal: if way.flags & CLONE_PARENT == 0 { libc::SIGCHLD.unsigned_abs().into() } else { 0 },
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: if way.pid == 0 { 0 } else { set_tid.as_ptr() as u64 },
        set_tid_size: u64::from(way.pid != 0),
        cgroup: 0,
    };
    // SAFETY: without CLONE_VM this is a fork: the child has its own copy of everything. The callers have one
    // thread, so that no lock is held in the copy. `args` and `set_tid` live across the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    ensure!(pid >= 0, "clone3 failed: {}", std::io::Error::last_os_error());
    u32::try_from(pid).context("clone3 gave no process id")
}

/// `CLONE_PARENT` as the kernel takes it.
pub const CLONE_PARENT: u64 = 0x8000;
/// `CLONE_NEWPID` as the kernel takes it.
pub const CLONE_NEWPID: u64 = 0x2000_0000;

/// Waits for a child of ours and records its end.
pub fn wait(rec: &Recorder, pid: u32) -> Result<WaitStatus> {
    let status = reap(pid)?;
    rec.push(ended(pid, status));
    Ok(status)
}

/// Waits for a child of ours.
pub fn reap(pid: u32) -> Result<WaitStatus> {
    let id = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no such process id")?;
    let (_, status) = rustix::process::waitpid(Some(id), WaitOptions::empty())
        .with_context(|| format!("cannot wait for process {pid}"))?
        .with_context(|| format!("process {pid} did not end"))?;
    ensure!(status.exit_status() != Some(99), "a child failed: its message is above");
    Ok(status)
}

/// The entry for a process that ended so.
pub fn ended(pid: u32, status: WaitStatus) -> Did {
    let small = |number: Option<i32>| number.and_then(|number| u8::try_from(number).ok());
    Did {
        pid,
        tid: pid,
        code: small(status.exit_status()),
        signal: small(status.terminating_signal()),
        ..did("process.exit")
    }
}

/// Does `act` in a child made in this `way`, and waits for it.
pub fn in_child(rec: &Recorder, way: Way, act: impl FnOnce(&Recorder) -> Result<()>) -> Result<u32> {
    let reports = Reports::new()?;
    let pid = fork(rec, way, || reports.report(rec, act))?;
    reports.collect(rec, (way.flags & CLONE_NEWPID != 0).then_some(pid))?;
    wait(rec, pid)?;
    Ok(pid)
}

/// This program's own file, without symbolic links.
pub fn own_program() -> Result<PathBuf> {
    std::env::current_exe().context("cannot find this program's own file")
}

/// Replaces this process by `program`; returns only if that fails.
pub fn exec(program: &Path, args: &[Bytes]) -> Result<()> {
    let text = |bytes: &[u8]| CString::new(bytes).context("NUL in an argument");
    let path = text(program.as_os_str().as_bytes())?;
    let args = args.iter().map(|arg| text(&arg.0)).collect::<Result<Vec<_>>>()?;
    let mut pointers: Vec<_> = args.iter().map(|arg| arg.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let none = [std::ptr::null()];
    // SAFETY: `path` and each argument are strings ended by NUL, and both lists end with a null pointer; all
    // live across the call.
    unsafe { libc::execve(path.as_ptr(), pointers.as_ptr(), none.as_ptr()) };
    Err(std::io::Error::last_os_error()).with_context(|| format!("cannot start `{}`", program.display()))
}

/// The entry for `pid` having started `program`.
pub fn executed(pid: u32, program: &Path, args: &[Bytes]) -> Did {
    Did { pid, tid: pid, path: Some(program.into()), args: Some(args.to_vec()), ..did("process.exec") }
}

/// The arguments that make this program end at once.
pub fn noop_args() -> Vec<Bytes> {
    vec![OsStr::new("aw-act").into(), OsStr::new("noop").into()]
}
