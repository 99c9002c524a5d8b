//! What Gemini CLI gives its hooks, and what it takes from them.
//!
//! By its documentation (<https://geminicli.com/docs/hooks/reference>), as of version 0.26, the first that runs hooks without
//! being told to; tried with version 0.61. It gives calls no id: both hooks of a call make one of the session, the tool and its input, and the daemon
//! counts those that are alike. Of two that are alike at once, the end of one can so be taken for that of the other.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{claude_code, sentence};
use crate::calls::beginning;
use crate::control::tool::{Begin, End, Reported, ToolBody, ToolCall, ToolView, digest};

/// The events that are asked for.
pub(super) const EVENTS: [&str; 5] = ["BeforeAgent", "BeforeTool", "AfterTool", "AfterAgent", "SessionEnd"];

/// Keys of inputs that hold files, which need not be whole paths.
const PATHS: [&str; 4] = ["file_path", "absolute_path", "path", "dir_path"];

/// What to tell of it; nothing where that is nothing.
pub(super) fn body(input: &Value) -> Option<ToolBody> {
    let made_of = |keys: &[&str]| {
        let all: Vec<Value> = keys.iter().map(|key| input.get(*key).cloned().unwrap_or_default()).collect();
        format!("gemini-{}", digest(&Value::Array(all)))
    };
    // The same at the begin and at the end.
    let of_call = || made_of(&["session_id", "tool_name", "tool_input"]);
    match input.get("hook_event_name")?.as_str()? {
        "BeforeAgent" => {
            let text = input.get("prompt").and_then(Value::as_str);
            let text = text.map(|text| beginning(text, claude_code::INPUT_CHARS));
            Some(ToolBody::Prompt { prompt_id: Some(made_of(&["session_id", "timestamp", "prompt"])), text })
        }
        "BeforeTool" => {
            let tool = ToolCall {
                id: of_call(),
                name: input.get("tool_name").and_then(Value::as_str).unwrap_or_default().to_owned(),
                input: Value::Object(told(input)),
                digest: input.get("tool_input").map(digest),
                counted: true,
            };
            Some(ToolBody::Begin(Begin { tool, ..Begin::default() }))
        }
        "AfterTool" => {
            let (reported, output) = result(input.get("tool_response"));
            Some(ToolBody::End(End { id: of_call(), reported, output, subagent: None }))
        }
        "AfterAgent" => {
            let text = input.get("prompt_response").and_then(Value::as_str);
            let text = text.map(|text| beginning(text, claude_code::OUTPUT_CHARS));
            Some(ToolBody::Done { text, subagent: None, prompt_id: None })
        }
        "SessionEnd" => Some(ToolBody::Over {}),
        _ => None,
    }
}

/// Whether a tool worked, and what it gave to the model. A command that failed says so in a line of that.
fn result(response: Option<&Value>) -> (Option<Reported>, Option<String>) {
    let Some(response) = response else { return (None, None) };
    let output = response.get("llmContent").and_then(Value::as_str);
    let failed = response.get("error").is_some_and(|error| !error.is_null())
        || output.is_some_and(|output| {
            output.lines().any(|line| line.starts_with("Exit Code: ") && line != "Exit Code: 0")
        });
    let reported = if failed { Reported::Failure } else { Reported::Success };
    (Some(reported), output.map(|output| beginning(output, claude_code::OUTPUT_CHARS)))
}

fn told(input: &Value) -> Map<String, Value> {
    let tool_input = input.get("tool_input");
    let mut told = claude_code::told(tool_input);
    let folder = Path::new(input.get("cwd").and_then(Value::as_str).unwrap_or("/"));
    for key in PATHS {
        if let Some(path) = tool_input.and_then(|input| input.get(key)?.as_str()) {
            told.insert(key.to_owned(), json!(folder.join(path)));
        }
    }
    told
}

/// What Gemini CLI reads from the hook: what was refused is added to the result of the tool.
pub(super) fn answer(input: &Value, view: &ToolView) -> Option<Value> {
    input.get("hook_event_name").filter(|event| *event == "AfterTool")?;
    let sentence = sentence(view)?;
    Some(json!({"hookSpecificOutput": {"hookEventName": "AfterTool", "additionalContext": sentence}}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::samples;

    /// As its reference has it.
    fn input(event: &str, more: &Value) -> Value {
        let mut input = json!({
            "session_id": "s-1", "transcript_path": "/t.json", "cwd": "/srv/work", "hook_event_name": event,
            "timestamp": "2026-05-04T08:00:00.000Z",
        });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    }

    #[test]
    fn what_gemini_gives_is_told_and_both_ends_agree() {
        let tool_input = json!({"file_path": "notes.txt", "content": "x"});
        let call = json!({"tool_name": "write_file", "tool_input": tool_input});
        let Some(ToolBody::Begin(Begin { tool, prompt_id: None, .. })) = body(&input("BeforeTool", &call))
        else {
            panic!()
        };
        assert_eq!((tool.name.as_str(), tool.counted), ("write_file", true));
        assert_eq!(tool.input, json!({"file_path": "/srv/work/notes.txt"}));
        let mut end = input("AfterTool", &call);
        end["timestamp"] = json!("2026-05-04T08:00:01.000Z");
        end["tool_response"] = json!({"llmContent": "done"});
        let told = Some(ToolBody::End(End {
            id: tool.id,
            reported: Some(Reported::Success),
            output: Some("done".into()),
            subagent: None,
        }));
        assert_eq!(body(&end), told);
        end["tool_input"]["content"] = json!("y");
        assert_ne!(body(&end), told);
        let prompt =
            |time: &str| body(&input("BeforeAgent", &json!({"prompt": "tidy up", "timestamp": time})));
        assert!(matches!(prompt("1"), Some(ToolBody::Prompt { prompt_id: Some(_), text: Some(_) })));
        assert_ne!(prompt("1"), prompt("2"));
        let done = ToolBody::Done { text: Some("all done".into()), subagent: None, prompt_id: None };
        assert_eq!(body(&input("AfterAgent", &json!({"prompt_response": "all done"}))), Some(done));
        assert_eq!(body(&input("SessionEnd", &json!({"reason": "exit"}))), Some(ToolBody::Over {}));
        assert_eq!(body(&input("BeforeModel", &json!({}))), None);
    }

    #[test]
    fn how_a_call_ended_is_told() {
        let failed = json!({"llmContent": "Output: (empty)\nExit Code: 3\nProcess Group PGID: 9951", "returnDisplay": ""});
        assert_eq!(result(Some(&failed)).0, Some(Reported::Failure));
        let error =
            json!({"llmContent": "no", "error": {"message": "no", "type": "edit_no_occurrence_found"}});
        assert_eq!(result(Some(&error)), (Some(Reported::Failure), Some("no".into())));
        assert_eq!(
            result(Some(&json!({"llmContent": [{"text": "parts"}]}))),
            (Some(Reported::Success), None)
        );
        assert_eq!(result(None), (None, None));
    }

    #[test]
    fn what_was_refused_goes_back() {
        let end = input("AfterTool", &json!({}));
        assert_eq!(answer(&end, &ToolView::default()), None);
        let said = answer(&end, &samples::tool_view()).unwrap();
        assert_eq!(said["hookSpecificOutput"]["hookEventName"], "AfterTool");
        assert!(said["hookSpecificOutput"]["additionalContext"].as_str().unwrap().contains("delete /srv/db"));
    }
}
