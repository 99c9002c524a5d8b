//! The one writer of the log.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::known::KnownProcess;
use super::line::time_and_seq;
use super::losses::{Losses, Trouble, host_event};
use super::recover::{Recovery, mend};
use super::segment::{self, Segment};
use super::state::{check_writable, lock, make_folder};
use super::storage::{Disk, Storage};
use super::{Limits, LogError, format_time, parse_time};
use crate::event::{Event, Kind};

/// Bytes that wait before they are written without being asked to.
const WRITE_BYTES: usize = 256 * 1024;
/// Bytes that wait while the log cannot be written; past it events are counted as lost. One event, and the
/// events that tell of losses, may go past it.
const WAITING_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of the buffer that are kept between writes.
const IDLE_BYTES: usize = 1024 * 1024;

/// The log, open for writing. Only one process at a time has it.
pub struct Log {
    folder: PathBuf,
    limits: Limits,
    storage: Box<dyn Storage>,
    /// Closed segments, oldest first.
    older: VecDeque<Closed>,
    current: Option<Current>,
    /// Whole lines that are not written yet, and their number.
    buffer: Vec<u8>,
    waiting: u64,
    known: KnownProcess,
    next_seq: u64,
    /// Time of the event that was appended last.
    newest: String,
    trouble: Option<Trouble>,
    losses: Losses,
    /// What the log has to say about itself, written after the next event.
    notes: Vec<(Kind, String)>,
    unsynced: Vec<File>,
    /// Held, and by that locked, until the end.
    _lock: File,
}

struct Closed {
    segment: Segment,
    bytes: u64,
    /// Nanoseconds since 1970.
    first_time: u64,
}

struct Current {
    segment: Segment,
    file: File,
    inode: u64,
    /// Bytes of whole lines in the file.
    written: u64,
    /// Nanoseconds since 1970.
    first_time: u64,
    /// Past this time it is closed. As text, since events are compared with it.
    until: String,
    /// There may be bytes after `written` that could not be cut off.
    torn: bool,
}

impl Log {
    /// Opens the log of a state folder, mends what a crash left behind, and finds the next number. What was
    /// mended is also written to the log (`log.recovered`), after the first event.
    ///
    /// The state folder is made where it is missing and the folder above it is there.
    ///
    /// # Errors
    /// Another process has the log; the folder cannot be made, read or written.
    pub fn open(state: &Path, limits: Limits) -> Result<(Self, Recovery), LogError> {
        Self::open_on(Box::new(Disk), state, limits)
    }

    pub(super) fn open_on(
        storage: Box<dyn Storage>,
        state: &Path,
        limits: Limits,
    ) -> Result<(Self, Recovery), LogError> {
        let folder = super::folder(state);
        make_folder(state)?;
        let lock = lock(state)?;
        make_folder(&folder)?;
        let failed = |source| LogError::State { path: folder.clone(), source };
        check_writable(&folder).map_err(failed)?;
        let mut segments = segment::list(&folder).map_err(failed)?;
        let last = segments.pop();
        let older: VecDeque<Closed> =
            segments.into_iter().map(Closed::read).collect::<io::Result<_>>().map_err(failed)?;
        let mut log = Self {
            folder: folder.clone(),
            limits,
            storage,
            older,
            current: None,
            buffer: Vec::new(),
            waiting: 0,
            known: KnownProcess::default(),
            next_seq: 1,
            newest: String::new(),
            trouble: None,
            losses: Losses::default(),
            notes: Vec::new(),
            unsynced: Vec::new(),
            _lock: lock,
        };
        let mut recovery = Recovery { next_seq: 1, damaged: None };
        if let Some(last) = last {
            recovery = log.take_up(last).map_err(failed)?;
        }
        Ok((log, recovery))
    }

    /// Goes on with the last segment.
    fn take_up(&mut self, last: Segment) -> io::Result<Recovery> {
        let mended = mend(&self.folder, &last)?;
        self.next_seq = mended.last_seq.map_or(last.first_seq, |seq| seq.saturating_add(1));
        if let Some(damaged) = &mended.damaged {
            self.notes.push((Kind::LogRecovered, damaged.to_string()));
        }
        let file = OpenOptions::new().append(true).open(&last.path)?;
        let closed = Closed::read(last)?;
        self.current =
            Some(Current::new(closed.segment, file, closed.first_time, closed.bytes, &self.limits)?);
        Ok(Recovery { next_seq: self.next_seq, damaged: mended.damaged })
    }

    /// Gives the event its number and puts it in line to be written. While the log cannot be written and the
    /// line is full, the event is counted as lost instead, and its number stays 0.
    pub fn append(&mut self, event: &mut Event) {
        let full = self.buffer.len() >= WAITING_BYTES;
        if let (true, Some(trouble)) = (full, &self.trouble) {
            event.seq = 0;
            self.losses.add(event, trouble);
            return;
        }
        self.push(event);
        for (kind, reason) in std::mem::take(&mut self.notes) {
            self.push(&mut host_event(event, kind, reason));
        }
        if self.buffer.len() >= WRITE_BYTES && self.trouble.is_none() {
            // The error stays in `trouble`, and the next flush reports it.
            let _ = self.write_out();
        }
    }

    /// Writes what waits. Called at least once a turn of the daemon; while it fails, events wait.
    ///
    /// # Errors
    /// The segment cannot be made or written.
    pub fn flush(&mut self) -> Result<(), LogError> {
        self.write_out()?;
        if self.losses.is_empty() {
            return Ok(());
        }
        for mut loss in self.losses.take() {
            self.push(&mut loss);
        }
        self.write_out()
    }

    /// Removes what is too old at this time (nanoseconds since 1970), and goes on in a new segment where
    /// somebody moved the present one away. Called now and then, also when nothing happens.
    pub fn tend(&mut self, now: u64) {
        self.remove_old(now);
        if let Some(current) = &self.current
            && !std::fs::metadata(&current.segment.path).is_ok_and(|found| found.ino() == current.inode)
        {
            let path = current.segment.path.display();
            let note = format!("somebody else moved or removed the segment `{path}` while it was written");
            tracing::warn!("{note}");
            self.notes.push((Kind::LogRemoved, note));
            self.current = None;
        }
    }

    /// Makes what was written survive a crash of the kernel. It can take long on a busy disk.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.unsynced()?.sync()
    }

    /// What [`Log::sync`] would do, to be done on another thread.
    ///
    /// # Errors
    /// No more file descriptors.
    pub fn unsynced(&mut self) -> Result<Unsynced, LogError> {
        let failed = |source| LogError::Write { path: self.folder.clone(), source };
        let current =
            self.current.as_ref().map(|current| current.file.try_clone()).transpose().map_err(failed)?;
        let mut files = std::mem::take(&mut self.unsynced);
        files.extend(current);
        Ok(Unsynced { folder: self.folder.clone(), files })
    }

    /// Number of the next event.
    #[must_use]
    pub const fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Events that were lost and could not be written down as lost yet.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.losses.count()
    }

    /// Why the log cannot be written now, and since when, in a sentence.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_ref().map(Trouble::sentence)
    }

    fn push(&mut self, event: &mut Event) {
        event.seq = self.next_seq;
        let before = self.buffer.len();
        if let Err(error) = self.known.write(&mut self.buffer, event) {
            // No type of an event can fail; should one ever, its event is counted and not half written.
            self.buffer.truncate(before);
            event.seq = 0;
            self.losses.add(event, &Trouble::new(&error.into(), &event.time));
            return;
        }
        self.buffer.push(b'\n');
        self.waiting += 1;
        self.next_seq += 1;
        self.newest.clone_from(&event.time);
    }

    fn write_out(&mut self) -> Result<(), LogError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        match self.ready_segment().and_then(|()| self.write_buffer()) {
            Ok(()) => {
                self.trouble = None;
                Ok(())
            }
            Err(source) => {
                if self.trouble.is_none() {
                    self.trouble = Some(Trouble::new(&source, &self.newest));
                }
                let path = self.current.as_ref().map_or(&self.folder, |current| &current.segment.path);
                Err(LogError::Write { path: path.clone(), source })
            }
        }
    }

    /// Sees to it that there is a segment to write to, whole and within its limits.
    fn ready_segment(&mut self) -> io::Result<()> {
        if let Some(current) = &mut self.current {
            if current.torn {
                cut_off(self.storage.as_mut(), current)?;
            }
            if current.written < self.limits.segment_bytes.max(1) && self.newest <= current.until {
                return Ok(());
            }
        }
        match self.begin_segment() {
            Err(error) if self.current.is_some() => {
                // A segment that grows past its limit is better than an event that is not kept.
                tracing::warn!("cannot begin a new segment in `{}`: {error}", self.folder.display());
                Ok(())
            }
            other => other,
        }
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let segment = Segment::new(&self.folder, self.next_seq - self.waiting);
        let file = self.storage.create(&segment.path)?;
        let first = time_and_seq(&self.buffer).map_or(self.newest.as_str(), |(time, _)| time);
        let first_time = parse_time(first).unwrap_or(0);
        let next = Current::new(segment, file, first_time, 0, &self.limits)?;
        if let Some(closed) = self.current.replace(next) {
            self.older.push_back(Closed {
                segment: closed.segment,
                bytes: closed.written,
                first_time: closed.first_time,
            });
            self.unsynced.push(closed.file);
        }
        self.remove_old(first_time);
        Ok(())
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let (done, result) = write_all(self.storage.as_mut(), &current.file, &self.buffer);
        // Whole lines that were written are visible to readers and stay; a part of a line does not.
        let kept =
            self.buffer.get(..done).and_then(|part| memchr::memrchr(b'\n', part)).map_or(0, |at| at + 1);
        current.written += kept as u64;
        if done > kept {
            current.torn = true;
            // Where this fails too, it is tried again before the next write.
            let _ = cut_off(self.storage.as_mut(), current);
        }
        if kept == self.buffer.len() {
            self.waiting = 0;
            self.buffer.clear();
            self.buffer.shrink_to(IDLE_BYTES);
        } else {
            let lines = self.buffer.drain(..kept).filter(|&byte| byte == b'\n').count();
            self.waiting -= lines as u64;
        }
        result
    }

    /// Removes the oldest segments while the log is too large, or they are too old at `now`.
    fn remove_old(&mut self, now: u64) {
        let max_age = u64::try_from(self.limits.max_age.as_nanos()).unwrap_or(u64::MAX);
        let oldest_kept = now.saturating_sub(max_age);
        let mut total: u64 = self.older.iter().map(|closed| closed.bytes).sum();
        total += self.current.as_ref().map_or(0, |current| current.written);
        let mut removed = Removed::default();
        while let Some(oldest) = self.older.front() {
            let next_first_time = self.older.get(1).map(|next| next.first_time);
            let last_time = next_first_time.or(self.current.as_ref().map(|current| current.first_time));
            let too_old = last_time.is_some_and(|last| last < oldest_kept);
            if total <= self.limits.total_bytes && !too_old {
                break;
            }
            match self.storage.remove(&oldest.segment.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(
                        "cannot remove the old segment `{}`: {error}",
                        oldest.segment.path.display()
                    );
                    break;
                }
                _ => {}
            }
            total -= oldest.bytes;
            removed.add(oldest);
            self.older.pop_front();
        }
        let next_first = self.older.front().map(|next| next.segment.first_seq);
        let next_first = next_first.or(self.current.as_ref().map(|current| current.segment.first_seq));
        if let Some(sentence) = removed.sentence(next_first.unwrap_or(self.next_seq)) {
            self.notes.push((Kind::LogRemoved, sentence));
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let result = self.flush();
        let (waiting, lost) = (self.waiting, self.losses.count());
        if let Err(error) = result {
            tracing::error!(
                "{waiting} events that waited, and the count of {lost} lost ones, are gone: {error}"
            );
        }
    }
}

/// Segments that were removed in one go.
#[derive(Default)]
struct Removed {
    first_seq: Option<u64>,
    segments: u64,
    bytes: u64,
}

impl Removed {
    fn add(&mut self, closed: &Closed) {
        self.first_seq.get_or_insert(closed.segment.first_seq);
        self.segments += 1;
        self.bytes += closed.bytes;
    }

    fn sentence(&self, next_first: u64) -> Option<String> {
        let first = self.first_seq?;
        Some(format!(
            "the oldest events, {first} to {}, were removed to keep the log within its limits (segments: {}, \
             bytes: {})",
            next_first.saturating_sub(1),
            self.segments,
            self.bytes
        ))
    }
}

/// Files that were written and may not be on the disk yet.
#[must_use]
pub struct Unsynced {
    folder: PathBuf,
    files: Vec<File>,
}

impl Unsynced {
    /// Waits until they are.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn sync(self) -> Result<(), LogError> {
        let all = self.files.iter().try_for_each(File::sync_data);
        let folder = all.and_then(|()| File::open(&self.folder)?.sync_all());
        folder.map_err(|source| LogError::Write { path: self.folder, source })
    }
}

impl Current {
    fn new(segment: Segment, file: File, first_time: u64, written: u64, limits: &Limits) -> io::Result<Self> {
        let age = u64::try_from(limits.segment_age.as_nanos()).unwrap_or(u64::MAX);
        let inode = file.metadata()?.ino();
        let until = format_time(first_time.saturating_add(age));
        Ok(Self { segment, file, inode, written, first_time, until, torn: false })
    }
}

impl Closed {
    fn read(segment: Segment) -> io::Result<Self> {
        let mut file = File::open(&segment.path)?;
        let bytes = file.metadata()?.len();
        let mut start = Vec::new();
        (&mut file).take(128).read_to_end(&mut start)?;
        // Where the first line is damaged: the time of the last write, which is later and thus keeps it longer.
        let written = u64::try_from(file.metadata()?.mtime()).unwrap_or(0).saturating_mul(1_000_000_000);
        let first_time = time_and_seq(&start).and_then(|(time, _)| parse_time(time)).unwrap_or(written);
        Ok(Self { segment, bytes, first_time })
    }
}

/// Writes as much as possible: how much that was, and what stopped it.
fn write_all(storage: &mut dyn Storage, file: &File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match storage.write(file, rest) {
            Ok(0) => return (done, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (done, Err(error)),
        }
    }
    (done, Ok(()))
}

/// Cuts off what stands behind the last whole line.
fn cut_off(storage: &mut dyn Storage, current: &mut Current) -> io::Result<()> {
    // Never longer than it is, should somebody else have cut the file.
    if current.file.metadata()?.len() > current.written {
        storage.truncate(&current.file, current.written)?;
    }
    current.torn = false;
    Ok(())
}
