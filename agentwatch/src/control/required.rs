//! Which harnesses must not do what agentwatch cannot be told of: `RUN/required-hooks.json`.
//!
//! The daemon writes it when a policy comes into force. Hooks read it where the daemon does not answer, and so cannot say it.

use std::{collections::BTreeSet, fs, io, os::unix::fs::PermissionsExt as _, path::Path};

/// The file.
const NAME: &str = "required-hooks.json";

/// Notes which harnesses these are, for whoever may be told by them: everybody.
///
/// # Errors
/// The folder cannot be written.
pub fn write(run: &Path, names: &BTreeSet<&'static str>) -> io::Result<()> {
    if names.is_empty() {
        return remove(run);
    }
    let partial = run.join(format!("{NAME}.partial"));
    fs::write(&partial, serde_json::to_vec(names)?)?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o644))?;
    fs::rename(partial, run.join(NAME))
}

/// Forgets them.
///
/// # Errors
/// The folder cannot be written.
pub fn remove(run: &Path) -> io::Result<()> {
    match fs::remove_file(run.join(NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether one is among them. A file that is there and cannot be read says so of all.
#[must_use]
pub fn is_required(run: &Path, name: &str) -> bool {
    match fs::read(run.join(NAME)) {
        Ok(text) => {
            serde_json::from_slice(&text).map_or(true, |names: BTreeSet<String>| names.contains(name))
        }
        Err(error) => error.kind() != io::ErrorKind::NotFound && error.kind() != io::ErrorKind::NotADirectory,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_required() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path();
        assert!(!is_required(run, "codex"), "nothing was said");
        write(run, &BTreeSet::from(["claude-code", "codex"])).unwrap();
        assert!(is_required(run, "codex") && !is_required(run, "gemini"));
        fs::write(run.join(NAME), "[\"codex\"").unwrap();
        assert!(is_required(run, "gemini"), "it may say anything");
        write(run, &BTreeSet::new()).unwrap();
        assert!(!is_required(run, "codex") && !is_required(&run.join("gone"), "codex"));
        remove(run).unwrap();
    }
}
