//! What every part of the reader needs: reports, maps with each key once, lists, suggestions.

use std::collections::HashMap;

use super::{KeyValue, Reader};
use crate::policy::{Code, Diagnostic, Node, Place, Value};

/// Bytes of a name of a resource, an agent or a window.
const NAME_BYTES_MAX: usize = 64;

impl Reader<'_> {
    pub(super) fn report(
        &mut self,
        code: Code,
        place: Place,
        message: impl Into<String>,
        help: impl Into<Option<String>>,
    ) {
        if self.is_full() {
            // Its line is not looked for: of very many problems that would take long.
            return self.count(code);
        }
        let Some(source) = self.sources.get(self.source) else { return };
        let mut problem = Diagnostic::new(code, source, place, message);
        problem.help = help.into();
        self.keep(self.source, problem);
    }

    pub(super) fn check_name(&mut self, name: &str, place: Place, what: &str) {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let begins_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !begins_well || name.len() > NAME_BYTES_MAX || !name.bytes().all(good) {
            let article = if what.starts_with('a') { "an" } else { "a" };
            let message = format!("`{name}` is no name for {article} {what}");
            let help = format!(
                "use letters, digits, `-`, `_` and `.`, at most {NAME_BYTES_MAX}, a letter or digit first"
            );
            self.report(Code::BadName, place, message, help);
        }
    }

    pub(super) fn text<'n>(&mut self, node: &'n Node, expected: &str) -> Option<&'n str> {
        if node.text().is_none() {
            let message = format!("{expected}, and this is {}", node.kind());
            self.report(Code::WrongType, node.place, message, None);
        }
        node.text()
    }

    /// A text as its own.
    pub(super) fn string(&mut self, node: &Node, expected: &str) -> Option<String> {
        self.text(node, expected).map(str::to_owned)
    }

    /// The entries of a map, each key once.
    pub(super) fn entries<'n>(&mut self, node: &'n Node, what: &str) -> Vec<KeyValue<'n>> {
        let Value::Map(all) = &node.value else {
            let message = format!("{what} is a map of keys and values, and this is {}", node.kind());
            self.report(Code::WrongType, node.place, message, None);
            return Vec::new();
        };
        let mut entries: Vec<KeyValue<'n>> = Vec::new();
        let mut lines: HashMap<&str, usize> = HashMap::new();
        for (key, value) in all {
            let Some(name) = self.text(key, "a key is a text") else { continue };
            if let Some(line) = lines.get(name) {
                let message = format!("the key `{name}` is already at line {line}");
                self.report(Code::DuplicateKey, key.place, message, "merge the two".to_owned());
                continue;
            }
            lines.insert(name, key.place.line);
            entries.push((name, key.place, value));
        }
        entries
    }

    /// As [`Self::entries`], where nothing at all counts as an empty map.
    pub(super) fn entries_or_none<'n>(&mut self, node: &'n Node, what: &str) -> Vec<KeyValue<'n>> {
        if node.value == Value::Null { Vec::new() } else { self.entries(node, what) }
    }

    /// The items of a list that has at least one; with `or_one` a text alone counts as a list of one.
    pub(super) fn items<'n>(&mut self, key: &str, node: &'n Node, or_one: bool) -> Vec<&'n Node> {
        match &node.value {
            Value::List(items) => {
                if items.is_empty() {
                    let help = "write what it should match, or remove it".to_owned();
                    let message = format!("`{key}` is empty and matches nothing");
                    self.report(Code::EmptyList, node.place, message, help);
                }
                items.iter().map(AsRef::as_ref).collect()
            }
            Value::Text(_) if or_one => vec![node],
            _ => {
                let help = node.text().map(|text| format!("write `{key}: [\"{text}\"]`"));
                let message = format!("`{key}` is a list, and this is {}", node.kind());
                self.report(Code::WrongType, node.place, message, help);
                Vec::new()
            }
        }
    }

    pub(super) fn unknown_key(&mut self, key: &str, place: Place, whose: &str, known: &[&str]) {
        let help = did_you_mean(key, known.iter().copied())
            .unwrap_or_else(|| format!("the keys here are {}", known.join(", ")));
        self.report(Code::UnknownKey, place, format!("{whose} has no key `{key}`"), help);
    }

    /// One of these words.
    pub(super) fn word<T: Copy>(&mut self, node: &Node, what: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, &format!("{what} is a word"))?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known = || words.iter().map(|(word, _)| *word);
            let help = did_you_mean(text, known())
                .unwrap_or_else(|| format!("it is one of {}", known().collect::<Vec<_>>().join(", ")));
            self.report(Code::UnknownWord, node.place, format!("`{text}` is no {what}"), help);
        }
        found
    }

    /// The place in the file of something at this byte offset of a text.
    pub(super) fn inside(&self, node: &Node, text: &str, offset: usize) -> Place {
        let lines = self.sources.get(self.source).map(|source| source.text.lines());
        let line =
            lines.and_then(|mut lines| lines.nth(node.place.line.saturating_sub(1))).unwrap_or_default();
        let rest: String = line.chars().skip(node.place.column.saturating_sub(1)).collect();
        let quotes = usize::from(rest.starts_with(['"', '\'']));
        let before = text.get(..offset).unwrap_or(text);
        let as_written = rest.chars().skip(quotes).collect::<String>().starts_with(text);
        if !as_written {
            return node.place;
        }
        Place { line: node.place.line, column: node.place.column + quotes + before.chars().count(), width: 1 }
    }
}

/// The likeliest of the known words, as a question.
pub(super) fn did_you_mean<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<String> {
    let distance = |candidate: &str| strsim::damerau_levenshtein(word, candidate);
    let near = known.map(|candidate| (distance(candidate), candidate)).min()?;
    let (distance, candidate) = near;
    (distance <= 1 + candidate.len() / 4).then(|| format!("did you mean `{candidate}`?"))
}
