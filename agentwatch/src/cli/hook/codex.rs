//! What Codex CLI gives its hooks, and what it takes from them.
//!
//! By its documentation (<https://developers.openai.com/codex/hooks>) and the schemas in its sources (`codex-rs/hooks`), as of
//! version 0.124, the first that runs hooks without being told to, for `apply_patch` and tools of MCP servers too; tried with
//! version 0.169. They have the form of Claude Code's. Of a patch that fails they tell no end, nor of one that is given to the
//! shell (`apply_patch <<'EOF'`), which the harness makes itself; some versions tell none of commands that fail either
//! (<https://github.com/openai/codex/issues/24907>). So what is on its way when the turn is over has ended.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::claude_code;
use crate::calls::beginning;
use crate::control::tool::{Begin, End, Reported, ToolBody, ToolCall, digest};

/// The events that are asked for.
pub(super) const EVENTS: [&str; 5] = ["UserPromptSubmit", "PreToolUse", "PostToolUse", "Stop", "SessionEnd"];

/// What a patch begins with.
const PATCH: &str = "*** Begin Patch";
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
        "PostToolUse" => {
            let output = text("tool_response").filter(|output| !output.is_empty());
            let reported = output.as_deref().and_then(reported);
            let output = output.map(|output| beginning(&output, claude_code::OUTPUT_CHARS));
            Some(ToolBody::End(End { id: text("tool_use_id")?, reported, output, subagent: None }))
        }
        "Stop" => {
            let text = text("last_assistant_message").map(|text| beginning(&text, claude_code::OUTPUT_CHARS));
            Some(ToolBody::Done { text, subagent: None, prompt_id })
        }
        "SessionEnd" => Some(ToolBody::Over {}),
        _ => None,
    }
}

/// Whether it worked, which is said of patches alone: what a command ended with is not.
fn reported(output: &str) -> Option<Reported> {
    let code = output.lines().next()?.strip_prefix("Exit code: ")?;
    Some(if code == "0" { Reported::Success } else { Reported::Failure })
}

fn told(input: &Value) -> Map<String, Value> {
    let tool_input = input.get("tool_input");
    let mut told = claude_code::told(tool_input);
    let patch = tool_input.and_then(|input| input.get("command")?.as_str());
    // A command may hold one, too.
    if let Some(patch) = patch.filter(|patch| patch.contains(PATCH)) {
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
        let told = End { id: "call_1".into(), output: Some("3".into()), ..End::default() };
        assert_eq!(body(&end), Some(ToolBody::End(told)));
        let done = ToolBody::Done {
            text: Some("all done".into()),
            subagent: None,
            prompt_id: Some("turn-1".into()),
        };
        assert_eq!(body(&input("Stop", &json!({"last_assistant_message": "all done"}))), Some(done));
        assert_eq!(body(&input("SessionEnd", &json!({"reason": "other"}))), Some(ToolBody::Over {}));
        assert_eq!(body(&input("SessionStart", &json!({}))), None);
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
        let command = format!("apply_patch <<'EOF'\n{patch}\nEOF");
        let begin = input(
            "PreToolUse",
            &json!({"tool_name": "Bash", "tool_input": {"command": command}, "tool_use_id": "call_3"}),
        );
        let Some(ToolBody::Begin(Begin { tool, .. })) = body(&begin) else { panic!() };
        assert_eq!(tool.input["paths"], json!(["/srv/work/src/a b.rs", "/srv/c.rs"]));
        let end = |output: &str| match body(&input(
            "PostToolUse",
            &json!({"tool_response": output, "tool_use_id": "call_2"}),
        )) {
            Some(ToolBody::End(end)) => end.reported,
            other => panic!("{other:?}"),
        };
        assert_eq!(end("Exit code: 0\nWall time: 0 seconds\nOutput:\nSuccess."), Some(Reported::Success));
        assert_eq!(end("Exit code: 1\nOutput:\n"), Some(Reported::Failure));
    }
}
