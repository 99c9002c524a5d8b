//! Whether an expression is true of an event.

use std::cmp::Ordering;

use serde_json::{Number, Value as Json};

use super::expr::{Compare, Glob, Name, Node, Value};

pub(super) fn holds(node: &Node, event: &Json) -> bool {
    match node {
        Node::Any(nodes) => nodes.iter().any(|node| holds(node, event)),
        Node::All(nodes) => nodes.iter().all(|node| holds(node, event)),
        Node::Not(node) => !holds(node, event),
        Node::Has(name) => find(event, &name.0).is_some(),
        Node::IsTrue(name) => find(event, &name.0) == Some(&Json::Bool(true)),
        Node::Compare(name, compare, value) => one_of(event, name, |field| compares(field, *compare, value)),
        Node::Matches(name, glob) => one_of(event, name, |field| matches(field, glob)),
    }
}

/// The field of a dotted name. Keys hold dots themselves (`executable.path`): the longest one that leads to
/// something counts.
fn find<'a>(value: &'a Json, name: &str) -> Option<&'a Json> {
    let object = value.as_object()?;
    if let Some(field) = object.get(name) {
        return Some(field);
    }
    let dots = name.rmatch_indices('.').map(|(at, _)| name.split_at(at));
    let mut parts = dots.filter_map(|(key, rest)| Some((object.get(key)?, rest.strip_prefix('.')?)));
    parts.find_map(|(field, rest)| find(field, rest))
}

fn one_of(event: &Json, name: &Name, holds: impl Fn(&Json) -> bool) -> bool {
    match find(event, &name.0) {
        Some(Json::Array(items)) => items.iter().any(holds),
        Some(field) => holds(field),
        None => false,
    }
}

fn compares(field: &Json, compare: Compare, value: &Value) -> bool {
    let order = match (field, value) {
        (Json::String(field), Value::Text(value)) => Some(field.as_str().cmp(value)),
        (Json::Number(field), Value::Number(value)) => order(field, value),
        (Json::Bool(field), Value::Truth(value)) if compare == Compare::Equal => Some(field.cmp(value)),
        _ => None,
    };
    order.is_some_and(|order| match compare {
        Compare::Equal => order == Ordering::Equal,
        Compare::Less => order == Ordering::Less,
        Compare::LessOrEqual => order != Ordering::Greater,
        Compare::Greater => order == Ordering::Greater,
        Compare::GreaterOrEqual => order != Ordering::Less,
    })
}

/// Whole numbers exactly, as nanoseconds since boot do not fit in a float for long.
fn order(field: &Number, value: &Number) -> Option<Ordering> {
    match (field.as_i128(), value.as_i128()) {
        (Some(field), Some(value)) => Some(field.cmp(&value)),
        _ => field.as_f64()?.partial_cmp(&value.as_f64()?),
    }
}

fn matches(field: &Json, glob: &Glob) -> bool {
    let Json::String(text) = field else { return false };
    match glob {
        Glob::Path(glob) => glob.matches(text.as_bytes()),
        Glob::Words(glob) => glob.matches(text.as_bytes()),
    }
}
