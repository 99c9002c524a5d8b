//! Symbolic links on the way to what rules name, where they lead now.
//!
//! A rule that names a link is about what the link leads to: the kernel sees only that. So each pattern is followed
//! from the root down, through its written-out names and the wildcards inside names, as far as there is something.
//! Where names are left open (`**`) no links are searched for. On the same way files with several names are found
//! ([`super::hard_links`]).

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::{self, Metadata},
    os::unix::{ffi::OsStrExt as _, ffi::OsStringExt as _, fs::MetadataExt as _},
    path::{Component, Path, PathBuf},
};

use super::hard_links::{HardLinks, Linked};
use super::{Alias, Mounts};
use crate::matcher::{ByteSet, PathGlob, Piece, matches_pieces};

/// Names that are looked at for all patterns together: some seconds at most on a slow disk.
const NAMES_MAX: usize = 200_000;
/// Links that are kept.
const LINKS_MAX: usize = 4096;
/// Links in a row that the kernel follows.
const CHAIN_MAX: usize = 40;
/// File systems that can keep who asks them waiting: nothing is searched there.
const SLOW: &[&[u8]] = &[b"nfs", b"nfs4", b"cifs", b"smb3", b"autofs", b"9p", b"ceph", b"glusterfs", b"afs"];

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The links, in order.
    pub links: Vec<Alias>,
    /// Files with several names, in order.
    pub files: Vec<Linked>,
    /// There was more than is looked at.
    pub truncated: bool,
    /// The same of files with several names.
    pub files_truncated: bool,
}

/// Looks for links on the way to what patterns cover, on a host with these mounts whose root folder is `root`; of those
/// patterns for which that is said, for files with several names, too.
#[must_use]
pub fn find<'a>(root: &Path, mounts: &Mounts, globs: impl Iterator<Item = (&'a PathGlob, bool)>) -> Found {
    let slow = mounts
        .iter()
        .filter(|mount| SLOW.contains(&mount.kind.as_slice()) || mount.kind.starts_with(b"fuse"));
    let slow: HashSet<&[u8]> = slow.map(|mount| mount.point.as_slice()).collect();
    let mut search = Search {
        root,
        files: HardLinks::new(root, mounts, slow.iter().copied()),
        slow,
        seen: HashSet::new(),
        pieces: HashMap::new(),
        links: BTreeSet::new(),
        names: 0,
        truncated: false,
    };
    let start = Place {
        spelled: PathBuf::from("/"),
        real: PathBuf::from("/"),
        trusted: search.is_safe(Path::new("/")),
        wants_files: false,
    };
    // Rules name the same for several operations.
    let mut known = HashSet::new();
    for (glob, wants_files) in globs.filter(|one| known.insert(*one)) {
        let start = Place { wants_files, ..start.clone() };
        for pieces in glob.forward() {
            let mut names = pieces.split(is_slash);
            // Before the first slash there is nothing, or a `**`.
            if names.next().is_some_and(<[Piece]>::is_empty) {
                search.follow(&start, &names.collect::<Vec<_>>());
            }
        }
    }
    let truncated = search.truncated;
    let (files, files_truncated) = search.files.finish();
    Found { links: search.links.into_iter().collect(), files, truncated, files_truncated }
}

/// Where a search stands.
#[derive(Clone)]
struct Place {
    /// As patterns name it.
    spelled: PathBuf,
    /// Without links.
    real: PathBuf,
    /// Nobody but root can change the names on the way.
    trusted: bool,
    /// Files with several names are looked for.
    wants_files: bool,
}

struct Search<'a> {
    root: &'a Path,
    /// Where file systems are mounted in which nothing is searched.
    slow: HashSet<&'a [u8]>,
    /// Folders that were looked at, by what was looked for: patterns begin alike.
    seen: HashSet<(PathBuf, bool, Vec<u32>)>,
    /// Numbers of the pieces of patterns: different ones are few, and each takes as much as ten numbers.
    pieces: HashMap<Piece, u32>,
    files: HardLinks<'a>,
    links: BTreeSet<Alias>,
    names: usize,
    truncated: bool,
}

impl Search<'_> {
    /// Goes on in a folder by the names that are left.
    fn follow(&mut self, here: &Place, names: &[&[Piece]]) {
        let Some((first, rest)) = names.split_first() else { return };
        if self.slow.contains(here.real.as_os_str().as_bytes()) {
            return;
        }
        let left = names.join(&Piece::One(ByteSet::of(b'/')));
        if spans_folders(first) {
            if here.wants_files {
                self.files.search_below(&here.real, left);
            }
            return;
        }
        let left = left.into_iter().map(|piece| self.number(piece)).collect();
        if !self.seen.insert((here.spelled.clone(), here.wants_files, left)) {
            return;
        }
        match literal(first) {
            Some(name) => self.enter(here, &name, rest),
            None => self.enter_all(here, first, rest),
        }
    }

    fn number(&mut self, piece: Piece) -> u32 {
        let next = u32::try_from(self.pieces.len()).unwrap_or(u32::MAX);
        *self.pieces.entry(piece).or_insert(next)
    }

    /// Goes on by every name in a folder that fits.
    fn enter_all(&mut self, here: &Place, pattern: &[Piece], rest: &[&[Piece]]) {
        let Ok(entries) = fs::read_dir(self.on_host(&here.real)) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().into_vec();
            self.names += 1;
            if self.names > NAMES_MAX {
                self.truncated = true;
                return;
            }
            if matches_pieces(pattern, &name) {
                self.enter(here, &name, rest);
            }
        }
    }

    /// Goes on by one name in a folder.
    fn enter(&mut self, here: &Place, name: &[u8], rest: &[&[Piece]]) {
        self.names += 1;
        let name = std::ffi::OsStr::from_bytes(name);
        let spelled = here.spelled.join(name);
        let Ok(mut found) = fs::symlink_metadata(self.on_host(&here.real.join(name))) else { return };
        let mut there = Place { real: here.real.join(name), spelled, ..*here };
        if found.is_symlink() {
            let Some((real, leads_to)) = self.resolve(&there.real) else { return };
            // Who can make links where others work could else make rules speak of what is not theirs.
            if !here.trusted && found.uid() != leads_to.uid() {
                return;
            }
            self.keep(&there, &real);
            there.trusted = here.trusted && self.is_safe_way(&real);
            there.real = real;
            found = leads_to;
        }
        if there.wants_files && rest.is_empty() {
            self.files.note(&there.real, &found);
        }
        there.trusted = there.trusted && self.is_safe(&there.real);
        self.follow(&there, rest);
    }

    fn keep(&mut self, link: &Place, real: &Path) {
        if self.links.len() >= LINKS_MAX {
            self.truncated = true;
            return;
        }
        let text = |path: &Path| match path.as_os_str().as_bytes() {
            b"/" => Vec::new(),
            path => path.to_vec(),
        };
        self.links.insert(Alias {
            from: text(&link.spelled),
            to: text(real),
            trusted: link.trusted,
            is_mount: false,
        });
    }

    /// Where a link leads in the end, and what is there.
    fn resolve(&self, link: &Path) -> Option<(PathBuf, Metadata)> {
        let mut left: Vec<PathBuf> = vec![link.to_owned()];
        let mut here = PathBuf::from("/");
        let mut links = 0;
        while let Some(path) = left.pop() {
            let mut steps = path.components();
            let Some(step) = steps.next() else { continue };
            left.push(steps.as_path().to_owned());
            match step {
                Component::RootDir | Component::Prefix(_) => here = PathBuf::from("/"),
                Component::CurDir => {}
                Component::ParentDir => {
                    here.pop();
                }
                Component::Normal(name) => {
                    let next = here.join(name);
                    if self.slow.contains(next.as_os_str().as_bytes()) {
                        return None;
                    }
                    match fs::read_link(self.on_host(&next)) {
                        Ok(target) => {
                            links += 1;
                            if links > CHAIN_MAX {
                                return None;
                            }
                            left.push(target);
                        }
                        Err(_) => here = next,
                    }
                }
            }
        }
        let found = fs::symlink_metadata(self.on_host(&here)).ok()?;
        Some((here, found))
    }

    /// Whether nobody but root can change names in a folder; what is no folder has none.
    fn is_safe(&self, folder: &Path) -> bool {
        fs::symlink_metadata(self.on_host(folder))
            .is_ok_and(|found| !found.is_dir() || found.uid() == 0 && found.mode() & 0o022 == 0)
    }

    /// The same of every folder on the way to something.
    fn is_safe_way(&self, path: &Path) -> bool {
        path.ancestors().skip(1).all(|folder| self.is_safe(folder))
    }

    fn on_host(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

fn is_slash(piece: &Piece) -> bool {
    matches!(piece, Piece::One(set) if set.only() == Some(b'/'))
}

/// Whether a part of a pattern goes over more than one name.
fn spans_folders(pieces: &[Piece]) -> bool {
    pieces.iter().any(|piece| matches!(piece, Piece::Many(set) | Piece::One(set) if set.contains(b'/')))
}

/// The only name that a part of a pattern stands for.
fn literal(pieces: &[Piece]) -> Option<Vec<u8>> {
    let one = |piece: &Piece| match piece {
        Piece::One(set) => set.only(),
        Piece::Many(_) => None,
    };
    pieces.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(folders: &[&str], files: &[&str], links: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let at = |path: &str| dir.path().join(path.trim_start_matches('/'));
            for folder in folders {
                fs::create_dir_all(at(folder)).unwrap();
            }
            for file in files {
                fs::write(at(file), "").unwrap();
            }
            for (link, to) in links {
                symlink(to, at(link)).unwrap();
            }
            Self(dir)
        }

        fn find(&self, patterns: &[&str]) -> Vec<(String, String)> {
            let globs: Vec<PathGlob> = patterns.iter().map(|text| PathGlob::parse(text).unwrap()).collect();
            let globs = globs.iter().map(|glob| (glob, false));
            let found = find(self.0.path(), &Mounts::default(), globs);
            assert!(!found.truncated);
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            found.links.into_iter().map(|link| (text(link.from), text(link.to))).collect()
        }
    }

    fn pair(from: &str, to: &str) -> (String, String) {
        (from.to_owned(), to.to_owned())
    }

    #[test]
    fn links_on_the_way_and_at_its_end_are_found() {
        let tree = Tree::new(
            &["/run", "/var", "/usr/bin", "/usr/share", "/usr/sbin", "/etc/alternatives"],
            &["/run/docker.sock", "/usr/share/wrapper", "/usr/sbin/mke2fs", "/usr/sbin/mkfs"],
            &[
                ("/var/run", "../run"),
                ("/bin", "usr/bin"),
                ("/usr/bin/dropdb", "/etc/alternatives/dropdb"),
                ("/etc/alternatives/dropdb", "/usr/share/wrapper"),
                ("/usr/sbin/mkfs.ext4", "mke2fs"),
                ("/usr/sbin/mkfs.gone", "nothing"),
                ("/loop", "loop"),
            ],
        );
        assert_eq!(tree.find(&["/var/run/docker.sock"]), [pair("/var/run", "/run")]);
        assert_eq!(
            tree.find(&["/bin/dropdb"]),
            [pair("/bin", "/usr/bin"), pair("/bin/dropdb", "/usr/share/wrapper")]
        );
        assert_eq!(tree.find(&["/usr/sbin/mkfs*"]), [pair("/usr/sbin/mkfs.ext4", "/usr/sbin/mke2fs")]);
        assert_eq!(tree.find(&["/{var,bin}/run/x", "/loop/x", "/none/x", "**/dropdb", "/**/run"]).len(), 2);
    }

    #[test]
    fn links_that_others_can_make_are_not_trusted() {
        let tree = Tree::new(&["/home/a"], &["/home/a/f"], &[("/home/a/l", "f")]);
        let glob = PathGlob::parse("/home/*/l").unwrap();
        let trusted = || {
            let found = find(tree.0.path(), &Mounts::default(), std::iter::once((&glob, false)));
            found.links.iter().map(|link| link.trusted).collect::<Vec<_>>()
        };
        let open = |path: &str, mode| {
            fs::set_permissions(tree.0.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
        };
        open("home", 0o755);
        open("home/a", 0o755);
        let is_root = rustix::process::geteuid().is_root();
        // The folder that stands for the root is this user's own and nobody else's.
        assert_eq!(trusted(), [is_root]);
        open("home/a", 0o777);
        assert_eq!(trusted(), [false]);
        open("home/a", 0o755);
        open("home", 0o775);
        assert_eq!(trusted(), [false]);
    }
}
