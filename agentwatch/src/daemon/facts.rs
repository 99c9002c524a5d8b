//! What the daemon asks the host: `/proc` and the kernel's tables.

use std::{fs::File, io::Read as _};

use agentwatch_common::maps::SessionEntry;
use aya::maps::{HashMap, MapData};
use procfs::process::Process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    attribution::{HostFacts, ProcessSeen},
    kernel::maps::Shared,
    places::Mounts,
};

/// The running host.
#[derive(Debug)]
pub struct RunningHost {
    sessions: HashMap<MapData, u64, Shared<SessionEntry>>,
    /// `/proc/1/mountinfo`, which can be polled for changes.
    mountinfo: Option<File>,
    read_once: bool,
}

impl RunningHost {
    /// Asks the kernel's table of sessions and `/proc`.
    #[must_use]
    pub fn new(sessions: HashMap<MapData, u64, Shared<SessionEntry>>) -> Self {
        Self { sessions, mountinfo: File::open("/proc/1/mountinfo").ok(), read_once: false }
    }
}

impl HostFacts for RunningHost {
    fn process(&mut self, pid: u32) -> Option<ProcessSeen> {
        process(pid)
    }

    fn session(&mut self, number: u64) -> Option<SessionEntry> {
        self.sessions.get(&number, 0).ok().map(|Shared(entry)| entry)
    }

    fn cgroup_of(&mut self, pid: u32) -> Option<Vec<u8>> {
        cgroup(pid)
    }

    fn mounts(&mut self) -> Option<Mounts> {
        let file = self.mountinfo.as_mut()?;
        let mut polled = [PollFd::new(file, PollFlags::PRI)];
        let changed = matches!(poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..));
        if self.read_once && !changed {
            return None;
        }
        self.read_once = true;
        let mut text = Vec::new();
        std::io::Seek::rewind(file).ok()?;
        file.read_to_end(&mut text).ok()?;
        Some(Mounts::parse(&text))
    }
}

/// Path of a process's cgroup in the unified hierarchy.
pub fn cgroup(pid: u32) -> Option<Vec<u8>> {
    let text = std::fs::read(format!("/proc/{pid}/cgroup")).ok()?;
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    Some(line.to_vec())
}

/// A running process.
pub fn process(pid: u32) -> Option<ProcessSeen> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    let stat = process.stat().ok()?;
    let link = |name: &str| {
        use std::os::unix::ffi::OsStringExt as _;
        std::fs::read_link(format!("/proc/{pid}/{name}")).map(|path| path.into_os_string().into_vec())
    };
    let args = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    Some(ProcessSeen {
        start_ticks: stat.starttime,
        ppid: u32::try_from(stat.ppid).unwrap_or(0),
        uid: process.uid().ok(),
        exe: link("exe").unwrap_or_default(),
        args: args
            .split_inclusive(|byte| *byte == 0)
            .map(|arg| arg.strip_suffix(&[0]).unwrap_or(arg).to_vec())
            .collect(),
        cwd: link("cwd").unwrap_or_default(),
        cgroup: cgroup(pid).unwrap_or_default(),
    })
}
