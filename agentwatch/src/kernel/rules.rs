//! The kernel's tables of rules: see [`agentwatch_common::rules`].

use std::path::Path;

use agentwatch_common::rules::{
    Choice, Decision, DecisionKey, Device, DeviceKey, LinkedKey, NET_RANGES, NET_ROWS, NET_VIEWS, NetRange,
    NetRow, PREFIX_FIXED_BITS, PrefixKey, RuleAutomaton, RuleStates, RuleSteps, SLOTS, View, ViewKey,
    WINDOWS, WindowTime,
};
use agentwatch_common::{
    answer::{Learned, LearnedKey, NameKey},
    limits::{NAME_GRACE_S, NAMES},
};
use aya::{
    Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, lpm_trie::Key},
};

use super::{
    KernelError,
    maps::{Shared, array, hash, open},
};

// SAFETY: plain data of fixed layout without padding bytes, asserted in agentwatch-common.
unsafe impl Pod for Shared<RuleAutomaton> {}
// SAFETY: as above.
unsafe impl Pod for Shared<RuleStates> {}
// SAFETY: as above.
unsafe impl Pod for Shared<RuleSteps> {}
// SAFETY: as above.
unsafe impl Pod for Shared<DeviceKey> {}
// SAFETY: as above.
unsafe impl Pod for Shared<Device> {}
// SAFETY: as above.
unsafe impl Pod for Shared<LinkedKey> {}
// SAFETY: as above.
unsafe impl Pod for Shared<View> {}
// SAFETY: as above.
unsafe impl Pod for Shared<ViewKey> {}
// SAFETY: as above.
unsafe impl Pod for Shared<Decision> {}
// SAFETY: as above.
unsafe impl Pod for Shared<DecisionKey> {}
// SAFETY: as above.
unsafe impl Pod for Shared<WindowTime> {}
// SAFETY: as above.
unsafe impl Pod for Shared<PrefixKey> {}
// SAFETY: as above.
unsafe impl Pod for Shared<NetRow> {}
// SAFETY: as above.
unsafe impl Pod for Shared<NetRange> {}
// SAFETY: as above.
unsafe impl Pod for Shared<Choice> {}
// SAFETY: as above.
unsafe impl Pod for Shared<NameKey> {}
// SAFETY: as above.
unsafe impl Pod for Shared<LearnedKey> {}
// SAFETY: as above.
unsafe impl Pod for Shared<Learned> {}

/// A network with the number of its set: bits, family, address.
#[derive(Clone, Copy, Debug)]
pub struct Prefix {
    /// Leading bits that count.
    pub bits: u32,
    /// 4 or 6.
    pub family: u8,
    /// The address in network order; for IPv4 its first four bytes.
    pub address: [u8; 16],
    /// The set.
    pub set: u32,
}

/// The automaton of a policy, in the kernel's form. Two parts lie on the heap: they are too large for the stack.
#[derive(Debug)]
pub struct AutomatonTables {
    /// How it reads.
    pub head: RuleAutomaton,
    /// Its states.
    pub states: Box<Shared<RuleStates>>,
    /// Its steps.
    pub steps: Box<Shared<RuleSteps>>,
}

impl AutomatonTables {
    /// One that matches nothing.
    #[must_use]
    pub fn empty() -> Self {
        let head = RuleAutomaton {
            start_path: RuleAutomaton::DEAD,
            start_known: RuleAutomaton::DEAD,
            start_command: RuleAutomaton::DEAD,
            start_socket: RuleAutomaton::DEAD,
            class: [0; 256],
        };
        // SAFETY: integers and arrays of integers, for all of which zero is a value.
        unsafe {
            Self { head, states: Box::new_zeroed().assume_init(), steps: Box::new_zeroed().assume_init() }
        }
    }
}

/// All that is put into one slot.
#[derive(Debug)]
pub struct SlotTables<'a> {
    /// Paths and command lines.
    pub automaton: AutomatonTables,
    /// How paths within file systems are read.
    pub devices: &'a [(u32, Device)],
    /// Sets of rules for files with several names.
    pub linked: &'a [(LinkedKey, u32)],
    /// How agents are judged, by their numbers.
    pub views: Vec<(u32, View)>,
    /// What sets mean.
    pub decisions: &'a [(DecisionKey, Decision)],
    /// Windows.
    pub windows: &'a [WindowTime],
    /// Networks.
    pub prefixes: Vec<Prefix>,
    /// Views that the rows are made for.
    pub net_views: u32,
    /// Lists of ports.
    pub net_rows: Vec<NetRow>,
    /// Ranges of ports.
    pub net_ranges: Vec<NetRange>,
    /// Defaults for addresses.
    pub net_defaults: Vec<Choice>,
    /// Sets of the names that answers to sessions are looked through for, by the names' numbers.
    pub names: Vec<(u64, u32)>,
}

/// The tables, opened.
#[expect(missing_debug_implementations, reason = "aya's arrays have none")]
pub struct RuleMaps {
    automata: Array<MapData, Shared<RuleAutomaton>>,
    states: Array<MapData, Shared<RuleStates>>,
    steps: Array<MapData, Shared<RuleSteps>>,
    devices: HashMap<MapData, Shared<DeviceKey>, Shared<Device>>,
    linked: HashMap<MapData, Shared<LinkedKey>, u32>,
    views: HashMap<MapData, Shared<ViewKey>, Shared<View>>,
    decisions: HashMap<MapData, Shared<DecisionKey>, Shared<Decision>>,
    windows: Array<MapData, Shared<WindowTime>>,
    prefixes: LpmTrie<MapData, Shared<PrefixKey>, u32>,
    net_views: Array<MapData, u32>,
    net_rows: Array<MapData, Shared<NetRow>>,
    net_ranges: Array<MapData, Shared<NetRange>>,
    net_defaults: Array<MapData, Shared<Choice>>,
    names: HashMap<MapData, Shared<NameKey>, u32>,
    learned: HashMap<MapData, Shared<LearnedKey>, Shared<Learned>>,
}

impl RuleMaps {
    /// Opens the tables that are pinned in a folder.
    ///
    /// # Errors
    /// One is missing or of another form.
    pub fn open(dir: &Path) -> Result<Self, KernelError> {
        Ok(Self {
            automata: array(dir, "RULES")?,
            states: array(dir, "RULE_STATES")?,
            steps: array(dir, "RULE_STEPS")?,
            devices: hash(dir, "DEVICES")?,
            linked: hash(dir, "LINKED")?,
            views: hash(dir, "VIEWS")?,
            decisions: hash(dir, "DECISIONS")?,
            windows: array(dir, "WINDOWS")?,
            prefixes: open(dir, "PREFIXES", |data| LpmTrie::try_from(Map::LpmTrie(data)))?,
            net_views: array(dir, "NET_VIEWS")?,
            net_rows: array(dir, "NET_ROWS")?,
            net_ranges: array(dir, "NET_RANGES")?,
            net_defaults: array(dir, "NET_DEFAULTS")?,
            names: hash(dir, "NAMES")?,
            learned: hash(dir, "LEARNED")?,
        })
    }

    /// Fills a slot that is not in force, and that no program reads any more, with the policy of this version.
    ///
    /// # Errors
    /// The kernel refused, for want of memory or of room.
    pub fn fill(&mut self, slot: u32, policy: u32, tables: &SlotTables<'_>) -> Result<(), KernelError> {
        self.clear(slot)?;
        let automaton = &tables.automaton;
        named("RULES", self.automata.set(slot, Shared(automaton.head), 0))?;
        named("RULE_STATES", self.states.set(slot, automaton.states.as_ref(), 0))?;
        named("RULE_STEPS", self.steps.set(slot, automaton.steps.as_ref(), 0))?;
        for &(dev, device) in tables.devices {
            let key = Shared(DeviceKey { dev, slot });
            named("DEVICES", self.devices.insert(key, Shared(device), 0))?;
        }
        for (key, set) in tables.linked {
            named("LINKED", self.linked.insert(Shared(LinkedKey { slot, ..*key }), *set, 0))?;
        }
        for (agent, view) in &tables.views {
            let key = Shared(ViewKey { agent: *agent, slot });
            named("VIEWS", self.views.insert(key, Shared(View { policy, slot, ..*view }), 0))?;
        }
        for (key, decision) in tables.decisions {
            let key = Shared(DecisionKey { slot: slot as u8, ..*key });
            named("DECISIONS", self.decisions.insert(key, Shared(*decision), 0))?;
        }
        for prefix in &tables.prefixes {
            self.put_prefix(slot, prefix)?;
        }
        if tables.names.len() > NAMES as usize {
            return Err(KernelError::TableFull { name: "NAMES", most: NAMES });
        }
        for &(name, set) in &tables.names {
            named("NAMES", self.names.insert(Shared(NameKey { name, slot, pad: 0 }), set, 0))?;
        }
        named("NET_VIEWS", self.net_views.set(slot, tables.net_views, 0))?;
        put("WINDOWS", &mut self.windows, slot * WINDOWS, WINDOWS, tables.windows)?;
        put("NET_ROWS", &mut self.net_rows, slot * NET_ROWS, NET_ROWS, &tables.net_rows)?;
        put("NET_RANGES", &mut self.net_ranges, slot * NET_RANGES, NET_RANGES, &tables.net_ranges)?;
        put("NET_DEFAULTS", &mut self.net_defaults, slot * NET_VIEWS * 2, NET_VIEWS * 2, &tables.net_defaults)
    }

    /// Adds ranges of ports and rows behind those of a slot that is in force: each with the index of the first.
    ///
    /// # Errors
    /// The kernel refused, for want of room.
    pub fn add_net(
        &mut self,
        slot: u32,
        (first_range, ranges): (usize, &[NetRange]),
        (first_row, rows): (usize, &[NetRow]),
    ) -> Result<(), KernelError> {
        put_from("NET_RANGES", &mut self.net_ranges, slot, NET_RANGES, (first_range, ranges))?;
        put_from("NET_ROWS", &mut self.net_rows, slot, NET_ROWS, (first_row, rows))
    }

    /// Gives a network its set, in place of the one that it has.
    ///
    /// # Errors
    /// The kernel refused, for want of memory or of room.
    pub fn put_prefix(&mut self, slot: u32, prefix: &Prefix) -> Result<(), KernelError> {
        named("PREFIXES", self.prefixes.insert(&prefix_key(slot, prefix), prefix.set, 0))
    }

    /// Takes a network out. One that is not there is no error.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn remove_prefix(&mut self, slot: u32, prefix: &Prefix) -> Result<(), KernelError> {
        match self.prefixes.remove(&prefix_key(slot, prefix)) {
            Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
            other => named("PREFIXES", other),
        }
    }

    /// Gives up what sessions were told too long ago to count still. The kernel goes by the time itself: this makes room.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn forget_learned(&mut self, now_s: u64) -> Result<(), KernelError> {
        let is_old =
            |Shared(one): &Shared<Learned>| now_s.saturating_sub(one.seen_ns / 1_000_000_000) > NAME_GRACE_S;
        let old: Vec<_> = self.learned.iter().flatten().filter(|(_, one)| is_old(one)).collect();
        for (key, _) in old {
            match self.learned.remove(&key) {
                Err(MapError::KeyNotFound | MapError::ElementNotFound) => {}
                other => named("LEARNED", other)?,
            }
        }
        Ok(())
    }

    /// Removes what an earlier policy left in a slot.
    fn clear(&mut self, slot: u32) -> Result<(), KernelError> {
        let views: Vec<_> = self.views.keys().flatten().filter(|Shared(key)| key.slot == slot).collect();
        for key in views {
            named("VIEWS", self.views.remove(&key))?;
        }
        let names: Vec<_> = self.names.keys().flatten().filter(|Shared(key)| key.slot == slot).collect();
        for key in names {
            named("NAMES", self.names.remove(&key))?;
        }
        let devices: Vec<_> = self.devices.keys().flatten().filter(|Shared(key)| key.slot == slot).collect();
        for key in devices {
            named("DEVICES", self.devices.remove(&key))?;
        }
        let linked: Vec<_> = self.linked.keys().flatten().filter(|Shared(key)| key.slot == slot).collect();
        for key in linked {
            named("LINKED", self.linked.remove(&key))?;
        }
        let decisions: Vec<_> =
            self.decisions.keys().flatten().filter(|Shared(key)| u32::from(key.slot) == slot).collect();
        for key in decisions {
            named("DECISIONS", self.decisions.remove(&key))?;
        }
        let prefixes: Vec<_> = (self.prefixes.keys().flatten())
            .filter(|key| {
                let Shared(data) = key.data();
                u32::from(data.slot) == slot
            })
            .collect();
        for key in prefixes {
            named("PREFIXES", self.prefixes.remove(&key))?;
        }
        Ok(())
    }
}

/// Waits until no program runs any more that began before this call.
pub fn wait_for_programs() {
    // The barrier waits for a grace period of RCU, under which the programs run. Kernels that have none of the kind
    // have no programs either: it is in all since 4.3.
    let _ = rustix::thread::membarrier(rustix::thread::MembarrierCommand::Global);
}

const _: () = assert!(SLOTS == 2, "a slot is followed by the other");

fn put<T: Copy>(
    name: &'static str,
    array: &mut Array<MapData, Shared<T>>,
    first: u32,
    most: u32,
    values: &[T],
) -> Result<(), KernelError>
where
    Shared<T>: Pod,
{
    if values.len() > most as usize {
        return Err(KernelError::TableFull { name, most });
    }
    for (index, value) in (first..).zip(values) {
        named(name, array.set(index, Shared(*value), 0))?;
    }
    Ok(())
}

fn put_from<T: Copy>(
    name: &'static str,
    array: &mut Array<MapData, Shared<T>>,
    slot: u32,
    most: u32,
    (first, values): (usize, &[T]),
) -> Result<(), KernelError>
where
    Shared<T>: Pod,
{
    let first = u32::try_from(first).ok().filter(|first| first.saturating_add(values.len() as u32) <= most);
    let first = first.ok_or(KernelError::TableFull { name, most })?;
    put(name, array, slot * most + first, most - first, values)
}

fn prefix_key(slot: u32, prefix: &Prefix) -> Key<Shared<PrefixKey>> {
    let data = PrefixKey { slot: slot as u8, family: prefix.family, pad: [0; 2], address: prefix.address };
    Key::new(PREFIX_FIXED_BITS + prefix.bits, Shared(data))
}

fn named(name: &'static str, result: Result<(), MapError>) -> Result<(), KernelError> {
    result.map_err(|source| KernelError::Map { name, source })
}
