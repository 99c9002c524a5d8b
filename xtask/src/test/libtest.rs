//! What libtest's own output says, read while it passes by.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Counts;

/// What was seen so far.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Sums over all test programs.
    pub counts: Counts,
    /// How many test programs came to their end.
    pub ended: u32,
    /// Names of the tests that failed.
    pub failed: Vec<String>,
    /// The line that is being written: the test that runs, where libtest was stopped.
    pub unfinished: String,
}

impl Seen {
    fn line(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failed.push(name.to_owned());
        }
        if let Some(counts) = line.strip_prefix("test result: ").and_then(result) {
            self.ended += 1;
            self.counts += counts;
        }
    }
}

/// `ok. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
fn result(text: &str) -> Option<Counts> {
    let (_, text) = text.split_once(". ")?;
    let number = |what: &str| {
        let part = text.split("; ").find_map(|part| part.strip_suffix(what))?;
        part.trim().parse().ok()
    };
    Some(Counts { passed: number("passed")?, failed: number("failed")?, skipped: number("ignored")? })
}

/// What one or several readers have seen.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Mutex<Seen>>);

impl Shared {
    /// What they have seen so far.
    #[must_use]
    pub fn now(&self) -> Seen {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sink that reads libtest's output, and hands on each line with a prefix.
#[derive(Debug)]
pub struct Reader<W> {
    prefix: String,
    seen: Shared,
    pending: Vec<u8>,
    out: W,
}

impl<W: Write> Reader<W> {
    /// Adds to what was seen already.
    #[must_use]
    pub const fn new(prefix: String, seen: Shared, out: W) -> Self {
        Self { prefix, seen, pending: Vec::new(), out }
    }

    fn take_line(&mut self, line: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(line);
        self.seen.lock().line(text.trim_end());
        // One write, so that lines of two machines do not mix.
        self.out.write_all(format!("{}{}\n", self.prefix, text.trim_end()).as_bytes())
    }
}

impl<W: Write> Write for Reader<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            self.take_line(&line)?;
        }
        self.seen.lock().unfinished = String::from_utf8_lossy(&self.pending).into_owned();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_failures_are_read() {
        let (seen, mut out) = (Shared::default(), Vec::new());
        let mut reader = Reader::new("[x] ".to_owned(), seen.clone(), &mut out);
        let text = "running 3 tests\ntest a::b ... ok\ntest c ... FAILED\ntest d ... ignored\n\n\
                    test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                    test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 1.00s\n\
                    test e ... ";
        // In pieces that end within lines.
        for piece in text.as_bytes().chunks(7) {
            reader.write_all(piece).unwrap();
        }
        let seen = seen.now();
        assert!(out.starts_with(b"[x] running 3 tests\n[x] test a::b ... ok\n"));
        assert_eq!(seen.counts, Counts { passed: 6, failed: 1, skipped: 1 });
        assert_eq!((seen.ended, seen.failed), (2, vec!["c".to_owned()]));
        assert_eq!(seen.unfinished, "test e ... ");
    }

    #[test]
    fn other_lines_count_nothing() {
        let seen = Shared::default();
        let mut reader = Reader::new(String::new(), seen.clone(), io::sink());
        reader.write_all(b"test result: nobody knows\nthe test is ... FAILED\n").unwrap();
        assert_eq!((seen.now().ended, seen.now().failed.len()), (0, 0));
    }
}
