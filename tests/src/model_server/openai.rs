//! OpenAI's Responses API, as far as Codex CLI speaks it. A tool whose input is a text is one of the custom ones (`apply_patch`).

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::answer::{choose, list_of, not_found, text_of};
use super::http::{Request, Response};
use super::{Recorded, Script, ToolCall, ToolResult, Turn, tool_use_id};

/// Where it is asked.
pub const PATH: &str = "/v1/responses";

/// The answer to a request, and what to record of it.
pub fn answer(script: &Script, request: &Request, body: &Value) -> (Response, Recorded) {
    let items = list_of(body, "input");
    let since: Vec<&Value> = items.iter().rev().take_while(|item| !is_said(item)).collect();
    let mut recorded = Recorded {
        tools: list_of(body, "tools").iter().map(|tool| text_of(tool, "name").to_owned()).collect(),
        tool_results: since.iter().rev().filter_map(|item| tool_result(item)).collect(),
        texts: since.iter().rev().flat_map(|item| texts(item)).collect(),
        ..Recorded::of(request)
    };
    if request.method != "POST" {
        return (not_found(), recorded);
    }
    let (number, turn) = choose(&script.turns, turns_said(items), recorded.tools.is_empty());
    recorded.turn = number;
    let body = stream(&turn, number.unwrap_or_default());
    (Response { status: 200, content_type: "text/event-stream", body }, recorded)
}

/// Whether the model said it.
fn is_said(item: &Value) -> bool {
    match text_of(item, "type") {
        "message" => text_of(item, "role") == "assistant",
        kind => matches!(kind, "function_call" | "custom_tool_call" | "reasoning"),
    }
}

/// What it says in one turn stands together.
fn turns_said(items: &[Value]) -> usize {
    let before = std::iter::once(false).chain(items.iter().map(is_said));
    before.zip(items).filter(|(before, item)| !before && is_said(item)).count()
}

fn tool_result(item: &Value) -> Option<ToolResult> {
    let is_result = matches!(text_of(item, "type"), "function_call_output" | "custom_tool_call_output");
    let output = item.get("output").filter(|_| is_result)?;
    let text = output.as_str().map_or_else(|| output.to_string(), str::to_owned);
    Some(ToolResult { tool_use_id: text_of(item, "call_id").to_owned(), is_error: false, text })
}

fn texts(item: &Value) -> impl Iterator<Item = String> {
    list_of(item, "content").iter().map(|part| text_of(part, "text").to_owned())
}

/// The turn as server-sent events: each item once, whole.
fn stream(turn: &Turn, number: usize) -> String {
    let mut items: Vec<Value> =
        turn.tools.iter().enumerate().map(|(index, call)| item(call, &tool_use_id(number, index))).collect();
    if !turn.text.is_empty() || items.is_empty() {
        let content = json!([{"type": "output_text", "text": turn.text, "annotations": []}]);
        let id = format!("msg_aw_{number:02}");
        items.push(json!({"type": "message", "id": id, "role": "assistant", "status": "completed", "content": content}));
    }
    let mut text = String::new();
    let mut send = |event: &Value| {
        // Writing to a String cannot fail.
        let _ = write!(text, "event: {}\ndata: {event}\n\n", text_of(event, "type"));
    };
    let id = format!("resp_aw_{number:02}");
    send(&json!({"type": "response.created", "response": {"id": id}}));
    for (index, item) in items.iter().enumerate() {
        send(&json!({"type": "response.output_item.done", "output_index": index, "item": item}));
    }
    let usage = json!({"input_tokens": 1, "output_tokens": 1, "total_tokens": 2});
    let response = json!({"id": id, "status": "completed", "output": items, "usage": usage});
    send(&json!({"type": "response.completed", "response": response}));
    text
}

fn item(call: &ToolCall, id: &str) -> Value {
    let (kind, key, value) = match &call.input {
        Value::String(text) => ("custom_tool_call", "input", text.clone()),
        input => ("function_call", "arguments", input.to_string()),
    };
    json!({"type": kind, "id": format!("item_{id}"), "call_id": id, "name": call.name, key: value, "status": "completed"})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_turn_follows_from_what_was_said() {
        let call = |name: &str, input: Value| ToolCall { name: name.into(), input };
        let tools =
            vec![call("exec_command", json!({"cmd": "id"})), call("apply_patch", json!("*** Begin Patch"))];
        let end = Turn { text: "done".into(), tools: Vec::new() };
        let script = Script { turns: vec![Turn { text: String::new(), tools }, end], ..Script::default() };
        let ask = |input: Value| {
            let body = json!({"tools": [{"name": "exec_command"}], "input": input});
            answer(&script, &Request { method: "POST".into(), path: PATH.into(), body: Vec::new() }, &body)
        };
        let prompt =
            json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go"}]});
        let (response, recorded) = ask(json!([prompt]));
        assert_eq!((recorded.turn, recorded.texts), (Some(0), vec!["go".to_owned()]));
        assert!(response.body.contains("custom_tool_call") && response.body.contains(&tool_use_id(0, 1)));
        let said = |kind: &str| json!({"type": kind, "call_id": "1"});
        let output = json!({"type": "function_call_output", "call_id": "1", "output": "root"});
        let (response, recorded) =
            ask(json!([prompt, said("function_call"), said("custom_tool_call"), output, output]));
        assert_eq!((recorded.turn, recorded.tool_results.len()), (Some(1), 2));
        assert!(response.body.contains("\"done\""));
    }
}
