//! What Claude Code gives its hooks, and what it takes from them.

use serde_json::{Map, Value, json};

use super::sentence;
use crate::calls::beginning;
use crate::control::tool::{Begin, End, Reported, ToolBody, ToolCall, ToolView, digest};

/// The events that are asked for, and whether they are of tools.
pub(super) const EVENTS: [(&str, bool); 7] = [
    ("UserPromptSubmit", false),
    ("PreToolUse", true),
    ("PostToolUse", true),
    ("PostToolUseFailure", true),
    ("Stop", false),
    ("SubagentStop", false),
    ("SessionEnd", false),
];

/// Of a tool's input what tells its doings apart. The rest can be large, and is nobody's business.
const KEYS: [&str; 7] = ["command", "file_path", "notebook_path", "path", "url", "pattern", "subagent_type"];
/// Characters of each that are told, and of prompts.
pub(super) const INPUT_CHARS: usize = 8_192;
/// Characters of what a tool gave, and of what the agent said last, that are told.
pub(super) const OUTPUT_CHARS: usize = 1_024;

/// What to tell of it; nothing where that is nothing. As version 2.1.329 gives it.
pub(super) fn body(input: &Value) -> Option<ToolBody> {
    let text = |key: &str| input.get(key).and_then(Value::as_str).map(str::to_owned);
    let (prompt_id, subagent) = (text("prompt_id"), text("agent_id"));
    match input.get("hook_event_name")?.as_str()? {
        "UserPromptSubmit" => Some(ToolBody::Prompt {
            prompt_id,
            text: text("prompt").map(|text| beginning(&text, INPUT_CHARS)),
        }),
        "PreToolUse" => {
            let tool = ToolCall {
                id: text("tool_use_id")?,
                name: text("tool_name").unwrap_or_default(),
                input: Value::Object(told(input.get("tool_input"))),
                digest: input.get("tool_input").map(digest),
                ..ToolCall::default()
            };
            Some(ToolBody::Begin(Begin { tool, prompt_id, subagent }))
        }
        "PostToolUse" => Some(ToolBody::End(success(text("tool_use_id")?, input.get("tool_response")))),
        "PostToolUseFailure" => {
            let interrupted = input.get("is_interrupt").and_then(Value::as_bool) == Some(true);
            let reported = if interrupted { Reported::Interrupted } else { Reported::Failure };
            let output = text("error").map(|text| beginning(&text, OUTPUT_CHARS));
            Some(ToolBody::End(End {
                id: text("tool_use_id")?,
                reported: Some(reported),
                output,
                subagent: None,
            }))
        }
        "Stop" | "SubagentStop" => {
            let text = text("last_assistant_message").map(|text| beginning(&text, OUTPUT_CHARS));
            Some(ToolBody::Done { text, subagent, prompt_id })
        }
        "SessionEnd" => Some(ToolBody::Over {}),
        _ => None,
    }
}

/// The end of a call that worked. What it gave is one text, or has parts.
fn success(id: String, response: Option<&Value>) -> End {
    let part = |key: &str| response?.get(key)?.as_str();
    let output = match response {
        Some(Value::String(text)) => Some(text.clone()),
        _ => {
            let parts = [part("stdout"), part("stderr"), part("result")].into_iter().flatten();
            let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
            (!parts.is_empty()).then(|| parts.join("\n"))
        }
    };
    let interrupted = response.and_then(|response| response.get("interrupted")?.as_bool()) == Some(true);
    End {
        id,
        reported: Some(if interrupted { Reported::Interrupted } else { Reported::Success }),
        output: output.map(|output| beginning(&output, OUTPUT_CHARS)),
        subagent: part("agentId").map(str::to_owned),
    }
}

/// Of a tool's input what is told. What is cut is not marked: it is looked for in what the tool runs.
pub(super) fn told(input: Option<&Value>) -> Map<String, Value> {
    let field = |key: &&str| {
        let text = input?.get(*key)?.as_str()?;
        Some(((*key).to_owned(), Value::String(text.chars().take(INPUT_CHARS).collect())))
    };
    KEYS.iter().filter_map(field).collect()
}

/// What Claude Code reads from the hook: what was refused goes into the conversation.
pub(super) fn answer(input: &Value, view: &ToolView) -> Option<Value> {
    let event = input.get("hook_event_name")?.as_str()?;
    let sentence = sentence(view)?;
    Some(json!({"hookSpecificOutput": {"hookEventName": event, "additionalContext": sentence}}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::samples;

    #[test]
    fn what_claude_code_gives_is_told() {
        let prompt = json!({"hook_event_name": "UserPromptSubmit", "prompt": "tidy up", "prompt_id": "p-1"});
        let told = ToolBody::Prompt { prompt_id: Some("p-1".into()), text: Some("tidy up".into()) };
        assert_eq!(body(&prompt), Some(told));
        let begin = json!({
            "hook_event_name": "PreToolUse", "prompt_id": "p-1", "tool_use_id": "toolu_1", "tool_name": "Write",
            "tool_input": {"file_path": "/srv/a", "content": "x".repeat(1_000_000)}, "agent_id": "a6d9",
        });
        let tool = ToolCall {
            id: "toolu_1".into(),
            name: "Write".into(),
            input: json!({"file_path": "/srv/a"}),
            digest: Some(digest(&begin["tool_input"])),
            ..ToolCall::default()
        };
        let told = Begin { tool, prompt_id: Some("p-1".into()), subagent: Some("a6d9".into()) };
        assert_eq!(body(&begin), Some(ToolBody::Begin(told)));
        let stop = json!({"hook_event_name": "Stop", "last_assistant_message": "all done"});
        assert_eq!(
            body(&stop),
            Some(ToolBody::Done { text: Some("all done".into()), subagent: None, prompt_id: None })
        );
        assert_eq!(
            body(&json!({"hook_event_name": "SessionEnd", "reason": "other"})),
            Some(ToolBody::Over {})
        );
    }

    #[test]
    fn a_long_command_is_told_as_it_begins() {
        let command = format!("cat > a <<END\n{}\nEND", "x".repeat(2 * INPUT_CHARS));
        let told = told(Some(&json!({"command": command})));
        let told = told["command"].as_str().unwrap();
        assert!(told.len() == INPUT_CHARS && command.starts_with(told));
    }

    #[test]
    fn how_a_call_ended_is_told() {
        let end = |value: Value| match body(&value) {
            Some(ToolBody::End(end)) => (end.reported.unwrap(), end.output, end.subagent),
            other => panic!("{other:?}"),
        };
        let of = |name: &str, key: &str, value: Value| json!({"hook_event_name": name, "tool_use_id": "toolu_1", key: value});
        let response = json!({"stdout": "one", "stderr": "two", "interrupted": false});
        let said = end(of("PostToolUse", "tool_response", response));
        assert_eq!(said, (Reported::Success, Some("one\ntwo".into()), None));
        let response = json!({"stdout": "", "stderr": "", "interrupted": true});
        assert_eq!(end(of("PostToolUse", "tool_response", response)), (Reported::Interrupted, None, None));
        let said =
            end(of("PostToolUse", "tool_response", json!({"status": "async_launched", "agentId": "a6d9"})));
        assert_eq!(said, (Reported::Success, None, Some("a6d9".into())));
        let said = end(of("PostToolUseFailure", "error", json!("Exit code 3\nhi")));
        assert_eq!(said, (Reported::Failure, Some("Exit code 3\nhi".into()), None));
        assert_eq!(end(of("PostToolUse", "tool_response", json!(["odd"]))), (Reported::Success, None, None));
    }

    #[test]
    fn what_is_nothing_to_tell_is_not_told() {
        for nothing in [
            json!({}),
            json!("text"),
            json!({"hook_event_name": "Notification"}),
            json!({"hook_event_name": "PreToolUse"}),
            json!({"hook_event_name": 7}),
        ] {
            assert_eq!(body(&nothing), None, "{nothing}");
        }
    }

    #[test]
    fn what_was_refused_goes_back() {
        let end = json!({"hook_event_name": "PostToolUse", "tool_use_id": "toolu_1"});
        assert_eq!(answer(&end, &ToolView::default()), None);
        let said = answer(&end, &samples::tool_view()).unwrap();
        let said = said["hookSpecificOutput"]["additionalContext"].as_str().unwrap();
        assert!(
            said.starts_with("agentwatch refused 1 of what this tool call tried: delete /srv/db, rule"),
            "{said}"
        );
        assert!(said.contains("ask oncall") && said.contains("do not look for another way"), "{said}");
    }
}
