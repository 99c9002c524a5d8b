//! The mounts of the initial namespace: from a place within a file system to the path that people know.

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Number of the mount: a new one can have that of one that is gone.
    pub id: u32,
    /// As the kernel encodes it: `MAJOR << 20 | MINOR`.
    pub dev: u32,
    /// The folder of the file system that is mounted, or the file.
    pub root: Vec<u8>,
    /// Where.
    pub point: Vec<u8>,
    /// Its kind, as in `ext4`; empty where the line does not say.
    pub kind: Vec<u8>,
}

/// The mounts of the initial namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts(Vec<Mount>);

impl Mounts {
    /// Reads the text of `/proc/1/mountinfo`. Lines that are none are passed over.
    #[must_use]
    pub fn parse(mountinfo: &[u8]) -> Self {
        Self(mountinfo.split(|byte| *byte == b'\n').filter_map(mount_of).collect())
    }

    /// All of them, in the order in which they were mounted.
    pub fn iter(&self) -> std::slice::Iter<'_, Mount> {
        self.0.iter()
    }

    /// The path in the initial namespace of a place within a file system, where that is mounted there. Of
    /// several mounts the one that shows most of the file system is meant, then the latest.
    #[must_use]
    pub fn path(&self, dev: u32, within: &[u8]) -> Option<Vec<u8>> {
        let covers = |mount: &&Mount| mount.dev == dev && below(within, &mount.root).is_some();
        let mount = self.0.iter().rev().filter(covers).min_by_key(|mount| mount.root.len())?;
        let rest = below(within, &mount.root)?;
        let mut path = if mount.point == b"/" { Vec::new() } else { mount.point.clone() };
        path.extend_from_slice(rest);
        Some(if path.is_empty() { b"/".to_vec() } else { path })
    }
}

/// What is left of a path below a folder: empty, or with a slash in front.
fn below<'a>(path: &'a [u8], folder: &[u8]) -> Option<&'a [u8]> {
    if folder == b"/" {
        return Some(if path == b"/" { &[] } else { path });
    }
    path.strip_prefix(folder).filter(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS … - KIND SOURCE OPTIONS`
fn mount_of(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
    let (id, _parent): (u32, u32) = (number()?, number()?);
    let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
    let kind = fields.skip_while(|field| *field != b"-").nth(1).map(unescape).unwrap_or_default();
    Some(Mount { id, dev: major << 20 | minor, root, point, kind })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, others)) = rest.split_first() {
        let octal = others.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                plain.push(byte);
                rest = others.get(3..).unwrap_or_default();
            }
            _ => {
                plain.push(*first);
                rest = others;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &[u8] = b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        30 21 0:25 / /run rw - tmpfs tmpfs rw\n\
        31 21 8:2 /data /srv/pay\\040ments rw - ext4 /dev/sdb rw\n\
        32 21 0:50 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw\n";

    #[test]
    fn finds_the_path_that_people_know() {
        let mounts = Mounts::parse(SAMPLE);
        assert_eq!(mounts.path(8 << 20 | 1, b"/etc/passwd").unwrap(), b"/etc/passwd");
        assert_eq!(mounts.path(8 << 20 | 1, b"/").unwrap(), b"/");
        assert_eq!(mounts.path(25, b"/lock/x").unwrap(), b"/run/lock/x");
        assert_eq!(mounts.path(8 << 20 | 2, b"/data/a").unwrap(), b"/srv/pay ments/a");
        assert_eq!(mounts.path(8 << 20 | 2, b"/database"), None, "no part of what is mounted");
        assert_eq!(mounts.path(50, b"/etc/x").unwrap(), b"/var/lib/docker/overlay2/x/merged/etc/x");
        assert_eq!(mounts.path(99, b"/etc/x"), None);
    }
}
