//! Acts on files whose names are odd, long, wrong or gone.

use std::ffi::OsStr;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use rustix::fs::{self, CWD, Mode, OFlags, RenameFlags};

use super::ops::{FILE_MODE, open_flags, with_stat};
use super::record::{Recorder, did};
use super::spawn::{Way, in_child};
use crate::truth::{Bytes, Did};

/// Names that tear a careless log apart.
const ODD: [&[u8]; 11] = [
    b"new\nline",
    b"{\"seq\":1}\n{\"seq\":2}",
    b"\x1b[2J\x1b]0;title\x07",
    b"\xff\xfe\x80",
    b"cut \xe2\x82",
    b"%41%",
    b"quote\"back\\slash",
    b" space ",
    b"tab\tcr\r",
    "snowman ☃ right\u{202e}left".as_bytes(),
    &[b'n'; 255],
];

/// Acts on odd names.
#[derive(Subcommand)]
pub enum Act {
    /// Creates, reads and removes files with hostile names, and symbolic links to such
    OddNames,
    /// Makes N folders in each other by chdir, with names of LEN bytes, and a file in the deepest
    Deep {
        /// How many
        n: usize,
        /// Bytes of each name, 1 to 255
        #[arg(long, default_value_t = 40)]
        len: usize,
    },
    /// Opens and truncates a file by its descriptor after it was renamed, and after its folder was
    OpenRenamed,
    /// Opens a removed file by its descriptor
    OpenDeleted,
    /// Opens one file by many spellings: symbolic links, dot-dot, /proc/self/root, a folder's descriptor
    Spellings,
    /// Creates a file within a chroot
    Chroot,
}

impl Act {
    /// Does it.
    pub fn run(&self, rec: &Recorder) -> Result<()> {
        match *self {
            Self::OddNames => ODD.iter().try_for_each(|name| {
                let path = rec.path(OsStr::from_bytes(name));
                rec.create(&path)?;
                rec.open(&path, &path, OFlags::RDONLY)?;
                let link = rec.path("link");
                rec.symlink(Path::new(OsStr::from_bytes(name)), &link)?;
                rec.unlink(&link)?;
                rec.unlink(&path)
            }),
            Self::Deep { n, len } => deep(rec, n, len),
            Self::OpenRenamed => open_renamed(rec),
            Self::OpenDeleted => open_deleted(rec),
            Self::Spellings => spellings(rec),
            Self::Chroot => chroot(rec),
        }
    }
}

fn deep(rec: &Recorder, n: usize, len: usize) -> Result<()> {
    anyhow::ensure!((1..=255).contains(&len), "a name has 1 to 255 bytes, not {len}");
    rustix::process::chdir(rec.dir()).context("chdir failed")?;
    let mut path = rec.dir().to_path_buf();
    for index in 0..n {
        // Each level has another letter, so that a path with a part missing differs from every other.
        let letter = b'a' + u8::try_from(index % 26).context("a letter")?;
        let name = PathBuf::from(OsStr::from_bytes(&vec![letter; len]));
        path.push(&name);
        fs::mkdir(&name, Mode::from_raw_mode(0o755)).with_context(|| format!("level {index}"))?;
        let stat = fs::stat(&name).with_context(|| format!("level {index}"))?;
        let entry = Did { path: Some(path.as_path().into()), mode: Some(0o755), ..did("file.mkdir") };
        rec.push(with_stat(entry, &stat));
        rustix::process::chdir(&name).with_context(|| format!("level {index}"))?;
    }
    rec.fact("path_bytes", path.as_os_str().len());
    rec.open(Path::new("leaf"), &path.join("leaf"), OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL).map(drop)
}

fn by_descriptor(fd: impl std::os::fd::AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

fn open_renamed(rec: &Recorder) -> Result<()> {
    let (folder, moved) = (rec.path("folder"), rec.path("moved"));
    rec.mkdir(&folder)?;
    let fd = rec.create(&folder.join("old"))?;
    rec.rename(&folder.join("old"), &folder.join("new"), RenameFlags::empty())?;
    rec.open(&by_descriptor(&fd), &folder.join("new"), OFlags::RDONLY)?;
    rec.rename(&folder, &moved, RenameFlags::empty())?;
    rec.open(&by_descriptor(&fd), &moved.join("new"), OFlags::RDWR)?;
    fs::ftruncate(&fd, 9).context("ftruncate failed")?;
    rec.touched(&moved.join("new"), Did { size: Some(9), ..did("file.truncate") })
}

fn open_deleted(rec: &Recorder) -> Result<()> {
    let path = rec.path("gone");
    let fd = rec.create(&path)?;
    rec.unlink(&path)?;
    let spelled = by_descriptor(&fd);
    let again =
        fs::open(&spelled, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).context("cannot open it again")?;
    let stat = fs::fstat(&again).context("cannot stat it")?;
    let deleted = Did { path: Some(path.as_path().into()), deleted: true, ..did("file.open") };
    rec.push(with_stat(Did { flags: Some(open_flags(OFlags::RDWR)), ..deleted.clone() }, &stat));
    fs::ftruncate(&again, 4).context("ftruncate failed")?;
    rec.push(with_stat(Did { kind: "file.truncate".into(), size: Some(4), ..deleted }, &stat));
    Ok(())
}

fn spellings(rec: &Recorder) -> Result<()> {
    let (folder, file) = (rec.path("folder"), rec.path("folder/file"));
    let (to_file, to_folder) = (rec.path("to-file"), rec.path("to-folder"));
    rec.mkdir(&folder)?;
    rec.create(&file)?;
    rec.symlink(&file, &to_file)?;
    rec.symlink(Path::new("folder"), &to_folder)?;
    let rooted = |root: &str| PathBuf::from(format!("{root}{}", file.display()));
    let spelled = [
        to_file,
        to_folder.join("file"),
        folder.join("../folder/./file"),
        rooted("/proc/self/root"),
        rooted("//"),
    ];
    for spelled in &spelled {
        rec.open(spelled, &file, OFlags::RDONLY)?;
    }
    // An O_PATH descriptor: opening the folder itself is then no access.
    let dir = rec.open(&folder, &folder, OFlags::PATH | OFlags::DIRECTORY)?;
    let fd =
        fs::openat(&dir, "file", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).context("openat failed")?;
    rec.opened(&fd, &file, OFlags::WRONLY, true)?;
    fs::renameat(&dir, "file", CWD, folder.join("renamed")).context("renameat failed")?;
    let path_to = Some(Bytes::from(folder.join("renamed").as_path()));
    let entry = Did { path: Some(file.as_path().into()), path_to, ..did("file.rename") };
    rec.push(with_stat(entry, &fs::fstat(&fd).context("cannot stat it")?));
    Ok(())
}

fn chroot(rec: &Recorder) -> Result<()> {
    let root = rec.path("root");
    rec.mkdir(&root)?;
    in_child(rec, Way::default(), |rec| {
        rustix::process::chroot(&root).context("chroot failed")?;
        rec.push(Did { path: Some(root.as_path().into()), ..did("guard.namespace") });
        rustix::process::chdir("/").context("chdir failed")?;
        let fd = fs::open("/inner", OFlags::WRONLY | OFlags::CREATE, Mode::from_raw_mode(FILE_MODE))
            .context("cannot create")?;
        rec.opened(&fd, &root.join("inner"), OFlags::WRONLY | OFlags::CREATE, false)
    })?;
    Ok(())
}
