//! Folding of repeats: the first is told at once, those that follow soon are counted and told together.
//!
//! Two records are equal where everything but time and thread is: the same process doing the same thing to
//! the same object in the same way. Equality is by bytes, before anything is decoded, so that a repeat
//! costs little. Nothing is lost: what was done = events + what their `count` says beyond one.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasher as _, BuildHasherDefault, Hasher},
};

use agentwatch_common::kind::RecordKind;

use crate::attribution::ByNumber;

/// Nanoseconds for which repeats are folded into one event.
const WINDOW_NS: u64 = 1_000_000_000;
/// Records whose repeats are awaited. Past it the oldest is told early.
const WAITING_MAX: usize = 8_192;
/// Longest record that is folded, in bytes. Longer ones are rare, and told each.
const RECORD_MAX: usize = 2_048;

/// Fields of a record's header that differ between repeats.
const TIME: std::ops::Range<usize> = 8..16;
const TID: std::ops::Range<usize> = 36..40;
const PID: std::ops::Range<usize> = 32..36;

/// Repeats that are to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeats {
    /// The record of the first repeat.
    pub record: Vec<u8>,
    /// How many.
    pub count: u64,
    /// When the last was, nanoseconds since boot.
    pub last_ns: u64,
}

/// A record whose repeats are awaited.
#[derive(Debug)]
struct Window {
    hash: u64,
    /// When the record itself was told.
    since_ns: u64,
    /// The record without what differs between repeats.
    key: Vec<u8>,
    /// Repeats.
    count: u64,
    /// What differs, of the first repeat.
    first: (u64, u32),
    last_ns: u64,
    /// Its process ended, and what there was to be told is told.
    over: bool,
}

/// What to do with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Tell it now.
    Now,
    /// It is counted and will be told with others.
    Later,
}

/// The records whose repeats are awaited. Every event pays for this: a record is hashed once and copied once.
#[derive(Debug, Default)]
pub struct Folder {
    /// In the order in which they began.
    windows: VecDeque<Window>,
    /// Windows that were told and removed since the beginning: number of the first in `windows`.
    gone: u64,
    /// Numbers of windows by the hash of their keys.
    by_hash: HashMap<u64, u64, BuildHasherDefault<Hashed>>,
    /// Numbers of windows by process, oldest first.
    by_process: ByNumber<u32, VecDeque<u64>>,
    /// Whoever made two records of one hash would be told of more, and of nothing less.
    state: foldhash::fast::RandomState,
    /// The key that is being looked for.
    key: Vec<u8>,
}

impl Folder {
    /// Looks at a record before it is told. Repeats that are to be told before it are put into `due`.
    pub fn admit(&mut self, record: &[u8], kind: RecordKind, time_ns: u64, due: &mut Vec<Repeats>) -> Told {
        self.expire(time_ns, due);
        if ends_folding(kind) {
            self.end_process(record, due);
        }
        if !is_foldable(kind) || record.len() > RECORD_MAX {
            return Told::Now;
        }
        let (Some(pid), Some(tid)) = (field(record, PID), field(record, TID)) else { return Told::Now };
        self.key.clear();
        self.key.extend_from_slice(record);
        clear(&mut self.key);
        let hash = self.hash();
        let next = self.gone + self.windows.len() as u64;
        match self.by_hash.entry(hash) {
            Entry::Occupied(found) => {
                let place = usize::try_from(found.get() - self.gone).unwrap_or(usize::MAX);
                return match self.windows.get_mut(place).filter(|window| window.key == self.key) {
                    Some(window) => {
                        if window.count == 0 {
                            window.first = (time_ns, tid);
                        }
                        window.count += 1;
                        window.last_ns = time_ns;
                        Told::Later
                    }
                    // Another record with the same hash: told each time, so rare is that.
                    None => Told::Now,
                };
            }
            Entry::Vacant(place) => place.insert(next),
        };
        self.by_process.entry(pid).or_default().push_back(next);
        self.windows.push_back(Window {
            hash,
            since_ns: time_ns,
            key: self.key.as_slice().to_vec(),
            count: 0,
            first: (0, 0),
            last_ns: time_ns,
            over: false,
        });
        if self.windows.len() > WAITING_MAX {
            self.tell_oldest(due);
        }
        Told::Now
    }

    /// Ends the windows that are over.
    pub fn expire(&mut self, now_ns: u64, due: &mut Vec<Repeats>) {
        while self
            .windows
            .front()
            .is_some_and(|window| window.over || window.since_ns.saturating_add(WINDOW_NS) <= now_ns)
        {
            self.tell_oldest(due);
        }
    }

    /// Ends all windows.
    pub fn flush(&mut self, due: &mut Vec<Repeats>) {
        while !self.windows.is_empty() {
            self.tell_oldest(due);
        }
    }

    /// Whether repeats are awaited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// By a seed that differs in each process. Two records of one hash are not taken for one: the keys are compared, and
    /// the later is told on its own.
    fn hash(&self) -> u64 {
        let mut hasher = self.state.build_hasher();
        hasher.write(&self.key);
        hasher.finish()
    }

    fn tell_oldest(&mut self, due: &mut Vec<Repeats>) {
        let Some(window) = self.windows.pop_front() else { return };
        self.gone += 1;
        if window.over {
            return;
        }
        self.by_hash.remove(&window.hash);
        if let Some(pid) = field(&window.key, PID)
            && let Entry::Occupied(mut own) = self.by_process.entry(pid)
        {
            // The oldest of all is the oldest of its process.
            own.get_mut().pop_front();
            if own.get().is_empty() {
                own.remove();
            }
        }
        due.extend(window.into_repeats());
    }

    /// Ends the windows of the process of this record: it does nothing more under its present program.
    fn end_process(&mut self, record: &[u8], due: &mut Vec<Repeats>) {
        let own = field(record, PID).and_then(|pid| self.by_process.remove(&pid));
        for number in own.into_iter().flatten() {
            let place = usize::try_from(number - self.gone).unwrap_or(usize::MAX);
            let Some(window) = self.windows.get_mut(place) else { continue };
            self.by_hash.remove(&window.hash);
            window.over = true;
            let told = Window { key: std::mem::take(&mut window.key), ..*window };
            due.extend(told.into_repeats());
        }
    }
}

impl Window {
    /// The repeats, if there were any: the first of them with its own time and thread.
    fn into_repeats(self) -> Option<Repeats> {
        let (time_ns, tid) = self.first;
        let mut record = self.key;
        if let Some(place) = record.get_mut(TIME) {
            place.copy_from_slice(&time_ns.to_le_bytes());
        }
        if let Some(place) = record.get_mut(TID) {
            place.copy_from_slice(&tid.to_le_bytes());
        }
        (self.count > 0).then_some(Repeats { record, count: self.count, last_ns: self.last_ns })
    }
}

/// A key that is a hash already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A number of a record's header.
fn field(record: &[u8], range: std::ops::Range<usize>) -> Option<u32> {
    Some(u32::from_le_bytes(record.get(range)?.try_into().ok()?))
}

/// Takes out of a record what differs between repeats.
fn clear(record: &mut [u8]) {
    for range in [TIME, TID] {
        if let Some(field) = record.get_mut(range) {
            field.fill(0);
        }
    }
}

/// Whether repeats of this kind are folded: not the life of processes, each of which is told.
const fn is_foldable(kind: RecordKind) -> bool {
    kind.raw() >= RecordKind::FileOpen.raw() || matches!(kind, RecordKind::ForkRefused)
}

/// Whether what a process did before is told before this.
const fn ends_folding(kind: RecordKind) -> bool {
    matches!(kind, RecordKind::Exec | RecordKind::Exit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A record of which only what folding looks at is filled in.
    fn record(pid: u32, tid: u32, time_ns: u64, object: u8) -> Vec<u8> {
        let mut bytes = vec![0; 60];
        bytes[TIME].copy_from_slice(&time_ns.to_le_bytes());
        bytes[PID].copy_from_slice(&pid.to_le_bytes());
        bytes[TID].copy_from_slice(&tid.to_le_bytes());
        bytes[50] = object;
        bytes
    }

    #[test]
    fn the_first_is_told_at_once_and_repeats_together() {
        let (mut folder, mut due) = (Folder::default(), Vec::new());
        let mut admit = |time, kind, due: &mut Vec<_>| folder.admit(&record(1, 2, time, 0), kind, time, due);
        assert_eq!(admit(10, RecordKind::FileOpen, &mut due), Told::Now);
        assert_eq!(admit(11, RecordKind::FileOpen, &mut due), Told::Later);
        assert_eq!(admit(12, RecordKind::FileOpen, &mut due), Told::Later);
        assert!(due.is_empty());
        assert_eq!(admit(10 + WINDOW_NS, RecordKind::FileOpen, &mut due), Told::Now, "a new window");
        assert_eq!(due, [Repeats { record: record(1, 2, 11, 0), count: 2, last_ns: 12 }]);
    }

    #[test]
    fn the_end_of_a_process_ends_its_windows_and_no_others() {
        let (mut folder, mut due) = (Folder::default(), Vec::new());
        for pid in [1, 1, 2, 2] {
            folder.admit(&record(pid, pid, 5, 0), RecordKind::FileOpen, 5, &mut due);
        }
        assert_eq!(folder.admit(&record(1, 1, 6, 0), RecordKind::Exit, 6, &mut due), Told::Now);
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].record, record(1, 1, 5, 0));
    }

    proptest! {
        #[test]
        fn every_record_is_told_once(
            acts in proptest::collection::vec((1_u32..4, 0_u8..5, 0_u64..400_000_000, any::<bool>()), 0..300),
        ) {
            let (mut folder, mut due, mut told, mut time) = (Folder::default(), Vec::new(), 0, 0);
            for &(pid, object, later, ends) in &acts {
                time += later;
                let kind = if ends && object == 0 { RecordKind::Exit } else { RecordKind::FileOpen };
                if folder.admit(&record(pid, pid, time, object), kind, time, &mut due) == Told::Now {
                    told += 1;
                }
            }
            folder.flush(&mut due);
            prop_assert!(folder.is_empty() && folder.by_hash.is_empty() && folder.by_process.is_empty());
            prop_assert_eq!(told + due.iter().map(|repeats| repeats.count).sum::<u64>(), acts.len() as u64);
        }
    }
}
