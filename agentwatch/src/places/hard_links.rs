//! Files with several names, of which rules cover some: hard links.
//!
//! A rule knows a file by a name, and by another name it is the same file. Which files have other names is found where
//! patterns lead, as [`super::links`] follows them, and below the folders from which on they leave names open (`**`).

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    fs::{self, Metadata},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use agentwatch_common::limits::LINKED;

use super::{Mounts, shown_at};
use crate::matcher::{Piece, matches_pieces};

/// Names that are looked at below folders, for all patterns together, and comparisons with patterns: some tenths of a
/// second, each minute.
const NAMES_MAX: usize = 100_000;
/// Names of files that are kept.
const KEPT_MAX: usize = LINKED as usize;
/// File systems without hard links, in which there is much.
const WITHOUT: &[&[u8]] =
    &[b"proc", b"sysfs", b"cgroup", b"cgroup2", b"debugfs", b"tracefs", b"securityfs", b"configfs", b"bpf"];

/// A file with several names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Linked {
    /// The file system, as the kernel encodes it: `MAJOR << 20 | MINOR`.
    pub dev: u32,
    /// Inode number.
    pub ino: u64,
    /// Those of its names that patterns cover, in order, without symbolic links.
    pub names: Vec<Vec<u8>>,
}

/// The search.
pub(super) struct HardLinks<'a> {
    root: &'a Path,
    mounts: &'a Mounts,
    /// Where something is mounted in which nothing is searched.
    closed: HashSet<&'a [u8]>,
    /// What follows below folders, each pattern from there on.
    below: BTreeMap<PathBuf, HashSet<Vec<Piece>>>,
    files: BTreeMap<(u32, u64), BTreeSet<Vec<u8>>>,
    kept: usize,
    names: usize,
    truncated: bool,
}

impl<'a> HardLinks<'a> {
    /// On a host with these mounts whose root folder is `root`; where something is mounted at `closed`, not there.
    pub(super) fn new(root: &'a Path, mounts: &'a Mounts, closed: impl Iterator<Item = &'a [u8]>) -> Self {
        let without = mounts.iter().filter(|mount| WITHOUT.contains(&mount.kind.as_slice()));
        Self {
            root,
            mounts,
            closed: closed.chain(without.map(|mount| mount.point.as_slice())).collect(),
            below: BTreeMap::new(),
            files: BTreeMap::new(),
            kept: 0,
            names: 0,
            truncated: false,
        }
    }

    /// A pattern covers this: it is kept where it is a file with several names.
    pub(super) fn note(&mut self, path: &Path, found: &Metadata) {
        if found.is_dir() || found.is_symlink() || found.nlink() < 2 {
            return;
        }
        if self.kept >= KEPT_MAX {
            self.truncated = true;
            return;
        }
        let name = path.as_os_str().as_bytes();
        let dev = device_of(self.mounts, name, found);
        self.kept += usize::from(self.files.entry((dev, found.ino())).or_default().insert(name.to_vec()));
    }

    /// A pattern goes on so below a folder. Below the root nothing is searched for: that is all there is.
    pub(super) fn search_below(&mut self, folder: &Path, pattern: Vec<Piece>) {
        if folder != Path::new("/") {
            self.below.entry(folder.to_owned()).or_default().insert(pattern);
        }
    }

    /// Searches below the folders, those next to them first. Gives the files, and whether there was more than is looked at.
    pub(super) fn finish(mut self) -> (Vec<Linked>, bool) {
        let mut folders: VecDeque<PathBuf> = self.below.keys().cloned().collect();
        while let Some(folder) = folders.pop_front() {
            if self.closed.contains(folder.as_os_str().as_bytes()) {
                continue;
            }
            if self.names > NAMES_MAX {
                self.truncated = true;
                break;
            }
            self.look_in(&folder, &mut folders);
        }
        let linked =
            |((dev, ino), names): (_, BTreeSet<_>)| Linked { dev, ino, names: names.into_iter().collect() };
        (self.files.into_iter().map(linked).collect(), self.truncated)
    }

    fn look_in(&mut self, folder: &Path, folders: &mut VecDeque<PathBuf>) {
        let on_host = self.root.join(folder.strip_prefix("/").unwrap_or(folder));
        // What is no folder, or gone, has no names in it.
        let Ok(entries) = fs::read_dir(on_host) else { return };
        for entry in entries.flatten() {
            self.names += 1;
            if self.names > NAMES_MAX {
                self.truncated = true;
                return;
            }
            let Ok(kind) = entry.file_type() else { continue };
            let path = folder.join(entry.file_name());
            if kind.is_dir() {
                // Others are looked at anyway.
                if !self.below.contains_key(&path) {
                    folders.push_back(path);
                }
            } else if let Ok(found) = entry.metadata()
                && found.nlink() > 1
                && self.covers(&path)
            {
                self.note(&path, &found);
            }
        }
    }

    /// Whether one of the patterns covers this.
    fn covers(&mut self, path: &Path) -> bool {
        for folder in path.ancestors().skip(1) {
            let Some(patterns) = self.below.get(folder) else { continue };
            let Ok(rest) = path.strip_prefix(folder) else { continue };
            self.names += patterns.len();
            if patterns.iter().any(|pattern| matches_pieces(pattern, rest.as_os_str().as_bytes())) {
                return true;
            }
        }
        false
    }
}

/// The file system of a file at a path without symbolic links, as the kernel encodes it.
#[must_use]
pub fn device_of(mounts: &Mounts, path: &[u8], found: &Metadata) -> u32 {
    dev_of(mounts, path).unwrap_or_else(|| kernel_dev(found.dev()))
}

/// The file system that is mounted where a path leads. Not that which the file tells: some tell one of each subvolume.
fn dev_of(mounts: &Mounts, path: &[u8]) -> Option<u32> {
    let id = shown_at(mounts, path)?;
    mounts.iter().rfind(|mount| mount.id == id).map(|mount| mount.dev)
}

/// The number of a file system as the kernel encodes it, from that which it tells.
fn kernel_dev(dev: u64) -> u32 {
    rustix::fs::major(dev) << 20 | rustix::fs::minor(dev)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::PathGlob;

    /// Files, each with its names.
    fn tree(files: &[&[&str]]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path.trim_start_matches('/'));
        for names in files {
            for name in *names {
                fs::create_dir_all(at(name).parent().unwrap()).unwrap();
                if *name == names[0] {
                    fs::write(at(name), "").unwrap();
                } else {
                    fs::hard_link(at(names[0]), at(name)).unwrap();
                }
            }
        }
        dir
    }

    fn found(dir: &tempfile::TempDir, mounts: &Mounts, patterns: &[&str]) -> (Vec<Vec<String>>, bool) {
        let globs: Vec<PathGlob> = patterns.iter().map(|text| PathGlob::parse(text).unwrap()).collect();
        let found = super::super::find(dir.path(), mounts, globs.iter().map(|glob| (glob, true)));
        let text = |name: Vec<u8>| String::from_utf8(name).unwrap();
        let names = |file: Linked| file.names.into_iter().map(text).collect();
        let mut files: Vec<Vec<String>> = found.files.into_iter().map(names).collect();
        files.sort();
        (files, found.truncated)
    }

    fn find(dir: &tempfile::TempDir, patterns: &[&str]) -> Vec<Vec<String>> {
        let (files, truncated) = found(dir, &Mounts::default(), patterns);
        assert!(!truncated);
        files
    }

    #[test]
    fn files_with_several_names_are_found_where_patterns_lead() {
        let dir = tree(&[
            &["/srv/prod/f", "/home/a/x"],
            &["/srv/prod/deep/g", "/home/a/y", "/srv/prod/deep/er/h"],
            &["/srv/prod/alone"],
            &["/home/a/.env", "/home/b/other"],
            &["/home/a/work/deep/.env", "/home/b/else"],
        ]);
        assert_eq!(find(&dir, &["/srv/prod/f"]), [["/srv/prod/f"]]);
        assert_eq!(find(&dir, &["/srv/prod/alone", "/srv/none", "/srv/none/**"]), [[""; 0]; 0]);
        assert_eq!(
            find(&dir, &["/srv/prod"]),
            [vec!["/srv/prod/deep/er/h", "/srv/prod/deep/g"], vec!["/srv/prod/f"]]
        );
        assert_eq!(find(&dir, &["/home/*/.env"]), [["/home/a/.env"]]);
        assert_eq!(find(&dir, &["/home/**/.env"]), [["/home/a/.env"], ["/home/a/work/deep/.env"]]);
        assert_eq!(find(&dir, &["/home/*/w**/.env", "/home/a/**/de*/*"]), [["/home/a/work/deep/.env"]]);
        assert_eq!(
            find(&dir, &["/srv/prod/deep", "/srv/prod/deep/g"]),
            [["/srv/prod/deep/er/h", "/srv/prod/deep/g"]]
        );
        assert_eq!(find(&dir, &["**/.env", "/**/x", "/**"]), [[""; 0]; 0], "not below the root");
    }

    #[test]
    fn symbolic_links_are_followed_to_where_patterns_begin_and_no_further() {
        let dir = tree(&[&["/data/prod/f", "/home/x"], &["/away/g", "/home/y"]]);
        std::os::unix::fs::symlink("/data", dir.path().join("srv")).unwrap();
        std::os::unix::fs::symlink("/away", dir.path().join("data/prod/out")).unwrap();
        assert_eq!(find(&dir, &["/srv/prod"]), [["/data/prod/f"]]);
        assert_eq!(find(&dir, &["/srv/prod/out/g"]), [["/away/g"]]);
    }

    #[test]
    fn the_file_system_is_that_which_is_mounted_there() {
        let dir = tree(&[
            &["/srv/prod/f", "/srv/other"],
            &["/srv/net/f", "/srv/net/g"],
            &["/srv/sys/f", "/srv/sys/g"],
        ]);
        let mounts = Mounts::parse(
            b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 21 0:25 / /srv rw - btrfs /dev/sdb rw\n\
              31 30 0:26 / /srv/net rw - nfs4 x rw\n32 30 0:27 / /srv/sys rw - sysfs x rw\n",
        );
        assert_eq!(found(&dir, &mounts, &["/srv/**"]).0, [["/srv/other", "/srv/prod/f"]]);
        let globs = [PathGlob::parse("/srv/prod/f").unwrap()];
        let files = super::super::find(dir.path(), &mounts, globs.iter().map(|glob| (glob, true))).files;
        assert_eq!(files.iter().map(|file| file.dev).collect::<Vec<_>>(), [25]);
        assert_eq!(kernel_dev(rustix::fs::makedev(259, 3)), 259 << 20 | 3);
        let only_links = super::super::find(dir.path(), &mounts, globs.iter().map(|glob| (glob, false)));
        assert_eq!(only_links.files, []);
    }

    #[test]
    fn what_is_too_much_is_told() {
        let dir = tree(&[&["/srv/f", "/other"]]);
        for number in 0..20 {
            fs::create_dir(dir.path().join(format!("srv/{number}"))).unwrap();
        }
        let mounts = Mounts::default();
        let mut links = HardLinks::new(dir.path(), &mounts, std::iter::empty());
        links.names = NAMES_MAX - 10;
        links.search_below(Path::new("/srv"), vec![Piece::Many(crate::matcher::ByteSet::ALL)]);
        assert!(links.finish().1);
    }
}
