//! The operations table of a rule: for each operation, the patterns that it is about.

use std::fmt;

use super::address::{AddressKind, DnsName, HostPattern};
use super::{Address, AddressPattern, At, Policy, Resource};
use crate::event::Op;
use crate::matcher::{CommandGlob, PathGlob};
use crate::output::escape::escape_bytes;

/// What was tried, and on what.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operation {
    /// What was tried.
    pub op: Op,
    /// On what: the kind of target that the operation has.
    pub target: Target,
}

impl Operation {
    /// Reads an operation's target as a test or a command line has it: an absolute path, a command line, or
    /// an address (see [`Address::parse`]).
    ///
    /// # Errors
    /// A sentence.
    pub fn parse(op: Op, text: &str) -> Result<Self, String> {
        let target = match op {
            Op::Exec | Op::Read | Op::Write | Op::Delete => Target::Path(path(text)?.into()),
            Op::Run => Target::Command(command(text)?.into()),
            Op::Connect | Op::Listen => Target::Address(Address::parse(text)?),
        };
        Ok(Self { op, target })
    }
}

/// As the operation and its target are read, escaped for a terminal.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Path(bytes) | Target::Command(bytes) => {
                write!(f, "{} {}", self.op.name(), escape_bytes(bytes))
            }
            Target::Address(address) => write!(f, "{} {address}", self.op.name()),
        }
    }
}

/// A path as the kernel sees it: whole, and without detours.
fn path(text: &str) -> Result<&str, String> {
    let detour = |part: &str| part.is_empty() || part == "." || part == "..";
    let rest =
        text.strip_prefix('/').ok_or_else(|| format!("`{text}` is no absolute path: begin it with `/`"))?;
    if !rest.is_empty() && rest.split('/').any(detour) {
        return Err(format!(
            "`{text}` is not how the kernel sees a path: write it without `.`, `..` and `//`"
        ));
    }
    Ok(text)
}

/// A command line as `run` rules see it: the program by its base name.
fn command(text: &str) -> Result<String, String> {
    let (program, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
    let name = program.rsplit('/').next().unwrap_or_default();
    if name.is_empty() {
        return Err(format!("`{text}` is no command line: it begins with a program's name"));
    }
    Ok(format!("{name}{rest}"))
}

/// What an operation is done to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The absolute path of the file itself, whatever it was called by.
    Path(Vec<u8>),
    /// The command line, as [`crate::matcher::command_text`] makes it.
    Command(Vec<u8>),
    /// The address.
    Address(Address),
}

/// One entry of a list of patterns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<T> {
    /// Where it is written.
    pub at: At,
    /// What it is.
    pub what: What<T>,
}

/// What an entry of a list of patterns can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What<T> {
    /// A pattern.
    Pattern(T),
    /// All patterns of a resource for such operations: an index in [`Policy::resources`].
    Resource(usize),
}

/// For each operation, the patterns that something is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the contract says what each operation is")]
pub struct Scope {
    pub exec: Vec<Entry<PathGlob>>,
    pub run: Vec<Entry<CommandGlob>>,
    pub read: Vec<Entry<PathGlob>>,
    pub write: Vec<Entry<PathGlob>>,
    pub delete: Vec<Entry<PathGlob>>,
    pub connect: Vec<Entry<AddressPattern>>,
    pub listen: Vec<Entry<AddressPattern>>,
}

/// Patterns for one operation.
#[derive(Clone, Copy, Debug)]
pub enum Patterns<'a> {
    /// Over paths.
    Paths(&'a [Entry<PathGlob>]),
    /// Over command lines.
    Commands(&'a [Entry<CommandGlob>]),
    /// Over addresses.
    Addresses(&'a [Entry<AddressPattern>]),
}

/// An entry that covers an operation.
#[derive(Clone, Copy, Debug)]
pub struct Hit<'p> {
    /// Where it is written.
    pub at: At,
    /// The resource that it names.
    pub resource: Option<&'p Resource>,
}

impl Scope {
    /// The patterns for an operation.
    #[must_use]
    pub fn patterns(&self, op: Op) -> Patterns<'_> {
        match op {
            Op::Exec => Patterns::Paths(&self.exec),
            Op::Run => Patterns::Commands(&self.run),
            Op::Read => Patterns::Paths(&self.read),
            Op::Write => Patterns::Paths(&self.write),
            Op::Delete => Patterns::Paths(&self.delete),
            Op::Connect => Patterns::Addresses(&self.connect),
            Op::Listen => Patterns::Addresses(&self.listen),
        }
    }

    /// Whether it is about this kind of operation at all.
    #[must_use]
    pub fn has(&self, op: Op) -> bool {
        !self.patterns(op).is_empty()
    }

    /// Whether it is about nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !Op::ALL.iter().copied().any(|op| self.has(op))
    }

    /// The first entry that covers the operation. Its address must be in canonical form.
    #[must_use]
    pub fn hit<'p>(&self, policy: &'p Policy, operation: &Operation) -> Option<Hit<'p>> {
        match (self.patterns(operation.op), &operation.target) {
            (Patterns::Paths(entries), Target::Path(path)) => {
                first(policy, entries, |resource| &resource.files, |glob| glob.matches(path))
            }
            (Patterns::Commands(entries), Target::Command(line)) => {
                first(policy, entries, |_| &[], |glob| glob.matches(line))
            }
            (Patterns::Addresses(entries), Target::Address(address)) => {
                first(policy, entries, |resource| &resource.connect, |pattern| pattern.matches(address))
            }
            _ => None,
        }
    }
}

impl Patterns<'_> {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Paths(entries) => entries.len(),
            Self::Commands(entries) => entries.len(),
            Self::Addresses(entries) => entries.len(),
        }
    }

    /// Each as it is written.
    #[must_use]
    pub fn texts(&self, policy: &Policy) -> Vec<String> {
        match self {
            Self::Paths(entries) => texts(policy, entries, PathGlob::text),
            Self::Commands(entries) => texts(policy, entries, CommandGlob::text),
            Self::Addresses(entries) => texts(policy, entries, AddressPattern::text),
        }
    }
}

fn first<'p, T>(
    policy: &'p Policy,
    entries: &[Entry<T>],
    of_resource: impl Fn(&'p Resource) -> &'p [T],
    matches: impl Fn(&T) -> bool,
) -> Option<Hit<'p>>
where
    T: 'p,
{
    entries.iter().find_map(|entry| match &entry.what {
        What::Pattern(pattern) => matches(pattern).then_some(Hit { at: entry.at, resource: None }),
        What::Resource(index) => {
            let resource = policy.resources.get(*index)?;
            let hit = of_resource(resource).iter().any(&matches);
            hit.then_some(Hit { at: entry.at, resource: Some(resource) })
        }
    })
}

fn texts<T>(policy: &Policy, entries: &[Entry<T>], text: impl Fn(&T) -> &str) -> Vec<String> {
    let shown = |entry: &Entry<T>| match &entry.what {
        What::Pattern(pattern) => text(pattern).to_owned(),
        What::Resource(index) => {
            format!("resource:{}", policy.resources.get(*index).map_or("", |resource| &resource.name))
        }
    };
    entries.iter().map(shown).collect()
}

impl Policy {
    /// The names of hosts that a scope is about, in the order of the policy, some perhaps more than once.
    pub fn names_in<'p>(&'p self, scope: &'p Scope) -> impl Iterator<Item = &'p DnsName> {
        let patterns = scope.connect.iter().chain(&scope.listen).flat_map(|entry| match &entry.what {
            What::Pattern(pattern) => std::slice::from_ref(pattern),
            What::Resource(index) => self.resources.get(*index).map_or(&[][..], |one| &one.connect),
        });
        patterns.filter_map(|pattern| match pattern.kind() {
            AddressKind::Ip { host: HostPattern::Name(name), .. } => Some(name),
            _ => None,
        })
    }
}
