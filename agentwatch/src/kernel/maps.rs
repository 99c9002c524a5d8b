//! The kernel's tables, opened by their pins.

use std::{
    collections::BTreeMap,
    os::fd::{AsRawFd as _, BorrowedFd},
    path::{Path, PathBuf},
};

use agentwatch_common::{
    bound::BoundEntry,
    maps::{
        AskedEntry, Automaton, CgroupEntry, FileKey, LossKey, NestedKey, ProcessEntry, SessionEntry,
        WrittenEntry, control,
    },
};
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError, RingBuf},
};

pub use super::processes::Processes;
use super::{KernelError, bound::BoundMaps, rules::RuleMaps, skips::Programs};

/// Makes a shared type one that aya may copy to and from the kernel.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared<T>(pub T);

// SAFETY: plain data of fixed layout without padding bytes, asserted in agentwatch-common.
unsafe impl Pod for Shared<ProcessEntry> {}
// SAFETY: as above.
unsafe impl Pod for Shared<SessionEntry> {}
// SAFETY: as above.
unsafe impl Pod for Shared<CgroupEntry> {}
// SAFETY: as above.
unsafe impl Pod for Shared<NestedKey> {}
// SAFETY: as above.
unsafe impl Pod for Shared<LossKey> {}
// SAFETY: as above.
unsafe impl Pod for Shared<FileKey> {}
// SAFETY: as above.
unsafe impl Pod for Shared<WrittenEntry> {}
// SAFETY: as above.
unsafe impl Pod for Shared<AskedEntry> {}
// SAFETY: as above.
unsafe impl Pod for Shared<Automaton> {}

/// A table with a key.
pub(super) type Table<K, V> = HashMap<MapData, K, V>;

/// An automaton on the heap: it is too large for the stack.
#[derive(Debug)]
pub struct Boxed(Box<Shared<Automaton>>);

impl Boxed {
    /// One that matches nothing.
    #[must_use]
    pub fn empty() -> Self {
        // SAFETY: integers and arrays of integers, for all of which zero is a value.
        Self(unsafe { Box::new_zeroed().assume_init() })
    }
}

impl std::ops::Deref for Boxed {
    type Target = Automaton;
    fn deref(&self) -> &Automaton {
        &self.0.0
    }
}

impl std::ops::DerefMut for Boxed {
    fn deref_mut(&mut self) -> &mut Automaton {
        &mut self.0.0
    }
}

/// All tables that the daemon touches.
pub struct Maps {
    /// Where they are pinned.
    dir: PathBuf,
    /// Live processes in sessions, by process id.
    pub processes: Processes,
    /// Sessions by number.
    pub sessions: Table<u64, Shared<SessionEntry>>,
    /// What binds sessions.
    pub bound_sessions: Table<u64, Shared<BoundEntry>>,
    /// Cgroups of sessions, by id.
    pub cgroups: Table<u64, Shared<CgroupEntry>>,
    /// By what sessions inside others are judged.
    nested: Table<Shared<NestedKey>, u32>,
    /// Users of agents, by user id.
    pub users: Table<u32, u32>,
    /// Files that sessions wrote, with the last writer.
    pub written: Table<Shared<FileKey>, Shared<WrittenEntry>>,
    /// Interpreters and the endings of what they run.
    sources: Table<u64, u32>,
    /// Jobs that sessions wrote: see [`agentwatch_common::maps::job`].
    pub jobs: Table<u64, u64>,
    /// Whom delegates heard last, by their process ids.
    pub heard: Table<u32, Shared<AskedEntry>>,
    /// Losses.
    pub losses: Table<Shared<LossKey>, u64>,
    /// What of them was told.
    losses_told: Table<Shared<LossKey>, u64>,
    /// Single words.
    control: Array<MapData, u64>,
    /// Numbers of the agents that the automaton names.
    agent_numbers: Array<MapData, u32>,
    /// The automaton that finds agents.
    automaton: Array<MapData, Shared<Automaton>>,
    /// Records.
    pub events: RingBuf<MapData>,
}

impl Maps {
    /// Opens the tables that are pinned in a folder.
    ///
    /// # Errors
    /// One is missing or of another form.
    pub fn open(dir: &Path) -> Result<Self, KernelError> {
        Ok(Self {
            dir: dir.to_owned(),
            processes: Processes::open(dir)?,
            sessions: hash(dir, "SESSIONS")?,
            bound_sessions: hash(dir, "BOUND")?,
            cgroups: hash(dir, "CGROUPS")?,
            nested: hash(dir, "NESTED")?,
            users: hash(dir, "USERS")?,
            written: hash(dir, "WRITTEN")?,
            sources: hash(dir, "SOURCES")?,
            jobs: hash(dir, "JOBS")?,
            heard: hash(dir, "HEARD")?,
            losses: hash(dir, "LOSSES")?,
            losses_told: hash(dir, "LOSSES_TOLD")?,
            control: array(dir, "CONTROL")?,
            agent_numbers: array(dir, "AGENT_NUMBERS")?,
            automaton: array(dir, "AUTOMATON")?,
            events: open(dir, "EVENTS", |data| RingBuf::try_from(Map::RingBuf(data)))?,
        })
    }

    /// A second handle of the table of sessions, for who only reads it.
    ///
    /// # Errors
    /// The pin is gone.
    pub fn sessions_again(&self) -> Result<Table<u64, Shared<SessionEntry>>, KernelError> {
        hash(&self.dir, "SESSIONS")
    }

    /// The programs that use these tables.
    #[must_use]
    pub fn programs(&self) -> Programs {
        Programs::of(&self.dir)
    }

    /// A second handle of the table of processes, for another thread.
    ///
    /// # Errors
    /// The pin is gone.
    pub fn processes_again(&self) -> Result<Processes, KernelError> {
        Processes::open(&self.dir)
    }

    /// Opens the tables of the rules.
    ///
    /// # Errors
    /// One is missing or of another form.
    pub fn rules(&self) -> Result<RuleMaps, KernelError> {
        RuleMaps::open(&self.dir)
    }

    /// Opens the tables of what binds sessions.
    ///
    /// # Errors
    /// One is missing or of another form.
    pub fn bound(&self) -> Result<BoundMaps, KernelError> {
        BoundMaps::open(&self.dir)
    }

    /// Hands the automaton to the kernel, whole.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn set_automaton(&mut self, automaton: &Boxed) -> Result<(), KernelError> {
        let set = self.automaton.set(0, automaton.0.as_ref(), 0);
        set.map_err(|source| KernelError::Map { name: "AUTOMATON", source })
    }

    /// Says which numbers the agents have that the automaton names by their index.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn set_agent_numbers(&mut self, numbers: impl Iterator<Item = u32>) -> Result<(), KernelError> {
        for (index, number) in (0..).zip(numbers) {
            let set = self.agent_numbers.set(index, number, 0);
            set.map_err(|source| KernelError::Map { name: "AGENT_NUMBERS", source })?;
        }
        Ok(())
    }

    /// Says which programs interpret files, and which these are: see [`agentwatch_common::maps::source`].
    ///
    /// # Errors
    /// The kernel refused.
    pub fn set_sources(&mut self, all: impl Iterator<Item = (u64, u32)>) -> Result<(), KernelError> {
        for (key, kind) in all {
            let set = self.sources.insert(key, kind, 0);
            set.map_err(|source| KernelError::Map { name: "SOURCES", source })?;
        }
        Ok(())
    }

    /// What was told of losses, whichever daemon told it.
    pub fn told_losses(&self) -> impl Iterator<Item = (LossKey, u64)> {
        self.losses_told.iter().flatten().map(|(Shared(key), count)| (key, count))
    }

    /// Notes how much of a loss was told.
    ///
    /// # Errors
    /// The kernel refused, for want of room.
    pub fn note_told(&mut self, key: LossKey, count: u64) -> Result<(), KernelError> {
        let set = self.losses_told.insert(Shared(key), count, 0);
        set.map_err(|source| KernelError::Map { name: "LOSSES_TOLD", source })
    }

    /// Says by what sessions inside others are judged.
    ///
    /// # Errors
    /// The kernel refused, for want of room.
    pub fn set_nested(&mut self, pairs: &BTreeMap<(u32, u32), u32>) -> Result<(), KernelError> {
        let named = |source| KernelError::Map { name: "NESTED", source };
        let old: Vec<_> = self.nested.keys().flatten().collect();
        for key in old.iter().filter(|Shared(key)| !pairs.contains_key(&(key.outer, key.inner))) {
            self.nested.remove(key).map_err(named)?;
        }
        for (&(outer, inner), both) in pairs {
            self.nested.insert(Shared(NestedKey { outer, inner }), both, 0).map_err(named)?;
        }
        Ok(())
    }

    /// By what a session is judged that begins inside another, where that was worked out.
    #[must_use]
    pub fn nested(&self, outer: u32, inner: u32) -> Option<u32> {
        self.nested.get(&Shared(NestedKey { outer, inner }), 0).ok()
    }

    /// The ring, to be waited for.
    #[must_use]
    pub fn ring_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the ring's own, which lives as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.events.as_raw_fd()) }
    }

    /// Reads a word of `CONTROL`.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn word(&self, index: u32) -> Result<u64, KernelError> {
        debug_assert!(index < control::LEN);
        self.control.get(&index, 0).map_err(|source| KernelError::Map { name: "CONTROL", source })
    }

    /// Writes a word of `CONTROL`.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn set_word(&mut self, index: u32, value: u64) -> Result<(), KernelError> {
        self.control.set(index, value, 0).map_err(|source| KernelError::Map { name: "CONTROL", source })
    }
}

pub(super) fn open<T>(
    dir: &Path,
    name: &'static str,
    make: impl FnOnce(MapData) -> Result<T, MapError>,
) -> Result<T, KernelError> {
    MapData::from_pin(dir.join(name)).and_then(make).map_err(|source| KernelError::Map { name, source })
}

pub(super) fn hash<K: Pod, V: Pod>(dir: &Path, name: &'static str) -> Result<Table<K, V>, KernelError> {
    open(dir, name, |data| HashMap::try_from(Map::HashMap(data)))
}

pub(super) fn array<V: Pod>(dir: &Path, name: &'static str) -> Result<Array<MapData, V>, KernelError> {
    open(dir, name, |data| Array::try_from(Map::Array(data)))
}
