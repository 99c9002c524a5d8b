//! What Codex CLI gives its hooks, and what it takes from them.
//!
//! By its documentation (<https://developers.openai.com/codex/hooks>) and the schemas in its sources (`codex-rs/hooks`), as of
//! version 0.124, the first that runs hooks without being told to, for `apply_patch` and tools of MCP servers too. They have
//! the form of Claude Code's. Of a call that fails some versions tell no end
//! (<https://github.com/openai/codex/issues/24907>).

use std::path::Path;

use serde_json::{Map, Value, json};

use super::claude_code;
use crate::calls::beginning;
use crate::control::tool::{Begin, End, ToolBody, ToolCall, digest};

/// The events that are asked for.
pub(super) const EVENTS: [&str; 3] = ["UserPromptSubmit", "PreToolUse", "PostToolUse"];

/// What begins a line of a patch that names a file.
const PATCHED: [&str; 4] = ["*** Add File: ", "*** Update File: ", "*** Delete File: ", "*** Move to: "];
/// Files of one patch that are told.
const FILES_MAX: usize = 64;

/// What to tell of it; nothing where that is nothing.
pub(super) fn body(input: &Value) -> Option<ToolBody> {
    let text = |key: &str| input.get(key).and_then(Value::as_str).map(str::to_owned);
    let prompt_id = text("turn_id");
    match input.get("hook_event_name")?.as_str()? {
        "UserPromptSubmit" => {
            let text = text("prompt").map(|text| beginning(&text, claude_code::INPUT_CHARS));
            Some(ToolBody::Prompt { prompt_id, text })
        }
        "PreToolUse" => {
            let tool = ToolCall {
                id: text("tool_use_id")?,
                name: text("tool_name").unwrap_or_default(),
                input: Value::Object(told(input)),
                digest: input.get("tool_input").map(digest),
                ..ToolCall::default()
            };
            Some(ToolBody::Begin(Begin { tool, prompt_id, subagent: None }))
        }
        // Whether it worked is not said.
        "PostToolUse" => Some(ToolBody::End(End { id: text("tool_use_id")?, ..End::default() })),
        _ => None,
    }
}

fn told(input: &Value) -> Map<String, Value> {
    let tool_input = input.get("tool_input");
    let mut told = claude_code::told(tool_input);
    let patch = tool_input.and_then(|input| input.get("command")?.as_str());
    let is_patch = input.get("tool_name").and_then(Value::as_str) == Some("apply_patch");
    if let Some(patch) = patch.filter(|_| is_patch) {
        let folder = Path::new(input.get("cwd").and_then(Value::as_str).unwrap_or("/"));
        let file = |line: &str| PATCHED.iter().find_map(|begin| line.strip_prefix(begin)).map(str::to_owned);
        let files = patch.lines().filter_map(file).take(FILES_MAX);
        told.insert("paths".to_owned(), files.map(|file| json!(folder.join(file.trim()))).collect());
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the schemas of its inputs have it.
    fn input(event: &str, more: &Value) -> Value {
        let mut input = json!({
            "session_id": "s-1", "turn_id": "turn-1", "transcript_path": null, "cwd": "/srv/work",
            "hook_event_name": event, "model": "m", "permission_mode": "default",
        });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    }

    #[test]
    fn what_codex_gives_is_told() {
        let prompt = input("UserPromptSubmit", &json!({"prompt": "tidy up"}));
        let told = ToolBody::Prompt { prompt_id: Some("turn-1".into()), text: Some("tidy up".into()) };
        assert_eq!(body(&prompt), Some(told));
        let tool_input = json!({"command": "ls | wc"});
        let begin = input(
            "PreToolUse",
            &json!({"tool_name": "Bash", "tool_input": tool_input, "tool_use_id": "call_1"}),
        );
        let tool = ToolCall {
            id: "call_1".into(),
            name: "Bash".into(),
            digest: Some(digest(&tool_input)),
            input: tool_input,
            ..ToolCall::default()
        };
        let told = Begin { tool, prompt_id: Some("turn-1".into()), subagent: None };
        assert_eq!(body(&begin), Some(ToolBody::Begin(told)));
        let end = input(
            "PostToolUse",
            &json!({"tool_name": "Bash", "tool_input": {}, "tool_response": "3", "tool_use_id": "call_1"}),
        );
        assert_eq!(body(&end), Some(ToolBody::End(End { id: "call_1".into(), ..End::default() })));
        assert_eq!(body(&input("Stop", &json!({}))), None);
    }

    #[test]
    fn a_patch_names_its_files() {
        let patch =
            "*** Begin Patch\n*** Update File: src/a b.rs\n*** Move to: /srv/c.rs\n@@\n-x\n+y\n*** End Patch";
        let begin = input(
            "PreToolUse",
            &json!({"tool_name": "apply_patch", "tool_input": {"command": patch}, "tool_use_id": "call_2"}),
        );
        let Some(ToolBody::Begin(Begin { tool, .. })) = body(&begin) else { panic!() };
        assert_eq!(tool.input["paths"], json!(["/srv/work/src/a b.rs", "/srv/c.rs"]));
    }
}
