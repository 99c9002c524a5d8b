//! Cgroups that match and may have no process yet.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::agents::AgentTable;
use crate::matcher::AgentIndex;

/// Cgroups that are looked at. Past it the rest is not, and the second value of [`matching_cgroups`] says so.
pub const CGROUPS_MAX: usize = 100_000;

/// The topmost cgroups below `mount` (`/sys/fs/cgroup`) that match, each with its path in the hierarchy and
/// its agent; and whether all were looked at.
///
/// A process that is forked into one of them belongs to its agent, so the kernel must know them beforehand.
/// A cgroup that goes while it is looked at is passed over.
#[must_use]
pub fn matching_cgroups(mount: &Path, table: &AgentTable) -> (Vec<(Vec<u8>, AgentIndex)>, bool) {
    let mut found = Vec::new();
    if table.matcher().start_cgroup == 0 {
        return (found, true);
    }
    let mut seen = 0_usize;
    let mut waiting: Vec<PathBuf> = vec![mount.to_owned()];
    while let Some(folder) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            seen += 1;
            if seen > CGROUPS_MAX {
                return (found, false);
            }
            let path = entry.path();
            let Ok(below) = path.strip_prefix(mount) else { continue };
            let name = [b"/", below.as_os_str().as_bytes()].concat();
            match table.matcher().run_cgroup(&name) {
                Some(agent) => found.push((name, agent)),
                None => waiting.push(path),
            }
        }
    }
    found.sort();
    (found, true)
}
