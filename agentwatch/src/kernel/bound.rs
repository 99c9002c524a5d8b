//! The kernel's tables of what binds sessions: see [`agentwatch_common::bound`].

use std::path::Path;

use agentwatch_common::{
    bound::{Binding, BoundEntry},
    rules::{Device, DeviceKey},
};
use aya::{
    Pod,
    maps::{Array, MapData, MapError},
};

use super::{
    KernelError,
    maps::{Shared, Table, array, hash},
};

// SAFETY: plain data of fixed layout without padding bytes, asserted in agentwatch-common.
unsafe impl Pod for Shared<Binding> {}
// SAFETY: as above.
unsafe impl Pod for Shared<BoundEntry> {}

/// Has a session that the daemon begins inside another held by what holds that one.
///
/// # Errors
/// There is no room: it must not begin.
pub fn pass_on(
    bound: &mut Table<u64, Shared<BoundEntry>>,
    outer: u64,
    inner: u64,
) -> Result<(), KernelError> {
    match bound.get(&outer, 0) {
        Ok(entry) => named("BOUND", bound.insert(inner, entry, 0)),
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(source) => Err(KernelError::Map { name: "BOUND", source }),
    }
}

/// A binding on the heap: it is too large for the stack.
#[must_use]
pub fn empty() -> Box<Shared<Binding>> {
    // SAFETY: integers and arrays of integers, for all of which zero is a value.
    unsafe { Box::new_zeroed().assume_init() }
}

/// The tables, opened.
#[expect(missing_debug_implementations, reason = "aya's arrays have none")]
pub struct BoundMaps {
    bound: Table<u64, Shared<BoundEntry>>,
    bindings: Array<MapData, Shared<Binding>>,
    devices: Table<Shared<DeviceKey>, Shared<Device>>,
}

impl BoundMaps {
    /// Opens the tables that are pinned in a folder.
    ///
    /// # Errors
    /// One is missing or of another form.
    pub fn open(dir: &Path) -> Result<Self, KernelError> {
        Ok(Self {
            bound: hash(dir, "BOUND")?,
            bindings: array(dir, "BINDINGS")?,
            devices: hash(dir, "BOUND_DEVICES")?,
        })
    }

    /// What binds a session.
    #[must_use]
    pub fn entry(&self, session: u64) -> Option<BoundEntry> {
        self.bound.get(&session, 0).ok().map(|Shared(entry)| entry)
    }

    /// The sessions that are bound.
    #[must_use]
    pub fn bound(&self) -> Vec<(u64, BoundEntry)> {
        self.bound.iter().flatten().map(|(session, Shared(entry))| (session, entry)).collect()
    }

    /// Fills a value that no program reads.
    ///
    /// # Errors
    /// The kernel refused, for want of room.
    pub fn fill(
        &mut self,
        slot: u32,
        binding: &Shared<Binding>,
        devices: &[(u32, Device)],
    ) -> Result<(), KernelError> {
        self.clear(slot)?;
        named("BINDINGS", self.bindings.set(slot, binding, 0))?;
        for &(dev, device) in devices {
            let key = Shared(DeviceKey { dev, slot });
            named("BOUND_DEVICES", self.devices.insert(key, Shared(device), 0))?;
        }
        Ok(())
    }

    /// Gives back what a value took that no program reads any more.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn clear(&mut self, slot: u32) -> Result<(), KernelError> {
        let old: Vec<_> = self.devices.keys().flatten().filter(|Shared(key)| key.slot == slot).collect();
        for key in old {
            match self.devices.remove(&key) {
                Err(MapError::KeyNotFound | MapError::ElementNotFound) => {}
                other => named("BOUND_DEVICES", other)?,
            }
        }
        Ok(())
    }

    /// Binds a session, in place of what bound it.
    ///
    /// # Errors
    /// The kernel refused, for want of room.
    pub fn bind(&mut self, session: u64, entry: BoundEntry) -> Result<(), KernelError> {
        named("BOUND", self.bound.insert(session, Shared(entry), 0))
    }

    /// Binds a session no longer.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn release(&mut self, session: u64) -> Result<(), KernelError> {
        match self.bound.remove(&session) {
            Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
            other => named("BOUND", other),
        }
    }
}

fn named(name: &'static str, result: Result<(), MapError>) -> Result<(), KernelError> {
    result.map_err(|source| KernelError::Map { name, source })
}
