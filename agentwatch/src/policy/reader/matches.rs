//! What an agent's processes are recognised by.

use super::helpers::did_you_mean;
use super::{PATTERNS_MAX, Reader};
use crate::matcher::CgroupGlob;
use crate::policy::{Code, Match, Node, Value, keys};

impl Reader<'_> {
    pub(super) fn matches(&mut self, node: &Node) -> Vec<Match> {
        let Value::List(items) = &node.value else {
            let help = "write `- exec: [\"**/name\"]` below it".to_owned();
            let message = format!("`match` is a list of entries, and this is {}", node.kind());
            self.report(Code::WrongType, node.place, message, help);
            return Vec::new();
        };
        let mut matches = Vec::new();
        for item in items {
            let entries = self.entries(item, "an entry of `match`");
            if let [_, (key, place, _), ..] = entries.as_slice() {
                let message = "an entry of `match` has one key: entries are alternatives to each other";
                let help = format!("put `- ` before `{key}`, so that it is an entry of its own");
                self.report(Code::WrongType, *place, message, help);
            }
            for (key, place, value) in entries {
                if keys::MATCH.contains(&key) {
                    matches.extend(self.match_patterns(key, value));
                } else {
                    self.unknown_key(key, place, "an entry of `match`", &keys::MATCH);
                }
            }
        }
        matches
    }

    fn match_patterns(&mut self, key: &str, node: &Node) -> Vec<Match> {
        let mut matches = Vec::new();
        for item in self.items(key, node, false) {
            self.match_patterns += 1;
            if self.match_patterns == PATTERNS_MAX + 1 {
                let message =
                    format!("a policy has at most {PATTERNS_MAX} patterns in `match`: this is one more");
                self.report(Code::TooMany, item.place, message, None);
            }
            if self.match_patterns > PATTERNS_MAX {
                break;
            }
            let Some(text) = self.text(item, "a pattern is a text") else { continue };
            matches.extend(match key {
                "exec" => self.program(text, item).map(Match::Exec),
                "run" => self.command(text, item).map(Match::Run),
                "unit" | "cgroup" => self.cgroup(key, text, item),
                _ => self.user(text, item),
            });
        }
        matches
    }

    fn cgroup(&mut self, key: &str, text: &str, node: &Node) -> Option<Match> {
        let is_unit = key == "unit";
        let parsed = if is_unit {
            CgroupGlob::unit(text).map(Match::Unit)
        } else {
            CgroupGlob::parse(text).map(Match::Cgroup)
        };
        parsed
            .map_err(|error| {
                let help = (!is_unit && !text.contains('/') && !text.is_empty())
                    .then(|| format!("did you mean `**/{text}`?"));
                let place = self.inside(node, text, error.offset);
                self.report(Code::BadPattern, place, error.to_string(), help);
            })
            .ok()
    }

    fn user(&mut self, text: &str, node: &Node) -> Option<Match> {
        if let Some(uid) = self.context.users.uid(text) {
            return Some(Match::User { name: text.to_owned(), uid });
        }
        let help = did_you_mean(text, self.context.users.names())
            .unwrap_or_else(|| "create the user and read the policy again, or give its number".to_owned());
        let message = format!("this matches nobody: there is no user `{text}` in /etc/passwd");
        self.report(Code::UnknownUser, node.place, message, help);
        None
    }
}
