//! Anthropic's Messages API: which answer a request gets.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::answer::{choose, not_found, ok, text_of};
use super::http::{Request, Response};
use super::{Recorded, Script, ToolResult, Turn, tool_use_id, tool_use_id_of};

/// The answer to a request, and what to record of it.
pub fn answer(script: &Script, request: &Request, body: &Value) -> (Response, Recorded) {
    let path = request.path.split('?').next().unwrap_or_default();
    let mut recorded = Recorded {
        tool_results: tool_results(body),
        texts: texts(body),
        tools: names(body),
        ..Recorded::of(request)
    };
    let response = match (request.method.as_str(), path) {
        ("POST", "/v1/messages") => {
            let agent = agent_of(script, body);
            let turns = agent.map_or(&script.turns, |(_, turns)| turns);
            let said = messages(body).iter().filter(|message| role(message) == "assistant").count();
            let (number, turn) = choose(turns, said, recorded.tools.is_empty());
            recorded.turn = number;
            let message = message(&turn, number, agent.map(|(agent, _)| agent), body);
            if body.get("stream").and_then(Value::as_bool) == Some(true) {
                Response { status: 200, content_type: "text/event-stream", body: stream(&message) }
            } else {
                ok(&message)
            }
        }
        ("POST", "/v1/messages/count_tokens") => ok(&json!({"input_tokens": 1})),
        // Clients try whether the server is there.
        ("HEAD" | "GET", "/") => ok(&json!({})),
        _ => not_found(),
    };
    (response, recorded)
}

/// The sub-agent whose conversation it is, by its number, and its turns.
fn agent_of<'a>(script: &'a Script, body: &Value) -> Option<(usize, &'a Vec<Turn>)> {
    let first = messages(body).first()?.get("content")?.to_string();
    let mut agents = script.agents.iter().enumerate();
    agents.find_map(|(number, (text, turns))| first.contains(text.as_str()).then_some((number, turns)))
}

fn messages(body: &Value) -> &[Value] {
    body.get("messages").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn role(message: &Value) -> &str {
    message.get("role").and_then(Value::as_str).unwrap_or_default()
}

fn names(body: &Value) -> Vec<String> {
    let tools = body.get("tools").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    tools.iter().map(|tool| text_of(tool, "name").to_owned()).collect()
}

/// The blocks of a type in what came since the model's last message. A text may stand for itself, and by who said it is no
/// matter: what hooks have to say comes from the system in some versions.
fn blocks<'a>(body: &'a Value, kind: &str) -> Vec<&'a Value> {
    let since = messages(body).iter().rev().take_while(|message| role(message) != "assistant");
    let mut since: Vec<&Value> = since.filter_map(|message| message.get("content")).collect();
    since.reverse();
    let blocks = since.into_iter().flat_map(|content| match content {
        Value::Array(blocks) => blocks.iter().collect(),
        other => vec![other],
    });
    blocks.filter(|block| block.is_string() && kind == "text" || text_of(block, "type") == kind).collect()
}

fn tool_results(body: &Value) -> Vec<ToolResult> {
    blocks(body, "tool_result").into_iter().map(tool_result).collect()
}

fn texts(body: &Value) -> Vec<String> {
    let text = |block: &Value| block.as_str().unwrap_or_else(|| text_of(block, "text")).to_owned();
    blocks(body, "text").into_iter().map(text).collect()
}

fn tool_result(block: &Value) -> ToolResult {
    let text = match block.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().map(|part| text_of(part, "text")).collect(),
        _ => String::new(),
    };
    ToolResult {
        tool_use_id: text_of(block, "tool_use_id").to_owned(),
        is_error: block.get("is_error").and_then(Value::as_bool).unwrap_or(false),
        text,
    }
}

fn message(turn: &Turn, number: Option<usize>, agent: Option<usize>, body: &Value) -> Value {
    let mut content = Vec::new();
    if !turn.text.is_empty() || turn.tools.is_empty() {
        content.push(json!({"type": "text", "text": turn.text}));
    }
    for (index, call) in turn.tools.iter().enumerate() {
        let number = number.unwrap_or_default();
        let id =
            agent.map_or_else(|| tool_use_id(number, index), |agent| tool_use_id_of(agent, number, index));
        content.push(json!({"type": "tool_use", "id": id, "name": call.name, "input": call.input}));
    }
    json!({
        "id": format!("msg_aw_{:02}", number.unwrap_or(99)),
        "type": "message",
        "role": "assistant",
        "model": body.get("model").cloned().unwrap_or_else(|| json!("scripted")),
        "content": content,
        "stop_reason": if turn.tools.is_empty() { "end_turn" } else { "tool_use" },
        "stop_sequence": null,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    })
}

/// The same message as server-sent events.
fn stream(message: &Value) -> String {
    let mut text = String::new();
    let mut send = |event: &Value| {
        // Writing to a String cannot fail.
        let _ = write!(text, "event: {}\ndata: {event}\n\n", text_of(event, "type"));
    };
    let mut start = message.clone();
    if let Some(fields) = start.as_object_mut() {
        fields.insert("content".to_owned(), json!([]));
        fields.insert("stop_reason".to_owned(), Value::Null);
    }
    send(&json!({"type": "message_start", "message": start}));
    let content = message.get("content").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for (index, block) in content.iter().enumerate() {
        let (empty, delta) = halves(block);
        send(&json!({"type": "content_block_start", "index": index, "content_block": empty}));
        send(&json!({"type": "content_block_delta", "index": index, "delta": delta}));
        send(&json!({"type": "content_block_stop", "index": index}));
    }
    let reason = message.get("stop_reason");
    send(&json!({
        "type": "message_delta",
        "delta": {"stop_reason": reason, "stop_sequence": null},
        "usage": {"output_tokens": 1},
    }));
    send(&json!({"type": "message_stop"}));
    text
}

/// A block as it begins, and what is then added to it.
fn halves(block: &Value) -> (Value, Value) {
    if text_of(block, "type") == "tool_use" {
        let input = block.get("input").map(Value::to_string).unwrap_or_default();
        let mut empty = block.clone();
        if let Some(fields) = empty.as_object_mut() {
            fields.insert("input".to_owned(), json!({}));
        }
        return (empty, json!({"type": "input_json_delta", "partial_json": input}));
    }
    (json!({"type": "text", "text": ""}), json!({"type": "text_delta", "text": text_of(block, "text")}))
}

#[cfg(test)]
mod tests {
    use super::super::answer::answer;
    use super::{Request, Script, Turn, Value, json, tool_use_id, tool_use_id_of};
    use crate::model_server::ToolCall;

    fn script() -> Script {
        let call = ToolCall { name: "Bash".into(), input: json!({"command": "id"}) };
        let first = Turn { text: "look".into(), tools: vec![call.clone(), call] };
        let turns = vec![first, Turn { text: "done".into(), tools: Vec::new() }];
        let sub = ToolCall { name: "Write".into(), input: json!({"file_path": "/a"}) };
        let agents = [("errand".to_owned(), vec![Turn { text: String::new(), tools: vec![sub] }])].into();
        Script { turns, agents }
    }

    fn post(body: &Value) -> Request {
        Request {
            method: "POST".into(),
            path: "/v1/messages?beta=true".into(),
            body: body.to_string().into(),
        }
    }

    #[test]
    fn the_turn_follows_from_the_request_alone() {
        let tools = json!([{"name": "Bash"}]);
        let ask = json!({"role": "user", "content": "hello"});
        let (response, recorded) = answer(&script(), &post(&json!({"tools": tools, "messages": [ask]})));
        let message: Value = serde_json::from_str(&response.body).unwrap();
        assert_eq!(recorded.turn, Some(0));
        assert_eq!(message["stop_reason"], "tool_use");
        assert_eq!(message["content"][2]["id"], tool_use_id(0, 1));

        let result = json!({"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": tool_use_id(0, 0), "content": [{"type": "text", "text": "root"}]},
            {"type": "tool_result", "tool_use_id": tool_use_id(0, 1), "content": "no", "is_error": true},
        ]});
        let body = json!({"tools": tools, "messages": [ask, {"role": "assistant", "content": []}, result]});
        let (response, recorded) = answer(&script(), &post(&body));
        let message: Value = serde_json::from_str(&response.body).unwrap();
        assert_eq!(recorded.turn, Some(1));
        assert_eq!(message["stop_reason"], "end_turn");
        let texts: Vec<_> = recorded.tool_results.iter().map(|r| (r.text.as_str(), r.is_error)).collect();
        assert_eq!(texts, [("root", false), ("no", true)]);
    }

    #[test]
    fn a_sub_agent_has_turns_of_its_own() {
        let ask = json!({"role": "user", "content": [{"type": "text", "text": "an errand for you"}]});
        let body = json!({"tools": [{"name": "Write"}], "messages": [ask]});
        let (response, _) = answer(&script(), &post(&body));
        let message: Value = serde_json::from_str(&response.body).unwrap();
        assert_eq!(message["content"][0]["id"], tool_use_id_of(0, 0, 0));
        assert_eq!(message["content"][0]["name"], "Write");
    }

    #[test]
    fn a_request_without_tools_is_no_turn() {
        let body = json!({"messages": [{"role": "user", "content": "a title, please"}], "stream": true});
        let (response, recorded) = answer(&script(), &post(&body));
        assert_eq!(recorded.turn, None);
        assert!(response.body.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
    }
}
