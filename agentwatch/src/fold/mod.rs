//! Folding of repeats: the first is told at once, those that follow soon are counted and told together.
//!
//! Two records are equal where everything but time and thread is: the same process doing the same thing to
//! the same object in the same way. Equality is by bytes, before anything is decoded, so that a repeat
//! costs little. Nothing is lost: what was done = events + what their `count` says beyond one.

use std::collections::{HashMap, VecDeque};

use agentwatch_common::kind::RecordKind;

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

/// Repeats of one record.
#[derive(Debug)]
struct Waiting {
    /// When the record itself was told.
    since_ns: u64,
    count: u64,
    first: Vec<u8>,
    last_ns: u64,
}

/// What to do with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Tell it now.
    Now,
    /// It is counted and will be told with others.
    Later,
}

/// The records whose repeats are awaited.
#[derive(Debug, Default)]
pub struct Folder {
    waiting: HashMap<Vec<u8>, Waiting>,
    /// Keys in the order of their windows.
    order: VecDeque<(u64, Vec<u8>)>,
    /// The key that is being looked for.
    key: Vec<u8>,
}

impl Folder {
    /// Looks at a record before it is told. Repeats that are to be told before it are put into `due`.
    pub fn admit(&mut self, record: &[u8], kind: RecordKind, time_ns: u64, due: &mut Vec<Repeats>) -> Told {
        self.expire(time_ns, due);
        if ends_folding(kind) {
            self.flush_process(record, due);
        }
        if !is_foldable(kind) || record.len() > RECORD_MAX {
            return Told::Now;
        }
        self.key.clear();
        self.key.extend_from_slice(record);
        for range in [TIME, TID] {
            if let Some(field) = self.key.get_mut(range) {
                field.fill(0);
            }
        }
        if let Some(waiting) = self.waiting.get_mut(&self.key) {
            if waiting.count == 0 {
                waiting.first.extend_from_slice(record);
            }
            waiting.count += 1;
            waiting.last_ns = time_ns;
            return Told::Later;
        }
        if self.order.len() >= WAITING_MAX {
            self.tell_oldest(due);
        }
        self.order.push_back((time_ns, self.key.clone()));
        let waiting = Waiting { since_ns: time_ns, count: 0, first: Vec::new(), last_ns: time_ns };
        self.waiting.insert(self.key.clone(), waiting);
        Told::Now
    }

    /// Ends the windows that are over.
    pub fn expire(&mut self, now_ns: u64, due: &mut Vec<Repeats>) {
        while self.order.front().is_some_and(|(since, _)| since.saturating_add(WINDOW_NS) <= now_ns) {
            self.tell_oldest(due);
        }
    }

    /// Ends all windows.
    pub fn flush(&mut self, due: &mut Vec<Repeats>) {
        while !self.order.is_empty() {
            self.tell_oldest(due);
        }
    }

    /// Whether repeats are awaited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn tell_oldest(&mut self, due: &mut Vec<Repeats>) {
        let Some((since, key)) = self.order.pop_front() else { return };
        // A window that was ended early has left its key behind.
        if self.waiting.get(&key).is_some_and(|waiting| waiting.since_ns == since) {
            self.tell(&key, due);
        }
    }

    fn tell(&mut self, key: &[u8], due: &mut Vec<Repeats>) {
        if let Some(Waiting { count: count @ 1.., first, last_ns, .. }) = self.waiting.remove(key) {
            due.push(Repeats { record: first, count, last_ns });
        }
    }

    /// Ends the windows of the process of this record: it does nothing more under its present program.
    fn flush_process(&mut self, record: &[u8], due: &mut Vec<Repeats>) {
        let Some(pid) = record.get(PID) else { return };
        let mut keys: Vec<(u64, Vec<u8>)> = self
            .waiting
            .iter()
            .filter(|(key, _)| key.get(PID) == Some(pid))
            .map(|(key, waiting)| (waiting.since_ns, key.clone()))
            .collect();
        keys.sort();
        for (_, key) in keys {
            self.tell(&key, due);
        }
    }
}

/// Whether repeats of this kind are folded: not the life of processes, each of which is told.
const fn is_foldable(kind: RecordKind) -> bool {
    kind.raw() >= RecordKind::FileOpen.raw()
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
            prop_assert!(folder.is_empty() && folder.waiting.is_empty());
            prop_assert_eq!(told + due.iter().map(|repeats| repeats.count).sum::<u64>(), acts.len() as u64);
        }
    }
}
