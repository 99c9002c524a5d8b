//! The kernel's tables, opened by their pins.

use std::path::Path;

use agentwatch_common::maps::{Automaton, CgroupEntry, LossKey, ProcessEntry, SessionEntry, control};
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError, RingBuf},
};

use super::KernelError;

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
unsafe impl Pod for Shared<LossKey> {}
// SAFETY: as above.
unsafe impl Pod for Shared<Automaton> {}

/// A table with a key.
type Table<K, V> = HashMap<MapData, K, V>;

/// All tables that the daemon touches.
pub struct Maps {
    /// Live processes in sessions, by process id.
    pub processes: Table<u32, Shared<ProcessEntry>>,
    /// Sessions by number.
    pub sessions: Table<u64, Shared<SessionEntry>>,
    /// Cgroups of sessions, by id.
    pub cgroups: Table<u64, Shared<CgroupEntry>>,
    /// Users of agents, by user id.
    pub users: Table<u32, u32>,
    /// Losses.
    pub losses: Table<Shared<LossKey>, u64>,
    /// Single words.
    pub control: Array<MapData, u64>,
    /// The automaton that finds agents.
    pub automaton: Array<MapData, Shared<Automaton>>,
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
            processes: hash(dir, "PROCESSES")?,
            sessions: hash(dir, "SESSIONS")?,
            cgroups: hash(dir, "CGROUPS")?,
            users: hash(dir, "USERS")?,
            losses: hash(dir, "LOSSES")?,
            control: array(dir, "CONTROL")?,
            automaton: array(dir, "AUTOMATON")?,
            events: open(dir, "EVENTS", |data| RingBuf::try_from(Map::RingBuf(data)))?,
        })
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

fn open<T>(
    dir: &Path,
    name: &'static str,
    make: impl FnOnce(MapData) -> Result<T, MapError>,
) -> Result<T, KernelError> {
    MapData::from_pin(dir.join(name)).and_then(make).map_err(|source| KernelError::Map { name, source })
}

fn hash<K: Pod, V: Pod>(dir: &Path, name: &'static str) -> Result<Table<K, V>, KernelError> {
    open(dir, name, |data| HashMap::try_from(Map::HashMap(data)))
}

fn array<V: Pod>(dir: &Path, name: &'static str) -> Result<Array<MapData, V>, KernelError> {
    open(dir, name, |data| Array::try_from(Map::Array(data)))
}
