//! The Gemini API, as far as Gemini CLI speaks it. It gives calls no ids.

use serde_json::{Value, json};

use super::answer::{choose, list_of, not_found, ok, text_of};
use super::http::{Request, Response};
use super::{Recorded, Script, ToolResult, Turn};

/// What its paths begin with.
pub const PATH: &str = "/v1beta/models/";

/// The answer to a request, and what to record of it.
pub fn answer(script: &Script, request: &Request, body: &Value) -> (Response, Recorded) {
    let contents = list_of(body, "contents");
    let is_said = |content: &&Value| text_of(content, "role") == "model";
    let since: Vec<&Value> = contents.iter().rev().take_while(|content| !is_said(content)).collect();
    let parts = || since.iter().rev().flat_map(|content| list_of(content, "parts"));
    let tools = list_of(body, "tools").iter().flat_map(|tool| list_of(tool, "functionDeclarations"));
    let mut recorded = Recorded {
        tools: tools.map(|tool| text_of(tool, "name").to_owned()).collect(),
        tool_results: parts().filter_map(tool_result).collect(),
        texts: parts().map(|part| text_of(part, "text").to_owned()).filter(|text| !text.is_empty()).collect(),
        ..Recorded::of(request)
    };
    if request.method != "POST" {
        return (not_found(), recorded);
    }
    if request.path.contains(":countTokens") {
        return (ok(&json!({"totalTokens": 1})), recorded);
    }
    let said = contents.iter().filter(is_said).count();
    let (number, turn) = choose(&script.turns, said, recorded.tools.is_empty());
    recorded.turn = number;
    let message = message(&turn);
    if request.path.contains(":streamGenerateContent") {
        let body = format!("data: {message}\n\n");
        return (Response { status: 200, content_type: "text/event-stream", body }, recorded);
    }
    (ok(&message), recorded)
}

fn tool_result(part: &Value) -> Option<ToolResult> {
    let response = part.get("functionResponse")?;
    Some(ToolResult {
        tool_use_id: text_of(response, "id").to_owned(),
        is_error: false,
        text: response.get("response").map(Value::to_string).unwrap_or_default(),
    })
}

fn message(turn: &Turn) -> Value {
    let mut parts = Vec::new();
    if !turn.text.is_empty() || turn.tools.is_empty() {
        parts.push(json!({"text": turn.text}));
    }
    let call = |call: &super::ToolCall| json!({"functionCall": {"name": call.name, "args": call.input}});
    parts.extend(turn.tools.iter().map(call));
    json!({
        "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
        "modelVersion": "scripted",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model_server::ToolCall;

    #[test]
    fn the_turn_follows_from_what_was_said() {
        let tools = vec![ToolCall { name: "run_shell_command".into(), input: json!({"command": "id"}) }];
        let end = Turn { text: "done".into(), tools: Vec::new() };
        let script = Script { turns: vec![Turn { text: String::new(), tools }, end], ..Script::default() };
        let ask = |method: &str, body: &Value| {
            let path = format!("{PATH}m:{method}?alt=sse");
            answer(&script, &Request { method: "POST".into(), path, body: Vec::new() }, body)
        };
        let tools = json!([{"functionDeclarations": [{"name": "run_shell_command"}]}]);
        let prompt = json!({"role": "user", "parts": [{"text": "go"}]});
        let (response, recorded) =
            ask("streamGenerateContent", &json!({"tools": tools, "contents": [prompt]}));
        assert_eq!((recorded.turn, recorded.tools.len()), (Some(0), 1));
        assert!(response.body.starts_with("data: ") && response.body.contains("functionCall"));
        let said = json!({"role": "model", "parts": []});
        let result = json!({"role": "user", "parts": [{"functionResponse": {"name": "x", "response": {"output": "root"}}}]});
        let (response, recorded) =
            ask("generateContent", &json!({"tools": tools, "contents": [prompt, said, result]}));
        assert_eq!((recorded.turn, recorded.tool_results.len()), (Some(1), 1));
        assert!(response.body.contains("\"done\""));
        assert_eq!(ask("generateContent", &json!({"contents": [prompt]})).1.turn, None);
    }
}
