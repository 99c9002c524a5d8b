//! What sessions left behind, over restarts: `STATE/written.jsonl`.
//!
//! A line a change, appended once a second, and written anew when most lines say nothing any more. A last line that was cut
//! by a crash is passed over: so much the kernel's table and the log have still.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
};

use agentwatch_common::maps::FileKey;
use serde::{Deserialize, Serialize};

use super::{Write, Written};

/// The file.
const NAME: &str = "written.jsonl";
/// Lines that may say nothing any more before all is written anew.
const SPARE_LINES: usize = 4_096;

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Change<T> {
    /// Who wrote a file last.
    Written(T),
    /// A file that is forgotten: device and inode.
    Forgotten(u32, u64),
}

/// The file that is being written.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    lines: usize,
}

impl Kept {
    /// Goes on with the file of a state folder.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        // The first time all is written anew.
        Self { path: state.join(NAME), lines: usize::MAX }
    }

    /// Keeps what changed. What cannot be kept now is tried again.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&mut self, written: &mut Written) -> io::Result<()> {
        let mut text = Vec::new();
        let mut keys = Vec::new();
        for (key, write) in written.take_changes() {
            let change = match write {
                Some(write) => Change::Written(write),
                None => Change::Forgotten(key.dev, key.ino),
            };
            line(&mut text, &change)?;
            keys.push(key);
        }
        if keys.is_empty() {
            return Ok(());
        }
        let kept = if self.lines > written.all().count() * 2 + SPARE_LINES {
            self.write_anew(written)
        } else {
            self.append(&text, keys.len())
        };
        if kept.is_err() {
            // What was written of it may be cut.
            self.lines = usize::MAX;
            written.not_kept(keys.into_iter());
        }
        kept
    }

    fn append(&mut self, text: &[u8], lines: usize) -> io::Result<()> {
        OpenOptions::new().append(true).open(&self.path)?.write_all(text)?;
        self.lines += lines;
        Ok(())
    }

    fn write_anew(&mut self, written: &Written) -> io::Result<()> {
        let (mut text, mut lines) = (Vec::new(), 0);
        for write in written.all() {
            line(&mut text, &Change::Written(write))?;
            lines += 1;
        }
        let partial = self.path.with_extension("partial");
        let mut file = File::create(&partial)?;
        file.write_all(&text)?;
        file.sync_data()?;
        fs::rename(&partial, &self.path)?;
        self.lines = lines;
        Ok(())
    }
}

fn line(text: &mut Vec<u8>, change: &Change<&Write>) -> io::Result<()> {
    serde_json::to_writer(&mut *text, change)?;
    text.push(b'\n');
    Ok(())
}

/// Reads what is kept, and how many lines could not be read. No file is nothing kept.
///
/// # Errors
/// The file is there and cannot be read.
pub fn read(state: &Path) -> io::Result<(Vec<Write>, usize)> {
    let file = match File::open(state.join(NAME)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(error),
    };
    let (mut files, mut damaged) = (BTreeMap::new(), 0);
    for line in BufReader::new(file).split(b'\n') {
        match serde_json::from_slice::<Change<Write>>(&line?) {
            Ok(Change::Written(write)) => drop(files.insert(write.key(), write)),
            Ok(Change::Forgotten(dev, ino)) => drop(files.remove(&FileKey { ino, dev, pad: 0 })),
            Err(_) => damaged += 1,
        }
    }
    Ok((files.into_values().collect(), damaged))
}
