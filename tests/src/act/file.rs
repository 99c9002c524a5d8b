//! Acts on files by their plain names.

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use rustix::fs::{self, AtFlags, CWD, Mode, OFlags, RenameFlags};

use super::ops::with_stat;
use super::record::{Recorder, did};
use crate::truth::Did;

/// Acts on files.
#[derive(Subcommand)]
pub enum Act {
    /// Opens a file for reading, writing, both and appending, and truncates it by opening
    Open,
    /// Creates by open without and with O_EXCL; opens what exists with O_CREAT
    Create,
    /// Opens with O_TMPFILE
    Tmpfile,
    /// Opens with O_PATH, which is no access
    PathOnly,
    /// Makes and removes a folder
    Mkdir,
    /// Removes a file
    Unlink,
    /// Renames: plain, over another, NOREPLACE, EXCHANGE, into another folder
    Rename,
    /// Makes a hard link and a symbolic link
    Link,
    /// Truncates by path and by descriptor
    Truncate,
    /// Changes modes: chmod, fchmod, fchmodat
    Chmod,
    /// Changes owners: chown, lchown, fchown
    Chown,
    /// Sets and removes an extended attribute in the trusted space, which each file system has
    Xattr,
    /// Sets times, by path and by descriptor, and flags
    Times,
    /// Makes a FIFO
    Mknod,
    /// Opens, creates and removes what is not there or in the way, so that each call fails
    Failing,
}

impl Act {
    /// Does it.
    pub fn run(&self, rec: &Recorder) -> Result<()> {
        let file = rec.path("file");
        match self {
            Self::Open => open(rec, &file),
            Self::Create => create(rec),
            Self::Tmpfile => tmpfile(rec),
            Self::PathOnly => {
                rec.create(&file)?;
                rec.open(&file, &file, OFlags::PATH).map(drop)
            }
            Self::Mkdir => {
                rec.mkdir(&rec.path("folder"))?;
                rec.rmdir(&rec.path("folder"))
            }
            Self::Unlink => {
                rec.create(&file)?;
                rec.unlink(&file)
            }
            Self::Rename => rename(rec),
            Self::Link => {
                rec.create(&file)?;
                rec.link(&file, &rec.path("hard"))?;
                rec.symlink(Path::new("../no such target"), &rec.path("soft"))
            }
            Self::Truncate => truncate(rec, &file),
            Self::Chmod => chmod(rec, &file),
            Self::Chown => chown(rec, &file),
            Self::Xattr => {
                rec.create(&file)?;
                rec.xattr(&file, "trusted.agentwatch")
            }
            Self::Times => times(rec, &file),
            Self::Mknod => rec.mkfifo(&rec.path("fifo")),
            Self::Failing => failing(rec),
        }
    }
}

fn open(rec: &Recorder, file: &Path) -> Result<()> {
    rec.create_with(file, b"bytes")?;
    let write = OFlags::WRONLY;
    for flags in [OFlags::RDONLY, write, OFlags::RDWR, write | OFlags::APPEND, write | OFlags::TRUNC] {
        rec.open(file, file, flags)?;
    }
    Ok(())
}

fn create(rec: &Recorder) -> Result<()> {
    let (plain, exclusive) = (rec.path("plain"), rec.path("exclusive"));
    rec.open(&plain, &plain, OFlags::RDWR | OFlags::CREATE)?;
    rec.open(&plain, &plain, OFlags::RDWR | OFlags::CREATE)?;
    rec.open(&exclusive, &exclusive, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
    Ok(())
}

fn tmpfile(rec: &Recorder) -> Result<()> {
    let flags = OFlags::RDWR | OFlags::TMPFILE;
    let fd = fs::open(rec.dir(), flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
        .context("this file system has no O_TMPFILE")?;
    let stat = fs::fstat(&fd).context("cannot stat the temporary file")?;
    let flags = Some(super::ops::open_flags(flags));
    rec.push(with_stat(Did { deleted: true, flags, ..did("file.open") }, &stat));
    Ok(())
}

fn rename(rec: &Recorder) -> Result<()> {
    let [a, b, c] = ["a", "b", "c"].map(|name| rec.path(name));
    let folder = rec.path("folder");
    rec.create(&a)?;
    rec.rename(&a, &b, RenameFlags::empty())?;
    rec.create(&c)?;
    rec.rename(&b, &c, RenameFlags::empty())?;
    rec.rename(&c, &a, RenameFlags::NOREPLACE)?;
    rec.create(&b)?;
    rec.rename(&a, &b, RenameFlags::EXCHANGE)?;
    rec.mkdir(&folder)?;
    rec.rename(&a, &folder.join("moved"), RenameFlags::empty())
}

fn truncate(rec: &Recorder, file: &Path) -> Result<()> {
    let fd = rec.create(file)?;
    // std's set_len is ftruncate; the call by path is only in libc.
    fs::ftruncate(&fd, 3).context("ftruncate failed")?;
    rec.touched(file, Did { size: Some(3), ..did("file.truncate") })?;
    let name = std::ffi::CString::new(file.as_os_str().as_encoded_bytes()).context("NUL in a path")?;
    // SAFETY: `name` is a string ended by NUL that lives across the call.
    let result = unsafe { libc::truncate(name.as_ptr(), 5) };
    anyhow::ensure!(result == 0, "truncate failed: {}", std::io::Error::last_os_error());
    rec.touched(file, Did { size: Some(5), ..did("file.truncate") })
}

fn times(rec: &Recorder, file: &Path) -> Result<()> {
    let fd = rec.create(file)?;
    let long_ago = fs::Timespec { tv_sec: 1, tv_nsec: 0 };
    let times = fs::Timestamps { last_access: long_ago, last_modification: long_ago };
    fs::utimensat(CWD, file, &times, AtFlags::empty()).context("cannot set times")?;
    rec.touched(file, did("file.times"))?;
    fs::futimens(&fd, &times).context("cannot set times of an open file")?;
    rec.touched(file, did("file.times"))?;
    // Where the file system has flags.
    if let Ok(flags) = fs::ioctl_getflags(&fd) {
        fs::ioctl_setflags(&fd, flags).context("cannot set flags")?;
        rec.touched(file, did("file.flags"))?;
    }
    Ok(())
}

fn chmod(rec: &Recorder, file: &Path) -> Result<()> {
    let fd = rec.create(file)?;
    let changed = |mode| rec.touched(file, Did { mode: Some(mode), ..did("file.mode") });
    fs::chmod(file, Mode::from_raw_mode(0o600)).context("chmod failed")?;
    changed(0o600)?;
    fs::fchmod(&fd, Mode::from_raw_mode(0o640)).context("fchmod failed")?;
    changed(0o640)?;
    fs::chmodat(CWD, file, Mode::from_raw_mode(0o4755), AtFlags::empty()).context("fchmodat failed")?;
    changed(0o4755)
}

fn chown(rec: &Recorder, file: &Path) -> Result<()> {
    let fd = rec.create(file)?;
    let soft = rec.path("soft");
    rec.symlink(file, &soft)?;
    rec.chown(file, 1000, 1001)?;
    rec.chown(&soft, 1002, 1003)?;
    let (uid, gid) = (1004, 1005);
    fs::fchown(&fd, Some(fs::Uid::from_raw(uid)), Some(fs::Gid::from_raw(gid))).context("fchown failed")?;
    rec.touched(file, Did { uid: Some(uid), gid: Some(gid), ..did("file.owner") })
}

fn failing(rec: &Recorder) -> Result<()> {
    let (file, missing) = (rec.path("file"), rec.path("missing"));
    rec.create(&file)?;
    let failed = [
        fs::open(&missing, OFlags::RDONLY, Mode::empty()).err(),
        fs::open(&file, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, Mode::RUSR).err(),
        fs::unlink(&missing).err(),
        fs::rmdir(&file).err(),
        fs::rename(&missing, rec.path("other")).err(),
    ];
    anyhow::ensure!(failed.iter().all(Option::is_some), "a call that had to fail did not: {failed:?}");
    rec.fact("failed", failed.len());
    // The kernel asks its security hooks about a rmdir before it finds out that this is no folder.
    rec.touched(&file, Did { optional: true, errno: Some(libc::ENOTDIR), ..did("file.rmdir") })
}
