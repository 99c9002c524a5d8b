//! Mends the last segment after a crash: whole events stay, all other bytes are moved to a side file.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::line::Line;
use super::lines::{LINE_BYTES, Lines};
use super::segment::Segment;

/// What opening the log found and did. Nothing was wrong where `damaged` is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Number of the next event.
    pub next_seq: u64,
    /// What could not be read.
    pub damaged: Option<Damaged>,
}

/// Bytes of a segment that were no events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The segment.
    pub segment: PathBuf,
    /// Where its bytes are now.
    pub side_file: PathBuf,
    /// Lines that were no events, a torn last one included.
    pub lines: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Offset of the first of them in the segment, in bytes.
    pub offset: u64,
}

impl fmt::Display for Damaged {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "`{}` held what is no event, after an unclean end (lines: {}, bytes: {}, the first at byte {}); it is \
             kept in `{}`",
            self.segment.display(),
            self.lines,
            self.bytes,
            self.offset,
            self.side_file.display()
        )
    }
}

/// The last segment as it is after mending.
pub(super) struct Mended {
    /// `seq` of its last event.
    pub last_seq: Option<u64>,
    pub damaged: Option<Damaged>,
}

/// Mends a segment in place. After a crash in the middle of it, it can be done again.
pub(super) fn mend(folder: &Path, segment: &Segment) -> io::Result<Mended> {
    let file = OpenOptions::new().read(true).append(true).open(&segment.path)?;
    let scan = Scan::run(&file)?;
    let mut damaged = None;
    if let Some(first) = scan.bad.first() {
        let side_file = copy_aside(folder, segment, &file, &scan.bad)?;
        if scan.bad.len() == 1 && first.end == scan.length {
            file.set_len(first.start)?;
            file.sync_all()?;
        } else {
            rewrite(folder, segment, &file, &scan)?;
        }
        let bytes = scan.bad.iter().map(|range| range.end - range.start).sum();
        let segment = segment.path.clone();
        damaged = Some(Damaged { segment, side_file, lines: scan.bad_lines, bytes, offset: first.start });
    } else if scan.lacks_newline {
        (&file).write_all(b"\n")?;
    }
    Ok(Mended { last_seq: scan.last_seq, damaged })
}

/// What a segment consists of.
#[derive(Default)]
struct Scan {
    length: u64,
    last_seq: Option<u64>,
    bad: Vec<Range<u64>>,
    bad_lines: u64,
    /// The last event is whole but for its newline.
    lacks_newline: bool,
}

impl Scan {
    fn run(file: &File) -> io::Result<Self> {
        let mut scan = Self { length: file.metadata()?.len(), ..Self::default() };
        let mut lines = Lines::new(file.try_clone()?);
        while let Some(piece) = lines.next()? {
            scan.judge(lines.bytes(piece), piece.offset..piece.offset + piece.length);
        }
        let rest = lines.line_offset()..scan.length;
        if !rest.is_empty() {
            let bytes = read_range(file, &rest)?;
            scan.lacks_newline = scan.judge(&bytes, rest);
        }
        Ok(scan)
    }

    /// Says whether a line is an event.
    fn judge(&mut self, bytes: &[u8], range: Range<u64>) -> bool {
        if let Some(line) = Line::parse(bytes) {
            self.last_seq = self.last_seq.max(Some(line.head.seq));
            return true;
        }
        self.bad_lines += 1;
        match self.bad.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.bad.push(range),
        }
        false
    }
}

/// The bytes of a range; none where it is too long to be a line.
fn read_range(mut file: &File, range: &Range<u64>) -> io::Result<Vec<u8>> {
    let length = range.end - range.start;
    let mut bytes = Vec::new();
    if length <= LINE_BYTES as u64 {
        file.seek(SeekFrom::Start(range.start))?;
        file.take(length).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn copy_aside(folder: &Path, segment: &Segment, file: &File, bad: &[Range<u64>]) -> io::Result<PathBuf> {
    let (side, path) = new_side_file(folder, segment)?;
    copy_ranges(file, &side, bad.iter().cloned())?;
    side.sync_all()?;
    File::open(folder)?.sync_all()?;
    Ok(path)
}

fn new_side_file(folder: &Path, segment: &Segment) -> io::Result<(File, PathBuf)> {
    let stem = segment.path.with_extension("");
    let stem = stem.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut number = 0_u32;
    loop {
        let path = folder.join(format!("{stem}.{number}.damaged"));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            other => return Ok((other?, path)),
        }
    }
}

/// Puts a copy without the bad bytes in the segment's place, at once.
fn rewrite(folder: &Path, segment: &Segment, file: &File, scan: &Scan) -> io::Result<()> {
    let path = segment.path.with_extension("jsonl.new");
    let copy = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    let starts = std::iter::once(0).chain(scan.bad.iter().map(|range| range.end));
    let ends = scan.bad.iter().map(|range| range.start).chain(std::iter::once(scan.length));
    copy_ranges(file, &copy, starts.zip(ends).map(|(start, end)| start..end))?;
    if scan.lacks_newline {
        (&copy).write_all(b"\n")?;
    }
    copy.sync_all()?;
    std::fs::rename(&path, &segment.path)?;
    File::open(folder)?.sync_all()
}

fn copy_ranges(mut from: &File, to: &File, ranges: impl Iterator<Item = Range<u64>>) -> io::Result<()> {
    let mut to = BufWriter::new(to);
    for range in ranges {
        from.seek(SeekFrom::Start(range.start))?;
        io::copy(&mut from.take(range.end - range.start), &mut to)?;
    }
    to.flush()
}
