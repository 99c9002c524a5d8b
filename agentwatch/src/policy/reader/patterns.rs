//! The operations table of a rule, and the patterns in it.

use super::helpers::did_you_mean;
use super::{KeyValue, RULE_PATTERNS_MAX, Reader};
use crate::event::Op;
use crate::matcher::{CommandGlob, GlobError, PathGlob};
use crate::policy::address::{AddressKind, HostPattern, Network};
use crate::policy::{AddressPattern, Code, Entry, Node, Scope, What, keys};

/// What an entry that names a resource begins with.
const RESOURCE: &str = "resource:";

impl Reader<'_> {
    /// The map of a verdict, or of `unless`.
    pub(super) fn scope(&mut self, node: &Node, what: &str) -> Scope {
        let mut scope = Scope::default();
        let entries = self.entries(node, what);
        if entries.is_empty() && matches!(node.value, crate::policy::Value::Map(_)) {
            let message = format!("{what} names no operation");
            let help = format!("say about what: {}", keys::OPERATION.join(", "));
            self.report(Code::EmptyList, node.place, message, help);
        }
        for entry in entries {
            self.operation(entry, what, &mut scope);
        }
        scope
    }

    fn operation(&mut self, (key, place, node): KeyValue<'_>, what: &str, scope: &mut Scope) {
        let Some(op) = Op::from_name(key) else {
            self.unknown_key(key, place, what, &keys::OPERATION);
            return;
        };
        match op {
            Op::Exec => scope.exec = self.paths(op, node),
            Op::Read => scope.read = self.paths(op, node),
            Op::Write => scope.write = self.paths(op, node),
            Op::Delete => scope.delete = self.paths(op, node),
            Op::Run => scope.run = self.list(op, node, |reader, text, node| reader.command(text, node)),
            Op::Connect => scope.connect = self.addresses(op, node),
            Op::Listen => scope.listen = self.addresses(op, node),
        }
    }

    fn paths(&mut self, op: Op, node: &Node) -> Vec<Entry<PathGlob>> {
        self.list(op, node, |reader, text, node| reader.path(text, node))
    }

    fn addresses(&mut self, op: Op, node: &Node) -> Vec<Entry<AddressPattern>> {
        self.list(op, node, |reader, text, node| {
            let pattern = reader.address(text, node)?;
            reader.warn_of_no_address(op, &pattern, node);
            Some(pattern)
        })
    }

    fn list<T>(
        &mut self,
        op: Op,
        node: &Node,
        read: impl Fn(&mut Self, &str, &Node) -> Option<T>,
    ) -> Vec<Entry<T>> {
        let mut entries = Vec::new();
        for item in self.items(op.name(), node, false) {
            let Some(text) = self.text(item, "a pattern is a text") else { continue };
            if !self.one_more_pattern(item) {
                break;
            }
            let what = match text.strip_prefix(RESOURCE) {
                Some(name) => self.resource_named(name, op, item).map(What::Resource),
                None => read(self, text, item).map(What::Pattern),
            };
            entries.extend(what.map(|what| Entry { at: self.at(item.place), what }));
        }
        // Most lists have one entry, and a policy has very many of them.
        entries.shrink_to_fit();
        entries
    }

    /// Counts a pattern; says once when there are too many.
    pub(super) fn one_more_pattern(&mut self, node: &Node) -> bool {
        self.rule_patterns += 1;
        if self.rule_patterns == RULE_PATTERNS_MAX + 1 {
            let message = format!(
                "a policy has at most {RULE_PATTERNS_MAX} patterns in rules and resources: this is one more"
            );
            self.report(Code::TooMany, node.place, message, None);
        }
        self.rule_patterns <= RULE_PATTERNS_MAX
    }

    fn resource_named(&mut self, name: &str, op: Op, node: &Node) -> Option<usize> {
        if op == Op::Run {
            let help = "name the program with `exec`, or write the command line".to_owned();
            self.report(Code::BadPattern, node.place, "a resource is no command line", help);
            return None;
        }
        let index = self.resource_index(name, node)?;
        let (has_addresses, has_files) = self.resource_has.get(index).copied().unwrap_or_default();
        let (has, key) = match op {
            Op::Connect | Op::Listen => (has_addresses, "connect"),
            _ => (has_files, "files"),
        };
        if !has {
            let message = format!("this never matches: the resource `{name}` has no `{key}`");
            self.report(Code::NeverMatches, node.place, message, format!("add `{key}:` to the resource"));
        }
        Some(index)
    }

    /// The resource of this name.
    pub(super) fn resource_index(&mut self, name: &str, node: &Node) -> Option<usize> {
        let found = self.resources.get(name).copied();
        if found.is_none() {
            let help = did_you_mean(name, self.resources.keys().map(String::as_str))
                .unwrap_or_else(|| "declare it under `resources:`".to_owned());
            self.report(Code::UnknownResource, node.place, format!("there is no resource `{name}`"), help);
        }
        found
    }

    /// A path that a rule or a resource is about: a folder means all that is in it.
    pub(super) fn path(&mut self, text: &str, node: &Node) -> Option<PathGlob> {
        self.path_read(text, node, PathGlob::parse_with_below(text))
    }

    /// The path of an agent's program.
    pub(super) fn program(&mut self, text: &str, node: &Node) -> Option<PathGlob> {
        self.path_read(text, node, PathGlob::parse(text))
    }

    fn path_read(&mut self, text: &str, node: &Node, read: Result<PathGlob, GlobError>) -> Option<PathGlob> {
        read.map_err(|error| {
            let help =
                (!text.contains('/') && !text.is_empty()).then(|| format!("did you mean `**/{text}`?"));
            let place = self.inside(node, text, error.offset);
            self.report(Code::BadPattern, place, error.to_string(), help);
        })
        .ok()
    }

    pub(super) fn command(&mut self, text: &str, node: &Node) -> Option<CommandGlob> {
        match CommandGlob::parse(text) {
            Ok(glob) => {
                self.warn_of_path(text, node);
                Some(glob)
            }
            Err(error) => {
                let place = self.inside(node, text, error.offset);
                self.report(Code::BadPattern, place, error.to_string(), None);
                None
            }
        }
    }

    /// The first word of a command line is a base name: a path there never matches.
    fn warn_of_path(&mut self, text: &str, node: &Node) {
        let word = text.split([' ', '*', '?', '[', '{']).next().unwrap_or_default();
        if let Some((_, name)) = word.rsplit_once('/') {
            let help = format!("write `{name}` there, or use `exec` for the path");
            let message = "this never matches: a command line begins with the program's base name";
            self.report(Code::NeverMatches, node.place, message, help);
        }
    }

    pub(super) fn address(&mut self, text: &str, node: &Node) -> Option<AddressPattern> {
        match AddressPattern::parse(text) {
            Ok(pattern) => {
                self.warn_of_host_bits(text, &pattern, node);
                Some(pattern)
            }
            Err(error) => {
                let place = self.inside(node, text, error.offset);
                self.report(Code::BadPattern, place, error.to_string(), None);
                None
            }
        }
    }

    /// `10.20.3.4/16` is read as `10.20.0.0/16`, as everywhere: but it may be a slip.
    fn warn_of_host_bits(&mut self, text: &str, pattern: &AddressPattern, node: &Node) {
        let AddressKind::Ip { host: HostPattern::Network(network), .. } = pattern.kind() else { return };
        let address = network.address.to_string();
        if text.contains('/') && !self.spells(text, network) {
            let message = format!("this is the whole block {address}/{}", network.bits);
            let help = format!("write `{address}` in it, or leave `/…` out for the one address");
            self.report(Code::HostBits, node.place, message, help);
        }
    }

    /// Whether the address in the text is the first of the block.
    fn spells(&self, text: &str, network: &Network) -> bool {
        let text = text.trim_start_matches("tcp:").trim_start_matches("udp:");
        let address = text.split(['/', ']']).next().unwrap_or_default().trim_start_matches('[');
        address.parse().is_ok_and(|ip: std::net::IpAddr| {
            let (whole, shown) = (Network::new(ip, 128), network.address);
            whole.address == shown || ip == shown
        })
    }

    /// Who connects to "no address" reaches this host, and is judged by that.
    fn warn_of_no_address(&mut self, op: Op, pattern: &AddressPattern, node: &Node) {
        let AddressKind::Ip { host: HostPattern::Network(network), .. } = pattern.kind() else { return };
        let single = network.bits == if network.address.is_ipv4() { 32 } else { 128 };
        if op == Op::Connect && single && network.address.is_unspecified() {
            let help = "write `127.0.0.1` or `[::1]`".to_owned();
            let message = "this never matches: a connection to it goes to this host, and is judged as such";
            self.report(Code::NeverMatches, node.place, message, help);
        }
    }
}
