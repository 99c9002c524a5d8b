use proptest::prelude::*;
use serde_json::{Value, json};

use super::wire::Message;
use super::*;

const TRACE: [u8; 16] =
    [0x5b, 0x8e, 0xff, 0xf7, 0x98, 0x03, 0x81, 0x03, 0xd2, 0x69, 0xb6, 0x33, 0x81, 0x3f, 0xc6, 0x0c];
const ID: [u8; 8] = [0xee, 0xe1, 0x9b, 0x7e, 0xc3, 0xc1, 0xb1, 0x74];
const START: u64 = 1_800_000_000_000_000_001;
const END: u64 = START + 5;

/// A span in JSON, with an attribute for each wanted one.
fn span() -> Value {
    json!({
        "traceId": "5B8EFFF798038103D269B633813FC60C",
        "spanId": "eee19b7ec3c1b174",
        "parentSpanId": "eee19b7ec3c1b173",
        "name": "execute_tool write_file",
        "kind": 1,
        "startTimeUnixNano": START.to_string(),
        "endTimeUnixNano": END,
        "attributes": [
            text("gen_ai.operation.name", "execute_tool"),
            text("gen_ai.tool.name", "write_file"),
            text("gen_ai.tool.call.id", "call_1"),
            text("gen_ai.conversation.id", "conv_1"),
            text("error.type", "timeout"),
            {"key": "gen_ai.tool.call.arguments", "value": {"kvlistValue": {"values": [
                {"key": "path", "value": {"stringValue": "/srv/a"}},
                {"key": "lines", "value": {"arrayValue": {"values": [
                    {"intValue": "-9223372036854775808"}, {"intValue": 7}, {"boolValue": true},
                    {"doubleValue": 0.5}, {}, {"bytesValue": "AAEC"},
                ]}}},
            ]}}},
            {"key": "something.else", "value": {"arrayValue": {}}},
        ],
        "events": [{"name": "x", "timeUnixNano": "1"}],
        "status": {"code": 2, "message": "it took too long"},
    })
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn request(spans: &[Value]) -> Value {
    json!({"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"scope": {"name": "s"}, "spans": spans}]}]})
}

fn from_json(request: &Value) -> Result<Export, String> {
    read(request.to_string().as_bytes(), Form::Json)
}

fn fixed64(field: u8, value: u64) -> Vec<u8> {
    [&[field << 3 | 1][..], &value.to_le_bytes()].concat()
}

/// A value of JSON as it is in protocol buffers.
fn any_value(value: &Value) -> Vec<u8> {
    let message = Message::default();
    let of_list = |list: &Value, part: &dyn Fn(&Value) -> Vec<u8>| {
        let values = list["values"].as_array().cloned().unwrap_or_default();
        values.iter().fold(Message::default(), |all, one| all.bytes(1, &part(one))).finish()
    };
    let Some((name, value)) = value.as_object().and_then(|fields| fields.iter().next()) else {
        // Left out, an empty message would be no element of its list.
        return vec![0x78, 0x01];
    };
    match name.as_str() {
        "stringValue" => message.bytes(1, value.as_str().unwrap().as_bytes()).finish(),
        "boolValue" => message.number(2, value.as_bool().unwrap().into()).finish(),
        "intValue" => {
            let number = value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap();
            message.number(3, number.cast_unsigned()).finish()
        }
        "doubleValue" => fixed64(4, value.as_f64().unwrap().to_bits()),
        "arrayValue" => message.bytes(5, &of_list(value, &any_value)).finish(),
        "kvlistValue" => message.bytes(6, &of_list(value, &attribute)).finish(),
        _ => message.bytes(7, b"\0\x01\x02").finish(),
    }
}

fn attribute(value: &Value) -> Vec<u8> {
    let key = value["key"].as_str().unwrap().as_bytes();
    Message::default().bytes(1, key).bytes(2, &any_value(&value["value"])).finish()
}

/// [`span`] in protocol buffers, with fields that nobody knows.
fn span_message(span: &Value) -> Vec<u8> {
    let whole = |name: &str| {
        let value = &span[name];
        value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap()
    };
    let of = Message::default().bytes(1, &TRACE).bytes(2, &ID).bytes(4, &[&ID[..7], &[0x73]].concat());
    let mut bytes = of.bytes(5, span["name"].as_str().unwrap().as_bytes()).number(6, 1).finish();
    bytes.extend(fixed64(7, whole("startTimeUnixNano")));
    bytes.extend(fixed64(8, whole("endTimeUnixNano")));
    for one in span["attributes"].as_array().unwrap() {
        bytes.extend(Message::default().bytes(9, &attribute(one)).finish());
    }
    let status = &span["status"];
    let status = Message::default()
        .bytes(2, status["message"].as_str().unwrap_or_default().as_bytes())
        .number(3, status["code"].as_u64().unwrap_or_default());
    bytes.extend(
        Message::default().bytes(15, &status.finish()).number(1_000, 9).bytes(1_001, b"new").finish(),
    );
    // A group and a number of 32 bits, under numbers that nobody uses.
    bytes.extend([0xa3, 0x06, 0x08, 0x01, 0xa4, 0x06, 0xad, 0x06, 1, 2, 3, 4]);
    bytes
}

fn request_message(spans: &[Vec<u8>]) -> Vec<u8> {
    let scope = spans.iter().fold(Message::default().bytes(1, b""), |all, span| all.bytes(2, span)).finish();
    let resource = Message::default().bytes(2, &scope).bytes(3, b"schema").finish();
    Message::default().bytes(1, &resource).finish()
}

fn from_message(spans: &[Value]) -> Result<Export, String> {
    let spans: Vec<_> = spans.iter().map(span_message).collect();
    read(&request_message(&spans), Form::Protobuf)
}

#[test]
fn both_forms_of_a_span_give_the_same() {
    let expected = Span {
        trace: "5b8efff798038103d269b633813fc60c".into(),
        id: "eee19b7ec3c1b174".into(),
        parent: Some("eee19b7ec3c1b173".into()),
        start_ns: START,
        end_ns: END,
        done: Done::Tool(Tool {
            name: "write_file".into(),
            call: Some("call_1".into()),
            input: Some(json!({"path": "/srv/a", "lines": [i64::MIN, 7, true, 0.5, null, null]}).to_string()),
        }),
        conversation: Some("conv_1".into()),
        output: Some("it took too long".into()),
        failed: true,
        error: Some("timeout".into()),
    };
    for export in [from_json(&request(&[span()])), from_message(&[span()])] {
        assert_eq!(export.unwrap(), Export { spans: vec![expected.clone()], refused: Refused::default() });
    }
}

/// The call that a span tells of.
fn tool(span: &Span) -> &Tool {
    let Done::Tool(tool) = &span.done else { panic!("{span:?}") };
    tool
}

/// What a span says was retrieved whose documents are given so.
fn retrieved(documents: Value) -> [Retrieval; 2] {
    let mut span = span();
    span["name"] = json!("retrieval kb");
    span["attributes"] = json!([
        text("gen_ai.operation.name", "retrieval"),
        text("gen_ai.data_source.id", "kb"),
        {"key": "gen_ai.retrieval.documents", "value": documents},
    ]);
    [from_json(&request(&[span.clone()])), from_message(&[span])].map(|export| {
        let export = export.unwrap();
        assert_eq!((export.spans.len(), export.refused.count), (1, 0));
        let Done::Retrieval(retrieval) = &export.spans[0].done else { panic!("{export:?}") };
        assert_eq!(retrieval.source.as_deref(), Some("kb"));
        retrieval.clone()
    })
}

#[test]
fn documents_are_read_as_a_list_and_as_a_text_that_has_one() {
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let document = |id: &str| json!({"kvlistValue": {"values": [text("id", id), {"key": "score", "value": {"doubleValue": 0.5}}]}});
    let list = json!({"arrayValue": {"values": [document("a"), document("b")]}});
    let many: Vec<Value> = (0..100).map(|id| json!({"id": id, "score": 0.5})).collect();
    let many = json!({"stringValue": json!(many).to_string()});
    let long = json!({"stringValue": json!([{"id": "é".repeat(300)}, {"content": "no id"}]).to_string()});
    for (documents, found) in [
        (list, Some((ids(&["a", "b"]), 2))),
        (many, Some(((0..64).map(|id| id.to_string()).collect(), 100))),
        (long, Some((vec![format!("{}…", "é".repeat(256))], 2))),
        (json!({"stringValue": "[]"}), Some((ids(&[]), 0))),
        (json!({"stringValue": "none"}), None),
        (json!({"stringValue": "[7]"}), None),
        (json!({"intValue": 7}), None),
        (json!({"stringValue": format!("[{}{{}}]", "{},".repeat(30_000))}), None),
    ] {
        for retrieval in retrieved(documents.clone()) {
            let kept = retrieval.documents.map(|documents| (documents.ids, documents.count));
            assert_eq!(kept, found, "{documents}");
        }
    }
}

#[test]
fn a_message_made_by_hand_is_read() {
    let mut span = vec![0x0a, 16];
    span.extend(TRACE);
    span.extend([0x12, 8]);
    span.extend(ID);
    span.extend(b"\x2a\x0fexecute_tool ls");
    span.extend(b"\x4a\x27\x0a\x15gen_ai.operation.name\x12\x0e\x0a\x0cexecute_tool");
    let length = span.len() as u8;
    let bytes = [&[0x0a, length + 4, 0x12, length + 2, 0x12, length][..], &span].concat();
    let export = read(&bytes, Form::Protobuf).unwrap();
    let found = &export.spans[0];
    assert_eq!(
        (tool(found).name.as_str(), found.id.as_str(), found.failed),
        ("ls", "eee19b7ec3c1b174", false)
    );
    assert_eq!(read(&[], Form::Protobuf).unwrap(), Export::default());
    assert_eq!(read(b"{}", Form::Json).unwrap(), Export::default());
}

#[test]
fn what_breaks_off_is_malformed_or_a_shorter_list() {
    let whole = request_message(&[span_message(&span())]);
    for end in 1..whole.len() {
        assert!(read(&whole[..end], Form::Protobuf).is_err(), "{end}");
    }
    let whole = request(&[span()]).to_string();
    for end in 0..whole.len() {
        assert!(read(&whole.as_bytes()[..end], Form::Json).is_err(), "{end}");
    }
}

#[test]
fn what_is_no_request_is_malformed() {
    for bad in [
        json!([]),
        json!({"resourceSpans": {}}),
        json!({"resourceSpans": [{"scopeSpans": [7]}]}),
        request(&[json!({"traceId": 7})]),
        request(&[json!({"startTimeUnixNano": "soon"})]),
        request(&[json!({"startTimeUnixNano": -1})]),
        request(&[json!({"attributes": [7]})]),
    ] {
        assert!(from_json(&bad).is_err(), "{bad}");
    }
    for nothing in [json!({"resourceSpans": null}), json!({"new": [1, {}]}), request(&[json!({})])] {
        assert_eq!(from_json(&nothing).unwrap(), Export::default());
    }
    let not_text = Message::default().bytes(5, b"\xff\xfe").finish();
    assert!(read(&request_message(&[not_text]), Form::Protobuf).unwrap_err().contains("UTF-8"));
}

fn with(key: &str, value: Value) -> Value {
    let mut span = span();
    span["attributes"].as_array_mut().unwrap().push(json!({"key": key, "value": value}));
    span
}

#[test]
fn values_that_lie_too_deep_are_refused_and_those_that_nobody_looks_at_are_not() {
    let nested = |depth: usize| {
        (0..depth).fold(json!({"intValue": 1}), |inner, _| json!({"arrayValue": {"values": [inner]}}))
    };
    for (depth, refused) in [(15, 0), (16, 1), (40, 1)] {
        let spans = [with("gen_ai.tool.call.arguments", nested(depth)), span()];
        for export in [from_json(&request(&spans)), from_message(&spans)].map(Result::unwrap) {
            assert_eq!(
                (export.refused.count, export.spans.len()),
                (refused, 2 - refused as usize),
                "{depth}"
            );
        }
    }
    // As deep as a whole request can be.
    let mut value = vec![0x18, 0x01];
    while value.len() < 60_000 {
        value = Message::default().bytes(5, &Message::default().bytes(1, &value).finish()).finish();
    }
    for (key, refused) in [("gen_ai.tool.call.arguments", 1), ("something.else", 0)] {
        let attribute = Message::default().bytes(1, key.as_bytes()).bytes(2, &value).finish();
        let mut bytes = span_message(&span());
        bytes.extend(Message::default().bytes(9, &attribute).finish());
        assert_eq!(read(&request_message(&[bytes]), Form::Protobuf).unwrap().refused.count, refused, "{key}");
    }
    for (key, refused) in [("gen_ai.tool.call.arguments", 1), ("something.else", 0)] {
        let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
        let body = request(&[with(key, json!("HERE"))]).to_string().replace("\"HERE\"", &deep);
        assert_eq!(read(body.as_bytes(), Form::Json).unwrap().refused.count, refused, "{key}");
    }
}

#[test]
fn texts_are_cut_and_marked_and_what_is_long_is_not_read() {
    let long = "é".repeat(100_000);
    for (key, value, found) in [
        ("gen_ai.tool.name", json!({"stringValue": long}), format!("{}…", "é".repeat(256))),
        ("gen_ai.tool.call.arguments", json!({"stringValue": long}), format!("\"{}…", "é".repeat(2_047))),
        (
            "gen_ai.tool.call.arguments",
            json!({"arrayValue": {"values": vec![json!({"intValue": 1_000_000}); 20_000]}}),
            "…".to_owned(),
        ),
        ("gen_ai.tool.call.arguments", json!({"stringValue": "{\"a\": 1}"}), "{\"a\":1}".to_owned()),
    ] {
        let spans = [with(key, value)];
        for export in [from_json(&request(&spans)), from_message(&spans)].map(Result::unwrap) {
            let tool = tool(&export.spans[0]);
            let is = if key == "gen_ai.tool.name" { Some(&tool.name) } else { tool.input.as_ref() };
            assert_eq!(is, Some(&found), "{key}");
        }
    }
}

#[test]
fn only_some_spans_count_and_only_so_many() {
    let mut chat = with("gen_ai.operation.name", json!({"stringValue": "chat"}));
    chat["spanId"] = json!("");
    let mut bad_id = span();
    bad_id["traceId"] = json!("00000000000000000000000000000000");
    let mut no_hex = span();
    no_hex["spanId"] = json!("zze19b7ec3c1b174");
    let export = from_json(&request(&[chat, bad_id, no_hex, span()])).unwrap();
    assert_eq!((export.spans.len(), export.refused.count), (1, 2));
    assert!(export.refused.why.unwrap().contains("16 bytes"));
    let mut no_name = span();
    no_name["name"] = json!("x");
    no_name["attributes"] = json!([text("gen_ai.operation.name", "execute_tool")]);
    let export = from_message(&[no_name]).unwrap();
    assert!(export.refused.why.unwrap().contains("gen_ai.tool.name"));
    let export = from_message(&vec![span(); SPANS_MAX + 3]).unwrap();
    assert_eq!((export.spans.len(), export.refused.count), (SPANS_MAX, 3));
}

#[test]
fn answers_are_in_the_form_of_the_request() {
    let refused = Refused { count: 300, why: Some("late".into()) };
    assert_eq!(taken(&Refused::default(), Form::Protobuf), b"");
    assert_eq!(taken(&refused, Form::Protobuf), b"\x0a\x09\x08\xac\x02\x12\x04late");
    assert_eq!(failed(3, "no", Form::Protobuf), b"\x08\x03\x12\x02no");
    let json = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
    assert_eq!(json(taken(&Refused::default(), Form::Json)), json!({}));
    let partial = json!({"partialSuccess": {"rejectedSpans": "300", "errorMessage": "late"}});
    assert_eq!(json(taken(&refused, Form::Json)), partial);
    assert_eq!(json(failed(3, "no", Form::Json)), json!({"code": 3, "message": "no"}));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = read(&bytes, Form::Protobuf);
        let _ = read(&bytes, Form::Json);
    }

    #[test]
    fn no_change_of_a_request_makes_it_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let both = [
            (request_message(&[span_message(&span())]), Form::Protobuf),
            (request(&[span()]).to_string().into_bytes(), Form::Json),
        ];
        for (mut bytes, form) in both {
            for (place, byte) in &changes {
                let place = place.index(bytes.len());
                bytes[place] = *byte;
            }
            let _ = read(&bytes, form);
            bytes.truncate(cut.index(bytes.len()));
            let _ = read(&bytes, form);
        }
    }
}
