//! The `hooks` part.

use super::Reader;
use crate::policy::{HARNESSES, Node, keys};

impl Reader<'_> {
    /// The harnesses that a file names under `required`.
    pub(super) fn hooks(&mut self, source: usize, node: &Node) -> Vec<&'static str> {
        self.source = source;
        let mut all = Vec::new();
        for (key, place, value) in self.entries_or_none(node, "`hooks`") {
            match key {
                "required" => {
                    let words = HARNESSES.map(|name| (name, name));
                    let items = self.items(key, value, false);
                    all.extend(items.into_iter().filter_map(|item| self.word(item, "harness", &words)));
                }
                _ => self.unknown_key(key, place, "`hooks`", &keys::HOOKS),
            }
        }
        all
    }
}
