//! Things made once and kept: built beside their place and renamed into it, under a lock, so that
//! neither a crash nor a second invocation ever sees half of one.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cmd::say;
use crate::paths::make_dir;

/// A lock that other invocations respect too; it ends with the value, or with the process.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held for its drop")] File);

impl Lock {
    /// Waits until the lock is ours.
    ///
    /// # Errors
    /// If the lock file cannot be opened.
    pub fn take(path: &Path, what: &str) -> Result<Self> {
        if let Some(parent) = path.parent() {
            make_dir(parent)?;
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .with_context(|| format!("cannot open the lock file {}", path.display()))?;
        if file.try_lock().is_err() {
            say(&format!("{what}: waiting for another invocation that is at work on it"));
            file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        }
        Ok(Self(file))
    }
}

/// Gives `place`, which `build` makes first if it does not exist. `build` gets the path of a
/// sibling to fill, a file or a folder as it likes.
///
/// # Errors
/// Those of `build`, and of the file system.
pub fn once(place: &Path, what: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    if place.exists() {
        return Ok(place.to_owned());
    }
    let _lock = Lock::take(&sibling(place, "lock"), what)?;
    if place.exists() {
        return Ok(place.to_owned());
    }
    let partial = sibling(place, "partial");
    remove(&partial)?;
    build(&partial)?;
    fs::rename(&partial, place)
        .with_context(|| format!("cannot move {} to {}", partial.display(), place.display()))?;
    Ok(place.to_owned())
}

/// Removes a file or a folder, if it is there.
///
/// # Errors
/// If it is there and stays.
pub fn remove(path: &Path) -> Result<()> {
    let result = match fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    result.with_context(|| format!("cannot remove {}", path.display()))
}

/// A short name for a value, the same in every invocation.
pub fn key(value: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn sibling(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_built_once_and_never_seen_half() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("thing");
        assert!(
            once(&place, "thing", |partial| {
                fs::write(partial, "half")?;
                anyhow::bail!("no more")
            })
            .is_err()
        );
        assert!(!place.exists());
        once(&place, "thing", |partial| Ok(fs::write(partial, "whole")?)).unwrap();
        once(&place, "thing", |_| panic!("built twice")).unwrap();
        assert_eq!(fs::read_to_string(place).unwrap(), "whole");
    }
}
