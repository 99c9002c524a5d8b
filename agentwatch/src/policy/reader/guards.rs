//! An agent's `guards` and `breakers`.

use super::helpers::did_you_mean;
use super::{KeyValue, Reader};
use crate::event::Op;
use crate::policy::address::AddressKind;
use crate::policy::{
    Agent, Breaker, Code, Containment, Guard, GuardSetting, Node, Place, Trigger, Value, keys,
};

/// Breakers of one agent. Past it the policy is refused.
const BREAKERS_MAX: usize = 64;
/// What a guard can be set to, as words: writers of YAML make `false` of `off`.
const SWITCH: [(&str, bool); 4] = [("on", true), ("off", false), ("true", true), ("false", false)];

impl Reader<'_> {
    pub(super) fn guards(&mut self, node: &Node, agent: &mut Agent) {
        for (key, place, value) in self.entries_or_none(node, "`guards`") {
            let Some(guard) = Guard::ALL.into_iter().find(|guard| guard.as_str() == key) else {
                let help = did_you_mean(key, Guard::ALL.iter().map(|guard| guard.as_str()))
                    .unwrap_or_else(|| format!("they are {}", Guard::ALL.map(Guard::as_str).join(", ")));
                self.report(Code::UnknownGuard, place, format!("there is no guard `{key}`"), help);
                continue;
            };
            let on = if guard == Guard::Delegate && matches!(value.value, Value::List(_)) {
                agent.delegates = self.delegates(key, value);
                Some(true)
            } else {
                self.word(value, "setting of a guard", &SWITCH)
            };
            agent.guards.extend(on.map(|on| GuardSetting { guard, on, at: self.at(value.place) }));
        }
    }

    /// What else acts for others: Unix sockets, and folders in which orders are left.
    fn delegates(&mut self, key: &str, node: &Node) -> Vec<crate::policy::AddressPattern> {
        self.plain_items(key, node, |reader, text, node| {
            let pattern = reader.address(text, node)?;
            if matches!(pattern.kind(), AddressKind::UnixPath(_) | AddressKind::UnixAbstract(_)) {
                return Some(pattern);
            }
            let message = "a delegate is a Unix socket or a folder: a path, or `unix:@name`";
            let help = "use a rule for `connect` for other addresses".to_owned();
            reader.report(Code::BadPattern, node.place, message, help);
            None
        })
    }

    pub(super) fn breakers(&mut self, node: &Node) -> Vec<Breaker> {
        let Value::List(items) = &node.value else {
            let message = format!("`breakers` is a list, and this is {}", node.kind());
            let help = "write `- {when: {denied: 5, within: 60s}, then: freeze}` below it".to_owned();
            self.report(Code::WrongType, node.place, message, help);
            return Vec::new();
        };
        if let Some(extra) = items.get(BREAKERS_MAX) {
            let message = format!("an agent has at most {BREAKERS_MAX} breakers: this is one more");
            self.report(Code::TooMany, extra.place, message, None);
        }
        items.iter().take(BREAKERS_MAX).filter_map(|item| self.breaker(item)).collect()
    }

    fn breaker(&mut self, node: &Node) -> Option<Breaker> {
        let (mut when, mut then) = (None, None);
        for (key, place, value) in self.entries(node, "a breaker") {
            match key {
                "when" => when = Some(value),
                "then" => then = Some(self.containment(value)),
                _ => self.unknown_key(key, place, "a breaker", &keys::BREAKER),
            }
        }
        for (key, is_there) in [("when", when.is_some()), ("then", then.is_some())] {
            if !is_there && matches!(node.value, Value::Map(_)) {
                let help = "write `{when: {denied: 5, within: 60s}, then: freeze}`".to_owned();
                self.report(Code::MissingKey, node.place, format!("the breaker does not say `{key}`"), help);
            }
        }
        let message = "this version does not enforce breakers yet: nothing trips this one";
        self.report(Code::NotEnforcedYet, node.place, message, None);
        Some(Breaker { at: self.at(node.place), trigger: self.trigger(when?)?, then: then?? })
    }

    pub(super) fn containment(&mut self, node: &Node) -> Option<Containment> {
        self.word(node, "containment", &Containment::ALL.map(|one| (one.as_str(), one)))
    }

    fn trigger(&mut self, node: &Node) -> Option<Trigger> {
        let entries = self.entries(node, "`when`");
        let mut causes: Vec<KeyValue<'_>> = Vec::new();
        let mut within = None;
        for (key, place, value) in entries {
            if key == "within" {
                within = Some((place, self.duration(value)));
            } else if keys::WHEN.contains(&key) || keys::OPERATION.contains(&key) {
                causes.push((key, place, value));
            } else {
                let known = [&keys::WHEN[..], &keys::OPERATION[..]].concat();
                self.unknown_key(key, place, "`when`", &known);
            }
        }
        let &[(key, _, value)] = causes.as_slice() else {
            let message = "a breaker trips for one cause: `denied`, an operation, or `touches`";
            self.report(Code::WrongType, node.place, message, "write a breaker for each".to_owned());
            return None;
        };
        if key == "touches" {
            return self.touches(value, within.map(|(place, _)| place));
        }
        let count = self.number(value);
        let Some((_, within_s)) = within else {
            let help = format!("write `{{{key}: 5, within: 60s}}`");
            self.report(Code::MissingKey, node.place, "the breaker does not say `within` what time", help);
            return None;
        };
        let (count, within_s) = (count?, within_s?);
        match Op::from_name(key) {
            Some(op) => Some(Trigger::Operations { op, count, within_s }),
            None => Some(Trigger::Denied { count, within_s }),
        }
    }

    fn touches(&mut self, node: &Node, within: Option<Place>) -> Option<Trigger> {
        if let Some(place) = within {
            let message = "`within` means nothing here: the first touch trips the breaker";
            self.report(Code::NoEffect, place, message, "remove it".to_owned());
        }
        let text = self.text(node, "`touches` is a resource")?;
        let Some(name) = text.strip_prefix("resource:") else {
            let help = format!("write `resource:{text}`");
            self.report(Code::BadPattern, node.place, "`touches` is a resource", help);
            return None;
        };
        self.resource_index(name, node).map(Trigger::Touches)
    }
}
