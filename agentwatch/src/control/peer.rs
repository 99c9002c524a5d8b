//! Who is at the other end of a connection, as the kernel says.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::UnixStream;

/// A caller: who it was when it connected.
#[derive(Debug)]
pub struct Peer {
    /// Process id in the daemon's namespace; `None` where the process is out of that namespace's sight.
    pub pid: Option<u32>,
    /// Effective user id in the initial namespace.
    pub uid: u32,
}

/// A caller that is certainly the process with this id: see [`identify`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Process id in the daemon's namespace.
    pub pid: u32,
    /// When it began, in clock ticks since boot.
    pub start_ticks: u64,
    /// Effective user id in the initial namespace.
    pub uid: u32,
}

/// Why it is not certain who asks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It has no process id here.
    #[error(
        "the calling process is not in sight of the daemon's process namespace, so nothing can be done for it: call from the host"
    )]
    OutOfSight,
    /// It ended, or changed its user, since it connected.
    #[error(
        "process {0} is no longer the one that connected, so nothing was done: connect and ask from the same process"
    )]
    Changed(u32),
}

impl Peer {
    /// Asks the kernel.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|&pid| pid != 0);
        Ok(Self { pid, uid: credentials.uid() })
    }

    /// Finds out when the caller began, and makes sure that the process with its id is still the caller.
    ///
    /// A process id says who connected, but that process may have ended and its id be another's now.
    /// Its start time is read while its own folder in `/proc` is held open, and counts only where the
    /// connection is open after that, which it is not once its holder has ended. A caller that leaves its
    /// connection to a child and ends could still lend its request to a newcomer; so that one must at
    /// least have the caller's user, over whose processes the caller has power anyway.
    pub fn identify(&self, connection: &OwnedFd) -> Result<Identity, PeerError> {
        let pid = self.pid.ok_or(PeerError::OutOfSight)?;
        let changed = PeerError::Changed(pid);
        let (start_ticks, uid) = i32::try_from(pid)
            .ok()
            .and_then(|pid| start_and_user(pid).ok())
            .ok_or_else(|| changed.clone())?;
        if uid != self.uid || is_closed(connection) {
            return Err(changed);
        }
        Ok(Identity { pid, start_ticks, uid })
    }
}

/// Start time and effective user of a process, both of the same one.
fn start_and_user(pid: i32) -> Result<(u64, u32), procfs::ProcError> {
    let process = procfs::process::Process::new(pid)?;
    let start = process.stat()?.starttime;
    Ok((start, process.status()?.euid))
}

/// Whether the other end is closed.
fn is_closed(connection: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut ends = [PollFd::new(connection, PollFlags::empty())];
    // A hang-up is told whether asked for or not. Any trouble counts as closed.
    !matches!(poll(&mut ends, Some(&now)), Ok(0))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream as Blocking;

    use super::*;

    fn me() -> Peer {
        Peer { pid: Some(std::process::id()), uid: rustix::process::geteuid().as_raw() }
    }

    #[test]
    fn the_caller_is_known_by_its_start() {
        let (ours, _theirs) = Blocking::pair().unwrap();
        let identity = me().identify(&ours.into()).unwrap();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let after_name = stat.rsplit_once(") ").unwrap().1;
        assert_eq!(identity.start_ticks.to_string(), after_name.split(' ').nth(19).unwrap());
        assert_eq!(identity.pid, std::process::id());
    }

    #[test]
    fn who_left_or_is_another_now_is_refused() {
        let (ours, theirs) = Blocking::pair().unwrap();
        let ours = OwnedFd::from(ours);
        let someone_elses = Peer { uid: me().uid + 1, ..me() };
        assert_eq!(someone_elses.identify(&ours), Err(PeerError::Changed(std::process::id())));
        assert_eq!(Peer { pid: None, uid: 0 }.identify(&ours), Err(PeerError::OutOfSight));
        let unused = Peer { pid: Some(4_194_305), uid: me().uid };
        assert_eq!(unused.identify(&ours), Err(PeerError::Changed(4_194_305)));
        assert!(me().identify(&ours).is_ok());
        drop(theirs);
        assert_eq!(me().identify(&ours), Err(PeerError::Changed(std::process::id())));
    }
}
