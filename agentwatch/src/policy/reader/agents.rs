//! The `agents` part.

use super::{Item, Reader};
use crate::event::Op;
use crate::matcher::PathGlob;
use crate::policy::{Action, Agent, AgentSpec, At, Code, Mode, Node, Origin, SCRATCH, Value, keys};

impl Reader<'_> {
    pub(super) fn agent(&mut self, item: &Item<'_>) -> Agent {
        self.source = item.source;
        let name = item.name;
        let at = self.at(item.place);
        let mut agent = Agent {
            spec: AgentSpec {
                name: name.to_owned(),
                title: None,
                owner: None,
                matches: Vec::new(),
                mode: Mode::Observe,
                origin: Origin::Policy,
            },
            at,
            mode_at: at,
            defaults: Vec::new(),
            guards: Vec::new(),
            delegates: Vec::new(),
            scratch: vec![default_scratch()],
            breakers: Vec::new(),
        };
        let what = format!("the agent `{name}`");
        let mut scratch_at = None;
        for (key, place, value) in self.entries_or_none(item.node, &what) {
            match key {
                "owner" => agent.spec.owner = self.string(value, "an owner is a text, such as an address"),
                "match" => agent.spec.matches = self.matches(value),
                "mode" => {
                    agent.mode_at = self.at(value.place);
                    agent.spec.mode = self.mode(value);
                }
                "default" => agent.defaults = self.defaults(value),
                "guards" => self.guards(value, &mut agent),
                "scratch" => {
                    scratch_at = Some(place);
                    agent.scratch = vec![self.scratch(key, value)];
                }
                "breakers" => agent.breakers = self.breakers(value),
                _ => self.unknown_key(key, place, &what, &keys::AGENT),
            }
        }
        if agent.spec.mode != Mode::Plan
            && let Some(place) = scratch_at
        {
            let message = "`scratch` means nothing here: only the mode `plan` keeps to these folders";
            self.report(Code::NoEffect, place, message, "remove it, or write `mode: plan`".to_owned());
        }
        if agent.spec.owner.is_none() {
            let help = "add `owner:`, one human who answers for it".to_owned();
            self.report(Code::NoOwner, item.place, format!("{what} has no owner"), help);
        }
        agent
    }

    /// Folders in which the agent may write in the mode `plan`. None is a list too.
    fn scratch(&mut self, key: &str, node: &Node) -> Vec<PathGlob> {
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            return Vec::new();
        }
        self.plain_items(key, node, |reader, text, node| reader.path(text, node))
    }

    fn mode(&mut self, node: &Node) -> Mode {
        let Some(word) = self.text(node, "a mode is a word, such as enforce") else { return Mode::Observe };
        match Mode::ALL.into_iter().find(|mode| mode.as_str() == word) {
            Some(mode) => {
                if mode == Mode::Approve {
                    let message = "this version treats the mode `approve` as `enforce`: nobody is asked yet";
                    self.report(Code::NotEnforcedYet, node.place, message, None);
                }
                mode
            }
            None => {
                let help = super::helpers::did_you_mean(word, Mode::ALL.iter().map(|mode| mode.as_str()))
                    .unwrap_or_else(|| "it is one of observe, recommend, approve, enforce, plan".to_owned());
                self.report(Code::UnknownMode, node.place, format!("there is no mode `{word}`"), help);
                Mode::Observe
            }
        }
    }

    fn defaults(&mut self, node: &Node) -> Vec<(Op, Action, At)> {
        let mut defaults = Vec::new();
        for (key, place, value) in self.entries_or_none(node, "`default`") {
            let Some(op) = Op::from_name(key) else {
                self.unknown_key(key, place, "`default`", &keys::OPERATION);
                continue;
            };
            if let Some(action) = self.word(value, "verdict", &Action::ALL.map(|one| (one.as_str(), one))) {
                if action == Action::Ask {
                    self.warn_of_ask(value.place);
                }
                defaults.push((op, action, self.at(value.place)));
            }
        }
        defaults
    }

    pub(super) fn warn_of_ask(&mut self, place: crate::policy::Place) {
        let message = "this version asks nobody yet: `ask` denies";
        self.report(Code::NotEnforcedYet, place, message, None);
    }
}

/// The folders in which the mode `plan` lets an agent write that names none.
fn default_scratch() -> Vec<PathGlob> {
    SCRATCH.into_iter().filter_map(|folder| PathGlob::parse(folder).ok()).collect()
}
