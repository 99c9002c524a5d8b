//! Which answer a request gets: a function of the script and the request, in the words of the API that is asked.

use serde_json::{Value, json};

use super::http::{Request, Response};
use super::{Recorded, Script, Turn, anthropic, gemini, openai};

/// The answer to a request, and what to record of it.
pub fn answer(script: &Script, request: &Request) -> (Response, Recorded) {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    if request.path.starts_with(openai::PATH) {
        openai::answer(script, request, &body)
    } else if request.path.starts_with(gemini::PATH) {
        gemini::answer(script, request, &body)
    } else {
        anthropic::answer(script, request, &body)
    }
}

pub(super) fn ok(body: &Value) -> Response {
    Response { status: 200, content_type: "application/json", body: body.to_string() }
}

pub(super) fn not_found() -> Response {
    let message =
        json!({"type": "error", "error": {"type": "not_found_error", "message": "not in the script"}});
    Response { status: 404, ..ok(&message) }
}

/// The turn of a request before which the model has spoken `said` times. One without tools is no part of the conversation:
/// agents ask for titles and summaries on the side.
pub(super) fn choose(turns: &[Turn], said: usize, aside: bool) -> (Option<usize>, Turn) {
    if aside {
        return (None, Turn { text: "ok".to_owned(), tools: Vec::new() });
    }
    let after_last = || {
        let text = turns.last().map(|turn| turn.text.clone());
        Turn { text: text.unwrap_or_else(|| "done".to_owned()), tools: Vec::new() }
    };
    (Some(said), turns.get(said).cloned().unwrap_or_else(after_last))
}

pub(super) fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn list_of<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
