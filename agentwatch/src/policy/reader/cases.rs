//! The `tests` part.

use std::sync::Arc;

use super::helpers::did_you_mean;
use super::{KeyValue, Reader};
use crate::event::Op;
use crate::policy::{Address, At, Case, Code, Expect, Node, Operation, Rule, Target, Value, keys};

impl Reader<'_> {
    pub(super) fn case(&mut self, source: usize, node: &Node, rules: &[Arc<Rule>]) -> Option<Case> {
        self.source = source;
        let entries = self.entries(node, "a test");
        let (mut name, mut agent, mut expect, mut rule, mut when_ns) = (None, None, None, None, None);
        let mut operations = Vec::new();
        let names = self.host_names(&entries);
        let tries = entries.iter().any(|(key, ..)| Op::from_name(key).is_some());
        for (key, place, value) in entries {
            match key {
                "name" => name = self.string(value, "a name is a text"),
                "agent" => agent = self.agent_tested(value),
                "expect" => expect = Some(self.word(value, "verdict", &Expect::WORDS)),
                "rule" => rule = self.rule_expected(value, rules),
                "at" => when_ns = self.moment(value),
                "names" => {}
                _ => match Op::from_name(key) {
                    Some(op) => operations.extend(self.targets(op, value, &names)),
                    None => {
                        let known = [&keys::CASE[..], &keys::OPERATION[..]].concat();
                        self.unknown_key(key, place, "a test", &known);
                    }
                },
            }
        }
        let is_map = matches!(node.value, Value::Map(_));
        for (key, is_there) in [("agent", agent.is_some()), ("expect", expect.is_some())] {
            if is_map && !is_there {
                let help = "write `- {agent: coding, connect: \"10.0.0.1:5432\", expect: deny}`".to_owned();
                self.report(Code::MissingKey, node.place, format!("the test does not say `{key}`"), help);
            }
        }
        if is_map && !tries {
            let help = format!("add one of {}", keys::OPERATION.join(", "));
            self.report(Code::MissingKey, node.place, "the test tries no operation", help);
        }
        Some(Case {
            name,
            at: self.at(node.place),
            agent: agent?,
            operations,
            expect: expect??,
            rule,
            when_ns,
        })
    }

    /// An agent, also one that the policy does not declare: rules for all agents are for it, too.
    fn agent_tested(&mut self, node: &Node) -> Option<String> {
        let name = self.string(node, "an agent is named by a text")?;
        if !self.agents.contains_key(&name) {
            let help = did_you_mean(&name, self.agents.keys().map(String::as_str));
            let message =
                format!("the policy does not declare `{name}`: only rules for all agents are for it");
            self.report(Code::UndeclaredAgent, node.place, message, help);
        }
        Some(name)
    }

    fn rule_expected(&mut self, node: &Node, rules: &[Arc<Rule>]) -> Option<String> {
        let name = self.string(node, "a rule is named by a text")?;
        if !rules.iter().any(|rule| rule.name == name) {
            let help = did_you_mean(&name, rules.iter().map(|rule| rule.name.as_str()));
            self.report(Code::UnknownRule, node.place, format!("there is no rule `{name}`"), help);
        }
        Some(name)
    }

    /// Names that stand for the addresses of the test.
    fn host_names(&mut self, entries: &[KeyValue<'_>]) -> Vec<String> {
        let Some((key, _, node)) = entries.iter().find(|(key, ..)| *key == "names") else {
            return Vec::new();
        };
        let items = self.items(key, node, true);
        items.into_iter().filter_map(|item| self.string(item, "a host's name is a text")).collect()
    }

    fn targets(&mut self, op: Op, node: &Node, names: &[String]) -> Vec<(At, Operation)> {
        let mut operations = Vec::new();
        for item in self.items(op.name(), node, true) {
            let Some(text) = self.text(item, "a target is a text") else { continue };
            match Operation::parse(op, text) {
                Ok(mut operation) => {
                    if let Target::Address(Address::Ip { names: known, .. }) = &mut operation.target {
                        known.extend_from_slice(names);
                    }
                    operations.push((self.at(item.place), operation));
                }
                Err(sentence) => self.report(Code::BadValue, item.place, sentence, None),
            }
        }
        operations
    }
}
