//! What things are called: the mounts of the initial namespace, the symbolic links on the way to what rules name, and
//! other names of the files that they cover.
//!
//! A rule is about a thing, however it is reached. The kernel judges each path twice where it has to: as the process
//! sees it, and within its file system, from a beginning that each file system has ([`Root`]). What patterns say of
//! another name of the same thing they are made to say of that one ([`Alias`]).

mod hard_links;
mod links;
mod mounts;

use std::collections::BTreeMap;

pub use self::hard_links::{Linked, device_of};
pub use self::links::{Found, find};
pub use self::mounts::{Mount, Mounts};
pub use crate::matcher::Alias;

/// Where the paths within a file system begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The file system, as the kernel encodes it: `MAJOR << 20 | MINOR`.
    pub dev: u32,
    /// What comes before a path within it: the place where it is mounted whole, and where it is not, a NUL and
    /// `MAJOR:MINOR`, with which no path begins.
    pub text: Vec<u8>,
    /// The mount by which it is called so; 0 where there is none.
    pub mount: u32,
}

/// What things are called on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The file systems, each once.
    pub devices: Vec<Root>,
    /// Other names.
    pub aliases: Vec<Alias>,
    /// Files with several names of which rules cover some.
    pub linked: Vec<Linked>,
    /// There were more links on the way to what rules name than are looked at.
    pub truncated: bool,
    /// There were more files with several names.
    pub linked_truncated: bool,
}

impl Places {
    /// With these mounts and what was found on the way to what rules name.
    #[must_use]
    pub fn new(mounts: &Mounts, found: Found) -> Self {
        let mut by_dev: BTreeMap<u32, Vec<&Mount>> = BTreeMap::new();
        for mount in mounts.iter() {
            by_dev.entry(mount.dev).or_default().push(mount);
        }
        let mut places = Self {
            devices: Vec::new(),
            aliases: found.links,
            linked: found.files,
            truncated: found.truncated,
            linked_truncated: found.files_truncated,
        };
        for (dev, here) in by_dev {
            let root = root_of(dev, &here, mounts);
            for mount in here.iter().filter(|mount| mount.id != root.mount) {
                let to = [root.text.as_slice(), name(&mount.root)].concat();
                let from = name(&mount.point).to_vec();
                // Both names must mean this, and what is mounted below is shown by that name alone.
                let trusted = shown_at(mounts, &from) == Some(mount.id)
                    && shown_at(mounts, &to).is_none_or(|id| id == root.mount)
                    && !mounts.iter().any(|other| is_below(name(&other.point), &to));
                let alias = Alias { from, to, trusted, is_mount: true };
                if alias.from != alias.to && !places.aliases.contains(&alias) {
                    places.aliases.push(alias);
                }
            }
            places.devices.push(root);
        }
        places
    }
}

/// By which of its mounts a file system is called: the first that shows it whole and that no later mount covers, else
/// the first that shows it whole.
fn root_of(dev: u32, here: &[&Mount], mounts: &Mounts) -> Root {
    let is_covered = |mount: &Mount| {
        mounts.iter().skip_while(|other| other.id != mount.id).skip(1).any(|other| other.point == mount.point)
    };
    let whole = here.iter().filter(|mount| mount.root == b"/");
    match whole.min_by_key(|mount| is_covered(mount)) {
        Some(mount) => Root { dev, text: name(&mount.point).to_vec(), mount: mount.id },
        None => Root { dev, text: format!("\0{}:{}", dev >> 20, dev & 0xf_ffff).into_bytes(), mount: 0 },
    }
}

/// The mount that a path leads to: the last one at or above it, which covers those before it.
fn shown_at(mounts: &Mounts, path: &[u8]) -> Option<u32> {
    let above = |mount: &&Mount| path == name(&mount.point) || is_below(path, name(&mount.point));
    mounts.iter().rfind(above).map(|mount| mount.id)
}

/// Whether a path is below a folder.
fn is_below(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with(b"/"))
}

/// A path as patterns have it: the root is empty.
fn name(path: &[u8]) -> &[u8] {
    if path == b"/" { b"" } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        30 21 0:25 / /run rw - tmpfs tmpfs rw\n\
        31 21 8:1 /data/pay /srv/payments rw - ext4 /dev/sda1 rw\n\
        32 21 0:40 /@home /home rw - btrfs /dev/sdb rw\n\
        33 21 0:41 / /mnt rw - ext4 /dev/sdc rw\n\
        34 21 0:42 / /mnt rw - ext4 /dev/sdd rw\n\
        35 21 0:41 / /late rw - ext4 /dev/sdc rw\n";

    fn alias(from: &str, to: &str) -> Alias {
        Alias { from: from.into(), to: to.into(), trusted: true, is_mount: true }
    }

    #[test]
    fn each_file_system_has_one_name_and_others_are_aliases() {
        let link = Alias { is_mount: false, ..alias("/var/run", "/run") };
        let places =
            Places::new(&Mounts::parse(MOUNTS), Found { links: vec![link.clone()], ..Found::default() });
        let roots: Vec<_> =
            places.devices.iter().map(|root| (root.dev, root.text.as_slice(), root.mount)).collect();
        assert_eq!(
            roots,
            [
                (25, b"/run".as_slice(), 30),
                (40, b"\x000:40", 0),
                (41, b"/late", 35),
                (42, b"/mnt", 34),
                (8 << 20 | 1, b"", 21),
            ]
        );
        let expected = [
            link,
            alias("/home", "\x000:40/@home"),
            // Something else is mounted there now.
            Alias { trusted: false, ..alias("/mnt", "/late") },
            alias("/srv/payments", "/data/pay"),
        ];
        assert_eq!(places.aliases, expected);
    }
}
