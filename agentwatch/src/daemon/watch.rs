//! Notices that the policy's files change: by inotify, on every folder whose change can mean other files.
//!
//! Editors write another file and rename it; a Kubernetes volume is a folder of symbolic links of which one is swapped.
//! So what is watched are the folders on the way to the files, through each symbolic link, for the names on the way.
//! That something changed says nothing yet: who reads the files finds out.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{CString, OsStr, OsString},
    fs,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};

/// Folders that are watched at most, and symbolic links that are followed: a policy has 256 files.
const FOLDERS_MAX: usize = 1024;
/// Links in a row that the kernel follows.
const LINKS_MAX: usize = 40;
/// Nanoseconds of silence after which a change is taken for complete: an editor takes several steps.
const SETTLED_NS: u64 = 100_000_000;
/// Nanoseconds after which a change is told although more follow.
const PATIENCE_NS: u64 = 1_000_000_000;

/// Names in a folder of which a change matters; none: all do.
type Names = Option<BTreeSet<OsString>>;

/// Folders by the number of the kernel's watch.
type Folders = BTreeMap<i32, (PathBuf, Names)>;

/// The watch.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    inotify: OwnedFd,
    folders: Folders,
    changes: Changes,
}

/// Changes that nobody was told of yet.
#[derive(Debug, Default)]
pub struct Changes(Option<(u64, u64)>);

impl Changes {
    /// There was one at this moment, in nanoseconds since boot.
    pub fn note(&mut self, now_ns: u64) {
        let first = self.0.map_or(now_ns, |(first, _)| first);
        self.0 = Some((first, now_ns));
    }

    /// Whether there were some, and they have come to rest since, or go on for long.
    pub fn take(&mut self, now_ns: u64) -> bool {
        let Some((first, last)) = self.0 else { return false };
        let is_due = now_ns.saturating_sub(last) >= SETTLED_NS || now_ns.saturating_sub(first) >= PATIENCE_NS;
        if is_due {
            self.0 = None;
        }
        is_due
    }

    /// Milliseconds after which to ask again, where a change has not come to rest.
    pub fn due_in_ms(&self) -> Option<i64> {
        self.0.map(|_| (SETTLED_NS / 1_000_000).cast_signed())
    }
}

impl Watch {
    /// Watches a policy's file or folder, which may be missing.
    ///
    /// # Errors
    /// The kernel has no watches left.
    pub fn new(path: &Path) -> rustix::io::Result<Self> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let (inotify, folders) = watch(&path)?;
        Ok(Self { path, inotify, folders, changes: Changes::default() })
    }

    /// Whether the files may have changed, and have come to rest since.
    pub fn has_changed(&mut self, now_ns: u64) -> bool {
        if self.take_notices() {
            self.changes.note(now_ns);
            // The way to the files may be another now. Watched anew before they are read, no change is missed.
            match watch(&self.path) {
                Ok((inotify, folders)) => (self.inotify, self.folders) = (inotify, folders),
                Err(error) => tracing::error!(%error, "the policy's files are no longer watched: use SIGHUP"),
            }
        }
        self.changes.take(now_ns)
    }

    /// Milliseconds after which to ask again, where a change has not come to rest.
    pub fn due_in_ms(&self) -> Option<i64> {
        self.changes.due_in_ms()
    }

    /// Takes the notices away. True where one of them matters.
    fn take_notices(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let mut matters = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                    matters |= self.matters(event.wd(), event.events(), name);
                }
                Err(Errno::INTR) => {}
                Err(_) => return matters,
            }
        }
    }

    fn matters(&self, watch: i32, what: ReadFlags, name: Option<&OsStr>) -> bool {
        // A full queue says nothing of what it lost; a folder that is gone says nothing more.
        let Some((folder, names)) = self.folders.get(&watch) else {
            return what.contains(ReadFlags::QUEUE_OVERFLOW);
        };
        let Some(name) = name else { return true };
        let is_meant = names.as_ref().is_none_or(|names| names.contains(name));
        is_meant && (!what.contains(ReadFlags::CREATE) || is_complete(&folder.join(name)))
    }
}

/// Whether something is complete as soon as it is there: a link, a folder. A file is once it is closed.
fn is_complete(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| !found.is_file() || found.nlink() > 1)
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// The kernel's watches for a policy.
fn watch(path: &Path) -> rustix::io::Result<(OwnedFd, Folders)> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let watched = WatchFlags::CREATE
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE
        | WatchFlags::ONLYDIR;
    let mut watches = Folders::new();
    for (folder, names) in Way::to(path).folders {
        let Ok(text) = CString::new(folder.as_os_str().as_bytes()) else { continue };
        match inotify::add_watch(&inotify, text.as_c_str(), watched) {
            // Two names of one folder are one watch.
            Ok(number) => {
                let known = watches.entry(number).or_insert_with(|| (folder, Some(BTreeSet::new())));
                known.1 = match (known.1.take(), names) {
                    (Some(known), Some(more)) => Some(&known | &more),
                    _ => None,
                };
            }
            // It is gone again, which its own folder tells.
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok((inotify, watches))
}

/// The folders on the way to something, each with the names that matter in it.
struct Way {
    folders: BTreeMap<PathBuf, Names>,
    links: usize,
}

impl Way {
    /// The way to a policy: through its file, or its folder to each thing there.
    fn to(path: &Path) -> Self {
        let mut way = Self { folders: BTreeMap::new(), links: 0 };
        let Some(end) = way.follow(path) else { return way };
        if end.is_dir() {
            way.folders.insert(end.clone(), None);
            let files = fs::read_dir(&end).into_iter().flatten().flatten();
            for link in files.filter(|file| file.file_type().is_ok_and(|kind| kind.is_symlink())) {
                way.links = 0;
                way.follow(&link.path());
            }
        }
        way
    }

    /// Notes each step to an absolute path. Gives where it ends, through all symbolic links.
    fn follow(&mut self, path: &Path) -> Option<PathBuf> {
        let mut here = PathBuf::from("/");
        for step in path.components() {
            let name = match step {
                Component::Normal(name) => name,
                Component::ParentDir => {
                    here.pop();
                    continue;
                }
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
            };
            self.note(&here, name);
            let next = here.join(name);
            here = match fs::read_link(&next) {
                Ok(target) => {
                    self.links += 1;
                    if self.links > LINKS_MAX {
                        return None;
                    }
                    self.follow(&here.join(target))?
                }
                Err(_) => next,
            };
        }
        Some(here)
    }

    fn note(&mut self, folder: &Path, name: &OsStr) {
        if self.folders.len() >= FOLDERS_MAX && !self.folders.contains_key(folder) {
            return;
        }
        let names = self.folders.entry(folder.to_owned()).or_insert_with(|| Some(BTreeSet::new()));
        if let Some(names) = names {
            names.insert(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A time at which everything has settled.
    const LATE: u64 = 100 * PATIENCE_NS;

    /// Whether a change is told of, once everything has settled.
    fn tells(watch: &mut Watch) -> bool {
        watch.has_changed(0);
        watch.has_changed(LATE)
    }

    fn at(folder: &tempfile::TempDir, name: &str) -> PathBuf {
        folder.path().join(name)
    }

    #[test]
    fn each_way_to_change_a_file_is_told_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = at(&folder, "policy.yaml");
        fs::write(&file, "1").unwrap();
        let mut watch = Watch::new(&file).unwrap();
        assert!(!tells(&mut watch));
        fs::write(at(&folder, "other.yaml"), "1").unwrap();
        fs::read(&file).unwrap();
        assert!(!tells(&mut watch), "another file, and a look at it");
        fs::write(&file, "2").unwrap();
        assert!(tells(&mut watch), "written in place");
        assert!(!tells(&mut watch), "once");
        fs::rename(at(&folder, "other.yaml"), &file).unwrap();
        assert!(tells(&mut watch), "replaced");
        fs::write(&file, "3").unwrap();
        assert!(tells(&mut watch), "the new one written in place");
        fs::remove_file(&file).unwrap();
        assert!(tells(&mut watch), "removed");
        fs::write(&file, "4").unwrap();
        assert!(tells(&mut watch), "made again");
    }

    #[test]
    fn a_folder_tells_of_all_that_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let policy = at(&folder, "policy.d");
        fs::create_dir(&policy).unwrap();
        let mut watch = Watch::new(&policy).unwrap();
        fs::write(policy.join("a.yaml"), "1").unwrap();
        assert!(tells(&mut watch));
        fs::write(at(&folder, "beside.yaml"), "1").unwrap();
        assert!(!tells(&mut watch));
        fs::rename(&policy, at(&folder, "away")).unwrap();
        assert!(tells(&mut watch), "the folder itself");
        fs::create_dir(&policy).unwrap();
        assert!(tells(&mut watch), "another folder");
        fs::write(policy.join("b.yaml"), "1").unwrap();
        assert!(tells(&mut watch), "a file in that one");
    }

    /// As Kubernetes has them: `policy.yaml` → `..data/policy.yaml`, `..data` → `..1`, swapped by a rename.
    #[test]
    fn a_swapped_link_on_the_way_is_told() {
        let volume = tempfile::tempdir().unwrap();
        let whole = |number: u32| {
            fs::create_dir(at(&volume, &format!("..{number}"))).unwrap();
            fs::write(at(&volume, &format!("..{number}/policy.yaml")), number.to_string()).unwrap();
        };
        whole(1);
        symlink("..1", at(&volume, "..data")).unwrap();
        symlink("..data/policy.yaml", at(&volume, "policy.yaml")).unwrap();
        let mut by_file = Watch::new(&at(&volume, "policy.yaml")).unwrap();
        let mut by_folder = Watch::new(volume.path()).unwrap();
        whole(2);
        symlink("..2", at(&volume, "..data_tmp")).unwrap();
        assert!(!tells(&mut by_file), "nothing of it is on the way yet");
        fs::rename(at(&volume, "..data_tmp"), at(&volume, "..data")).unwrap();
        assert!(tells(&mut by_file) && tells(&mut by_folder));
        fs::write(at(&volume, "..2/policy.yaml"), "3").unwrap();
        assert!(tells(&mut by_file) && tells(&mut by_folder), "the new target is watched");
        fs::write(at(&volume, "..1/policy.yaml"), "4").unwrap();
        assert!(!tells(&mut by_file) && !tells(&mut by_folder), "the old one is not");
    }

    #[test]
    fn a_change_is_told_when_it_has_settled_and_not_later_than_patience() {
        let folder = tempfile::tempdir().unwrap();
        let file = at(&folder, "policy.yaml");
        let mut watch = Watch::new(&file).unwrap();
        fs::write(&file, "1").unwrap();
        assert!(!watch.has_changed(0) && watch.due_in_ms().is_some());
        assert!(!watch.has_changed(SETTLED_NS - 1));
        fs::write(&file, "2").unwrap();
        assert!(!watch.has_changed(SETTLED_NS), "more came");
        assert!(watch.has_changed(2 * SETTLED_NS));
        assert!(!watch.has_changed(3 * SETTLED_NS) && watch.due_in_ms().is_none());
        fs::write(&file, "3").unwrap();
        assert!(!watch.has_changed(LATE));
        for step in 1..=PATIENCE_NS / SETTLED_NS * 2 {
            fs::write(&file, "4").unwrap();
            if watch.has_changed(LATE + step * (SETTLED_NS / 2)) {
                assert_eq!(step * (SETTLED_NS / 2), PATIENCE_NS);
                return;
            }
        }
        panic!("a file that is written to all the time is never told of");
    }

    #[test]
    fn links_in_a_ring_end() {
        let folder = tempfile::tempdir().unwrap();
        symlink("b", at(&folder, "a")).unwrap();
        symlink("a", at(&folder, "b")).unwrap();
        let mut watch = Watch::new(&at(&folder, "a")).unwrap();
        fs::remove_file(at(&folder, "b")).unwrap();
        fs::write(at(&folder, "b"), "1").unwrap();
        assert!(tells(&mut watch));
    }
}
