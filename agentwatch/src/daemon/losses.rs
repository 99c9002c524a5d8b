//! Losses: counted by the kernel where they happen, told here.

use std::collections::{BTreeMap, HashMap};

use agentwatch_common::{
    kind::{LossReason, RecordKind},
    maps::{LossKey, control},
};

use serde::{Deserialize, Serialize};

use crate::{
    kernel::{
        self,
        maps::{Maps, Shared},
        skips::Programs,
    },
    selftest::SESSION,
};

/// What was told of each counter already.
#[derive(Debug, Default)]
pub struct Losses {
    told: HashMap<LossKey, u64>,
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
    /// What the kernel counted since the last call. Where an earlier daemon was killed between telling and noting
    /// that it told, it is told twice, so that nothing is missing.
    pub fn collect(&mut self, maps: &Maps) -> Vec<Loss> {
        let mut found = Vec::new();
        for (Shared(key), count) in maps.losses.iter().flatten() {
            // Nobody misses what the self-test did.
            if key.session == SESSION {
                continue;
            }
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

    /// Goes on with what an earlier daemon told of the same counters: what they counted since is still to be told.
    #[must_use]
    pub fn after(earlier: Option<Told>) -> Self {
        let Some(told) = earlier.filter(|told| told.build == kernel::build_id()) else {
            return Self::default();
        };
        let counters = told.counters.into_iter().map(|one| {
            (LossKey { session: one.session, kind: one.kind, reason: one.reason, pad: 0 }, one.count)
        });
        Self {
            told: counters.collect(),
            unattributed_told: told.unattributed,
            skips_told: told.skips,
            total: 0,
        }
    }

    /// What was told so far, for a daemon that comes after this one.
    #[must_use]
    pub fn told(&self) -> Told {
        let counters = self.told.iter().map(|(key, count)| Counter {
            session: key.session,
            kind: key.kind,
            reason: key.reason,
            count: *count,
        });
        Told {
            build: kernel::build_id().to_owned(),
            unattributed: self.unattributed_told,
            skips: self.skips_told.clone(),
            counters: counters.collect(),
        }
    }
}

/// What was told of the kernel's counters, over a restart of the daemon.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The build whose counters these are: another one has its own, which begin at zero.
    build: String,
    unattributed: u64,
    #[serde(default)]
    skips: BTreeMap<String, u64>,
    counters: Vec<Counter>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Counter {
    session: u64,
    kind: u16,
    reason: u16,
    count: u64,
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
    fn what_was_told_is_told_once_over_a_restart() {
        let key = LossKey { session: 7, kind: RecordKind::Exit.raw(), reason: 1, pad: 0 };
        let mut first =
            Losses { told: HashMap::from([(key, 12)]), unattributed_told: 3, total: 15, ..Losses::default() };
        assert_eq!(first.news_of_skips([("change_cwd", 4)].into_iter()), [("change_cwd", 4)]);
        let text = serde_json::to_string(&first.told()).unwrap();
        let mut second = Losses::after(Some(serde_json::from_str(&text).unwrap()));
        assert_eq!(second.news_of_skips([("change_cwd", 4)].into_iter()), []);
        assert_eq!(second.news_of_skips([("change_cwd", 6)].into_iter()), [("change_cwd", 2)]);
        assert_eq!(second.total, 2);
        assert_eq!((second.told, second.unattributed_told), (first.told, 3));
        let other = Told { build: "another".into(), ..serde_json::from_str(&text).unwrap() };
        assert!(Losses::after(Some(other)).told.is_empty(), "its counters begin at zero");
        assert!(Losses::after(None).told.is_empty());
    }
}
