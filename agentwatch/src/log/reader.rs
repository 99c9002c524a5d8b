//! Reads the log, also while it is written.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::LogError;
use super::line::{Line, time_and_seq};
use super::lines::{Lines, Piece};
use super::segment::{self, Segment};
use crate::event::time::{format_time, parse_time};

/// Events are written some time after they happened, folded ones longest: nanoseconds that they may be late.
pub const LATE_NS: u64 = 60_000_000_000;

/// Where reading begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest event that there is.
    Oldest,
    /// At the event with this number, or the next one that there is.
    Seq(u64),
    /// At the first event of this time (nanoseconds since 1970) or later.
    Time(u64),
}

/// What reading yields.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// An event.
    Line(Line<'a>),
    /// Bytes that are no event.
    Damaged {
        /// The segment.
        segment: PathBuf,
        /// Where they are in it, in bytes.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// Events that should be here and are not. The event after them follows.
    Missing {
        /// Number of the first.
        first: u64,
        /// Number of the last.
        last: u64,
    },
}

/// Reads events in their order, over all segments. At the end it can be asked again later.
pub struct Reader {
    folder: PathBuf,
    open: Option<Open>,
    /// Events before it are passed over.
    from_seq: u64,
    /// Events before it are passed over, until one is not.
    from_time: Option<String>,
    last_seq: Option<u64>,
}

struct Open {
    segment: Segment,
    lines: Lines,
    inode: u64,
    /// There is a later segment, so this one does not grow any more.
    sealed: bool,
}

impl Reader {
    /// Opens the log of a state folder.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn open(state: &Path, start: Start) -> Result<Self, LogError> {
        let folder = super::folder(state);
        let segments = segment::list(&folder).map_err(|source| LogError::read(&folder, source))?;
        let mut reader = Self { folder, open: None, from_seq: 0, from_time: None, last_seq: None };
        let first = match start {
            Start::Oldest => segments.first(),
            Start::Seq(seq) => {
                reader.from_seq = seq;
                segments.iter().rfind(|segment| segment.first_seq <= seq).or(segments.first())
            }
            Start::Time(time) => {
                reader.from_time = Some(format_time(time));
                let before = format_time(time.saturating_sub(LATE_NS));
                segments.iter().rfind(|segment| begins_before(segment, &before)).or(segments.first())
            }
        };
        if let Some(first) = first {
            reader.open_segment(first)?;
        }
        Ok(reader)
    }

    /// Numbers of the first events of the segments that there are now, oldest first. Reading from one of
    /// them costs no search.
    ///
    /// # Errors
    /// There is no log, or it cannot be read.
    pub fn segments(state: &Path) -> Result<Vec<u64>, LogError> {
        let folder = super::folder(state);
        let segments = segment::list(&folder).map_err(|source| LogError::read(&folder, source))?;
        Ok(segments.into_iter().map(|segment| segment.first_seq).collect())
    }

    /// The folder of the segments.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The next event, or what stands in its place; `None` at the end of what is there now.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, LogError> {
        let Some(piece) = self.next_piece()? else { return Ok(None) };
        let Some(open) = &mut self.open else { return Ok(None) };
        let Piece { offset, length: bytes, too_long, .. } = piece;
        let next = time_and_seq(open.lines.bytes(piece)).map(|(_, seq)| seq);
        if let (Some(last), Some(next)) = (self.last_seq, next)
            && last.saturating_add(1) < next
        {
            open.lines.unread(piece);
            self.last_seq = Some(next - 1);
            return Ok(Some(Item::Missing { first: last + 1, last: next - 1 }));
        }
        let parsed = if too_long { None } else { Line::parse(open.lines.bytes(piece)) };
        Ok(Some(if let Some(line) = parsed {
            self.last_seq = Some(line.head.seq);
            self.from_time = None;
            Item::Line(line)
        } else {
            Item::Damaged { segment: open.segment.path.clone(), offset, bytes }
        }))
    }

    /// The next line that is not passed over.
    fn next_piece(&mut self) -> Result<Option<Piece>, LogError> {
        loop {
            let Some(open) = &mut self.open else {
                if self.go_on()? {
                    continue;
                }
                return Ok(None);
            };
            let piece = open.lines.next().map_err(|source| LogError::read(&open.segment.path, source))?;
            let Some(piece) = piece else {
                if let Some(torn) = open.torn_end() {
                    return Ok(Some(torn));
                }
                if self.go_on()? {
                    continue;
                }
                return Ok(None);
            };
            let Some((time, seq)) = time_and_seq(open.lines.bytes(piece)) else { return Ok(Some(piece)) };
            let early = self.from_time.as_ref().is_some_and(|from| time < from.as_str());
            if seq >= self.from_seq && !early {
                return Ok(Some(piece));
            }
            self.last_seq = Some(seq);
        }
    }

    /// At the end of a segment: says whether there is more to read now.
    fn go_on(&mut self) -> Result<bool, LogError> {
        let segments = segment::list(&self.folder).map_err(|source| LogError::read(&self.folder, source))?;
        let Some(open) = &mut self.open else {
            return segments.first().map_or(Ok(false), |first| self.open_segment(first));
        };
        let here = open.segment.clone();
        if std::fs::metadata(&here.path).is_ok_and(|found| found.ino() != open.inode) {
            // Mended after a crash: the same events, and then new ones, in another file.
            self.from_seq = self.last_seq.map_or(self.from_seq, |last| last.saturating_add(1));
            return self.open_segment(&here);
        }
        match segments.iter().find(|segment| segment.first_seq > here.first_seq) {
            // What was written before the later segment began may not have been read yet.
            Some(_) if !open.sealed => {
                open.sealed = true;
                Ok(true)
            }
            Some(later) => self.open_segment(later),
            None => Ok(false),
        }
    }

    /// Opens a segment, if it is still there. Says whether there is something to go on with.
    fn open_segment(&mut self, segment: &Segment) -> Result<bool, LogError> {
        let opened = File::open(&segment.path).and_then(|file| Ok((file.metadata()?.ino(), file)));
        match opened {
            Ok((inode, file)) => {
                let lines = Lines::new(file);
                self.open = Some(Open { segment: segment.clone(), lines, inode, sealed: false });
                Ok(true)
            }
            // Removed since it was listed: the next listing has it no more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(source) => Err(LogError::Read { path: segment.path.clone(), source }),
        }
    }
}

impl Open {
    /// What stands behind the last whole line of a segment that is complete, once.
    fn torn_end(&mut self) -> Option<Piece> {
        if !self.sealed {
            return None;
        }
        let length = self.lines.file().metadata().ok()?.len();
        self.lines.pass_to(length)
    }
}

fn begins_before(segment: &Segment, time: &str) -> bool {
    use std::io::Read as _;
    let mut start = Vec::new();
    let read = File::open(&segment.path).and_then(|file| file.take(128).read_to_end(&mut start));
    // A segment whose beginning cannot be read says nothing; the one before it does.
    read.is_ok() && time_and_seq(&start).is_some_and(|(first, _)| parse_time(first).is_some() && first < time)
}
