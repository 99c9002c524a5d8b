//! The kernel's table of processes, as the daemon reads and writes it.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use agentwatch_common::maps::{ProcessEntry, control};
use aya::maps::{Array, MapData, MapError};

use super::{
    KernelError,
    maps::{Shared, Table, array, hash},
};

/// `BPF_NOEXIST`: only where there is no entry.
const NEW: u64 = 1;
/// `BPF_EXIST`: only where there is one.
const THERE: u64 = 2;

/// Held while the daemon's count is changed, which several of its threads do.
static COUNTING: Mutex<()> = Mutex::new(());

/// Live processes in sessions, by process id. What the daemon puts in or takes out it counts, as the kernel does, which
/// so knows when a child has no room.
pub struct Processes {
    table: Table<u32, Shared<ProcessEntry>>,
    control: Array<MapData, u64>,
}

impl Processes {
    pub(super) fn open(dir: &Path) -> Result<Self, KernelError> {
        Ok(Self { table: hash(dir, "PROCESSES")?, control: array(dir, "CONTROL")? })
    }

    /// All entries, as they are while they are read.
    pub fn iter(&self) -> impl Iterator<Item = Result<(u32, Shared<ProcessEntry>), MapError>> + '_ {
        self.table.iter()
    }

    /// The entry of a process.
    #[must_use]
    pub fn get(&self, pid: u32) -> Option<ProcessEntry> {
        self.table.get(&pid, 0).ok().map(|Shared(entry)| entry)
    }

    /// Puts a process in, or changes its entry.
    ///
    /// # Errors
    /// The table is full, or the kernel refused.
    pub fn insert(&mut self, pid: u32, entry: ProcessEntry) -> Result<(), MapError> {
        match self.table.insert(pid, Shared(entry), NEW) {
            Ok(()) => self.count(1),
            Err(error) => self.table.insert(pid, Shared(entry), THERE).map_err(|_| error),
        }
    }

    /// Takes a process out.
    ///
    /// # Errors
    /// It is not there, or the kernel refused.
    pub fn remove(&mut self, pid: u32) -> Result<(), MapError> {
        self.table.remove(&pid)?;
        self.count(-1)
    }

    /// How many there are by the counts of the kernel and the daemon.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn counted(&self) -> Result<i64, MapError> {
        let kernel = self.control.get(&control::PROCESSES_BY_KERNEL, 0)?;
        Ok(kernel.wrapping_add(self.control.get(&control::PROCESSES_BY_DAEMON, 0)?).cast_signed())
    }

    fn count(&mut self, change: i64) -> Result<(), MapError> {
        let _counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.control.get(&control::PROCESSES_BY_DAEMON, 0)?;
        self.control.set(control::PROCESSES_BY_DAEMON, before.wrapping_add_signed(change), 0)
    }
}
