//! The list of what was done.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::truth::{Did, Truth};

/// Collects what is done, from any thread.
pub struct Recorder {
    dir: PathBuf,
    truth: Mutex<Truth>,
}

impl Recorder {
    /// An empty list for work in `dir`, which must be absolute and free of symbolic links.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        let truth = Truth { pid: std::process::id(), dir: dir.as_path().into(), ..Truth::default() };
        Self { dir, truth: Mutex::new(truth) }
    }

    /// The folder to work in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path in the folder.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// Adds something that was done.
    pub fn push(&self, did: Did) {
        self.lock().did.push(did);
    }

    /// Adds a fact.
    pub fn fact(&self, name: &str, value: impl Into<Value>) {
        self.lock().facts.insert(name.to_owned(), value.into());
    }

    /// Adds all that another process did.
    pub fn merge(&self, other: Truth) {
        let mut truth = self.lock();
        truth.did.extend(other.did);
        truth.facts.extend(other.facts);
    }

    /// The list as a line of JSON.
    pub fn into_json(self) -> Result<String> {
        let truth = self.truth.into_inner().unwrap_or_else(PoisonError::into_inner);
        serde_json::to_string(&truth).context("the list cannot be written as JSON")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Truth> {
        self.truth.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something of `kind` done by the calling thread.
pub fn did(kind: &str) -> Did {
    let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
    Did { kind: kind.to_owned(), pid: std::process::id(), tid, ..Did::default() }
}
