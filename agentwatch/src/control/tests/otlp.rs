//! The receiver of spans over real connections.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Daemon, Manner, read_whole};
use crate::control::limits;
use crate::otlp::SPANS_MAX;

const JSON: &str = "content-type: application/json";
const PROTOBUF: &str = "content-type: application/x-protobuf";

/// An answer: status, head and body.
type Answer = (u16, String, Vec<u8>);

fn send(daemon: &Daemon, line: &str, header: &str, body: &[u8]) -> Answer {
    let mut stream = connect(daemon);
    let head = format!("{line} HTTP/1.1\r\nhost: x\r\n{header}\r\ncontent-length: {}\r\n\r\n", body.len());
    // The server may refuse before all is sent.
    let _ = stream.write_all(&[head.as_bytes(), body].concat());
    answer(&mut stream)
}

fn connect(daemon: &Daemon) -> TcpStream {
    let stream = TcpStream::connect(daemon.spans).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn answer(stream: &mut TcpStream) -> Answer {
    let (head, body) = read_whole(stream);
    let status = head.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
    (status, head.to_ascii_lowercase(), body)
}

fn traces(daemon: &Daemon, header: &str, body: &[u8]) -> Answer {
    send(daemon, "POST /v1/traces", header, body)
}

fn spans(count: usize) -> Vec<u8> {
    let name = json!({"key": "gen_ai.operation.name", "value": {"stringValue": "execute_tool"}});
    let (trace, id) = ("5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174");
    let span = json!({"traceId": trace, "spanId": id, "name": "execute_tool ls", "attributes": [name]});
    let request = json!({"resourceSpans": [{"scopeSpans": [{"spans": vec![span; count]}]}]});
    request.to_string().into_bytes()
}

fn status(answer: &Answer, code: u64) -> String {
    assert!(answer.1.contains("application/json"), "{}", answer.1);
    let view: Value = serde_json::from_slice(&answer.2).unwrap();
    assert_eq!(view["code"], code, "{view}");
    view["message"].as_str().filter(|sentence| sentence.len() > 20).unwrap().to_owned()
}

#[test]
fn spans_are_taken_in_both_forms() {
    let daemon = Daemon::start(Manner::Answers);
    let (code, head, body) = traces(&daemon, JSON, &spans(2));
    assert_eq!((code, body.as_slice()), (200, &b"{}"[..]));
    assert!(head.contains(JSON), "{head}");
    let (code, head, body) = traces(&daemon, PROTOBUF, b"\x0a\x00");
    assert_eq!((code, body.as_slice()), (200, &b""[..]));
    assert!(head.contains(PROTOBUF), "{head}");
    let (code, _, body) = traces(&daemon, JSON, &spans(SPANS_MAX + 2));
    let view: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((code, view["partialSuccess"]["rejectedSpans"].as_str()), (200, Some("2")), "{view}");
    assert!(view["partialSuccess"]["errorMessage"].as_str().unwrap().contains("smaller batches"));
}

#[test]
fn what_is_no_span_is_refused_in_the_form_of_the_request() {
    let daemon = Daemon::start(Manner::Answers);
    let bad = traces(&daemon, JSON, b"{\"resourceSpans\": 7}");
    assert_eq!(bad.0, 400);
    assert!(status(&bad, 3).contains("ExportTraceServiceRequest"));
    let (code, head, body) = traces(&daemon, PROTOBUF, b"\x0a\x7f");
    assert_eq!(code, 400);
    assert!(head.contains(PROTOBUF) && body.starts_with(b"\x08\x03\x12"), "{head} {body:?}");
    for (line, header, code, rpc, said) in [
        ("POST /v1/metrics", PROTOBUF, 404, None, ""),
        ("POST /v1/logs", JSON, 404, Some(5), "OTEL_LOGS_EXPORTER=none"),
        ("POST /v1/tool", JSON, 404, Some(5), "POST /v1/traces"),
        ("GET /v1/traces", JSON, 405, Some(12), "only POST"),
        ("POST /v1/traces", "content-type: text/plain", 415, Some(12), "application/x-protobuf"),
        ("POST /v1/traces", "x: y", 415, Some(12), "application/json"),
        (
            "POST /v1/traces",
            "content-type: application/json\r\ncontent-encoding: br",
            415,
            Some(12),
            "`none` or `gzip`",
        ),
    ] {
        let found = send(&daemon, line, header, b"");
        assert_eq!(found.0, code, "{line} {header}");
        if let Some(rpc) = rpc {
            assert!(status(&found, rpc).contains(said), "{line} {header}");
        }
    }
}

#[test]
fn who_is_in_no_session_is_refused() {
    let daemon = Daemon::start(Manner::KnowsNobody);
    let refused = traces(&daemon, JSON, &spans(1));
    assert_eq!(refused.0, 403);
    assert!(status(&refused, 7).contains("in none"));
    // What it brings is neither kept nor looked at.
    assert_eq!(traces(&daemon, JSON, &vec![b'x'; limits::SPANS_BYTES]).0, 403);
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let daemon = Daemon::start(Manner::Answers);
    let mut stream = connect(&daemon);
    let head = format!("POST /v1/traces HTTP/1.1\r\nhost: x\r\n{JSON}\r\ncontent-length: 104857600\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let refused = answer(&mut stream);
    assert_eq!(refused.0, 413);
    assert!(status(&refused, 8).contains("2048 KiB"));
    let mut stream = connect(&daemon);
    let head = format!("POST /v1/traces HTTP/1.1\r\nhost: x\r\n{JSON}\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = [b"100000\r\n", vec![b' '; 1 << 20].as_slice(), b"\r\n"].concat();
    let sent = (0..100).take_while(|_| stream.write_all(&chunk).is_ok()).count();
    assert!(sent < 100, "the server hung up before it had all");
}

#[test]
fn a_flood_is_held_up_and_others_are_not() {
    let daemon = Daemon::start(Manner::Answers);
    let (burst, _) = limits::SPANS_PER_SESSION;
    let batch = spans(SPANS_MAX);
    let refused = (0..burst).map(|_| traces(&daemon, JSON, &batch)).find(|answer| answer.0 != 200).unwrap();
    assert_eq!(refused.0, 429);
    assert!(refused.1.contains("retry-after: 4"), "{}", refused.1);
    assert!(status(&refused, 8).contains("4 s"));
    assert!(daemon.client().status().is_ok());
}

#[test]
fn slow_and_silent_senders_hold_nobody_up() {
    let daemon = Daemon::start(Manner::Answers);
    let begin = |bytes: &[u8]| {
        let mut stream = connect(&daemon);
        stream.write_all(bytes).unwrap();
        stream
    };
    let head = format!("POST /v1/traces HTTP/1.1\r\nhost: x\r\n{JSON}\r\ncontent-length: 20\r\n\r\n{{");
    let mut in_body = begin(head.as_bytes());
    let mut in_head = begin(b"POST /v1/tra");
    let gone = begin(head.as_bytes());
    gone.shutdown(Shutdown::Both).unwrap();
    assert_eq!(traces(&daemon, JSON, &spans(1)).0, 200, "others are served meanwhile");
    assert_eq!(answer(&mut in_body).0, 408);
    assert_eq!(answer(&mut in_head).0, 0);
    let held: Vec<_> = (0..200).map(|_| connect(&daemon)).collect();
    assert_eq!(traces(&daemon, JSON, &spans(1)).0, 200);
    drop(held);
}

#[test]
fn an_owner_that_keeps_silent_is_a_503() {
    let daemon = Daemon::start(Manner::KeepsSilent);
    let refused = traces(&daemon, JSON, &spans(1));
    assert_eq!(refused.0, 503);
    assert!(refused.1.contains("retry-after"), "{}", refused.1);
}
