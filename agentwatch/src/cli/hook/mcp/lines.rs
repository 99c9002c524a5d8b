//! A stream of bytes as lines that can be read, without holding back what cannot.

use std::io;

/// Bytes of a line that is read for what it says. A longer one is passed through unread.
pub(super) const LINE_BYTES: usize = 16 << 20;
/// What a stream begins a message with that has no lines.
const HEADER: &[u8] = b"content-length:";

/// What a stream gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A whole line with its end.
    Line(&'a [u8]),
    /// Bytes that nobody reads.
    Unread(&'a [u8]),
}

/// Why bytes go through unread from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// The line is too long: until it ends.
    Long,
    /// These are no lines: for good.
    Headers,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Lines,
    /// In the middle of a line that is too long.
    Skips,
    /// For good.
    Passes,
}

/// Takes a stream apart.
#[derive(Debug)]
pub(super) struct Lines {
    line: Vec<u8>,
    mode: Mode,
    most: usize,
}

impl Lines {
    /// Lines of up to so many bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { line: Vec::new(), mode: Mode::default(), most }
    }

    /// Takes what came; gives it on in pieces, in order and whole but for a last line that has not ended. Says where reading
    /// ends.
    pub(super) fn take(
        &mut self,
        mut bytes: &[u8],
        mut give: impl FnMut(Piece<'_>) -> io::Result<()>,
    ) -> io::Result<Option<Unread>> {
        let mut said = None;
        while !bytes.is_empty() {
            let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1);
            let (head, rest) = bytes.split_at(end);
            let is_end = head.ends_with(b"\n");
            match self.mode {
                Mode::Passes => {
                    give(Piece::Unread(bytes))?;
                    return Ok(said);
                }
                Mode::Skips => {
                    give(Piece::Unread(head))?;
                    if is_end {
                        self.mode = Mode::Lines;
                    }
                }
                Mode::Lines => said = self.line(head, is_end, &mut give)?.or(said),
            }
            bytes = rest;
        }
        Ok(said)
    }

    /// A line, or a piece of one.
    fn line(
        &mut self,
        head: &[u8],
        is_end: bool,
        give: &mut impl FnMut(Piece<'_>) -> io::Result<()>,
    ) -> io::Result<Option<Unread>> {
        if self.line.len() + head.len() > self.most {
            self.give_unread(give)?;
            give(Piece::Unread(head))?;
            if !is_end {
                self.mode = Mode::Skips;
            }
            return Ok(Some(Unread::Long));
        }
        if self.line.is_empty() && is_end {
            // Nearly every line comes whole.
            give(Piece::Line(head))?;
        } else {
            self.line.extend_from_slice(head);
            if !is_end {
                return Ok(None);
            }
            let line = std::mem::take(&mut self.line);
            give(Piece::Line(&line))?;
            return Ok(self.headers(&line));
        }
        Ok(self.headers(head))
    }

    fn headers(&mut self, line: &[u8]) -> Option<Unread> {
        if !line.get(..HEADER.len()).is_some_and(|start| start.eq_ignore_ascii_case(HEADER)) {
            return None;
        }
        self.mode = Mode::Passes;
        Some(Unread::Headers)
    }

    /// Gives on what is left of a line: at the end of the stream.
    pub(super) fn give_unread(
        &mut self,
        give: &mut impl FnMut(Piece<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let rest = std::mem::take(&mut self.line);
        if rest.is_empty() { Ok(()) } else { give(Piece::Unread(&rest)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes out: lines as they are, unread bytes with a mark; and what was said.
    fn pieces(most: usize, chunks: &[&[u8]]) -> (Vec<String>, Vec<Unread>) {
        let (mut lines, mut out, mut said) = (Lines::new(most), Vec::new(), Vec::new());
        let mut give = |piece: Piece<'_>| {
            out.push(match piece {
                Piece::Line(line) => String::from_utf8_lossy(line).into_owned(),
                Piece::Unread(bytes) => format!("?{}", String::from_utf8_lossy(bytes)),
            });
            Ok(())
        };
        for chunk in chunks {
            said.extend(lines.take(chunk, &mut give).unwrap());
        }
        lines.give_unread(&mut give).unwrap();
        (out, said)
    }

    #[test]
    fn lines_are_found_however_they_are_cut() {
        let (out, said) = pieces(10, &[b"a\nbb", b"b", b"\n\nc\r\nd"]);
        assert_eq!((out, said), (["a\n", "bbb\n", "\n", "c\r\n", "?d"].map(String::from).into(), Vec::new()));
    }

    #[test]
    fn long_lines_go_through_unread_and_the_next_is_read() {
        let (out, said) = pieces(4, &[b"123", b"45", b"67\nabc\n", b"too long\nz\n"]);
        let expected = ["?123", "?45", "?67\n", "abc\n", "?too long\n", "z\n"].map(String::from);
        assert_eq!((out, said), (expected.into(), vec![Unread::Long, Unread::Long]));
    }

    #[test]
    fn what_has_no_lines_is_not_held_back() {
        let (out, said) = pieces(100, &[b"Content-Length: 2\r\n\r\n", b"{}", b"Content-"]);
        let expected = ["Content-Length: 2\r\n", "?\r\n", "?{}", "?Content-"].map(String::from);
        assert_eq!((out, said), (expected.into(), vec![Unread::Headers]));
    }

    proptest! {
        #[test]
        fn every_byte_comes_out_in_order(
            chunks in prop::collection::vec(prop::collection::vec(prop::sample::select(b"ab\n{".to_vec()), 0..9), 0..9),
        ) {
            let (mut lines, mut out) = (Lines::new(5), Vec::new());
            let mut give = |piece: Piece<'_>| {
                match piece { Piece::Line(bytes) | Piece::Unread(bytes) => out.extend_from_slice(bytes) }
                Ok(())
            };
            for chunk in &chunks {
                lines.take(chunk, &mut give).unwrap();
            }
            lines.give_unread(&mut give).unwrap();
            prop_assert_eq!(out, chunks.concat());
        }
    }
}
