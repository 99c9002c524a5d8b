//! Acts on processes.

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::Subcommand;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal};

use super::End;
use super::record::{Recorder, did};
use super::spawn::{self, CLONE_NEWPID, CLONE_PARENT, Reports, Way, in_child};
use crate::truth::{Bytes, Did};

/// Bytes of one argument: the kernel takes up to 131,072 with the NUL.
const ARGUMENT_BYTES: usize = 100_000;

/// Acts on processes.
#[derive(Subcommand)]
pub enum Act {
    /// Forks and execs N times
    ForkExec {
        /// How often
        n: u32,
    },
    /// Forks twice; the grandchild acts when it has a new parent
    DoubleFork,
    /// Starts a session of its own and acts
    Setsid,
    /// Makes a child whose parent is this process's own parent
    CloneParent,
    /// Starts a program as most programs do, by vfork (posix_spawn)
    VforkExec,
    /// Acts in a new process id namespace
    Pidns,
    /// Makes N children at once, each of which creates a file as its first act
    ForkStorm {
        /// How many
        n: u32,
    },
    /// A child ends with this status, then this process does
    ExitCode {
        /// Status
        code: u8,
    },
    /// A child is ended by this signal, then this process is
    KilledBy {
        /// Number of the signal
        signal: i32,
    },
    /// Execs with this many bytes of arguments (NULs counted)
    ExecArgs {
        /// How many
        bytes: usize,
        /// Invalid UTF-8, newlines and escapes among them
        #[arg(long)]
        hostile: bool,
    },
    /// Execs a program that exists only in memory
    MemfdExec,
    /// Writes a script and runs it
    Script,
    /// Makes N processes one after the other, all with the same process id, each of which creates a file
    PidReuse {
        /// How many
        n: u32,
    },
    /// Makes a process with this id that creates a file
    PidTake {
        /// Process id; it must be free
        pid: u32,
    },
    /// Keeps N children alive until standard input ends
    Processes {
        /// How many
        n: u32,
    },
}

impl Act {
    /// Does it.
    pub fn run(&self, rec: &Recorder) -> Result<End> {
        match *self {
            Self::ForkExec { n } => (0..n).try_for_each(|_| exec_in_child(rec, spawn::noop_args()))?,
            Self::DoubleFork => double_fork(rec)?,
            Self::Setsid => {
                in_child(rec, Way::default(), |rec| {
                    rustix::process::setsid().context("setsid failed")?;
                    rec.create(&rec.path("by-setsid")).map(drop)
                })?;
            }
            Self::CloneParent => clone_parent(rec)?,
            Self::VforkExec => vfork_exec(rec)?,
            Self::Pidns => pidns(rec)?,
            Self::ForkStorm { n } => fork_storm(rec, n)?,
            Self::ExitCode { code } => return exit_code(rec, code),
            Self::KilledBy { signal } => return killed_by(rec, signal),
            Self::ExecArgs { bytes, hostile } => exec_args(rec, bytes, hostile)?,
            Self::MemfdExec => memfd_exec(rec)?,
            Self::Script => script(rec)?,
            Self::PidReuse { n } => pid_reuse(rec, n)?,
            Self::PidTake { pid } => {
                in_child(rec, Way { pid, flags: 0 }, |rec| rec.create(&rec.path("taken")).map(drop))?;
            }
            Self::Processes { n } => processes(rec, n)?,
        }
        Ok(End::Success)
    }
}

fn exec_in_child(rec: &Recorder, args: Vec<Bytes>) -> Result<()> {
    let program = spawn::own_program()?;
    let pid = spawn::fork(rec, Way::default(), || spawn::exec(&program, &args))?;
    rec.push(spawn::executed(pid, &program, &args));
    spawn::wait(rec, pid)?;
    Ok(())
}

fn double_fork(rec: &Recorder) -> Result<()> {
    let reports = Reports::new()?;
    let child = spawn::fork(rec, Way::default(), || {
        let parent = rustix::process::getpid();
        reports.report(rec, |rec| {
            spawn::fork(rec, Way::default(), || {
                wait_for_end(parent)?;
                reports.report(rec, |rec| {
                    let new = rustix::process::getppid();
                    ensure!(new != Some(parent), "the grandchild kept its parent");
                    rec.fact("new_parent", new.map_or(0, |pid| pid.as_raw_nonzero().get()));
                    rec.create(&rec.path("by-grandchild"))?;
                    rec.push(Did { code: Some(0), ..did("process.exit") });
                    Ok(())
                })
            })
            .map(drop)
        })
    })?;
    spawn::wait(rec, child)?;
    reports.collect(rec, None)
}

/// Waits until another process has ended.
fn wait_for_end(pid: Pid) -> Result<()> {
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => {
            let mut fds = [PollFd::new(&fd, PollFlags::IN)];
            rustix::event::poll(&mut fds, None).context("cannot wait for a process")?;
            Ok(())
        }
        Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error).context("cannot watch a process"),
    }
}

fn clone_parent(rec: &Recorder) -> Result<()> {
    let reports = Reports::new()?;
    let parent = rustix::process::getppid();
    spawn::fork(rec, Way { flags: CLONE_PARENT, pid: 0 }, || {
        reports.report(rec, |rec| {
            ensure!(rustix::process::getppid() == parent, "the child's parent is not its maker's");
            rec.create(&rec.path("by-sibling"))?;
            rec.push(Did { code: Some(0), ..did("process.exit") });
            Ok(())
        })
    })?;
    // Nobody here can wait for it: it is no child of ours.
    reports.collect(rec, None)
}

fn vfork_exec(rec: &Recorder) -> Result<()> {
    let program = spawn::own_program()?;
    let mut child = Command::new(&program).arg("noop").spawn().context("cannot start this program")?;
    let pid = child.id();
    rec.push(Did { child: Some(pid), ..did("process.fork") });
    rec.push(spawn::executed(pid, &program, &[program.as_path().into(), "noop".into()]));
    let status = child.wait().context("cannot wait")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    rec.push(Did { pid, tid: pid, code, ..did("process.exit") });
    ensure!(status.into_raw() == 0, "the child failed with {status}");
    Ok(())
}

fn pidns(rec: &Recorder) -> Result<()> {
    let reports = Reports::new()?;
    let pid = spawn::fork_unrecorded(Way { flags: CLONE_NEWPID, pid: 0 }, || {
        reports.report(rec, |rec| {
            ensure!(std::process::id() == 1, "not the first process of its namespace");
            rec.create(&rec.path("by-init")).map(drop)
        })
    })?;
    rec.push(Did { child: Some(pid), namespace_pid: Some(1), ..did("process.fork") });
    reports.collect(rec, Some(pid))?;
    spawn::wait(rec, pid)?;
    Ok(())
}

fn fork_storm(rec: &Recorder, n: u32) -> Result<()> {
    let paths: Vec<_> = (0..n).map(|index| rec.path(format!("storm-{index}"))).collect();
    let mut children = Vec::with_capacity(paths.len());
    for path in &paths {
        children.push(spawn::fork_unrecorded(Way::default(), || {
            std::fs::File::create_new(path).context("cannot create")?;
            Ok(())
        })?);
    }
    for (&pid, path) in children.iter().zip(&paths) {
        rec.push(Did { child: Some(pid), ..did("process.fork") });
        let status = spawn::reap(pid)?;
        let entry = |kind| Did { pid, tid: pid, ..did(kind) };
        // std asks for 0666.
        rec.touched(path, Did { mode: Some(0o666), ..entry("file.create") })?;
        rec.touched(path, Did { flags: Some("O_RDWR|O_CREAT|O_EXCL".into()), ..entry("file.open") })?;
        rec.push(spawn::ended(pid, status));
    }
    Ok(())
}

fn exit_code(rec: &Recorder, code: u8) -> Result<End> {
    // SAFETY: always sound; the child must run none of its parent's exit handlers.
    let pid = spawn::fork(rec, Way::default(), || unsafe { libc::_exit(code.into()) })?;
    let status = spawn::wait(rec, pid)?;
    ensure!(status.exit_status() == Some(code.into()), "the child ended otherwise: {status:?}");
    rec.push(Did { code: Some(code), ..did("process.exit") });
    Ok(End::Code(code))
}

fn killed_by(rec: &Recorder, number: i32) -> Result<End> {
    let signal = Signal::from_named_raw(number).with_context(|| format!("no signal {number}"))?;
    let pid = spawn::fork(rec, Way::default(), || {
        rustix::process::kill_process(rustix::process::getpid(), signal).context("cannot signal itself")
    })?;
    let status = spawn::wait(rec, pid)?;
    ensure!(status.terminating_signal() == Some(number), "the child ended otherwise: {status:?}");
    rec.push(Did { signal: u8::try_from(number).ok(), ..did("process.exit") });
    Ok(End::Signal(signal))
}

fn exec_args(rec: &Recorder, bytes: usize, hostile: bool) -> Result<()> {
    let mut args = spawn::noop_args();
    if hostile {
        args.extend(
            [&b"\xff\xfe"[..], b"new\nline", b"\x1b[31mred\x1b[0m", b"%41", b""]
                .map(|arg| Bytes(arg.to_vec())),
        );
    }
    let used: usize = args.iter().map(|arg| arg.0.len() + 1).sum();
    ensure!(bytes >= used, "at least {used} bytes are needed");
    let mut left = bytes - used;
    for letter in (b'a'..=b'z').cycle() {
        let len = left.min(ARGUMENT_BYTES);
        if len == 0 {
            break;
        }
        args.push(Bytes(vec![letter; len - 1]));
        left -= len;
    }
    // The kernel allows a quarter of the stack, and never more than 6 MiB.
    let stack =
        Rlimit { current: Some(64 << 20), maximum: rustix::process::getrlimit(Resource::Stack).maximum };
    rustix::process::setrlimit(Resource::Stack, stack).context("cannot raise the limit of the stack")?;
    rec.fact("bytes", bytes);
    exec_in_child(rec, args)
}

fn memfd_exec(rec: &Recorder) -> Result<()> {
    let program = spawn::own_program()?;
    let fd = rustix::fs::memfd_create("aw-memfd", MemfdFlags::empty()).context("no memfd")?;
    let image = std::fs::read(&program).context("cannot read this program's own file")?;
    let mut file = std::fs::File::from(fd);
    file.write_all(&image).context("cannot fill the memfd")?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // A file that is open for writing cannot be executed: the reader is another open file.
    let reader = std::fs::File::open(&path).context("cannot open the memfd again")?;
    let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
    drop(file);
    let inode = rustix::fs::fstat(&reader).context("cannot stat the memfd")?.st_ino;
    let args = spawn::noop_args();
    let pid = spawn::fork(rec, Way::default(), || spawn::exec(Path::new(&path), &args))?;
    // What a nameless program is called is agentwatch's affair; its first name is the memfd's.
    rec.push(Did { path: None, inode: Some(inode), deleted: true, ..spawn::executed(pid, &program, &args) });
    spawn::wait(rec, pid)?;
    Ok(())
}

fn script(rec: &Recorder) -> Result<()> {
    let interpreter = spawn::own_program()?;
    let path = rec.path("script");
    let text = format!("#!{} noop\n", interpreter.display());
    ensure!(text.len() < 256, "the path of this program is too long for a script's first line");
    rec.create_with(&path, text.as_bytes())?;
    rustix::fs::chmod(&path, rustix::fs::Mode::from_raw_mode(0o755)).context("chmod failed")?;
    rec.touched(&path, Did { mode: Some(0o755), ..did("file.mode") })?;
    let pid = spawn::fork(rec, Way::default(), || spawn::exec(&path, &["given".into(), "argument".into()]))?;
    // The kernel itself opens the script.
    rec.touched(&path, Did { pid, tid: pid, optional: true, ..did("file.open") })?;
    let args = [interpreter.as_path().into(), "noop".into(), path.as_path().into(), "argument".into()];
    rec.push(spawn::executed(pid, &interpreter, &args));
    spawn::wait(rec, pid)?;
    Ok(())
}

fn pid_reuse(rec: &Recorder, n: u32) -> Result<()> {
    let mut way = Way::default();
    for index in 0..n {
        way.pid = in_child(rec, way, |rec| rec.create(&rec.path(format!("life-{index}"))).map(drop))?;
    }
    rec.fact("pid", way.pid);
    Ok(())
}

fn processes(rec: &Recorder, n: u32) -> Result<()> {
    let mut children = Vec::new();
    for _ in 0..n {
        children.push(spawn::fork_unrecorded(Way::default(), || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("prctl failed")?;
            rustix::event::pause();
            Ok(())
        })?);
    }
    // The reader knows now that all are there.
    writeln!(std::io::stdout(), "{{\"live\": {n}}}").context("standard output is closed")?;
    std::io::stdin().read_to_end(&mut Vec::new()).context("cannot read standard input")?;
    for pid in children {
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no such process id")?;
        rustix::process::kill_process(id, Signal::KILL).context("cannot end a child")?;
        spawn::reap(pid)?;
    }
    rec.fact("processes", n);
    Ok(())
}
