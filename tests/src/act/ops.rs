//! Single operations on files, each recorded.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat, XattrFlags};

use super::record::{Recorder, did};
use crate::truth::{Bytes, Did};

/// Permission bits of all that the actor makes.
pub const FILE_MODE: u32 = 0o644;

/// Names of the flags of an open.
const OPEN_FLAGS: [(OFlags, &str); 11] = [
    (OFlags::CREATE, "O_CREAT"),
    (OFlags::EXCL, "O_EXCL"),
    (OFlags::TRUNC, "O_TRUNC"),
    (OFlags::APPEND, "O_APPEND"),
    (OFlags::NONBLOCK, "O_NONBLOCK"),
    (OFlags::NOFOLLOW, "O_NOFOLLOW"),
    (OFlags::PATH, "O_PATH"),
    (OFlags::SYNC, "O_SYNC"),
    (OFlags::TMPFILE, "O_TMPFILE"),
    (OFlags::DIRECTORY, "O_DIRECTORY"),
    (OFlags::NOATIME, "O_NOATIME"),
];

/// The flags of an open as text.
pub fn open_flags(flags: OFlags) -> String {
    let access = match flags & OFlags::RWMODE {
        OFlags::RDWR => "O_RDWR",
        OFlags::WRONLY => "O_WRONLY",
        _ => "O_RDONLY",
    };
    let mut names = vec![access];
    let mut left = flags;
    for (flag, name) in OPEN_FLAGS {
        // O_TMPFILE holds O_DIRECTORY: it stands before it in the list.
        if left.contains(flag) {
            names.push(name);
            left.remove(flag);
        }
    }
    names.join("|")
}

/// Puts inode and device of a file into what was done.
pub fn with_stat(mut entry: Did, stat: &Stat) -> Did {
    entry.inode = Some(stat.st_ino);
    entry.device = Some(format!("{}:{}", fs::major(stat.st_dev), fs::minor(stat.st_dev)));
    entry
}

fn stat_of(path: &Path) -> Result<Stat> {
    fs::lstat(path).with_context(|| format!("cannot stat `{}`", path.display()))
}

impl Recorder {
    /// A new regular file, open for writing.
    pub fn create(&self, path: &Path) -> Result<OwnedFd> {
        self.open(path, path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)
    }

    /// A new file with some bytes in it.
    pub fn create_with(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let fd = self.create(path)?;
        rustix::io::write(&fd, bytes).with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(())
    }

    /// Opens `spelled`, which is `real`; records a creation and a truncation too where it is one.
    pub fn open(&self, spelled: &Path, real: &Path, flags: OFlags) -> Result<OwnedFd> {
        let existed = fs::stat(spelled).is_ok();
        let fd = fs::open(spelled, flags | OFlags::CLOEXEC, Mode::from_raw_mode(FILE_MODE))
            .with_context(|| format!("cannot open `{}`", spelled.display()))?;
        self.opened(&fd, real, flags, existed)?;
        Ok(fd)
    }

    /// Records that `fd` was opened.
    pub fn opened(&self, fd: impl AsFd, real: &Path, flags: OFlags, existed: bool) -> Result<()> {
        let stat = fs::fstat(fd).with_context(|| format!("cannot stat `{}`", real.display()))?;
        let path = Some(Bytes::from(real));
        if flags.contains(OFlags::CREATE) && !existed {
            self.push(with_stat(
                Did { path: path.clone(), mode: Some(FILE_MODE), ..did("file.create") },
                &stat,
            ));
        }
        if !flags.contains(OFlags::PATH) {
            let entry = Did { path: path.clone(), flags: Some(open_flags(flags)), ..did("file.open") };
            self.push(with_stat(entry, &stat));
        }
        if flags.contains(OFlags::TRUNC) && existed {
            self.push(with_stat(Did { path, size: Some(0), ..did("file.truncate") }, &stat));
        }
        Ok(())
    }

    /// Removes a file.
    pub fn unlink(&self, path: &Path) -> Result<()> {
        let stat = stat_of(path)?;
        fs::unlink(path).with_context(|| format!("cannot remove `{}`", path.display()))?;
        self.push(with_stat(Did { path: Some(path.into()), ..did("file.delete") }, &stat));
        Ok(())
    }

    /// Makes a folder.
    pub fn mkdir(&self, path: &Path) -> Result<()> {
        let mode = 0o755;
        fs::mkdir(path, Mode::from_raw_mode(mode))
            .with_context(|| format!("cannot make `{}`", path.display()))?;
        let entry = Did { path: Some(path.into()), mode: Some(mode), ..did("file.mkdir") };
        self.push(with_stat(entry, &stat_of(path)?));
        Ok(())
    }

    /// Removes a folder.
    pub fn rmdir(&self, path: &Path) -> Result<()> {
        let stat = stat_of(path)?;
        fs::rmdir(path).with_context(|| format!("cannot remove the folder `{}`", path.display()))?;
        self.push(with_stat(Did { path: Some(path.into()), ..did("file.rmdir") }, &stat));
        Ok(())
    }

    /// Renames, with the flags that `renameat2` takes.
    pub fn rename(&self, from: &Path, to: &Path, flags: RenameFlags) -> Result<()> {
        let stat = stat_of(from)?;
        fs::renameat_with(CWD, from, CWD, to, flags)
            .with_context(|| format!("cannot rename `{}` to `{}`", from.display(), to.display()))?;
        let names =
            [(RenameFlags::EXCHANGE, "RENAME_EXCHANGE"), (RenameFlags::NOREPLACE, "RENAME_NOREPLACE")];
        let names: Vec<_> =
            names.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| *name).collect();
        let entry = Did {
            path: Some(from.into()),
            path_to: Some(to.into()),
            flags: (!names.is_empty()).then(|| names.join("|")),
            ..did("file.rename")
        };
        self.push(with_stat(entry, &stat));
        Ok(())
    }

    /// Makes a hard link.
    pub fn link(&self, from: &Path, to: &Path) -> Result<()> {
        fs::link(from, to).with_context(|| format!("cannot link `{}`", from.display()))?;
        let entry = Did { path: Some(from.into()), path_to: Some(to.into()), ..did("file.link") };
        self.push(with_stat(entry, &stat_of(from)?));
        Ok(())
    }

    /// Makes a symbolic link at `path`.
    pub fn symlink(&self, target: &Path, path: &Path) -> Result<()> {
        fs::symlink(target, path).with_context(|| format!("cannot make `{}`", path.display()))?;
        let entry = Did { path: Some(path.into()), argument: Some(target.into()), ..did("file.symlink") };
        self.push(with_stat(entry, &stat_of(path)?));
        Ok(())
    }

    /// Records something done to an existing file, with its inode.
    pub fn touched(&self, path: &Path, entry: Did) -> Result<()> {
        let stat = stat_of(path)?;
        self.push(with_stat(Did { path: Some(path.into()), ..entry }, &stat));
        Ok(())
    }

    /// Makes a FIFO.
    pub fn mkfifo(&self, path: &Path) -> Result<()> {
        fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(FILE_MODE), 0)
            .with_context(|| format!("cannot make `{}`", path.display()))?;
        self.touched(path, Did { mode: Some(FILE_MODE), ..did("file.create") })
    }

    /// Sets and removes an attribute.
    pub fn xattr(&self, path: &Path, name: &str) -> Result<()> {
        let failed = || format!("cannot change the attribute `{name}` of `{}`", path.display());
        fs::setxattr(path, name, b"value", XattrFlags::empty()).with_context(failed)?;
        self.touched(path, Did { argument: Some(name.into()), ..did("file.xattr") })?;
        fs::removexattr(path, name).with_context(failed)?;
        self.touched(path, Did { argument: Some(name.into()), ..did("file.xattr") })
    }

    /// Changes the owner of what `path` names, symbolic link or not.
    pub fn chown(&self, path: &Path, uid: u32, gid: u32) -> Result<()> {
        let owner = (Some(fs::Uid::from_raw(uid)), Some(fs::Gid::from_raw(gid)));
        fs::chownat(CWD, path, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
            .with_context(|| format!("cannot change the owner of `{}`", path.display()))?;
        self.touched(path, Did { uid: Some(uid), gid: Some(gid), ..did("file.owner") })
    }
}
