//! The built-in list of known agents: `known.yaml`.

use std::collections::HashMap;

use super::{AgentSpec, Match, Mode, Origin};
use crate::matcher::{CommandGlob, GlobError, PathGlob, ScriptGlob};
use crate::policy::{Node, Source, Value, parse};

const LIST: &str = include_str!("known.yaml");

/// Why the built-in list cannot be read: only a mistake in it.
#[derive(Debug, thiserror::Error)]
pub enum KnownError {
    /// It is not YAML.
    #[error("{0}")]
    Tree(String),
    /// It does not have the form that it should.
    #[error("line {line}: {expected} was expected here")]
    Form {
        /// Line in `known.yaml`.
        line: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// A pattern in it.
    #[error("line {line}: {error}")]
    Pattern {
        /// Line in `known.yaml`.
        line: usize,
        /// What is wrong with the pattern.
        error: GlobError,
    },
}

/// The known agents, in the order of the list.
pub(super) fn agents() -> Result<Vec<AgentSpec>, KnownError> {
    read(LIST)
}

fn read(text: &str) -> Result<Vec<AgentSpec>, KnownError> {
    let source = Source { name: "known.yaml".into(), text: text.to_owned() };
    let root = parse(&source).map_err(|problem| KnownError::Tree(problem.to_string()))?;
    let mut interpreters = HashMap::new();
    let mut agents = Vec::new();
    for (key, node) in entries(&root)? {
        match key {
            "interpreters" => {
                for (name, pattern) in entries(node)? {
                    interpreters.insert(name, text_of(pattern)?);
                }
            }
            "agents" => {
                for (name, node) in entries(node)? {
                    agents.push(agent(name, node, &interpreters)?);
                }
            }
            _ => return Err(form(node, "`interpreters` or `agents`")),
        }
    }
    Ok(agents)
}

fn agent(name: &str, node: &Node, interpreters: &HashMap<&str, &str>) -> Result<AgentSpec, KnownError> {
    let mut title = None;
    let mut matches = Vec::new();
    for (key, value) in entries(node)? {
        match key {
            "title" => title = Some(text_of(value)?.to_owned()),
            "exec" => {
                for item in list(value)? {
                    matches.push(Match::Exec(PathGlob::parse(text_of(item)?).map_err(pattern(item))?));
                }
            }
            "run" => {
                for item in list(value)? {
                    matches.push(Match::Run(CommandGlob::parse(text_of(item)?).map_err(pattern(item))?));
                }
            }
            "script" | "module" | "package" => {
                for (interpreter, items) in entries(value)? {
                    let by = interpreters.get(interpreter);
                    let by = by.ok_or_else(|| form(value, "one of `interpreters`"))?;
                    for item in list(items)? {
                        matches.push(Match::Script(script(key, by, item)?));
                    }
                }
            }
            _ => return Err(form(value, "title, exec, run, script, module or package")),
        }
    }
    let name = name.to_owned();
    Ok(AgentSpec { name, title, owner: None, matches, mode: Mode::Observe, origin: Origin::Builtin })
}

fn script(key: &str, interpreter: &str, item: &Node) -> Result<ScriptGlob, KnownError> {
    let text = text_of(item)?;
    let glob = match key {
        "script" => ScriptGlob::file(interpreter, text),
        "module" => ScriptGlob::word(interpreter, Some("-m"), text),
        _ => ScriptGlob::word(interpreter, None, text),
    };
    glob.map_err(pattern(item))
}

fn entries(node: &Node) -> Result<impl Iterator<Item = (&str, &Node)>, KnownError> {
    let Value::Map(entries) = &node.value else { return Err(form(node, "a map")) };
    if entries.iter().any(|(key, _)| key.text().is_none()) {
        return Err(form(node, "a map whose keys are texts"));
    }
    Ok(entries.iter().filter_map(|(key, value)| Some((key.text()?, value.as_ref()))))
}

fn list(node: &Node) -> Result<impl Iterator<Item = &Node>, KnownError> {
    match &node.value {
        Value::List(items) => Ok(items.iter().map(AsRef::as_ref)),
        _ => Err(form(node, "a list")),
    }
}

fn text_of(node: &Node) -> Result<&str, KnownError> {
    node.text().ok_or_else(|| form(node, "a text"))
}

fn form(node: &Node, expected: &'static str) -> KnownError {
    KnownError::Form { line: node.place.line, expected }
}

fn pattern(node: &Node) -> impl Fn(GlobError) -> KnownError {
    let line = node.place.line;
    move |error| KnownError::Pattern { line, error }
}
