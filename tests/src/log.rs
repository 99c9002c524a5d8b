//! Reads the attribution log as its users do: JSON Lines in segments, followed as they grow.
//!
//! Deliberately not agentwatch's own reader: a test must notice when the two disagree about what is on disk.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agentwatch::event::Event;
use anyhow::{Context as _, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

/// Follows the log of a state folder and checks on the way that `seq` has no gaps.
pub struct LogFollower {
    folder: PathBuf,
    inotify: OwnedFd,
    segment: Option<PathBuf>,
    read: u64,
    /// Bytes read, of which those before `done` are used up.
    rest: Vec<u8>,
    done: usize,
    next_seq: Option<u64>,
}

impl LogFollower {
    /// Begins at the first event of the log. The folder is made where it is missing.
    ///
    /// # Errors
    /// If the folder can neither be made nor watched.
    pub fn new(state: &Path) -> Result<Self> {
        let folder = state.join("log");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("no inotify")?;
        let what = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        inotify::add_watch(&inotify, &folder, what).context("cannot watch the log")?;
        Ok(Self { folder, inotify, segment: None, read: 0, rest: Vec::new(), done: 0, next_seq: None })
    }

    /// The segments, oldest first.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn segments(&self) -> Result<Vec<PathBuf>> {
        let mut segments = Vec::new();
        for entry in std::fs::read_dir(&self.folder).context("cannot list the log")? {
            let path = entry.context("cannot list the log")?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                segments.push(path);
            }
        }
        segments.sort();
        Ok(segments)
    }

    /// The highest number that the log holds, damaged lines left out.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn last_seq(&self) -> Result<Option<u64>> {
        let mut last = None;
        for segment in self.segments()? {
            let text =
                std::fs::read(&segment).with_context(|| format!("cannot read `{}`", segment.display()))?;
            let events = text
                .split(|&byte| byte == b'\n')
                .filter_map(|line| serde_json::from_slice::<Event>(line).ok());
            last = last.max(events.map(|event| event.seq).max());
        }
        Ok(last)
    }

    /// Gives each event that is written to `take`, until that says that it has seen enough.
    ///
    /// # Errors
    /// If `patience` ends before, a line is no event, or a number is missing.
    pub fn until(
        &mut self,
        what: &str,
        patience: Duration,
        mut take: impl FnMut(Event) -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            while let Some(event) = self.next_event()? {
                if take(event)? {
                    return Ok(());
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no {what} in the log within {patience:?}");
            self.wait(left)?;
        }
    }

    /// The next event that is in the log already.
    ///
    /// # Errors
    /// If a line is no event, or a number is missing.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        loop {
            let rest = self.rest.get(self.done..).unwrap_or_default();
            if let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                let line = rest.get(..end).unwrap_or_default().to_vec();
                self.done += end + 1;
                return self.parse(&line).map(Some);
            }
            if !self.read_more()? {
                return Ok(None);
            }
        }
    }

    fn parse(&mut self, line: &[u8]) -> Result<Event> {
        let event: Event = serde_json::from_slice(line)
            .with_context(|| format!("no event: {}", String::from_utf8_lossy(line).escape_debug()))?;
        if let Some(expected) = self.next_seq {
            ensure!(event.seq == expected, "seq {} where {expected} had to follow", event.seq);
        }
        self.next_seq = Some(event.seq + 1);
        Ok(event)
    }

    /// Reads on in the segment, or goes to the next one; says whether that gave anything.
    fn read_more(&mut self) -> Result<bool> {
        self.rest.drain(..self.done);
        self.done = 0;
        if let Some(segment) = &self.segment {
            let mut file =
                File::open(segment).with_context(|| format!("cannot open `{}`", segment.display()))?;
            file.seek(SeekFrom::Start(self.read)).context("cannot seek in the log")?;
            let mut chunk = vec![0; 1 << 20];
            let count = file.read(&mut chunk).context("cannot read the log")?;
            self.read += count as u64;
            self.rest.extend_from_slice(chunk.get(..count).unwrap_or_default());
            if count > 0 {
                return Ok(true);
            }
        }
        let current = self.segment.clone();
        let next =
            self.segments()?.into_iter().find(|path| current.as_ref().is_none_or(|current| path > current));
        let Some(next) = next else { return Ok(false) };
        ensure!(self.rest.is_empty(), "a segment ends within a line");
        (self.segment, self.read) = (Some(next), 0);
        Ok(true)
    }

    /// Waits until the log changes, or not longer than `patience`.
    ///
    /// # Errors
    /// If that cannot be waited for.
    pub fn wait(&self, patience: Duration) -> Result<()> {
        let timeout = Timespec::try_from(patience).context("a time that does not fit")?;
        match poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for the log"),
        }
        // What the notices say does not matter.
        let mut notices = [0; 4096];
        while rustix::io::read(&self.inotify, &mut notices).is_ok_and(|count| count > 0) {}
        Ok(())
    }
}
