//! Sessions over a restart of the daemon: `STATE/sessions.json`.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::losses::Skips;
use crate::{attribution::Saved, intent::Declared};

/// The file.
const NAME: &str = "sessions.json";

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
    let text = serde_json::to_vec(&ToStore { boot_id, sessions, intents, skips })?;
    let partial = state.join(format!("{NAME}.partial"));
    fs::write(&partial, text)?;
    fs::rename(partial, state.join(NAME))
}

/// Reads the sessions of this boot: those of an earlier one have ended with it. A file that cannot be read
/// is passed over with a warning: the kernel's tables still know who belongs together.
#[must_use]
pub fn read(state: &Path, boot_id: &str) -> Earlier {
    let path = state.join(NAME);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Earlier::default(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read the sessions of an earlier daemon");
            return Earlier::default();
        }
    };
    match serde_json::from_slice::<Stored>(&text) {
        Ok(stored) if stored.boot_id == boot_id => stored.earlier,
        Ok(_) => Earlier::default(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read the sessions of an earlier daemon");
            Earlier::default()
        }
    }
}
