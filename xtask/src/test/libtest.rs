//! What libtest's own output says, read while it passes by.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

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

/// A sink that reads libtest's output, and prints each line with a prefix.
#[derive(Debug, Clone)]
pub struct Reader {
    prefix: String,
    seen: Arc<Mutex<Seen>>,
    pending: Vec<u8>,
}

impl Reader {
    /// With nothing read.
    #[must_use]
    pub fn new(prefix: String) -> Self {
        Self { prefix, seen: Arc::default(), pending: Vec::new() }
    }

    /// What this reader and its clones have seen.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take_line(&mut self, line: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(line);
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).line(text.trim_end());
        // One write, so that lines of two machines do not mix.
        io::stdout().lock().write_all(format!("{}{}\n", self.prefix, text.trim_end()).as_bytes())
    }
}

impl Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            self.take_line(&line)?;
        }
        let unfinished = String::from_utf8_lossy(&self.pending).into_owned();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).unfinished = unfinished;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_failures_are_read() {
        let mut reader = Reader::new("[x] ".to_owned());
        let text = "running 3 tests\ntest a::b ... ok\ntest c ... FAILED\ntest d ... ignored\n\n\
                    test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                    test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 1.00s\n\
                    test e ... ";
        // In pieces that end within lines.
        for piece in text.as_bytes().chunks(7) {
            reader.write_all(piece).unwrap();
        }
        let seen = reader.seen();
        assert_eq!(seen.counts, Counts { passed: 6, failed: 1, skipped: 1 });
        assert_eq!((seen.ended, seen.failed), (2, vec!["c".to_owned()]));
        assert_eq!(seen.unfinished, "test e ... ");
    }

    #[test]
    fn other_lines_count_nothing() {
        let mut reader = Reader::new(String::new());
        reader.write_all(b"test result: nobody knows\nthe test is ... FAILED\n").unwrap();
        assert_eq!((reader.seen().ended, reader.seen().failed.len()), (0, 0));
    }
}
