//! What lines of JSON-RPC say of tool calls, and how a sentence gets into an answer.
//!
//! It follows the Model Context Protocol, revision 2025-06-18 (<https://modelcontextprotocol.io/specification>), and the
//! batches of the revision before.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// JSON-RPC's code for an error of its own.
const INTERNAL_ERROR: i32 = -32603;
/// Where Claude Code gives servers its own id of a call, in `params._meta`.
const HARNESS_ID: &str = "claudecode/toolUseId";
/// Bytes of that id, and of a server's name.
const NAME_BYTES: usize = 256;
/// Bytes, as JSON, of the arguments that are told. The rest says nothing that is looked for.
const ARGUMENTS_BYTES: usize = 40 * 1024;
/// Characters of each string of them.
const STRING_CHARS: usize = 4096;

/// A message, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// Something that a client asks of its server.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Asked {
    /// To call a tool.
    Call(Call),
    /// To let a request be, by its id.
    Cancel(String),
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    /// The request's id, as JSON.
    pub id: String,
    /// Name of the tool.
    pub tool: String,
    /// What it is told.
    pub arguments: Value,
    /// The harness's own id of it.
    pub harness_id: Option<String>,
}

/// An answer of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The request's id, as JSON.
    pub id: String,
    /// What the server calls itself, where it says that.
    pub server: Option<String>,
    place: Option<Place>,
}

/// Where in a line a sentence can be put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    at: usize,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// One more block of the content.
    Block { first: bool },
    /// The content itself.
    Content { first: bool },
    /// More of an error's message.
    Text,
}

/// What a line of the client asks. Nothing where it cannot be read.
pub(super) fn asked(line: &[u8]) -> Vec<Asked> {
    let ask = |message: &Message<'_>| {
        let params: Value = serde_json::from_str(message.params?.get()).ok()?;
        match message.method.as_deref()? {
            "tools/call" => Some(Asked::Call(Call {
                id: id_of(message.id?)?,
                tool: params.get("name")?.as_str()?.to_owned(),
                harness_id: harness_id(&params),
                arguments: params.get("arguments").cloned().unwrap_or_else(|| json!({})),
            })),
            "notifications/cancelled" => Some(Asked::Cancel(id_of_value(params.get("requestId")?)?)),
            _ => None,
        }
    };
    messages(line).iter().filter_map(ask).collect()
}

fn harness_id(params: &Value) -> Option<String> {
    let id = params.get("_meta")?.get(HARNESS_ID)?.as_str()?;
    (!id.is_empty() && id.len() <= NAME_BYTES).then(|| id.to_owned())
}

/// What a line of the server answers.
pub(super) fn answers(line: &[u8]) -> Vec<Answer> {
    let answer = |message: &Message<'_>| {
        if message.method.is_some() {
            return None;
        }
        let of_result = || place_in_result(line, message.result?);
        let of_error = || place_in_error(line, message.error?);
        Some(Answer {
            id: id_of(message.id?)?,
            server: message.result.and_then(server_of),
            place: of_result().or_else(of_error),
        })
    };
    messages(line).iter().filter_map(answer).collect()
}

/// The line with a sentence in some of its answers, each with its own. All else of it stays as it is.
pub(super) fn with_sentences(line: &[u8], sentences: &[(Answer, String)]) -> Option<Vec<u8>> {
    let mut places: Vec<(Place, &str)> =
        sentences.iter().filter_map(|(answer, text)| Some((answer.place?, text.as_str()))).collect();
    if places.is_empty() {
        return None;
    }
    places.sort_by_key(|(place, _)| place.at);
    let (mut new, mut done) = (Vec::with_capacity(line.len() + 512), 0);
    for (place, text) in places {
        new.extend_from_slice(line.get(done..place.at)?);
        new.extend_from_slice(place.form.of(text).as_bytes());
        done = place.at;
    }
    new.extend_from_slice(line.get(done..)?);
    Some(new)
}

impl Form {
    fn of(self, text: &str) -> String {
        let block = json!({"type": "text", "text": text});
        let comma = |first: bool| if first { "" } else { "," };
        match self {
            Self::Block { first } => format!("{}{block}", comma(first)),
            Self::Content { first } => format!("{}\"content\":[{block}]", comma(first)),
            Self::Text => {
                let quoted = json!(format!(" {text}")).to_string();
                quoted.trim_start_matches('"').strip_suffix('"').unwrap_or_default().to_owned()
            }
        }
    }
}

/// What a client is answered to each request of a line in the place of the server: to a call that it failed, which the model
/// reads, and to all else of a batch an error.
pub(super) fn refusals(line: &[u8], text: &str) -> Option<Vec<u8>> {
    let refusal = |message: &Message<'_>| {
        let id: Value = serde_json::from_str(message.id?.get()).ok()?;
        let method = message.method.as_deref()?;
        Some(if method == "tools/call" {
            let content = json!([{"type": "text", "text": text}]);
            json!({"jsonrpc": "2.0", "id": id, "result": {"content": content, "isError": true}})
        } else {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": INTERNAL_ERROR, "message": text}})
        })
    };
    let mut all: Vec<Value> = messages(line).iter().filter_map(refusal).collect();
    let is_batch = line.trim_ascii_start().starts_with(b"[");
    let answer = if is_batch { Value::from(all) } else { all.pop()? };
    let mut answer = serde_json::to_vec(&answer).ok()?;
    answer.push(b'\n');
    Some(answer)
}

/// The messages of a line: one, or a batch.
fn messages(line: &[u8]) -> Vec<Message<'_>> {
    let Ok(text) = std::str::from_utf8(line) else { return Vec::new() };
    if text.trim_start().starts_with('[') {
        let all: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
        return all.into_iter().filter_map(|one| serde_json::from_str(one.get()).ok()).collect();
    }
    serde_json::from_str(text).into_iter().collect()
}

/// A request's id in one spelling. Only texts and numbers are ids.
fn id_of(raw: &RawValue) -> Option<String> {
    id_of_value(&serde_json::from_str(raw.get()).ok()?)
}

fn id_of_value(id: &Value) -> Option<String> {
    (id.is_string() || id.is_number()).then(|| id.to_string())
}

fn server_of(result: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Initialized {
        #[serde(rename = "serverInfo")]
        info: Info,
    }
    #[derive(Deserialize)]
    struct Info {
        name: String,
    }
    let Initialized { info } = serde_json::from_str(result.get()).ok()?;
    Some(info.name).filter(|name| !name.is_empty() && name.len() <= NAME_BYTES)
}

fn place_in_result(line: &[u8], result: &RawValue) -> Option<Place> {
    #[derive(Deserialize)]
    struct Result<'a> {
        #[serde(borrow)]
        content: Option<&'a RawValue>,
    }
    let found: Result<'_> =
        serde_json::from_str(result.get()).ok().filter(|_| result.get().starts_with('{'))?;
    let (within, close, form): (_, _, fn(bool) -> Form) = match found.content {
        Some(content) => (content.get(), ']', |first| Form::Block { first }),
        None => (result.get(), '}', |first| Form::Content { first }),
    };
    let inner = within.strip_suffix(close)?;
    let first = inner.get(1..)?.trim().is_empty();
    Some(Place { at: offset(line, within)? + inner.len(), form: form(first) })
}

fn place_in_error(line: &[u8], error: &RawValue) -> Option<Place> {
    #[derive(Deserialize)]
    struct Error<'a> {
        #[serde(borrow)]
        message: &'a RawValue,
    }
    let Error { message } = serde_json::from_str(error.get()).ok()?;
    let inner = message.get().strip_suffix('"')?;
    Some(Place { at: offset(line, message.get())? + inner.len(), form: Form::Text })
}

/// Where in a line a part of it begins.
fn offset(line: &[u8], part: &str) -> Option<usize> {
    let at = part.as_ptr().addr().checked_sub(line.as_ptr().addr())?;
    (at + part.len() <= line.len()).then_some(at)
}

/// Of a call's arguments what is told of them.
pub(super) fn told(arguments: &Value) -> Value {
    bounded(arguments, &mut { ARGUMENTS_BYTES }).unwrap_or_else(|| json!({}))
}

fn bounded(value: &Value, room: &mut usize) -> Option<Value> {
    let mut pay = |value: Value| {
        *room = room.checked_sub(value.to_string().len() + 1)?;
        Some(value)
    };
    match value {
        Value::String(text) => pay(Value::String(text.chars().take(STRING_CHARS).collect())),
        Value::Array(all) => {
            pay(json!([]))?;
            Some(Value::Array(all.iter().map_while(|one| bounded(one, room)).collect()))
        }
        Value::Object(fields) => {
            pay(json!({}))?;
            let mut kept = Map::new();
            for (key, value) in fields {
                let Some(()) = room.checked_sub(json!(key).to_string().len() + 2).map(|left| *room = left)
                else {
                    break;
                };
                if let Some(value) = bounded(value, room) {
                    kept.insert(key.clone(), value);
                }
            }
            Some(Value::Object(kept))
        }
        other => pay(other.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str, tool: &str, arguments: Value) -> Asked {
        Asked::Call(Call { id: id.into(), tool: tool.into(), arguments, harness_id: None })
    }

    #[test]
    fn calls_are_read() {
        let line = br#"{"jsonrpc":"2.0","id":7,"method":"tools\/call","params":{"name":"write","arguments":{"path":"/a"}}}"#;
        assert_eq!(asked(line), [call("7", "write", json!({"path": "/a"}))]);
        let line = br#" {"id":"a\u0062","method":"tools/call","params":{"name":"x","_meta":{"claudecode/toolUseId":"toolu_1"}}} "#;
        let Asked::Call(one) = asked(line).remove(0) else { panic!() };
        assert_eq!((one.id.as_str(), one.harness_id.as_deref()), ("\"ab\"", Some("toolu_1")));
        let batch = br#"[{"id":1,"method":"tools/call","params":{"name":"a"}},7,{"method":"x"},
            {"id":2,"method":"tools/call","params":{"name":"b"}},
            {"method":"notifications/cancelled","params":{"requestId":1}}]"#;
        let expected = [call("1", "a", json!({})), call("2", "b", json!({})), Asked::Cancel("1".into())];
        assert_eq!(asked(batch), expected);
    }

    #[test]
    fn what_is_no_call_is_nothing() {
        for line in [
            &b""[..],
            b"\n",
            b"{",
            b"[",
            b"\xff\xfe",
            b"Server started",
            b"[[[]]]",
            br#"{"id":1,"method":"tools/list"}"#,
            br#"{"id":null,"method":"tools/call","params":{"name":"x"}}"#,
            br#"{"id":{},"method":"tools/call","params":{"name":"x"}}"#,
            br#"{"method":"tools/call","params":{"name":"x"}}"#,
            br#"{"id":1,"method":"tools/call","params":{"name":7}}"#,
            br#"{"id":1,"method":"tools/call","params":["x"]}"#,
            br#"{"id":1,"id":2,"method":"tools/call","params":{"name":"x"}}"#,
        ] {
            assert_eq!(asked(line), [], "{}", String::from_utf8_lossy(line));
            assert_eq!(answers(line).into_iter().find(|one| one.place.is_some()), None);
        }
        let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
        assert_eq!(asked(&deep), []);
    }

    /// The line with a sentence in each of its answers.
    fn told_in(line: &str) -> String {
        let all: Vec<_> =
            answers(line.as_bytes()).into_iter().map(|one| (one, "no \"x\"".to_owned())).collect();
        let new = with_sentences(line.as_bytes(), &all);
        String::from_utf8(new.unwrap_or_else(|| line.as_bytes().to_vec())).unwrap()
    }

    #[test]
    fn a_sentence_goes_in_and_all_else_stays() {
        let block = r#"{"type":"text","text":"no \"x\""}"#;
        for (line, new) in [
            (
                r#"{"id":1,"result":{"content":[ ],"big":123456789012345678901.50}}"#,
                format!(
                    "{{\"id\":1,\"result\":{{\"content\":[ {block}],\"big\":123456789012345678901.50}}}}"
                ),
            ),
            (
                r#"{"result":{"isError":true,"content":[{"type":"text","text":"a]"}]},"id":"x"}"#,
                format!(
                    "{{\"result\":{{\"isError\":true,\"content\":[{{\"type\":\"text\",\"text\":\"a]\"}},{block}]}},\"id\":\"x\"}}"
                ),
            ),
            (r#"{"id":1,"result":{}}"#, format!("{{\"id\":1,\"result\":{{\"content\":[{block}]}}}}")),
            (
                r#"{"id":1,"result":{"a":1}}"#,
                format!("{{\"id\":1,\"result\":{{\"a\":1,\"content\":[{block}]}}}}"),
            ),
            (
                r#"{"id":1,"error":{"code":-1,"message":"bad"}}"#,
                r#"{"id":1,"error":{"code":-1,"message":"bad no \"x\""}}"#.into(),
            ),
            (
                r#"[{"id":1,"result":{"content":[]}},{"id":2,"error":{"message":""}}]"#,
                format!(
                    "[{{\"id\":1,\"result\":{{\"content\":[{block}]}}}},{{\"id\":2,\"error\":{{\"message\":\" no \\\"x\\\"\"}}}}]"
                ),
            ),
        ] {
            assert_eq!(told_in(line), new);
            assert!(serde_json::from_str::<Value>(&new).is_ok(), "{new}");
        }
        for line in [
            r#"{"id":1,"result":7}"#,
            r#"{"id":1,"result":{"content":"x"}}"#,
            r#"{"id":1,"error":{"message":7}}"#,
            r#"{"id":1}"#,
        ] {
            assert_eq!(told_in(line), line, "no place for it");
        }
    }

    #[test]
    fn a_server_says_its_name() {
        let line = br#"{"id":0,"result":{"serverInfo":{"name":"toy","version":"1"},"capabilities":{}}}"#;
        assert_eq!(answers(line).remove(0).server.as_deref(), Some("toy"));
    }

    #[test]
    fn what_is_told_has_a_bound() {
        let large = json!({"content": "\u{1}".repeat(1 << 20), "path": "/a", "z": ["x".repeat(10_000), 1]});
        let told = told(&large);
        assert_eq!(told["path"], "/a");
        assert!(told.to_string().len() <= ARGUMENTS_BYTES, "{}", told.to_string().len());
        let many = Value::Array(vec![json!("/some/path"); 100_000]);
        assert!(super::told(&many).to_string().len() <= ARGUMENTS_BYTES);
        assert_eq!(super::told(&json!({"a": [1, {"b": null}]})), json!({"a": [1, {"b": null}]}));
    }
}
