//! What tools were told, as it can be found again in what is done.

use std::collections::HashSet;

use serde_json::Value;

/// Bytes of a command that are compared.
const COMMAND_BYTES: usize = 64 * 1024;
/// Keys of a tool's input that hold what it is to run.
const COMMANDS: [&str; 2] = ["command", "cmd"];
/// Keys that hold a file that it is about.
const PATHS: [&str; 5] = ["file_path", "path", "notebook_path", "absolute_path", "filename"];

/// Tools that are there to write what they are told.
const WRITERS: [&str; 8] =
    ["Write", "Edit", "MultiEdit", "NotebookEdit", "write_file", "edit_file", "replace", "apply_patch"];
/// Characters of a tool's input that its event tells.
const INPUT_CHARS: usize = 2_048;

/// What of a tool's input is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Input {
    /// What it is told to run, [`squeezed`].
    pub command: Option<String>,
    /// Base names of all words of that: the programs that it names are among them.
    pub words: HashSet<String>,
    /// Files that it is told.
    pub paths: Vec<String>,
}

/// Reads a tool's input.
pub(super) fn of_input(input: &Value) -> Input {
    let Value::Object(fields) = input else { return Input::default() };
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        // A command as its words.
        Value::Array(words) => {
            let words: Option<Vec<&str>> = words.iter().map(Value::as_str).collect();
            words.map(|words| words.join(" "))
        }
        _ => None,
    };
    let command = COMMANDS.iter().find_map(|key| text(fields.get(*key)?));
    let words = command.as_deref().map(words).unwrap_or_default();
    let command = command.map(|command| squeezed(&command)).filter(|command| !command.is_empty());
    let listed = fields.get("paths").and_then(Value::as_array).into_iter().flatten();
    let paths = PATHS.iter().filter_map(|key| fields.get(*key)).chain(listed).filter_map(Value::as_str);
    Input { command, words, paths: paths.filter(|path| path.starts_with('/')).map(str::to_owned).collect() }
}

/// The base names of a command's words. What quotes hold counts too: it may be a command of its own.
fn words(command: &str) -> HashSet<String> {
    let inside = |letter: char| letter.is_alphanumeric() || "._-+/@%~".contains(letter) || !letter.is_ascii();
    let beginning = command
        .char_indices()
        .nth(COMMAND_BYTES)
        .map_or(command, |(end, _)| command.get(..end).unwrap_or(command));
    let words = beginning.split(|letter| !inside(letter)).map(base_name).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

/// What follows the last slash.
pub(super) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Whether a tool is there to write. Of servers' tools the name behind the server's counts.
#[must_use]
pub fn is_writer(name: &str) -> bool {
    WRITERS.contains(&name.rsplit("__").next().unwrap_or_default())
}

/// The beginning of a text; what is cut is marked.
#[must_use]
pub fn beginning(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// What a tool is told, as its event tells it: nothing where that is nothing.
#[must_use]
pub fn in_short(input: &Value) -> Option<String> {
    let empty = input.is_null() || input.as_object().is_some_and(serde_json::Map::is_empty);
    (!empty).then(|| beginning(&input.to_string(), INPUT_CHARS))
}

/// A command without what quoting changes: spaces, quotation marks, backslashes.
pub(super) fn squeezed(command: &str) -> String {
    let keep = |letter: &char| !letter.is_whitespace() && !matches!(letter, '\'' | '"' | '\\');
    command.chars().take(COMMAND_BYTES).filter(keep).collect()
}

/// Strings of a call's arguments that are looked at.
const ARGUMENTS_MAX: usize = 64;
/// Bytes of a path among them.
const PATH_BYTES: usize = 4096;

/// Reads the arguments of an MCP server's tool, whose keys nobody knows: all that looks like a file counts as one.
pub(super) fn of_arguments(arguments: &Value) -> Input {
    let mut input = of_input(arguments);
    if let (Some(command), Some(Value::Array(words))) = (&mut input.command, arguments.get("args")) {
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        command.push_str(&squeezed(&words.concat()));
    }
    let (mut strings, mut waiting) = (Vec::new(), vec![arguments]);
    while let Some(value) = waiting.pop().filter(|_| strings.len() < ARGUMENTS_MAX) {
        match value {
            Value::String(text) => strings.push(text.strip_prefix("file://").unwrap_or(text)),
            Value::Array(values) => waiting.extend(values),
            Value::Object(fields) => waiting.extend(fields.values()),
            _ => {}
        }
    }
    let is_path = |text: &&str| {
        text.len() > 1 && text.len() <= PATH_BYTES && text.starts_with('/') && !text.contains(['\n', '\0'])
    };
    for path in strings.into_iter().filter(is_path) {
        if !input.paths.iter().any(|known| known == path) {
            input.paths.push(path.to_owned());
        }
    }
    input
}

/// Whether a command line has a path as a word, or as a part of one that ends there.
pub(super) fn names(command: &str, path: &str) -> bool {
    let path = path.trim_end_matches('/');
    let goes_on = |next: char| next.is_alphanumeric() || "-_".contains(next);
    let is_whole = |(at, _): (usize, &str)| {
        let (before, after) = (command.get(..at), command.get(at + path.len()..));
        let begins = before.is_some_and(|text| !text.ends_with(goes_on));
        begins && after.is_some_and(|text| !text.starts_with(goes_on))
    };
    !path.is_empty() && command.match_indices(path).any(is_whole)
}

/// Whether a command is that of a harness's hook; as [`squeezed`] has it.
pub(super) fn is_hook(command: &str) -> bool {
    command.contains("agentwatchhook")
}

/// Whether a file is the one that a tool was told, below it where that is a folder, or what is written beside it to take its
/// place.
pub(super) fn is_about(name: &str, told: &str) -> bool {
    let told = told.trim_end_matches('/');
    name.strip_prefix(told).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.', '~', '#']))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_tool_is_told_is_read() {
        let input = of_input(&json!({"command": "echo 'a b' > \"c\"", "description": "x"}));
        let words = ["echo", "a", "b", "c"].map(str::to_owned).into();
        assert_eq!(input, Input { command: Some("echoab>c".into()), words, paths: Vec::new() });
        let input = of_input(&json!({"command": ["bash", "-lc", "ls"]}));
        assert_eq!(input.command.as_deref(), Some("bash-lcls"));
        let input = of_input(&json!({"file_path": "/srv/a", "path": "relative", "content": "..."}));
        assert_eq!(input, Input { paths: vec!["/srv/a".into()], ..Input::default() });
        let input =
            of_input(&json!({"command": "cd /w && /opt/x/make -j2 'A=b' | python3.11 -c \"x('y')\"; $(id)"}));
        for word in ["make", "python3.11", "id", "cd", "w"] {
            assert!(input.words.contains(word), "{word}");
        }
        assert!(!input.words.contains("opt"));
        for nothing in [json!(null), json!("ls"), json!({"command": 7}), json!({"command": "  "})] {
            assert_eq!(of_input(&nothing), Input::default());
        }
    }

    #[test]
    fn a_file_is_itself_what_is_below_and_what_replaces_it() {
        for (name, told, is) in [
            ("/srv/a", "/srv/a", true),
            ("/srv/a.tmp.123", "/srv/a", true),
            ("/srv/a/b", "/srv/a/", true),
            ("/srv/ab", "/srv/a", false),
            ("/srv", "/srv/a", false),
        ] {
            assert_eq!(is_about(name, told), is, "{name} {told}");
        }
    }
}
