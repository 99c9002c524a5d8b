//! YAML as a tree whose every node knows its place.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::{Code, Diagnostic, Place, Source};

/// Lists and maps inside each other. Past it the file is refused.
pub const DEPTH_MAX: usize = 32;
/// Nodes of one file, those that aliases repeat counted each time. Past it the file is refused.
pub const NODES_MAX: usize = 250_000;

/// A node of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where its text is.
    pub place: Place,
    /// What it is.
    pub value: Value,
    /// Nodes in it, itself counted.
    size: usize,
}

/// What a node is. Scalars are texts: what they mean is for the reader to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing was written.
    Null,
    /// A scalar.
    Text(String),
    /// A list.
    List(Vec<Rc<Node>>),
    /// A map, in the order of the file. Keys can repeat.
    Map(Vec<(Rc<Node>, Rc<Node>)>),
}

impl Node {
    /// The text, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it is, for messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// Reads a file. An empty one is [`Value::Null`].
///
/// # Errors
/// The first thing that is not YAML, or not what a policy may have: tags, a second document, too much of it.
pub fn parse(source: &Source) -> Result<Rc<Node>, Box<Diagnostic>> {
    let mut builder = Builder { source, open: Vec::new(), anchors: HashMap::new(), root: None, nodes: 0 };
    for event in Parser::new_from_str(&source.text) {
        let (event, span) = event.map_err(|error| {
            let mark = error.marker();
            let place = Place { line: mark.line(), column: mark.col() + 1, width: 1 };
            Box::new(Diagnostic::new(
                Code::Syntax,
                source,
                place,
                format!("this is not YAML: {}", error.info()),
            ))
        })?;
        builder.take(event, place_of(span))?;
    }
    let nothing = Node { place: Place { line: 1, column: 1, width: 1 }, value: Value::Null, size: 1 };
    Ok(builder.root.unwrap_or_else(|| Rc::new(nothing)))
}

fn place_of(span: Span) -> Place {
    let width = if span.start.line() == span.end.line() {
        span.end.col().saturating_sub(span.start.col())
    } else {
        1
    };
    Place { line: span.start.line(), column: span.start.col() + 1, width: width.max(1) }
}

/// A list or a map whose end has not come.
struct Open {
    place: Place,
    anchor: usize,
    is_map: bool,
    /// In a map keys and values by turns.
    children: Vec<Rc<Node>>,
}

struct Builder<'a> {
    source: &'a Source,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    nodes: usize,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), Box<Diagnostic>> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), place)?;
                let plain = style == ScalarStyle::Plain;
                let value = match text.as_ref() {
                    "" | "~" | "null" if plain => Value::Null,
                    text => Value::Text(text.to_owned()),
                };
                self.add(Node { place, value, size: 1 }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), place)?;
                self.begin(place, anchor, false)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), place)?;
                self.begin(place, anchor, true)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned().ok_or_else(|| {
                    self.problem(Code::Syntax, place, "this alias is inside what it stands for: write it out")
                })?;
                self.count(node.size, place)?;
                self.attach(node);
                Ok(())
            }
            Event::DocumentStart(_) if self.root.is_some() => Err(self.problem(
                Code::SeveralDocuments,
                place,
                "a policy file is one document: remove this `---`, or put the rest into a file of its own",
            )),
            _ => Ok(()),
        }
    }

    fn problem(&self, code: Code, place: Place, message: &str) -> Box<Diagnostic> {
        Box::new(Diagnostic::new(code, self.source, place, message))
    }

    fn refuse_tag(&self, tagged: bool, place: Place) -> Result<(), Box<Diagnostic>> {
        if tagged {
            return Err(self.problem(Code::Tag, place, "a policy has no use for YAML tags: remove the `!…`"));
        }
        Ok(())
    }

    fn begin(&mut self, place: Place, anchor: usize, is_map: bool) -> Result<(), Box<Diagnostic>> {
        if self.open.len() >= DEPTH_MAX {
            let message = format!("lists and maps are at most {DEPTH_MAX} deep in each other");
            return Err(self.problem(Code::TooDeep, place, &message));
        }
        self.open.push(Open { place, anchor, is_map, children: Vec::new() });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Box<Diagnostic>> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let size = 1 + open.children.iter().map(|child| child.size).sum::<usize>();
        let value = if open.is_map {
            let mut entries = Vec::with_capacity(open.children.len() / 2);
            let mut children = open.children.into_iter();
            while let (Some(key), Some(value)) = (children.next(), children.next()) {
                entries.push((key, value));
            }
            Value::Map(entries)
        } else {
            Value::List(open.children)
        };
        self.add(Node { place: open.place, value, size }, open.anchor)
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Box<Diagnostic>> {
        self.count(1, node.place)?;
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.attach(node);
        Ok(())
    }

    fn count(&mut self, nodes: usize, place: Place) -> Result<(), Box<Diagnostic>> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES_MAX {
            let message = format!(
                "the file stands for more than {NODES_MAX} values, those that aliases repeat included"
            );
            return Err(self.problem(Code::TooManyNodes, place, &message));
        }
        Ok(())
    }

    fn attach(&mut self, node: Rc<Node>) {
        match self.open.last_mut() {
            Some(open) => open.children.push(node),
            None => self.root = Some(node),
        }
    }
}
