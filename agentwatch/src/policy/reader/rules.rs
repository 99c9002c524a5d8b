//! The `rules` part.

use std::collections::HashMap;
use std::sync::Arc;

use super::helpers::did_you_mean;
use super::{KeyValue, Names, Reader};
use crate::policy::{Action, At, Code, Node, Place, Rule, Scope, Value, keys};

/// Bytes of a rule's name: events carry it.
const NAME_BYTES_MAX: usize = 128;
/// Bytes of a rule's message: the agent reads it.
const MESSAGE_BYTES_MAX: usize = 1024;

impl Reader<'_> {
    pub(super) fn rules(&mut self, nodes: &[(usize, &Node)]) -> Vec<Arc<Rule>> {
        let mut names: HashMap<String, At> = HashMap::new();
        let mut rules = Vec::with_capacity(nodes.len());
        for &(source, node) in nodes {
            self.source = source;
            let Some(rule) = self.rule(node) else { continue };
            if let Some(first) = names.get(&rule.name) {
                let file = self.sources.get(first.source).map_or("policy", |source| &source.name);
                let message =
                    format!("a rule is already named `{}` at {file}:{}", rule.name, first.place.line);
                self.report(Code::DuplicateName, rule.at.place, message, "rename one of the two".to_owned());
            }
            names.entry(rule.name.clone()).or_insert(rule.at);
            rules.push(Arc::new(rule));
        }
        rules
    }

    fn rule(&mut self, node: &Node) -> Option<Rule> {
        let entries = self.entries(node, "a rule");
        if entries.is_empty() {
            if matches!(node.value, Value::Map(_)) {
                self.report(Code::MissingKey, node.place, "this rule is empty", "remove it".to_owned());
            }
            return None;
        }
        let named = entries.iter().find(|(key, ..)| *key == "name").copied();
        let (name, place) = self.rule_name(named, node);
        let what = if name.is_empty() { "a rule".to_owned() } else { format!("the rule `{name}`") };
        let (action, scope) = self.action(&entries, place, &what);
        let mut rule = Rule {
            name,
            at: self.at(place),
            action: action.unwrap_or(Action::Allow),
            scope: Arc::new(scope),
            agents: None,
            during: None,
            unless: Arc::clone(&self.nothing),
            message: None,
            timeout_s: None,
            then: None,
        };
        for entry in entries {
            self.rule_key(entry, &what, &mut rule);
        }
        action.map(|_| rule)
    }

    fn rule_name(&mut self, named: Option<KeyValue<'_>>, node: &Node) -> (String, Place) {
        let Some((_, _, value)) = named else {
            let help = "add `name:`: events and `policy explain` give it".to_owned();
            self.report(Code::MissingKey, node.place, "the rule has no name", help);
            return (String::new(), node.place);
        };
        let name = self.text(value, "a name is a text").unwrap_or_default();
        let is_good = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
        if !is_good && value.text().is_some() {
            let message = format!("a rule's name is a line of 1 to {NAME_BYTES_MAX} bytes");
            self.report(Code::BadName, value.place, message, None);
        }
        (name.to_owned(), value.place)
    }

    /// The rule's one verdict with what it is about.
    fn action(&mut self, entries: &[KeyValue<'_>], place: Place, what: &str) -> (Option<Action>, Scope) {
        let mut found = None;
        for (key, place, value) in entries {
            let Some(action) = Action::ALL.into_iter().find(|action| action.as_str() == *key) else {
                continue;
            };
            if let Some((first, _)) = &found {
                let first: &Action = first;
                let message = format!("{what} has one verdict, and `{}` is it already", first.as_str());
                self.report(Code::OneVerdict, *place, message, "make two rules of it".to_owned());
                continue;
            }
            if action == Action::Ask {
                self.warn_of_ask(*place);
            }
            found = Some((action, self.scope(value, &format!("`{key}`"))));
        }
        match found {
            Some((action, scope)) => (Some(action), scope),
            None => {
                let help = "add one of allow, log, ask, deny, kill".to_owned();
                self.report(Code::OneVerdict, place, format!("{what} has no verdict"), help);
                (None, Scope::default())
            }
        }
    }

    fn rule_key(&mut self, (key, place, value): KeyValue<'_>, what: &str, rule: &mut Rule) {
        match key {
            "name" => {}
            "agents" => rule.agents = Some(self.agents_named(key, value)),
            "during" => rule.during = self.window_named(value),
            "unless" => rule.unless = Arc::new(self.unless(value, rule)),
            "message" => rule.message = self.message(value),
            "timeout" => {
                rule.timeout_s = self.duration(value);
                if rule.action != Action::Ask {
                    let message = "`timeout` means nothing here: only `ask` waits";
                    self.report(Code::NoEffect, place, message, "remove it".to_owned());
                }
            }
            "then" => {
                rule.then = self.containment(value);
                let message = "this version does not enforce `then` yet: the session goes on";
                self.report(Code::NotEnforcedYet, place, message, None);
            }
            _ if keys::ACTION.contains(&key) => {}
            _ => {
                let known = [&keys::RULE[..], &keys::ACTION[..]].concat();
                self.unknown_key(key, place, what, &known);
            }
        }
    }

    fn unless(&mut self, node: &Node, rule: &Rule) -> Scope {
        let unless = self.scope(node, "`unless`");
        for (op, place) in self.operations_of(node) {
            if !rule.scope.has(op) && !rule.scope.is_empty() {
                let message =
                    format!("`unless` takes nothing away here: the rule is not about `{}`", op.name());
                self.report(Code::NoEffect, place, message, "remove it".to_owned());
            }
        }
        unless
    }

    fn operations_of(&self, node: &Node) -> Vec<(crate::event::Op, Place)> {
        let Value::Map(entries) = &node.value else { return Vec::new() };
        let op = |key: &Node| key.text().and_then(crate::event::Op::from_name);
        entries.iter().filter_map(|(key, _)| Some((op(key)?, key.place))).collect()
    }

    fn message(&mut self, node: &Node) -> Option<String> {
        let message = self.string(node, "a message is a text")?;
        if message.len() > MESSAGE_BYTES_MAX {
            let text = format!("a message has at most {MESSAGE_BYTES_MAX} bytes");
            self.report(Code::BadValue, node.place, text, "shorten it".to_owned());
        }
        Some(message)
    }

    fn agents_named(&mut self, key: &str, node: &Node) -> Vec<usize> {
        let mut agents = Vec::new();
        for item in self.items(key, node, false) {
            let Some(name) = self.text(item, "an agent is named by a text") else { continue };
            agents.extend(named(&self.agents, name).map_err(|help| {
                let help = help.unwrap_or_else(|| "declare it under `agents:`".to_owned());
                self.report(Code::UnknownAgent, item.place, format!("there is no agent `{name}`"), help);
            }));
        }
        agents
    }

    fn window_named(&mut self, node: &Node) -> Option<usize> {
        let name = self.text(node, "`during` is the name of a window")?;
        named(&self.windows, name)
            .map_err(|help| {
                let help = help.unwrap_or_else(|| "declare it under `windows:`".to_owned());
                self.report(Code::UnknownWindow, node.place, format!("there is no window `{name}`"), help);
            })
            .ok()
    }
}

/// The index of a name, or a suggestion.
fn named(names: &Names, name: &str) -> Result<usize, Option<String>> {
    names.get(name).copied().ok_or_else(|| did_you_mean(name, names.keys().map(String::as_str)))
}
