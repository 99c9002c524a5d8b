//! Expressions over an event's fields.
//!
//! ```text
//! any    = all { "||" all }
//! all    = not { "&&" not }
//! not    = "!" not | "(" any ")" | "has" "(" NAME ")" | NAME [ sign value ]
//! sign   = "==" | "!=" | "<" | "<=" | ">" | ">=" | "~" | "!~"
//! value  = NUMBER | "text" | 'text' | "true" | "false"
//! ```
//!
//! A name is a field as it stands in the JSON, with dots between the levels: `process.executable.path`. A
//! comparison with a field that an event does not have is false, and so is one between different types;
//! `!=` and `!~` are the opposites of `==` and `~`. A list is compared item by item: one that holds is
//! enough. A name alone is true where the field is. `~` takes a glob of the policy's language: over paths
//! where the field holds one, else over words.

use std::sync::Arc;

use serde_json::Number;

use super::token::ExprError;
use crate::matcher::{CommandGlob, PathGlob};

/// An expression that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr(pub(super) Arc<Node>);

impl Expr {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Self, ExprError> {
        super::parse::parse(text).map(|node| Self(Arc::new(node)))
    }

    /// Whether it is true of an event.
    #[must_use]
    pub fn holds(&self, event: &serde_json::Value) -> bool {
        super::eval::holds(&self.0, event)
    }
}

#[derive(Debug, PartialEq)]
pub(super) enum Node {
    Any(Vec<Node>),
    All(Vec<Node>),
    Not(Box<Node>),
    Has(Name),
    IsTrue(Name),
    Compare(Name, Compare, Value),
    Matches(Name, Glob),
}

/// A dotted name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name(pub String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Number(Number),
    Truth(bool),
}

#[derive(Debug, PartialEq)]
pub(super) enum Glob {
    Path(PathGlob),
    Words(CommandGlob),
}
