//! The agent of the self-test, and the one rule that only it has.
//!
//! It is no part of any policy that users write: its name holds a `+`. The tables are compiled with it, so that what the
//! self-test tries is decided in the same way as what agents do.

use std::sync::Arc;

use super::{
    Action, AddressPattern, Agent, AgentSpec, At, Entry, Mode, Origin, Place, Policy, Rule, Scope, What,
};
use crate::matcher::{CommandGlob, PathGlob};

/// Its name.
pub const CANARY: &str = "+selftest";
/// Addresses of this host that nobody else uses.
pub const CANARY_ADDRESSES: [&str; 2] = ["127.255.255.254:*", "[::1]:*"];
/// What follows the program's name in the command line that it may not run.
pub const CANARY_ARGUMENT: &str = "--version";

/// What the self-test is about, as the daemon knows it.
#[derive(Clone, Debug, Default)]
pub struct Canary {
    /// The folders in which it may do nothing. Empty where there is no self-test.
    pub folders: Vec<PathGlob>,
    /// Base name of the program that it may not run.
    pub program: String,
}

impl Agent {
    /// Whether it is that of the self-test: only rules that name it are for it.
    #[must_use]
    pub fn is_canary(&self) -> bool {
        self.spec.name == CANARY
    }
}

impl Policy {
    /// Adds the agent of the self-test and its rule, where the daemon wants one and any agent is judged.
    pub fn add_canary(&mut self) {
        let judged = self.agents.iter().any(|agent| agent.spec.mode != Mode::Observe);
        if judged && !self.own.canary.folders.is_empty() {
            self.force_canary();
        }
    }

    /// The same whether any agent is judged or not.
    pub fn force_canary(&mut self) {
        let at = At { source: usize::MAX, place: Place { line: 1, column: 1, width: 1 } };
        let Canary { folders, program } = self.own.canary.clone();
        let files = |globs: &[PathGlob]| -> Vec<Entry<PathGlob>> {
            globs.iter().map(|glob| Entry { at, what: What::Pattern(glob.clone()) }).collect()
        };
        let addresses = || CANARY_ADDRESSES.iter().filter_map(|text| AddressPattern::parse(text).ok());
        let entry = |pattern| Entry { at, what: What::Pattern(pattern) };
        let sockets = folders.iter().filter_map(|glob| AddressPattern::parse(glob.text()).ok());
        let scope = Scope {
            exec: files(&folders),
            run: command(&program).map(entry_of(at)).into_iter().collect(),
            read: files(&folders),
            write: files(&folders),
            delete: files(&folders),
            connect: addresses().chain(sockets).map(entry).collect(),
            listen: addresses().map(entry).collect(),
        };
        let agent = self.agents.len();
        self.agents.push(Agent {
            spec: AgentSpec {
                name: CANARY.to_owned(),
                title: None,
                owner: None,
                matches: Vec::new(),
                mode: Mode::Enforce,
                origin: Origin::Policy,
            },
            at,
            mode_at: at,
            defaults: Vec::new(),
            guards: Vec::new(),
            delegates: Vec::new(),
            scratch: Vec::new(),
            breakers: Vec::new(),
        });
        self.rules.push(Arc::new(Rule {
            name: CANARY.to_owned(),
            at,
            action: Action::Deny,
            scope: Arc::new(scope),
            agents: Some(vec![agent]),
            during: None,
            unless: Arc::default(),
            message: None,
            timeout_s: None,
            then: None,
        }));
    }
}

const fn entry_of<T>(at: At) -> impl Fn(T) -> Entry<T> {
    move |pattern| Entry { at, what: What::Pattern(pattern) }
}

/// The command line that the canary may not run.
fn command(program: &str) -> Option<CommandGlob> {
    let plain = |one: char| one.is_ascii_alphanumeric() || "-_.".contains(one);
    let name: String = program.chars().map(|one| if plain(one) { one } else { '?' }).collect();
    CommandGlob::parse(&format!("{name} {CANARY_ARGUMENT}")).ok()
}
