//! Rules about paths, command lines and sockets without a path as one automaton, and what the sets of patterns that it ends in mean for
//! each operation of each group of agents.
//!
//! A target is decided by the first choice whose window is open, of those for its set. The agent's default is
//! the last of them, in every set. Where there is none, the operation is allowed.

mod build;
mod marks;
#[cfg(test)]
mod place_tests;
mod sockets;
#[cfg(test)]
mod tests;

use agentwatch_common::limits::{DECISIONS, DEVICES, RULE_STATES, RULE_STEPS};
use agentwatch_common::rules::{
    Choice, Decision, DecisionKey, Device, LinkedKey, RULE_DEFAULT, RULE_NONE, RuleAutomaton, RuleState,
    RuleStates, RuleStep, RuleSteps, SLOTS, Verdict, View, WindowTime, op,
};

pub use self::build::compile;
pub use self::sockets::socket_text;
pub(super) use self::sockets::{insert as insert_socket, insert_networks};
use super::{TooManyChoices, ViewsError, op_number};
use crate::event::Op;
use crate::matcher::{SparseAutomaton, SparseState, SparseStep};

/// Decisions of one policy.
pub const DECISIONS_MAX: usize = (DECISIONS / SLOTS) as usize;

/// Kinds of texts: where the automaton begins.
pub(super) const PATHS: usize = 0;
pub(super) const COMMANDS: usize = 1;
pub(super) const SOCKETS: usize = 2;
pub(super) const KINDS: usize = 3;
/// Paths as the initial namespace has them, which are known by other names, too: made beside those kinds.
pub(super) const KNOWN: usize = KINDS;

/// Why rules about paths and command lines cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextsError {
    /// Too large an automaton.
    #[error(
        "the path and command patterns of the policy need more than the {RULE_STATES} states that the kernel's \
         table has: use fewer patterns, and fewer `*` in the middle of one"
    )]
    TooManyStates,
    /// Too large an automaton.
    #[error(
        "the path and command patterns of the policy need {steps} steps of the {RULE_STEPS} that the \
         kernel's table has: use fewer patterns, and fewer `*` in the middle of one"
    )]
    TooManySteps {
        /// The steps.
        steps: usize,
    },
    /// Too many different sets for too many groups of agents.
    #[error(
        "the path and command patterns of the policy come to more than the {DECISIONS_MAX} decisions that the \
         kernel's table has: use patterns that overlap less, or fewer groups in `agents:`"
    )]
    TooManyDecisions,
    /// Too many file systems.
    #[error(
        "{count} file systems are mounted, and the kernel's table has room for {DEVICES}: unmount what is not needed"
    )]
    TooManyDevices {
        /// The file systems.
        count: usize,
    },
    /// Too many windows on one target.
    #[error("{0}; the agent's default counts as one: use fewer windows")]
    TooManyChoices(#[from] TooManyChoices),
    /// Too many groups of agents.
    #[error(transparent)]
    Views(#[from] ViewsError),
}

/// A text that is decided about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text<'a> {
    /// The path of a file or a Unix socket, from the root down.
    Path(&'a [u8]),
    /// A command line: see [`crate::matcher::command_text`].
    Command(&'a [u8]),
    /// A socket without a path: see [`socket_text`].
    Socket(&'a [u8]),
}

/// What the kernel decides by about paths and command lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledRules {
    /// The automaton. It ends in the number of a set.
    pub automaton: SparseAutomaton,
    /// How the paths within the file systems begin that the initial namespace shows, by the kernel's number of each.
    pub devices: Vec<(u32, Device)>,
    /// Sets for files that rules know by other names, too, for slot 0.
    pub linked: Vec<(LinkedKey, u32)>,
    /// Each agent of the policy by its name, in the policy's order. All others have [`CompiledRules::OTHERS`].
    pub views: Vec<(String, View)>,
    /// What is decided, in the order of the keys, for slot 0. At most [`DECISIONS_MAX`].
    pub decisions: Vec<(DecisionKey, Decision)>,
    /// Windows, by their number less one.
    pub windows: Vec<WindowTime>,
    /// Rules, by their number less one.
    pub rules: Vec<RuleText>,
}

/// What events say of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleText {
    /// Its name.
    pub name: String,
    /// What the agent and its owner are told.
    pub message: Option<String>,
}

impl CompiledRules {
    /// The view of agents that the policy does not declare: they are only observed.
    pub const OTHERS: View =
        View { view: 0, ops: 0, enforce: 0, guards: 0, bare: 0, pad: 0, policy: 0, slot: 0 };

    /// The view of an agent by its name.
    #[must_use]
    pub fn view(&self, agent: &str) -> View {
        self.views.iter().find(|(name, _)| name == agent).map_or(Self::OTHERS, |(_, view)| *view)
    }

    /// What is decided at a moment, nanoseconds since 1970, by the tables alone and as the kernel does it. Without
    /// rule and default: allowed, by [`RULE_NONE`].
    #[must_use]
    pub fn decide(&self, view: View, op: Op, text: Text<'_>, unix_ns: u64) -> Choice {
        let nothing = Choice { rule: RULE_NONE, verdict: Verdict::Allowed.raw(), window: 0 };
        if view.ops >> op_number(op) & 1 == 0 {
            return nothing;
        }
        let set = match text {
            Text::Path(b"/") => self.automaton.run(PATHS, &[]),
            Text::Path(path) => self.automaton.run(PATHS, path),
            Text::Command(line) => self.automaton.run(COMMANDS, line),
            Text::Socket(text) => self.automaton.run(SOCKETS, text),
        };
        if set == 0 && view.bare >> op_number(op) & 1 == 0 {
            return nothing;
        }
        let key = DecisionKey { set, view: view.view, op: op_number(op), slot: 0 };
        self.first_open(key, unix_ns).unwrap_or(nothing)
    }

    /// The same for a file by two names: the path that the process sees in another namespace, and the one within its file
    /// system, by which the initial namespace knows it. Rules by either come before the default.
    #[must_use]
    pub fn decide_place(
        &self,
        view: View,
        op: Op,
        path: &[u8],
        within: (u32, &[u8]),
        unix_ns: u64,
    ) -> Choice {
        let seen = self.decide(view, op, Text::Path(path), unix_ns);
        let (dev, within) = within;
        let Some((_, device)) = self.devices.iter().find(|(other, _)| *other == dev) else { return seen };
        let within: &[u8] = if within == b"/" { &[] } else { within };
        let state = within.iter().fold(device.start, |state, &byte| self.automaton.next(state, byte));
        let set = self.automaton.accept(state);
        let known =
            self.first_open(DecisionKey { set, view: view.view, op: op_number(op), slot: 0 }, unix_ns);
        let is_asked = view.ops >> op_number(op) & 1 == 1;
        match known.filter(|known| is_asked && known.rule != RULE_DEFAULT) {
            Some(known) if seen.rule == RULE_DEFAULT || known.verdict > seen.verdict => known,
            _ => seen,
        }
    }

    /// The same for a file with several names, of which this path is one: what rules refuse of the others is refused.
    #[must_use]
    pub fn decide_file(
        &self,
        view: View,
        op: Op,
        path: &[u8],
        (dev, ino): (u32, u64),
        unix_ns: u64,
    ) -> Choice {
        let seen = self.decide(view, op, Text::Path(path), unix_ns);
        let key = LinkedKey { ino, dev, slot: 0 };
        let linked = self.linked.iter().find(|(other, _)| *other == key);
        let other = linked.and_then(|&(_, set)| {
            let key = DecisionKey { set, view: view.view, op: op_number(op), slot: 0 };
            self.first_open(key, unix_ns)
        });
        let is_asked = view.ops >> op_number(op) & 1 == 1;
        other.filter(|other| is_asked && other.verdict > seen.verdict).unwrap_or(seen)
    }

    /// What is decided about moving a folder, beside what its own path says: a rule where something below it would no
    /// longer be covered as it is now.
    #[must_use]
    pub fn decide_move(&self, view: View, from: &[u8], to: &[u8], unix_ns: u64) -> Choice {
        let nothing = Choice { rule: RULE_NONE, verdict: Verdict::Allowed.raw(), window: 0 };
        let [from, to] = [from, to].map(|path| self.automaton.state(PATHS, path));
        if view.ops >> op::MOVE_ABOVE & 1 == 0
            || self.automaton.next(from, b'/') == self.automaton.next(to, b'/')
        {
            return nothing;
        }
        let set = self.automaton.accept(from);
        let key = DecisionKey { set, view: view.view, op: op::MOVE_ABOVE as u8, slot: 0 };
        self.first_open(key, unix_ns).unwrap_or(nothing)
    }

    fn first_open(&self, key: DecisionKey, unix_ns: u64) -> Option<Choice> {
        let place = self.decisions.binary_search_by_key(&key, |(other, _)| *other).ok()?;
        let (_, decision) = self.decisions.get(place)?;
        let choices = decision.choices.iter().take_while(|choice| choice.verdict != 0);
        choices.copied().find(|choice| super::is_open(&self.windows, choice.window, unix_ns))
    }

    /// Writes the automaton as the kernel has it, over whatever was there. Of tables that were never written to, what it
    /// has no use for takes no memory.
    pub fn write_automaton(&self, head: &mut RuleAutomaton, states: &mut RuleStates, steps: &mut RuleSteps) {
        let start = |kind: usize| self.automaton.starts.get(kind).copied().unwrap_or(RuleAutomaton::DEAD);
        head.start_path = start(PATHS);
        head.start_known = start(KNOWN);
        head.start_command = start(COMMANDS);
        head.start_socket = start(SOCKETS);
        head.class = self.automaton.class;
        let state = |one: &SparseState| RuleState {
            base: one.base,
            default: one.default,
            accept: one.accept,
            pad: 0,
        };
        let none = RuleState { base: 0, default: RuleAutomaton::DEAD, accept: 0, pad: 0 };
        write_over(&mut states.states, self.automaton.states.iter().map(state), none);
        let step = |one: &SparseStep| RuleStep { owner: one.owner, next: one.next };
        let none = RuleStep { owner: 0, next: RuleAutomaton::DEAD };
        write_over(&mut steps.steps, self.automaton.steps.iter().map(step), none);
    }
}

/// Writes what there is, and nothing behind it. Pages that hold nothing already are left alone: reading takes none.
pub(super) fn write_over<T: Copy + PartialEq>(
    table: &mut [T],
    all: impl ExactSizeIterator<Item = T>,
    nothing: T,
) {
    let (used, rest) = table.split_at_mut(all.len().min(table.len()));
    used.iter_mut().zip(all).for_each(|(to, from)| *to = from);
    rest.iter_mut().filter(|left| **left != nothing).for_each(|left| *left = nothing);
}
