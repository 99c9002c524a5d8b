//! The attribution log, read for its numbers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

/// Bytes of a file's end in which its last line is looked for.
const TAIL: u64 = 16 * 1024;
/// The agent of all sessions here.
const AGENT: &str = "bench";

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(default, borrow)]
    agent: Cow<'a, str>,
    #[serde(borrow)]
    file: Option<FileOf<'a>>,
    #[serde(default = "one")]
    count: u64,
    #[serde(borrow)]
    loss: Option<Loss<'a>>,
}

#[derive(Deserialize)]
struct FileOf<'a> {
    #[serde(borrow)]
    path: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Loss<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    count: u64,
}

const fn one() -> u64 {
    1
}

/// What the log tells of one kind of event.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Lines.
    pub events: u64,
    /// What the lines stand for: folded repeats are counted.
    pub stand_for: u64,
    /// Lost, by the log's own account.
    pub lost: u64,
}

/// Counts the events of the benchmarks' sessions, from the end that the log had when this was made.
#[derive(Debug)]
pub struct LogReader {
    folder: PathBuf,
    segment: PathBuf,
    read: u64,
    rest: Vec<u8>,
    /// Events about files count if they are below this folder.
    below: String,
    kinds: BTreeMap<String, Told>,
}

impl LogReader {
    /// Begins at the end.
    ///
    /// # Errors
    /// If there is no log.
    pub fn at_end(folder: &Path, below: &Path) -> Result<Self> {
        let segment = segments(folder)?.pop().context("the log has no segment")?;
        let read = fs::metadata(&segment).context("cannot look at the log")?.len();
        let below = format!("{}/", below.display());
        Ok(Self { folder: folder.to_owned(), segment, read, rest: Vec::new(), below, kinds: BTreeMap::new() })
    }

    /// Whether something that was written since stands at the log's end: cheap, as it is asked while the
    /// clock runs.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn tail_holds(&self, text: &str) -> Result<bool> {
        let segment = segments(&self.folder)?.pop().context("the log has no segment")?;
        let from = if segment == self.segment { self.read } else { 0 };
        tail_holds(&segment, from, text)
    }

    /// Reads what is new, and gives the sums since the beginning.
    ///
    /// # Errors
    /// If the log cannot be read, or a line is no event.
    pub fn read(&mut self) -> Result<&BTreeMap<String, Told>> {
        // Their names sort as their events do.
        for segment in segments(&self.folder)? {
            if segment > self.segment {
                (self.segment, self.read) = (segment, 0);
                self.read_segment()?;
            } else if segment == self.segment {
                self.read_segment()?;
            }
        }
        Ok(&self.kinds)
    }

    fn read_segment(&mut self) -> Result<()> {
        let mut file = File::open(&self.segment).context("cannot open the log")?;
        file.seek(SeekFrom::Start(self.read)).context("cannot seek in the log")?;
        let mut chunk = vec![0; 1 << 20];
        loop {
            let count = file.read(&mut chunk).context("cannot read the log")?;
            if count == 0 {
                return Ok(());
            }
            self.read += count as u64;
            let mut bytes = std::mem::take(&mut self.rest);
            bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            self.rest = bytes.split_off(whole);
            bytes
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
                .try_for_each(|line| self.add(line))?;
        }
    }

    fn add(&mut self, line: &[u8]) -> Result<()> {
        let event: Event<'_> = serde_json::from_slice(line)
            .with_context(|| format!("no event: {}", String::from_utf8_lossy(line)))?;
        let elsewhere = event.file.as_ref().is_some_and(|file| !file.path.starts_with(&self.below));
        if event.agent != AGENT || elsewhere {
            return Ok(());
        }
        if let Some(loss) = &event.loss {
            self.kinds.entry(loss.kind.to_string()).or_default().lost += loss.count;
            return Ok(());
        }
        let told = self.kinds.entry(event.kind.into_owned()).or_default();
        told.events += 1;
        told.stand_for += event.count;
        Ok(())
    }
}

/// Whether the last bytes of a file, behind `from`, hold a text.
///
/// # Errors
/// If it cannot be read.
pub fn tail_holds(file: &Path, from: u64, text: &str) -> Result<bool> {
    let mut opened = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let size = opened.metadata().context("cannot look at a log")?.len();
    opened.seek(SeekFrom::Start(from.max(size.saturating_sub(TAIL)))).context("cannot seek in a log")?;
    let mut tail = Vec::new();
    opened.read_to_end(&mut tail).context("cannot read a log")?;
    Ok(tail.windows(text.len()).any(|some| some == text.as_bytes()))
}

fn segments(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut segments: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    segments.retain(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    segments.sort();
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn sums_are_of_the_sessions_own_events_since_the_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let segment = |number: u32| folder.path().join(format!("events-{number:020}.jsonl"));
        fs::write(segment(1), "{\"kind\":\"file.open\",\"agent\":\"bench\"}\n").unwrap();
        let mut reader = LogReader::at_end(folder.path(), Path::new("/w")).unwrap();
        let mut file = File::options().append(true).open(segment(1)).unwrap();
        writeln!(file, r#"{{"kind":"file.open","agent":"bench","file":{{"path":"/w/a"}},"count":7}}"#)
            .unwrap();
        writeln!(file, r#"{{"kind":"file.open","agent":"bench","file":{{"path":"/lib/x"}}}}"#).unwrap();
        writeln!(file, r#"{{"kind":"file.open","agent":"other","file":{{"path":"/w/a"}}}}"#).unwrap();
        write!(file, r#"{{"kind":"loss","agent":"bench","loss":{{"kind":"file.open","cou"#).unwrap();
        let told = *reader.read().unwrap().get("file.open").unwrap();
        assert_eq!(told, Told { events: 1, stand_for: 7, lost: 0 });
        writeln!(file, r#"nt":3}}}}"#).unwrap();
        fs::write(segment(9), "{\"kind\":\"session.end\",\"agent\":\"bench\"}\n").unwrap();
        let kinds = reader.read().unwrap();
        assert_eq!(kinds.get("file.open").unwrap().lost, 3);
        assert_eq!(kinds.get("session.end").unwrap().events, 1);
    }

    #[test]
    fn only_the_new_tail_is_searched() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        fs::write(&file, "old mark\nnew\n").unwrap();
        assert!(tail_holds(&file, 0, "mark").unwrap());
        assert!(!tail_holds(&file, 9, "mark").unwrap());
    }
}
