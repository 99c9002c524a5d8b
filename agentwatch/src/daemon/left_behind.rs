//! What sessions left behind: kept on disk, and put back into the kernel's table.

use std::{
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use agentwatch_common::{
    kind::{LossReason, RecordKind},
    maps::{FileKey, LossKey, WrittenEntry, control},
};

use super::Daemon;
use crate::{
    attribution::Attribution,
    event::{Event, bytes::decode},
    kernel::maps::{Maps, Shared},
    places::{Mounts, device_of},
    written::{self, Kept, Write, past},
};

/// `BPF_NOEXIST`: only where there is no entry. What the kernel has is younger.
const NEW: u64 = 1;

impl Daemon {
    /// Takes up what was written since the last time, keeps it, and makes room.
    pub(super) fn tend_written(&mut self, now: u64) {
        // There can be many: one for each use of a file. What they wrote is told by what is kept of it.
        for number in std::mem::take(&mut self.state.caused_over) {
            let _ = self.maps.sessions.remove(&number);
        }
        let maps = &self.maps;
        self.state.written.confirm(|write| {
            let entry = maps.written.get(&Shared(write.key()), 0).ok()?.0;
            // Another session wrote it since: its event is on the way, or lost.
            (entry.session == write.number).then_some(entry.generation)
        });
        for mut event in self.make_room_for_written(now) {
            self.log.append(&mut event);
            self.unsaved = true;
        }
        if let Err(error) = self.kept.keep(&mut self.state.written) {
            let state = self.paths.state.display();
            self.pipeline.warn_once(&format!(
                "cannot keep under `{state}` what sessions left behind, which a restart of the host would forget: {error}"
            ));
        }
    }

    /// Forgets files that are gone where the table becomes full, and tells of those that are given up though they are there.
    fn make_room_for_written(&mut self, now: u64) -> Vec<Event> {
        let (forgotten, given_up) = self.state.written.make_room(is_gone);
        for key in &forgotten {
            // Where the kernel does not have it, nothing is left to do.
            let _ = self.maps.written.remove(&Shared(*key));
        }
        let tell = |(session, count)| {
            let (kind, reason) = (RecordKind::Cause.raw(), LossReason::WrittenTableFull.raw());
            let mut event =
                self.state.loss(LossKey { session, kind, reason, pad: 0 }, count, "written_dropped", now);
            let why = "the table of the files that sessions wrote is full: who uses the oldest of these later is not known";
            event.reason = Some(why.to_owned());
            event
        };
        given_up.into_iter().map(tell).collect()
    }
}

/// Whether what was written is no more where it was. What cannot be looked at from here counts as there.
fn is_gone(write: &Write) -> bool {
    let Some(path) = path_of(write) else { return false };
    match fs::symlink_metadata(path) {
        Ok(found) => found.ino() != write.inode,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Where it is in the initial namespace.
fn path_of(write: &Write) -> Option<PathBuf> {
    if write.root.is_some() {
        return None;
    }
    let bytes = decode(&write.path, write.path_encoding.is_some()).ok()?;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(&bytes)))
}

/// Takes up what an earlier daemon kept, and puts it back into the kernel's table where that does not have it: after a boot,
/// or where the programs were loaded anew. What is another file by now is forgotten.
pub(super) fn put_back(maps: &mut Maps, state: &mut Attribution, folder: &Path) -> Kept {
    let (all, damaged) = written::read(folder).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read what sessions of earlier left behind: who uses that is not known");
        (Vec::new(), 0)
    });
    if damaged > 1 {
        // One is what a crash may cut.
        tracing::warn!(
            damaged,
            "some of what sessions of earlier left behind cannot be read, and is forgotten"
        );
    }
    let mounts = Mounts::parse(&fs::read("/proc/1/mountinfo").unwrap_or_default());
    let boot_id = std::sync::Arc::clone(&state.host.boot_id);
    for mut write in all {
        let is_of_now = write.boot_id == boot_id;
        if is_of_now && maps.written.get(&Shared(write.key()), 0).is_ok() {
            state.written.restore(write);
            continue;
        }
        let Some(device) = still_there(&write, &mounts) else { continue };
        write.device = device;
        let session = if is_of_now { write.number } else { past(&write.session) };
        if put(maps, write.key(), session, write.generation) {
            state.written.restore(write);
        }
    }
    Kept::new(folder)
}

/// On which file system a file is that is still the one that was written, as far as its path and its number tell. Whether
/// the number was used again the kernel sees by the generation.
fn still_there(write: &Write, mounts: &Mounts) -> Option<u32> {
    let path = path_of(write)?;
    let found = fs::symlink_metadata(&path).ok().filter(|found| found.ino() == write.inode)?;
    Some(device_of(mounts, path.as_os_str().as_bytes(), &found))
}

fn put(maps: &mut Maps, key: FileKey, session: u64, generation: u32) -> bool {
    let entry = WrittenEntry { session, generation, pad: 0 };
    match maps.written.insert(Shared(key), Shared(entry), NEW) {
        Ok(()) => maps.set_word(control::ANY_WRITTEN, 1).is_ok(),
        // The kernel has a later one, or no room.
        Err(_) => false,
    }
}
