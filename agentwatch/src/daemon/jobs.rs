//! Jobs that sessions wrote, as [`crate::written::Jobs`] knows them: read out of their files, kept, and told to the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::UNIX_EPOCH,
};

use agentwatch_common::{
    kind::{LossReason, RecordKind},
    limits,
    maps::{FileKey, LossKey, control},
};

use super::{Daemon, saved};
use crate::{
    event::time::parse_time,
    kernel::maps::{Maps, Shared},
    places::{Mounts, device_of},
    written::{Table, Write},
};

/// Nanoseconds between two looks at all tables: what people change there is not to be taken for a session's.
const ALL_NS: u64 = 60_000_000_000;
/// Bytes of a table that are read.
const BYTES_MOST: u64 = 1 << 20;
/// Folders and files of the tables of cron. Units are many, and looked at only where a session wrote one.
const TABLES: &[&str] =
    &["/etc/crontab", "/etc/anacrontab", "/etc/cron.d", "/var/spool/cron", "/var/spool/cron/crontabs"];

/// What the daemon knows of files beside the jobs in them.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// When all were looked at last, nanoseconds since boot; 0 before the first time.
    all_ns: u64,
    /// What the files looked like.
    pub(super) seen: BTreeMap<String, Seen>,
}

/// What changes where a file does: device, inode, length and both times.
type Seen = (u64, u64, u64, [i64; 4]);

pub(super) fn seen(found: &Metadata) -> Seen {
    let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
    (found.dev(), found.ino(), found.size(), times)
}

impl Daemon {
    /// Looks at the files of jobs that may have changed, once a second.
    pub(super) fn tend_jobs(&mut self, now: u64) {
        let mut due: BTreeSet<String> = self.state.jobs.due().into_iter().collect();
        if self.looks.all_ns == 0 || now.saturating_sub(self.looks.all_ns) >= ALL_NS {
            if self.looks.all_ns == 0 {
                // What an earlier daemon told of is not all that there is, or no more.
                self.tell_jobs(now);
            }
            self.looks.all_ns = now;
            due.extend(standing());
            due.extend(self.state.jobs.paths().map(str::to_owned));
        }
        let changed = self.look_at_transient_units(now);
        self.look_at_jobs(due, changed, now);
    }

    /// Looks at files that sessions opened just now: what tells of them may be used at once.
    pub(super) fn look_at_fresh_jobs(&mut self, now: u64) {
        let due = self.state.jobs.take_fresh();
        self.look_at_jobs(due, false, now);
    }

    /// Looks at files, and tells the kernel and keeps what changed, or had `changed` before.
    fn look_at_jobs(&mut self, due: BTreeSet<String>, mut changed: bool, now: u64) {
        for path in due {
            changed |= self.look_at_file_of_jobs(&path);
        }
        if !changed {
            return;
        }
        self.tell_jobs(now);
        if let Err(error) = saved::write_jobs(&self.paths.state, &self.state.jobs) {
            let state = self.paths.state.display();
            self.pipeline.warn_once(&format!(
                "cannot keep under `{state}` which jobs of cron and systemd sessions wrote, which a restart would forget: {error}"
            ));
        }
    }

    /// Looks at one file; says whether its jobs changed.
    fn look_at_file_of_jobs(&mut self, path: &str) -> bool {
        let found = fs::symlink_metadata(path).ok().filter(Metadata::is_file);
        let (Some(found), Some(table)) = (found, Table::at(path)) else {
            self.looks.seen.remove(path);
            return self.state.jobs.take(path, None);
        };
        let as_it_is = seen(&found);
        if self.looks.seen.get(path) == Some(&as_it_is) {
            return false;
        }
        let Ok(text) = read(path) else { return false };
        let mounts = Mounts::parse(&fs::read("/proc/1/mountinfo").unwrap_or_default());
        let dev = device_of(&mounts, path.as_bytes(), &found);
        let key = FileKey { ino: found.ino(), dev, pad: 0 };
        let write = self.state.written.of(key);
        if write.is_none() && self.maps.written.get(&Shared(key), 0).is_ok() {
            // A session wrote it, and the event of that is on its way.
            return false;
        }
        let before = self.looks.seen.insert(path.to_owned(), as_it_is);
        let writer = write.filter(|write| is_of(write, &found));
        if writer.is_none() && before.is_none() && Table::is_transient(path) {
            // What is known of it an earlier daemon found.
            return false;
        }
        self.state.jobs.take(path, Some((table, table.keys(path, &text), writer)))
    }

    /// Tells the kernel of the jobs of sessions, and of no others.
    fn tell_jobs(&mut self, now: u64) {
        let all = self.state.jobs.numbers(&self.state.host.boot_id);
        let told = tell(&mut self.maps, &all);
        if told < all.len() {
            let (kind, reason) = (RecordKind::Cause.raw(), LossReason::WrittenTableFull.raw());
            let key = LossKey { session: 0, kind, reason, pad: 0 };
            let lost = u64::try_from(all.len() - told).unwrap_or(u64::MAX);
            let mut event = self.state.loss(key, lost, "jobs_dropped", now);
            let why = "the table of the jobs that sessions wrote is full: whose these are that cron or systemd run is not told";
            event.reason = Some(why.to_owned());
            self.log.append(&mut event);
            self.unsaved = true;
        }
    }
}

/// Gives the kernel's table these entries and no others; says how many it has.
fn tell(maps: &mut Maps, all: &BTreeMap<u64, u64>) -> usize {
    let old: Vec<u64> = maps.jobs.keys().flatten().filter(|key| !all.contains_key(key)).collect();
    for key in old {
        // Where it is gone already, nothing is left to do.
        let _ = maps.jobs.remove(&key);
    }
    let all = all.iter().take(limits::JOBS as usize);
    let told = all.filter(|(key, session)| maps.jobs.insert(*key, *session, 0).is_ok()).count();
    match maps.set_word(control::ANY_JOBS, u64::from(told > 0)) {
        Ok(()) => told,
        Err(_) => 0,
    }
}

/// The tables of cron that there are.
fn standing() -> Vec<String> {
    let mut all = Vec::new();
    for table in TABLES {
        let inside = fs::read_dir(table).into_iter().flatten().flatten().map(|entry| entry.path());
        let paths = inside.chain([Path::new(table).to_owned()]);
        all.extend(paths.filter_map(|path| path.into_os_string().into_string().ok()));
    }
    all.retain(|path| Table::at(path).is_some());
    all
}

pub(super) fn read(path: &str) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(BYTES_MOST).read_to_end(&mut text)?;
    Ok(text)
}

/// Whether a file is the one that was written, and not a later one that has its number.
fn is_of(write: &Write, found: &Metadata) -> bool {
    let made = found.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    made.zip(parse_time(&write.time)).is_none_or(|(made, at)| made.as_nanos() <= u128::from(at))
}
