//! Units that systemd writes itself for whoever asks it, as of `systemd-run --on-active=1h`: when it starts what they say, nobody
//! asked for a long time. Whom it heard the kernel says (`HEARD`); what it wrote then is found here, each second.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use agentwatch_common::{
    limits::ASKED_NS,
    maps::{AskedEntry, asked_flag, control},
};
use procfs::process::Process;

use super::{
    Daemon,
    jobs::{read, seen},
};
use crate::{
    event::{ObservedText, time::parse_time},
    kernel::maps::Shared,
    written::{Table, Write},
};

/// Nanoseconds since the last time that a session asked anybody, past which nothing is new: what was written within
/// [`ASKED_NS`] is seen in the second after.
const LOOKED_NS: u64 = ASKED_NS + 2_000_000_000;
/// Nanoseconds by which a file's time can be too early: it is that of the last tick of the clock.
const TICK_NS: u64 = 20_000_000;
/// Nanoseconds of the unit in which `/proc` tells when a process began.
const PROC_TICK_NS: u64 = 10_000_000;

impl Daemon {
    /// Looks for units that a systemd wrote for sessions just now; says whether there are any.
    pub(super) fn look_at_transient_units(&mut self, now: u64) -> bool {
        let last_ns = self.maps.word(control::LAST_ASKED).unwrap_or(0);
        if last_ns == 0 || now.saturating_sub(last_ns) > LOOKED_NS {
            return false;
        }
        let all: Vec<(u32, AskedEntry)> =
            self.maps.heard.iter().flatten().map(|(pid, Shared(heard))| (pid, heard)).collect();
        let mut changed = false;
        for (pid, heard) in all {
            if let Some(folder) = folder_of(pid, &heard) {
                changed |= self.look_at_units_of(&folder, &heard);
            }
        }
        changed
    }

    /// Looks at the units of one systemd, which heard a session.
    fn look_at_units_of(&mut self, folder: &PathBuf, heard: &AskedEntry) -> bool {
        let Some(asker) = self.state.asked.by(heard.session, heard.pid).cloned() else { return false };
        let at_ns = self.state.host.unix_ns(heard.at_ns);
        let connected_ns = parse_time(&asker.time).unwrap_or(at_ns);
        let since_ns = connected_ns.max(at_ns.saturating_sub(ASKED_NS)).saturating_sub(TICK_NS);
        let mut changed = false;
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, found) = (entry.path(), entry.metadata());
            let (Some(path), Ok(found)) = (path.to_str(), found) else { continue };
            let (Some(table), false) = (Table::at(path), self.state.jobs.knows(path)) else { continue };
            let written_ns = found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec());
            let in_time = (since_ns..=at_ns + ASKED_NS).contains(&u64::try_from(written_ns).unwrap_or(0));
            let Some(text) = read(path).ok().filter(|_| in_time && found.is_file()) else { continue };
            let write = Write {
                path: ObservedText(path.to_owned()),
                path_encoding: None,
                others: heard.flags & asked_flag::OTHERS != 0,
                ..asker.clone()
            };
            self.looks.seen.insert(path.to_owned(), seen(&found));
            changed |= self.state.jobs.take(path, Some((table, table.keys(path, &text), Some(&write))));
        }
        changed
    }
}

/// Where a process that heard a session writes units, where it is a systemd and not one that has its number since.
fn folder_of(pid: u32, heard: &AskedEntry) -> Option<PathBuf> {
    if heard.flags & asked_flag::MADE != 0 {
        return None;
    }
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    let begun = process.stat().ok()?.starttime;
    if begun != heard.start_ns / PROC_TICK_NS || process.exe().ok()?.file_name()? != "systemd" {
        return None;
    }
    match pid {
        1 => Some(PathBuf::from("/run/systemd/transient")),
        _ => Some(PathBuf::from(format!("/run/user/{}/systemd/transient", process.uid().ok()?))),
    }
}
