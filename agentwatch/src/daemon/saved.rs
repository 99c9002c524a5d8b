//! Sessions and their tool calls over a restart of the daemon: `STATE/sessions.json` and `STATE/calls.json`.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::losses::Skips;
use crate::{attribution::Saved, calls::Kept, intent::Declared, written::Jobs};

/// The file of sessions.
const NAME: &str = "sessions.json";
/// The file of jobs.
const JOBS: &str = "jobs.json";
/// The file of tool calls.
const CALLS: &str = "calls.json";

#[derive(Debug, Deserialize)]
struct Stored {
    boot_id: String,
    #[serde(flatten)]
    earlier: Earlier,
}

/// What an earlier daemon of this boot left.
#[derive(Debug, Default, Deserialize)]
pub struct Earlier {
    /// Its sessions.
    pub sessions: Vec<Saved>,
    /// What was declared for them.
    #[serde(default)]
    pub intents: Vec<Declared>,
    /// The skipped programs that it told of.
    #[serde(default)]
    pub skips: Option<Skips>,
}

#[derive(Debug, Serialize)]
struct ToStore<'a> {
    boot_id: &'a str,
    sessions: &'a [Saved],
    intents: &'a [Declared],
    skips: &'a Skips,
}

/// Writes the sessions, whole or not at all.
///
/// # Errors
/// The state folder cannot be written.
pub fn write(
    state: &Path,
    boot_id: &str,
    sessions: &[Saved],
    intents: &[Declared],
    skips: &Skips,
) -> io::Result<()> {
    store(state, NAME, &ToStore { boot_id, sessions, intents, skips })
}

/// Writes the tool calls, whole or not at all.
///
/// # Errors
/// The state folder cannot be written.
pub fn write_calls(state: &Path, boot_id: &str, kept: &Kept) -> io::Result<()> {
    store(state, CALLS, &(boot_id, kept))
}

/// Writes the jobs that sessions wrote, whole or not at all.
///
/// # Errors
/// The state folder cannot be written.
pub fn write_jobs(state: &Path, jobs: &Jobs) -> io::Result<()> {
    store(state, JOBS, jobs)
}

/// Reads the jobs that sessions wrote, in this boot or in an earlier one.
#[must_use]
pub fn read_jobs(state: &Path) -> Option<Jobs> {
    load(state, JOBS)
}

fn store(state: &Path, name: &str, what: &impl Serialize) -> io::Result<()> {
    let partial = state.join(format!("{name}.partial"));
    fs::write(&partial, serde_json::to_vec(what)?)?;
    fs::rename(partial, state.join(name))
}

/// Reads the sessions of this boot: those of an earlier one have ended with it. A file that cannot be read
/// is passed over with a warning: the kernel's tables still know who belongs together.
#[must_use]
pub fn read(state: &Path, boot_id: &str) -> Earlier {
    let stored: Option<Stored> = load(state, NAME);
    stored.filter(|stored| stored.boot_id == boot_id).map(|stored| stored.earlier).unwrap_or_default()
}

/// Reads the tool calls of this boot, in the same way.
#[must_use]
pub fn read_calls(state: &Path, boot_id: &str) -> Kept {
    let stored: Option<(String, Kept)> = load(state, CALLS);
    stored.filter(|(boot, _)| boot == boot_id).map(|(_, kept)| kept).unwrap_or_default()
}

fn load<T: DeserializeOwned>(state: &Path, name: &str) -> Option<T> {
    let path = state.join(name);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read what an earlier daemon kept");
            return None;
        }
    };
    let unreadable = |error: &serde_json::Error| {
        tracing::warn!(path = %path.display(), %error, "cannot read what an earlier daemon kept");
    };
    serde_json::from_slice(&text).inspect_err(unreadable).ok()
}
