//! Losses: counted by the kernel where they happen, told here.

use std::collections::{BTreeMap, HashMap, HashSet};

use agentwatch_common::{
    kind::{LossReason, RecordKind},
    maps::{LossKey, control},
};

use serde::{Deserialize, Serialize};

use crate::{
    kernel::{
        self, KernelError,
        maps::{Maps, Shared},
        skips::Programs,
    },
    selftest::SESSION,
};

/// What was told of each counter already.
#[derive(Debug, Default)]
pub struct Losses {
    told: HashMap<LossKey, u64>,
    /// Those of [`Self::told`] that the kernel's table does not have yet.
    unnoted: HashSet<LossKey>,
    unattributed_told: u64,
    /// What was told of programs that the kernel skipped.
    skips_told: BTreeMap<String, u64>,
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
    /// Goes on with what earlier daemons told of the same counters: what they counted since is still to be told.
    /// `skips` is what the last of them kept of the programs that were skipped.
    #[must_use]
    pub fn after(maps: &Maps, skips: Option<Skips>) -> Self {
        Self {
            told: maps.told_losses().collect(),
            unattributed_told: maps.word(control::LOSSES_UNATTRIBUTED_TOLD).unwrap_or(0),
            skips_told: skips
                .filter(|skips| skips.build == kernel::build_id())
                .map(|skips| skips.told)
                .unwrap_or_default(),
            ..Self::default()
        }
    }

    /// What the kernel counted since the last call.
    pub fn collect(&mut self, maps: &Maps) -> Vec<Loss> {
        let counted = maps.losses.iter().flatten().map(|(Shared(key), count)| (key, count));
        self.news(counted, maps.word(control::LOSSES_UNATTRIBUTED).unwrap_or(0))
    }

    fn news(&mut self, counted: impl Iterator<Item = (LossKey, u64)>, unattributed: u64) -> Vec<Loss> {
        let mut found = Vec::new();
        for (key, count) in counted {
            // Nobody misses what the self-test did.
            if key.session == SESSION {
                continue;
            }
            let told = self.told.entry(key).or_default();
            if count > *told {
                found.push(Loss { key, count: count - *told, reason: reason(key) });
                *told = count;
                self.unnoted.insert(key);
            }
        }
        if unattributed > self.unattributed_told {
            let count = unattributed - self.unattributed_told;
            found.push(Loss { key: LossKey::default(), count, reason: "ring_full" });
            self.unattributed_told = unattributed;
        }
        self.total += found.iter().map(|loss| loss.count).sum::<u64>();
        found
    }

    /// Notes beside the counters what was told, once it is in the log. Where a daemon is killed between the two, the next
    /// tells it again, so that nothing is missing.
    ///
    /// # Errors
    /// The kernel has no room for it: what is left is tried the next time.
    pub fn note(&mut self, maps: &mut Maps) -> Result<(), KernelError> {
        maps.set_word(control::LOSSES_UNATTRIBUTED_TOLD, self.unattributed_told)?;
        while let Some(key) = self.unnoted.iter().next().copied() {
            maps.note_told(key, self.told.get(&key).copied().unwrap_or(0))?;
            self.unnoted.remove(&key);
        }
        Ok(())
    }

    /// What was not told yet of how often programs were skipped: each with the number since the last call.
    pub fn collect_skips(&mut self, programs: &Programs) -> Vec<(&'static str, u64)> {
        self.news_of_skips(programs.skipped())
    }

    fn news_of_skips(
        &mut self,
        skipped: impl Iterator<Item = (&'static str, u64)>,
    ) -> Vec<(&'static str, u64)> {
        let mut found = Vec::new();
        for (program, count) in skipped {
            let told = self.skips_told.entry(program.to_owned()).or_default();
            if count > *told {
                found.push((program, count - *told));
                self.total += count - *told;
                *told = count;
            }
        }
        found
    }

    /// What was told so far of programs that were skipped, for a daemon that comes after this one.
    #[must_use]
    pub fn skips(&self) -> Skips {
        Skips { build: kernel::build_id().to_owned(), told: self.skips_told.clone() }
    }
}

/// What was told of skipped programs, over a restart of the daemon.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skips {
    /// The build whose programs these are: another one has its own.
    build: String,
    told: BTreeMap<String, u64>,
}

/// Whether the daemon's picture of processes may be wrong after this.
#[must_use]
pub fn concerns_processes(loss: &Loss) -> bool {
    let kind = RecordKind::from_raw(loss.key.kind);
    loss.key.kind == 0
        || matches!(kind, RecordKind::Fork | RecordKind::Exec | RecordKind::Exit | RecordKind::Join)
        || kind == RecordKind::Cause && loss.key.reason != LossReason::WrittenTableFull.raw()
}

fn reason(key: LossKey) -> &'static str {
    match LossReason::from_raw(key.reason) {
        LossReason::RingFull => "ring_full",
        LossReason::ScratchBusy => "scratch_busy",
        LossReason::ProcessTableFull => "process_table_full",
        LossReason::CgroupTableFull => "cgroup_table_full",
        LossReason::Skipped => "skipped",
        LossReason::LearnedTableFull => "learned_table_full",
        LossReason::AnswerUnread => "answer_unread",
        LossReason::WrittenTableFull => "written_table_full",
        LossReason::Unknown(_) => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_told_once() {
        let key = |session| LossKey { session, kind: RecordKind::Exit.raw(), reason: 1, pad: 0 };
        let mut losses =
            Losses { told: HashMap::from([(key(7), 12)]), unattributed_told: 3, ..Losses::default() };
        assert_eq!(losses.news([(key(7), 12), (key(SESSION), 9)].into_iter(), 3), []);
        assert!(losses.unnoted.is_empty(), "nothing is new");
        let told = losses.news([(key(7), 14), (key(8), 1)].into_iter(), 5);
        assert_eq!(
            told.iter().map(|loss| (loss.key.session, loss.count)).collect::<Vec<_>>(),
            [(7, 2), (8, 1), (0, 2)]
        );
        assert_eq!(losses.unnoted, HashSet::from([key(7), key(8)]));
        assert_eq!(losses.total, 5);
    }

    #[test]
    fn skips_are_told_once_over_a_restart() {
        let mut first = Losses::default();
        assert_eq!(first.news_of_skips([("change_cwd", 4)].into_iter()), [("change_cwd", 4)]);
        let text = serde_json::to_string(&first.skips()).unwrap();
        let kept: Skips = serde_json::from_str(&text).unwrap();
        let mut second = Losses { skips_told: kept.told, ..Losses::default() };
        assert_eq!(second.news_of_skips([("change_cwd", 4)].into_iter()), []);
        assert_eq!(second.news_of_skips([("change_cwd", 6)].into_iter()), [("change_cwd", 2)]);
        assert_eq!(second.total, 2);
    }
}
