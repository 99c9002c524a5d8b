//! The `resources` part.

use super::{Item, Reader};
use crate::policy::{Code, Node, Resource, keys};

impl Reader<'_> {
    pub(super) fn resource(&mut self, item: &Item<'_>) -> Resource {
        self.source = item.source;
        let what = format!("the resource `{}`", item.name);
        let mut resource = Resource {
            name: item.name.to_owned(),
            at: self.at(item.place),
            why: None,
            owner: None,
            environment: None,
            connect: Vec::new(),
            files: Vec::new(),
        };
        let entries = self.entries(item.node, &what);
        let names_nothing = !entries.iter().any(|(key, ..)| matches!(*key, "connect" | "files"));
        for (key, place, value) in entries {
            match key {
                "why" => resource.why = self.string(value, "`why` is a text"),
                "owner" => resource.owner = self.string(value, "an owner is a text, such as an address"),
                "environment" => resource.environment = self.string(value, "an environment is a text"),
                "connect" => {
                    resource.connect =
                        self.plain_items(key, value, |reader, text, node| reader.address(text, node));
                }
                "files" => {
                    resource.files =
                        self.plain_items(key, value, |reader, text, node| reader.path(text, node));
                }
                _ => self.unknown_key(key, place, &what, &keys::RESOURCE),
            }
        }
        if names_nothing {
            let message = format!("{what} has neither `connect` nor `files`, so nothing can be done to it");
            self.report(Code::MissingKey, item.place, message, "say where it is".to_owned());
        }
        resource
    }

    /// A list of patterns none of which can be another resource.
    pub(super) fn plain_items<T>(
        &mut self,
        key: &str,
        node: &Node,
        read: impl Fn(&mut Self, &str, &Node) -> Option<T>,
    ) -> Vec<T> {
        let mut patterns = Vec::new();
        for item in self.items(key, node, false) {
            let Some(text) = self.text(item, "a pattern is a text") else { continue };
            if !self.one_more_pattern(item) {
                break;
            }
            patterns.extend(read(self, text, item));
        }
        patterns
    }
}
