//! Folders of the host, read-only in the guest: a squashfs image each, reused while the folder
//! does not change.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use super::kernel::squash;
use crate::cache::{self, Lock};
use crate::cmd::say;
use crate::paths;

/// Images that nobody used for so long are removed.
const UNUSED_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// Puts an image of the folder at `place`, which lies in the cache.
///
/// # Errors
/// If the folder cannot be read, or the image not be made.
pub fn image(folder: &Path, place: &Path) -> Result<()> {
    let folder = folder
        .canonicalize()
        .with_context(|| format!("cannot share {}: is it there, and may you read it?", folder.display()))?;
    if !folder.is_dir() {
        bail!("cannot share {}: it is not a folder", folder.display());
    }
    let shares = paths::cache_dir("shares")?;
    let key = cache::key(&folder);
    let lock = Lock::take(&shares.join(format!("{key}.lock")), &format!("share {}", folder.display()))?;
    let image = shares.join(format!("{key}-{:016x}.squashfs", fingerprint(&folder)?));
    if !image.exists() {
        remove_where(&shares, |name, _| name.starts_with(&key) && name.ends_with(".squashfs"))?;
        remove_where(&shares, |name, unused_for| name.ends_with(".squashfs") && unused_for > UNUSED_FOR)?;
        say(&format!("vm: making an image of {}", folder.display()));
        let partial = shares.join(format!("{key}.partial"));
        cache::remove(&partial)?;
        squash(&folder, &partial)?;
        fs::rename(&partial, &image).with_context(|| format!("cannot move {}", partial.display()))?;
    }
    touch(&image);
    // A name of our own: the next invocation may remove the image when the folder has changed.
    fs::hard_link(&image, place)
        .with_context(|| format!("cannot link {} to {}", place.display(), image.display()))?;
    drop(lock);
    Ok(())
}

/// The name of the share in the guest.
///
/// # Errors
/// If the folder has none, as `/` has.
pub fn name(folder: &Path) -> Result<String> {
    let path =
        folder.canonicalize().with_context(|| format!("cannot share {}: is it there?", folder.display()))?;
    let name =
        path.file_name().with_context(|| format!("cannot share {}: it has no name", folder.display()))?;
    Ok(name.to_string_lossy().into_owned())
}

/// Changes whenever the folder does: names, kinds, modes, owners, sizes, times, inodes, targets of links.
fn fingerprint(folder: &Path) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(path) = waiting.pop() {
        let data = fs::symlink_metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
        path.hash(&mut hasher);
        (data.mode(), data.uid(), data.gid(), data.ino(), data.nlink()).hash(&mut hasher);
        (data.size(), data.mtime(), data.mtime_nsec(), data.ctime(), data.ctime_nsec()).hash(&mut hasher);
        if data.is_dir() {
            let entries = fs::read_dir(&path).with_context(|| format!("cannot list {}", path.display()))?;
            let mut below: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            below.sort();
            waiting.extend(below);
        }
    }
    Ok(hasher.finish())
}

fn touch(image: &Path) {
    // Only the cleaning by age looks at it.
    let _ = fs::File::open(image).and_then(|file| file.set_modified(SystemTime::now()));
}

fn remove_where(folder: &Path, which: impl Fn(&str, Duration) -> bool) -> Result<()> {
    for entry in fs::read_dir(folder).context("cannot list the cached shares")?.flatten() {
        let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|when| when.elapsed().ok());
        if which(&entry.file_name().to_string_lossy(), age.unwrap_or_default()) {
            cache::remove(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_lasts_until_the_folder_changes() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "1").unwrap();
        let first = fingerprint(folder.path()).unwrap();
        assert_eq!(fingerprint(folder.path()).unwrap(), first);
        fs::write(folder.path().join("b"), "1").unwrap();
        assert_ne!(fingerprint(folder.path()).unwrap(), first);
    }
}
