//! Bringing a policy into force.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use agentwatch_common::{
    maps::control,
    rules::{Decision, NetRange, NetRow, SLOTS, agent_number},
};

use crate::{
    attribution::{Judge, JudgeRule},
    event::PolicyVersion,
    kernel::{
        KernelError,
        maps::Maps,
        rules::{AutomatonTables, Prefix, RuleMaps, SlotTables, wait_for_programs},
    },
    places::Places,
    policy::{
        self, Mode, Pairs, Policy,
        compile::{
            Views, ViewsError,
            net::{NetError, NetRules, NetTables, PortRange},
            texts::{self, CompiledRules, TextsError},
        },
    },
};

/// Why a policy cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// Groups of agents.
    #[error(transparent)]
    Views(#[from] ViewsError),
    /// Paths and command lines.
    #[error(transparent)]
    Texts(#[from] TextsError),
    /// Addresses.
    #[error(transparent)]
    Net(#[from] NetError),
}

/// A policy as tables, ready to be handed to the kernel.
#[derive(Debug)]
pub struct Compiled {
    texts: CompiledRules,
    /// Addresses.
    pub net: NetRules,
    /// What sessions inside others are judged by.
    pub pairs: Pairs,
    /// In which mode the agents are by whose number a process can be judged.
    pub modes: Arc<BTreeMap<u32, Mode>>,
    /// SHA-256 of its files, in hexadecimal digits.
    pub hash: Arc<str>,
}

impl Compiled {
    /// Compiles a policy.
    ///
    /// # Errors
    /// It does not fit the kernel's tables.
    pub fn new(policy: &Policy, places: &Places) -> Result<Self, CompileError> {
        let (nested, pairs) = policy::nested(policy);
        Self::with_canary(nested.clone(), places, pairs).or_else(|error| {
            if nested.agents.len() == policy.agents.len() {
                return Err(error);
            }
            tracing::warn!("sessions inside others are held to the rules of the outer one only: {error}");
            Self::with_canary(policy.clone(), places, Pairs::new())
        })
    }

    /// With the agent of the self-test; without where that is one too many.
    fn with_canary(mut policy: Policy, places: &Places, pairs: Pairs) -> Result<Self, CompileError> {
        let (agents, rules) = (policy.agents.len(), policy.rules.len());
        policy.add_canary();
        Self::of(&policy, places, pairs.clone()).or_else(|error| {
            policy.agents.truncate(agents);
            policy.rules.truncate(rules);
            let without = Self::of(&policy, places, pairs)?;
            tracing::warn!("the policy has no room for the self-test, which will prove nothing: {error}");
            Ok(without)
        })
    }

    fn of(policy: &Policy, places: &Places, pairs: Pairs) -> Result<Self, CompileError> {
        let views = Views::new(policy)?;
        let texts = texts::compile(policy, &views, places)?;
        let net = NetRules::new(policy, &views)?;
        let hash = Arc::from(policy::hash(&policy.sources));
        let modes = policy.agents.iter().map(|agent| (agent_number(&agent.spec.name), agent.spec.mode));
        Ok(Self { texts, net, pairs, modes: Arc::new(modes.collect()), hash })
    }

    /// What events say of it.
    #[must_use]
    pub fn judge(&self, version: u32) -> Judge {
        let rules = self.texts.rules.iter();
        Judge {
            policy: PolicyVersion { version, hash: Arc::clone(&self.hash) },
            rules: rules
                .map(|rule| JudgeRule { name: Arc::from(rule.name.as_str()), message: rule.message.clone() })
                .collect(),
        }
    }
}

/// Puts a policy into force, whole: programs that begin before the last step are judged by the old one.
/// Gives its version, and the half of the tables that it is in.
///
/// # Errors
/// The kernel refused, and the policy in force stays in force.
pub fn put_in_force(
    maps: &mut Maps,
    tables: &mut RuleMaps,
    compiled: &Compiled,
    boot_unix_ns: u64,
) -> Result<(u32, u32), KernelError> {
    let word = maps.word(control::POLICY)?;
    let slot = (word as u32 & (SLOTS - 1)) ^ 1;
    let version = (word >> control::POLICY_SHIFT) as u32 + 1;
    // Programs that read this slot began before the policy now in force came into force.
    wait_for_programs();
    tables.fill(slot, version, &slot_tables(compiled))?;
    maps.set_word(control::UNIX_OFFSET_NS, boot_unix_ns)?;
    let learns = !compiled.net.learned().is_empty();
    if learns {
        maps.set_word(control::LEARNS, 1)?;
    }
    maps.set_word(control::POLICY, u64::from(version) << control::POLICY_SHIFT | u64::from(slot))?;
    maps.set_word(control::LEARNS, learns.into())?;
    wait_for_programs();
    Ok((version, slot))
}

fn slot_tables(compiled: &Compiled) -> SlotTables<'_> {
    let mut automaton = AutomatonTables::empty();
    compiled.texts.write_automaton(&mut automaton.head, &mut automaton.states.0, &mut automaton.steps.0);
    let net = compiled.net.tables();
    let v4 = net.v4.iter().map(|one| {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&one.address);
        Prefix { bits: one.bits, family: 4, address, set: one.set }
    });
    let v6 =
        net.v6.iter().map(|one| Prefix { bits: one.bits, family: 6, address: one.address, set: one.set });
    // Of two for the same address the later one counts.
    let of_names = compiled.net.placed().map(|(address, set)| kernel_prefix(address, set));
    SlotTables {
        automaton,
        devices: &compiled.texts.devices,
        linked: &compiled.texts.linked,
        views: (compiled.texts.views.iter())
            .filter(|(_, view)| *view != CompiledRules::OTHERS)
            .map(|(name, view)| (agent_number(name), *view))
            .collect(),
        decisions: &compiled.texts.decisions,
        windows: &compiled.texts.windows,
        prefixes: v4.chain(v6).chain(of_names).collect(),
        net_views: net.views,
        net_rows: kernel_rows(net, 0),
        net_ranges: net.ranges.iter().map(kernel_range).collect(),
        net_defaults: net.defaults.clone(),
        names: compiled.net.learned().to_vec(),
    }
}

/// An address with its set, in the kernel's form.
pub fn kernel_prefix(address: IpAddr, set: u32) -> Prefix {
    match address {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            Prefix { bits: 32, family: 4, address: bytes, set }
        }
        IpAddr::V6(v6) => Prefix { bits: 128, family: 6, address: v6.octets(), set },
    }
}

/// Ranges of ports, in the kernel's form.
pub fn kernel_range(range: &PortRange) -> NetRange {
    NetRange { last: range.last, pad: 0, decision: Decision { choices: range.choices } }
}

/// The rows from one on, in the kernel's form.
pub fn kernel_rows(net: &NetTables, from: usize) -> Vec<NetRow> {
    let list = |number: &u32| net.lists.get(*number as usize).copied().unwrap_or_default();
    let rows = net.rows.get(from..).unwrap_or_default().iter().map(list);
    rows.map(|list| NetRow { first: list.first, count: list.count }).collect()
}
