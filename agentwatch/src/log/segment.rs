//! Names of segments.

use std::io;
use std::path::{Path, PathBuf};

const PREFIX: &str = "events-";
const SUFFIX: &str = ".jsonl";
/// Digits of `u64::MAX`, so that names sort as numbers do.
const DIGITS: usize = 20;

/// A file of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// `seq` of its first event.
    pub first_seq: u64,
    pub path: PathBuf,
}

impl Segment {
    pub fn new(folder: &Path, first_seq: u64) -> Self {
        let path = folder.join(format!("{PREFIX}{first_seq:0width$}{SUFFIX}", width = DIGITS));
        Self { first_seq, path }
    }
}

/// The segments of a folder, oldest first. Other files are left alone.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(first_seq) = name.to_str().and_then(first_seq) {
            segments.push(Segment::new(folder, first_seq));
        }
    }
    segments.sort_by_key(|segment| segment.first_seq);
    Ok(segments)
}

fn first_seq(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let plain = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segments_are_listed_in_the_order_of_their_events() {
        let folder = tempfile::tempdir().unwrap();
        for first in [100, 9, u64::MAX] {
            std::fs::write(Segment::new(folder.path(), first).path, "").unwrap();
        }
        for other in ["events-9.jsonl", "events-00000000000000000009.0.damaged", "x", "events-.jsonl"] {
            std::fs::write(folder.path().join(other), "").unwrap();
        }
        let firsts: Vec<u64> = list(folder.path()).unwrap().iter().map(|segment| segment.first_seq).collect();
        assert_eq!(firsts, [9, 100, u64::MAX]);
    }
}
