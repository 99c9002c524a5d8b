//! Lines of a file that may still grow.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Bytes of a line. The longest event, with 2 MiB of arguments of which each byte is escaped, is well below.
pub(super) const LINE_BYTES: usize = 32 * 1024 * 1024;

/// Reads a file line by line, and goes on where the last line ended when the file has grown.
pub(super) struct Lines {
    file: File,
    buffer: Vec<u8>,
    /// Where unread bytes begin and end in `buffer`.
    start: usize,
    end: usize,
    /// Offset in the file of `buffer[start]`.
    offset: u64,
    /// Offset in the file of the line that is being read.
    line_offset: u64,
    /// The line is too long: its bytes are passed over.
    skipping: bool,
}

/// Where a line is: pass it to [`Lines::bytes`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// Offset in the file.
    pub offset: u64,
    /// Bytes with the newline.
    pub length: u64,
    /// It is over [`LINE_BYTES`], or has no end, and its bytes are not there.
    pub too_long: bool,
    start: usize,
}

impl Lines {
    pub fn new(file: File) -> Self {
        let buffer = vec![0; CHUNK_BYTES];
        Self { file, buffer, start: 0, end: 0, offset: 0, line_offset: 0, skipping: false }
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Offset of the first byte that does not belong to a whole line yet.
    pub fn line_offset(&self) -> u64 {
        self.line_offset
    }

    /// The next whole line; `None` where the file ends before a newline.
    pub fn next(&mut self) -> io::Result<Option<Piece>> {
        let mut searched = 0;
        loop {
            let unread = self.buffer.get(self.start..self.end).unwrap_or_default();
            let new = unread.get(searched..).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', new) {
                return Ok(Some(self.take(searched + at + 1)));
            }
            searched = unread.len();
            if self.skipping || searched > LINE_BYTES {
                self.skipping = true;
                self.drop_unread(searched);
                searched = 0;
            }
            if self.fill()? == 0 {
                // The rest of the line may be written anew after a failed write: it is read again then.
                if !self.skipping {
                    self.end = self.start;
                }
                return Ok(None);
            }
        }
    }

    /// The bytes of the last piece, without the newline. Empty where it was too long.
    pub fn bytes(&self, piece: Piece) -> &[u8] {
        let length = usize::try_from(piece.length).unwrap_or(0);
        let end = if piece.too_long { piece.start } else { piece.start + length.saturating_sub(1) };
        self.buffer.get(piece.start..end).unwrap_or_default()
    }

    /// Makes the last piece the next one again.
    pub fn unread(&mut self, piece: Piece) {
        self.start = piece.start;
        self.offset = piece.offset;
        self.line_offset = piece.offset;
    }

    /// Passes over what stands between the last whole line and `length`: as one piece without its bytes.
    pub fn pass_to(&mut self, length: u64) -> Option<Piece> {
        let offset = self.line_offset;
        let rest = length.checked_sub(offset).filter(|&rest| rest > 0)?;
        (self.offset, self.line_offset) = (length, length);
        (self.start, self.end, self.skipping) = (0, 0, false);
        Some(Piece { offset, length: rest, too_long: true, start: 0 })
    }

    fn take(&mut self, length: usize) -> Piece {
        let (start, offset, too_long) = (self.start, self.line_offset, self.skipping);
        self.drop_unread(length);
        self.line_offset = self.offset;
        self.skipping = false;
        Piece { offset, length: self.offset - offset, too_long, start }
    }

    fn drop_unread(&mut self, length: usize) {
        self.start += length;
        self.offset += length as u64;
    }

    fn fill(&mut self) -> io::Result<usize> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let free = self.buffer.get_mut(self.end..).unwrap_or_default();
        let read = loop {
            match self.file.read_at(free, self.offset + self.end as u64) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.end += read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, SeekFrom, Write as _};

    fn all(lines: &mut Lines) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while let Some(piece) = lines.next().unwrap() {
            found.push(lines.bytes(piece).to_vec());
        }
        found
    }

    #[test]
    fn lines_come_whole_and_the_rest_when_it_is_there() {
        let mut file = tempfile::tempfile().unwrap();
        let long = vec![b'x'; 3 * CHUNK_BYTES];
        file.write_all(b"one\n\ntwo\n").unwrap();
        file.write_all(&long).unwrap();
        let mut lines = Lines::new(file.try_clone().unwrap());
        assert_eq!(all(&mut lines), [b"one".to_vec(), vec![], b"two".to_vec()]);
        assert_eq!(lines.line_offset(), 9);
        // What was there of the line is cut off and written anew, as after a failed write.
        file.set_len(9).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(b"three\nfour").unwrap();
        assert_eq!(all(&mut lines), [b"three".to_vec()]);
        file.write_all(b"\n").unwrap();
        let piece = lines.next().unwrap().unwrap();
        lines.unread(piece);
        assert_eq!(all(&mut lines), [b"four".to_vec()]);
    }

    #[test]
    fn a_line_without_end_is_passed_over_within_bounds() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"one\n").unwrap();
        file.set_len(2 * LINE_BYTES as u64).unwrap();
        let mut lines = Lines::new(file.try_clone().unwrap());
        assert_eq!(all(&mut lines), [b"one".to_vec()]);
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(b"\ntwo\n").unwrap();
        let piece = lines.next().unwrap().unwrap();
        assert!(piece.too_long && lines.bytes(piece).is_empty());
        assert_eq!((piece.offset, piece.length), (4, 2 * LINE_BYTES as u64 - 4 + 1));
        assert_eq!(all(&mut lines), [b"two".to_vec()]);
        assert!(lines.buffer.len() <= 3 * LINE_BYTES);
    }
}
