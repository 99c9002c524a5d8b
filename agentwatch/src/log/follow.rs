//! Reads the log as it grows.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use super::{Item, LogError, Reader};

/// A [`Reader`] that can wait for more.
pub struct Follower {
    reader: Reader,
    inotify: OwnedFd,
}

/// Why waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// There may be more to read.
    Changed,
    /// Nobody reads the output any more.
    OutputClosed,
    /// The time is over.
    TimedOut,
}

impl Follower {
    /// Follows the log from where the reader is.
    ///
    /// # Errors
    /// The folder cannot be watched.
    pub fn new(reader: Reader) -> Result<Self, LogError> {
        let watched = WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let open = || {
            let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            inotify::add_watch(&inotify, reader.folder(), watched)?;
            Ok(inotify)
        };
        let inotify = open().map_err(|error: Errno| LogError::read(reader.folder(), error.into()))?;
        Ok(Self { reader, inotify })
    }

    /// As [`Reader::next_item`].
    ///
    /// # Errors
    /// A segment cannot be read, or the folder is gone.
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, LogError> {
        self.reader.next_item()
    }

    /// Waits until there may be more to read, for ever without `timeout`. Where `output` is a pipe whose
    /// reader is gone, that ends the wait as well.
    ///
    /// # Errors
    /// The watch fails.
    pub fn wait(
        &mut self,
        output: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> Result<Wake, LogError> {
        let failed =
            |error: Errno| LogError::Read { path: self.reader.folder().to_owned(), source: error.into() };
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut fds = vec![PollFd::new(&self.inotify, PollFlags::IN)];
        fds.extend(output.map(|output| PollFd::from_borrowed_fd(output, PollFlags::empty())));
        let ready = match poll(&mut fds, timeout.as_ref()) {
            Err(Errno::INTR) => return Ok(Wake::Changed),
            ready => ready.map_err(failed)?,
        };
        if ready == 0 {
            return Ok(Wake::TimedOut);
        }
        if fds.get(1).is_some_and(|output| output.revents().intersects(PollFlags::ERR | PollFlags::HUP)) {
            return Ok(Wake::OutputClosed);
        }
        self.drain().map_err(failed)?;
        Ok(Wake::Changed)
    }

    /// Takes the notices away. What they say does not matter: the reader looks for itself.
    fn drain(&self) -> rustix::io::Result<()> {
        let mut notices = [0_u8; 4096];
        loop {
            match rustix::io::read(self.inotify.as_fd(), &mut notices) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
