//! Losses: counted by the kernel where they happen, told here.

use std::collections::HashMap;

use agentwatch_common::{
    kind::{LossReason, RecordKind},
    maps::{LossKey, control},
};

use crate::kernel::maps::{Maps, Shared};

/// What was told of each counter already.
#[derive(Debug, Default)]
pub struct Losses {
    told: HashMap<LossKey, u64>,
    unattributed_told: u64,
    /// All that were told.
    pub total: u64,
}

/// Losses that are to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Of what.
    pub key: LossKey,
    /// How many.
    pub count: u64,
    /// Why.
    pub reason: &'static str,
}

impl Losses {
    /// What the kernel counted already before this daemon: an earlier one may have told it, and what it did not
    /// live to tell is told now, so that nothing is missing at the price of being told twice.
    pub fn collect(&mut self, maps: &Maps) -> Vec<Loss> {
        let mut found = Vec::new();
        for (Shared(key), count) in maps.losses.iter().flatten() {
            let told = self.told.entry(key).or_default();
            if count > *told {
                found.push(Loss { key, count: count - *told, reason: reason(key) });
                *told = count;
            }
        }
        let unattributed = maps.word(control::LOSSES_UNATTRIBUTED).unwrap_or(0);
        if unattributed > self.unattributed_told {
            let count = unattributed - self.unattributed_told;
            found.push(Loss { key: LossKey::default(), count, reason: "ring_full" });
            self.unattributed_told = unattributed;
        }
        self.total += found.iter().map(|loss| loss.count).sum::<u64>();
        found
    }

    /// Takes the counters as they are for told. For a daemon that takes over: an earlier one told them.
    pub fn take_as_told(&mut self, maps: &Maps) {
        for (Shared(key), count) in maps.losses.iter().flatten() {
            self.told.insert(key, count);
        }
        self.unattributed_told = maps.word(control::LOSSES_UNATTRIBUTED).unwrap_or(0);
    }
}

/// Whether the daemon's picture of processes may be wrong after this.
#[must_use]
pub fn concerns_processes(loss: &Loss) -> bool {
    let kind = RecordKind::from_raw(loss.key.kind);
    loss.key.kind == 0
        || matches!(kind, RecordKind::Fork | RecordKind::Exec | RecordKind::Exit | RecordKind::Join)
}

fn reason(key: LossKey) -> &'static str {
    match LossReason::from_raw(key.reason) {
        LossReason::RingFull => "ring_full",
        LossReason::ScratchBusy => "scratch_busy",
        LossReason::ProcessTableFull => "process_table_full",
        LossReason::CgroupTableFull => "cgroup_table_full",
        LossReason::Skipped => "skipped",
        LossReason::Unknown(_) => "unknown",
    }
}
