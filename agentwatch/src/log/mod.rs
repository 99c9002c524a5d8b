//! The attribution log: events as JSON Lines, in segments under `STATE/log`.
//!
//! One daemon writes ([`Log`]), any number of commands read ([`Reader`], [`Follower`]), whether a daemon runs
//! or not. A segment is named after its first event (`events-00000000000000000001.jsonl`), so that names sort
//! as events do. A line that was visible once stays: what a failed write left behind is cut off at the end of
//! the last whole line, and what cannot be read is moved aside (`*.damaged`) and said, never dropped.

mod follow;
mod json;
mod known;
mod line;
mod lines;
mod losses;
mod reader;
mod recover;
mod segment;
mod state;
mod storage;
mod writer;

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod follow_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod writer_tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::exit;

pub use crate::event::time::{format_time, parse_time};
pub use follow::{Follower, Wake};
pub use line::{Head, Line};
pub use reader::{Item, LATE_NS, Reader, Start};
pub use recover::{Damaged, Recovery};
pub use writer::{Log, Unsynced};

/// Where the state is unless the user names another folder.
pub const DEFAULT_STATE: &str = "/var/lib/agentwatch";

/// How large and how old the log becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes after which a segment is closed. One write (at most some MiB) goes past it.
    pub segment_bytes: u64,
    /// Age after which a segment is closed, from its first event on.
    pub segment_age: Duration,
    /// Bytes of all segments past which the oldest are removed, the one being written never.
    pub total_bytes: u64,
    /// Age past which a segment whose last event is older is removed.
    pub max_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            segment_age: Duration::from_hours(24),
            total_bytes: 4 * 1024 * 1024 * 1024,
            max_age: Duration::from_hours(30 * 24),
        }
    }
}

/// The folder of the segments.
#[must_use]
pub fn folder(state: &Path) -> PathBuf {
    state.join("log")
}

/// Why the log cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The state folder cannot be made or written.
    #[error(
        "the state folder cannot be used, because of `{}`: {source}; make it a folder of root's on a file \
         system with room that can be written, or name another one with --state",
        path.display()
    )]
    State {
        /// What could not be made or opened.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another daemon writes this log.
    #[error(
        "another agentwatch daemon{} already keeps its state in `{}`: stop it first",
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(),
        path.display()
    )]
    Locked {
        /// The state folder.
        path: PathBuf,
        /// The other daemon's process id, where its lock file tells.
        pid: Option<u32>,
    },
    /// There is no log to read.
    #[error(
        "there is no attribution log in `{}`: start the daemon with `agentwatch run`, or name its state folder \
         with --state",
        path.display()
    )]
    Missing {
        /// The folder that was looked for.
        path: PathBuf,
    },
    /// The log is there and cannot be read.
    #[error("the attribution log `{}` cannot be read: {source}{}", path.display(), read_advice(source))]
    Read {
        /// The segment or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The log cannot be written now. Nothing is lost yet: the next flush tries again.
    #[error(
        "the attribution log `{}` cannot be written: {source}; events wait in memory, and are counted as lost \
         where that is full, until it can be written again",
        path.display()
    )]
    Write {
        /// The segment or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl LogError {
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::NotFound {
            Self::Missing { path: path.to_owned() }
        } else {
            Self::Read { path: path.to_owned(), source }
        }
    }

    /// The exit code of the contract.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.is_permission() { exit::NOT_ALLOWED } else { exit::FAILED }
    }

    /// Whether the caller's privileges are what is missing.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        let (Self::State { source, .. } | Self::Read { source, .. } | Self::Write { source, .. }) = self
        else {
            return false;
        };
        source.kind() == io::ErrorKind::PermissionDenied
    }
}

fn read_advice(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::PermissionDenied {
        "; only root may read it: use sudo"
    } else {
        "; events in other segments are not touched by this"
    }
}
